"""A decision on one page: one HTML file, no network, no JavaScript.

Import this before a long measurement that ends in a page: it brings Matplotlib and Jinja, the
packages of the extra `report`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mlopsdeploy import __version__
from mlopsdeploy.choose.assumptions import NOT_COUNTED, shown, shown_defaults
from mlopsdeploy.choose.decide import Decision, with_value
from mlopsdeploy.choose.factors import FACTORS, evaluate
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy
from mlopsdeploy.choose.show import together
from mlopsdeploy.choose.units import money, number
from mlopsdeploy.page_look import report_environment
from mlopsdeploy.page_look.svg import INK, QUIET, color, svg

DECADES = 3  # either side of the present traffic
POINTS = 24  # a decade

SERIES = dict(zip(STRATEGIES, range(3), strict=True))

_PAGES = Path(__file__).parent / "pages"

_ANSWERS = {
    "response_time": "an answer within", "requests_per_day": "predictions a day",
    "peak": "a second at peak", "user_facing": "a person waits", "data_at": "data arise on a",
    "may_leave": "data may leave", "offline": "must work offline", "server": "server",
    "devices": "devices", "upkeep_hours": "hours a month for upkeep",
}  # fmt: skip


def render(answers: ChooseSettings, found: Measurements, decision: Decision, config: str) -> str:
    """The page."""
    environment = report_environment(_PAGES)
    environment.filters["number"] = number
    best = decision.option(decision.recommended) if decision.recommended else None
    words = decision.headline.partition(": ")[2]
    return environment.get_template("choose.html").render(
        version=__version__,
        headline=f"What fits is {words}." if words else decision.headline,
        best=best,
        best_cost=money(best.total, answers.currency) if best else "",
        answers=answers,
        given=[
            (words, shown(name, answers), name not in answers.given)
            for name, words in _ANSWERS.items()
        ],
        found=found,
        measured=found.measured,
        decision=decision,
        factors=FACTORS,
        series=SERIES,
        together={
            option.strategy: together(option, answers)
            for option in decision.options
            if len(option.cells) > 1
        },
        assumed=shown_defaults(answers),
        not_counted=NOT_COUNTED,
        config=config,
        pictures=[
            (kind, Markup(costs(answers, found, decision, width=width)))  # noqa: S704
            for kind, width in (("broad", 900), ("narrow", 360))
        ],
    )


# ---------------------------------------------------------------- what a month costs, by traffic


def costs(answers: ChooseSettings, found: Measurements, decision: Decision, *, width: int) -> str:
    """A line for each strategy: solid where it fits, dotted where it is out; you, as points.

    The peak goes along with the traffic. Vertical lines are where another strategy wins. `width` is
    in pixels.
    """
    present = answers.requests_per_day
    low, high = present / 10**DECADES, present * 10**DECADES
    traffic = np.geomspace(max(low, 1), high, 2 * DECADES * POINTS + 1)
    changes = [change for change in decision.changes if change.answer == "traffic"]
    turns = [change.value for change in changes if traffic[0] <= change.value <= high]

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
            _mark(axes, value, _short(value), QUIET, traffic[0], high)
        axes.set_xlabel("predictions a day")

    words = [f"{decision.headline} at {_short(present)} predictions a day"]
    words += [f"{change.words}: {change.strategy or 'none'}" for change in changes]
    return svg(width, 300, "; ".join(words), draw)


def _line(
    axes: Axes,
    strategy: Strategy,
    traffic: np.ndarray[Any, Any],
    answers: ChooseSettings,
    found: Measurements,
) -> None:
    options = [evaluate(strategy, with_value(answers, "traffic", float(x)), found) for x in traffic]
    cost = np.array([option.total or np.nan for option in options])
    fits = np.where([not option.broken for option in options], cost, np.nan)
    stroke = color(SERIES[strategy])
    axes.plot(traffic, cost, color=stroke, linewidth=1.2, linestyle=(0, (1, 2.5)))
    axes.plot(traffic, fits, color=stroke, linewidth=2.6)
    here = evaluate(strategy, answers, found)
    if here.total > 0:
        face = "none" if here.broken else stroke
        place = ([answers.requests_per_day], [here.total])
        axes.plot(*place, "o", color=stroke, markerfacecolor=face, markersize=7)


def _mark(axes: Axes, value: float, words: str, ink: str, low: float, high: float) -> None:
    """A word above a vertical line, on the side where there is room."""
    left = np.log(value / low) > 0.85 * np.log(high / low)
    axes.annotate(
        words, (value, 1), xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, -10), textcoords="offset points",
        ha="right" if left else "left", color=ink,
    )  # fmt: skip


def _short(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g}"
