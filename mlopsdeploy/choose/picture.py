"""The page's picture: what a month costs, by how many predictions there are a day, as SVG.

Colours are the page's CSS variables, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mlopsdeploy.choose.decide import Decision, with_value
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.options import evaluate
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy
from mlopsdeploy.report_pages.svg import INK, QUIET, svg

DECADES = 3  # either side of the present traffic
POINTS = 24  # a decade

SERIES = dict(zip(STRATEGIES, range(3), strict=True))


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
        axes.axvline(present, color=INK, linewidth=1)
        for value in turns:
            axes.axvline(value, color=QUIET, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(traffic[0], high)
        ticks = max(width // 110, 3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axes.xaxis.set_major_locator(LogLocator(numticks=ticks))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: _short(value))
        _mark(axes, present, "you", INK, traffic[0], high)
        for value in turns:
            _mark(axes, value, f"{_short(value)}", QUIET, traffic[0], high)
        axes.set_xlabel("predictions a day")

    said = [f"{decision.headline} at {_short(present)} predictions a day"]
    said += [f"{change.words}: {change.strategy or 'none'}" for change in decision.changes
             if change.answer == "traffic"]  # fmt: skip
    return svg(width, 300, "; ".join(said), draw)


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
