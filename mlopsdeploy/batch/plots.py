"""The report's plots, as SVG to stand within a page.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper; text stays
text, in the page's font. Nothing that comes from the data but numbers and dates is drawn: names in
any script are the page's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import DAILY, AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from mlopsdeploy.page_look.svg import INK, QUIET, color, svg

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


def scores(counts: Counts, before: Counts | None, series: int, low: float, words: str) -> str:
    """How the scores of one label are spread, with the last run's as a line.

    Args:
        counts: rows per bin of equal width from 0 to 1.
        before: the same of the last run.
        series: the label's colour.
        low: where the axis starts.
        words: what can be seen, for those who can't.
    """
    step = 1 if low >= 0.5 else 2
    counts = counts.reshape(-1, step).sum(axis=1)
    edges = np.linspace(0, 1, len(counts) + 1)

    if before is not None:
        before = before.reshape(-1, step).sum(axis=1)

    def draw(axes: Axes) -> None:
        _stairs(axes, _shares(counts), _shares(before), edges, series)
        axes.set_xlim(low, 1)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))

    return svg(300, 140, words, draw)


def numbers(
    shares: Shares, before: Shares | None, ends: tuple[float, float], series: int, words: str
) -> str:
    """How numbers without bounds are spread, with the last run's as a line.

    Args:
        shares: of the rows, per bin of equal width.
        before: the same of the last run.
        ends: where the first bin begins and the last one ends.
        series: the colour.
        words: what can be seen, for those who can't.
    """
    edges = np.linspace(*ends, len(shares) + 1)

    def draw(axes: Axes) -> None:
        _stairs(axes, shares, before, edges, series)
        axes.set_xlim(*ends)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))

    return svg(340, 170, words, draw)


def lengths(starts: Counts, counts: Counts, before: Counts | None, words: str) -> str:
    """How long the texts are, on a scale that doubles, with the last run's as a line."""
    seen = counts if before is None else counts + before
    used = np.flatnonzero(seen)
    first, last = int(used[0]), int(used[-1]) + 1
    edges = np.arange(first, last + 1)

    def draw(axes: Axes) -> None:
        last_run = None if before is None else before[first:last]
        _stairs(axes, _shares(counts[first:last]), _shares(last_run), edges, 0)
        if starts[last - 1] < 8:  # each bin is one number
            axes.set_xticks(edges[:-1] + 0.5, [str(start) for start in starts[first:last]])
        else:
            doublings = [place for place in range(first, last) if starts[place].bit_count() == 1]
            ticks = doublings[:: max(1, -(-len(doublings) // 7))] or [first]
            axes.set_xticks(ticks, [f"{starts[place]:,}" for place in ticks])
        axes.set_xlim(first, last)

    return svg(340, 170, words, draw)


def over_time(days: Sequence[str], period: str, counts: Counts, words: str, *, width: int) -> str:
    """Shares of labels per period, and how many rows that is.

    Args:
        days: first day of each period, ISO.
        period: day, week, month or year.
        counts: rows per period and label, in the order of their colours.
        words: what can be seen, for those who can't.
        width: in pixels.
    """
    starts, widths = _bars(days, period)
    rows = counts.sum(axis=1)

    def draw(above: Axes, below: Axes) -> None:
        look = _draw_rows(above, starts, widths, rows)
        bottom = np.zeros(len(rows))
        for place in range(counts.shape[1]):
            shares = counts[:, place] / np.maximum(rows, 1)
            # An edge of the same colour closes the seams between neighbours.
            hue = color(place)
            below.bar(starts, shares, bottom=bottom, color=hue, edgecolor=hue, **look)
            bottom += shares
        below.set_ylim(0, 1)
        below.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        below.set_title("share of each label", loc="left", fontsize=10, color=QUIET, pad=4)
        _date_axis(below, days, starts, widths, width)

    return svg(width, 250, words, draw, heights=(1, 3))


def means_over_time(
    days: Sequence[str], period: str, counts: Sequence[int], means: Sequence[float],
    title: str, words: str, *, width: int,
) -> str:  # fmt: skip
    """The mean of numbers per period, and how many rows that is; see `over_time`."""
    starts, widths = _bars(days, period)

    def draw(above: Axes, below: Axes) -> None:
        _draw_rows(above, starts, widths, np.array(counts))
        ends = starts + widths
        for start, end, mean in zip(starts, ends, means, strict=True):
            below.plot([start, end], [mean, mean], color=color(0), linewidth=2.4)
        below.plot((starts + ends) / 2, means, color=color(0), linewidth=0.8)
        below.margins(y=0.15)
        below.yaxis.set_major_locator(MaxNLocator(4))
        below.yaxis.set_major_formatter(lambda value, _: _short(value))
        below.set_title(title, loc="left", fontsize=10, color=QUIET, pad=4)
        _date_axis(below, days, starts, widths, width)

    return svg(width, 250, words, draw, heights=(1, 3))


def _bars(days: Sequence[str], period: str) -> tuple[NDArray[Any], Counts]:
    """Where each period begins, as Matplotlib counts days, and how many days it has."""
    at = np.array(days, "datetime64[D]")
    bars = (at.astype(f"datetime64[{period[0].upper()}]") + 1).astype("datetime64[D]") - at
    if period == "week":  # NumPy's start on Thursdays
        bars = np.full(len(at), np.timedelta64(7, "D"))
    return date2num(at), bars.astype(np.int64)


def _draw_rows(
    axes: Axes, starts: NDArray[Any], widths: Counts, rows: NDArray[Any]
) -> dict[str, Any]:
    """Bars of how many rows there are per period; how such bars look."""
    look: dict[str, Any] = {"width": widths, "align": "edge", "linewidth": 0.8}
    axes.bar(starts, rows, color=QUIET, edgecolor=QUIET, **look)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.tick_params(labelbottom=False, bottom=False)
    axes.set_title("rows", loc="left", fontsize=10, color=QUIET, pad=4)
    return look


def _date_axis(
    axes: Axes, days: Sequence[str], starts: NDArray[Any], widths: Counts, width: int
) -> None:
    axes.set_xlim(starts[0], starts[-1] + widths[-1])
    if len(days) <= 3:
        axes.set_xticks(starts, days, ha="left")
        return
    locator = AutoDateLocator(minticks=2, maxticks=max(3, width // 90))
    locator.intervald[DAILY] = [1, 2, 7, 14]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def weekly(rows: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Rows per label by the Monday of each day's week."""
    weeks: dict[str, dict[str, int]] = {}
    for day, labels in rows.items():
        moment = date.fromisoformat(day)
        week = weeks.setdefault((moment - timedelta(days=moment.weekday())).isoformat(), {})
        for label, count in labels.items():
            week[label] = week.get(label, 0) + count
    return weeks


def _shares(counts: Counts | None) -> Shares | None:
    return None if counts is None or not counts.sum() else counts / counts.sum()


def _stairs(
    axes: Axes, shares: Shares | None, before: Shares | None, edges: NDArray[Any], series: int
) -> None:
    """Shares of the rows per bin, and as a line those of the last run."""
    if shares is not None:
        axes.stairs(shares, edges, fill=True, color=color(series))
    if before is not None:
        axes.stairs(before, edges, color=INK, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    decimals = 0 if axes.get_ylim()[1] > 0.03 else 1
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=" %"))


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit <= abs(value) < 1000e9:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
