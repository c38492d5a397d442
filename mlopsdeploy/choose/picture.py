"""The page's picture: what a month costs, by how many predictions there are a day, as SVG.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from mlopsdeploy.choose.decide import Decision, with_value
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.options import evaluate
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy

DECADES = 3  # either side of the present traffic
POINTS = 24  # a decade

# Stand for the page's variables until these are named.
_INK, _QUIET, _LINE = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _LINE: "--line"}
SERIES = dict(zip(STRATEGIES, range(3), strict=True))
_VARIABLES |= {f"#04040{place}": f"--s{place}" for place in SERIES.values()}

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE, "axes.labelcolor": _QUIET, "axes.spines.left": False,
    "axes.spines.right": False, "axes.spines.top": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "font.size": 10, "grid.color": _LINE,
    "grid.linewidth": 0.7, "svg.fonttype": "none", "text.color": _INK, "xtick.color": _LINE,
    "xtick.labelcolor": _QUIET, "ytick.color": _LINE, "ytick.labelcolor": _QUIET,
    "ytick.major.size": 0,
}  # fmt: skip


def costs(answers: ChooseSettings, found: Measurements, decision: Decision, *, width: int) -> str:
    """A line for each strategy: solid where it fits, dotted where it is out; you, as points.

    Args:
        answers: of the user; the peak goes along with the traffic.
        found: speeds.
        decision: says where another strategy wins.
        width: in pixels.
    """
    present = answers.requests_per_day
    low, high = present / 10**DECADES, present * 10**DECADES
    traffic = np.geomspace(max(low, 1), high, 2 * DECADES * POINTS + 1)
    turns = [change.value for change in decision.changes if change.answer == "traffic"]
    turns = [value for value in turns if traffic[0] <= value <= high]

    def draw(axes: Axes) -> None:
        for strategy in STRATEGIES:
            if getattr(found, strategy) is not None:
                _line(axes, strategy, traffic, answers, found)
        axes.axvline(present, color=_INK, linewidth=1)
        for value in turns:
            axes.axvline(value, color=_QUIET, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(traffic[0], high)
        ticks = max(width // 110, 3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axes.xaxis.set_major_locator(LogLocator(numticks=ticks))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: _short(value))
        _mark(axes, present, "you", _INK, traffic[0], high)
        for value in turns:
            _mark(axes, value, f"{_short(value)}", _QUIET, traffic[0], high)
        axes.set_xlabel("predictions a day")

    said = [f"{decision.headline} at {_short(present)} predictions a day"]
    said += [f"{change.words}: {change.strategy or 'none'}" for change in decision.changes
             if change.answer == "traffic"]  # fmt: skip
    return _svg(width, 300, "; ".join(said), draw)


def _line(
    axes: Axes,
    strategy: Strategy,
    traffic: Sequence[float] | np.ndarray[Any, Any],
    answers: ChooseSettings,
    found: Measurements,
) -> None:
    options = [evaluate(strategy, with_value(answers, "traffic", float(x)), found) for x in traffic]
    cost = np.array([option.total for option in options])
    cost[cost <= 0] = np.nan
    fits = np.array([not option.broken for option in options])
    color = f"#04040{SERIES[strategy]}"
    axes.plot(traffic, cost, color=color, linewidth=1.2, linestyle=(0, (1, 2.5)))
    axes.plot(traffic, np.where(fits, cost, np.nan), color=color, linewidth=2.6)
    here = evaluate(strategy, answers, found)
    present = answers.requests_per_day
    if here.total > 0:
        face = "none" if here.broken else color
        axes.plot(
            [present], [here.total], "o", color=color, markerfacecolor=face,
            markersize=7,
        )  # fmt: skip


def _mark(axes: Axes, value: float, words: str, color: str, low: float, high: float) -> None:
    """A word above a vertical line, on the side where there is room."""
    left = np.log(value / low) > 0.85 * np.log(high / low)
    axes.annotate(
        words, (value, 1), xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, -10), textcoords="offset points",
        ha="right" if left else "left", color=color,
    )  # fmt: skip


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g}"


def _svg(width: int, height: int, words: str, draw: Any) -> str:
    """What `draw` draws, as an SVG element; pyplot, which keeps figures alive, is not used."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{words} {width}"}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.subplots()
        draw(axes)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        file = io.StringIO()
        canvas.print_svg(
            file, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>|<!--.*?-->", "", svg, flags=re.DOTALL)
    referred = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", svg)
    for stands_for, variable in _VARIABLES.items():
        svg = svg.replace(stands_for, f"var({variable})")
    svg = re.sub(r"font: (\S+px) [^;\"]+", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]+;?", "", svg)
    quoted = words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{quoted}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()
