"""A decision on one page: one HTML file, no network, no JavaScript.

Import this before a long measurement that ends in a page: it brings Matplotlib and Jinja, the
packages of the extra `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from mlopsdeploy import __version__
from mlopsdeploy.choose.assumptions import NOT_COUNTED, assumed, with_unit
from mlopsdeploy.choose.decide import Decision, with_value
from mlopsdeploy.choose.factors import FACTORS, evaluate
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy
from mlopsdeploy.choose.show import together
from mlopsdeploy.choose.units import duration, money, number
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import InputError, MlopsDeployError
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


def check(path: str, protected: Protected) -> None:
    """Whether a page can go there.

    Raises:
        InputError: its folder is not there.
        ConfigError: something is there that may not be overwritten.
    """
    page = Path(path)
    if not page.parent.is_dir():
        raise InputError(f"{path}: there is no folder {page.parent}")
    protected.check(page, f"--report {path}")


def write(
    path: str, answers: ChooseSettings, found: Measurements, decision: Decision, config: str
) -> None:
    """Write the page.

    Raises:
        MlopsDeployError: the disk fails.
    """
    try:
        Path(path).write_text(render(answers, found, decision, config), "utf-8")
    except OSError as error:
        raise MlopsDeployError(f"{path}: can't be written ({error.strerror})") from error


def render(answers: ChooseSettings, found: Measurements, decision: Decision, config: str) -> str:
    """The page."""
    environment = report_environment(_PAGES)
    environment.filters["number"] = number
    best = decision.option(decision.recommended) if decision.recommended else None
    return environment.get_template("choose.html").render(
        version=__version__,
        headline=_headline(decision),
        best=best,
        best_cost=money(best.total, answers.currency) if best else "",
        answers=answers,
        given=_given(answers),
        found=found,
        measured=[
            (name, speed.how)
            for name in STRATEGIES
            if not found.assumed and (speed := getattr(found, name)) is not None
        ],
        decision=decision,
        factors=FACTORS,
        series=SERIES,
        together={
            option.strategy: together(option, answers)
            for option in decision.options
            if len(option.cells) > 1
        },
        assumed=[
            (name.replace("_", " "), with_unit(name, value, answers.currency), why)
            for name, (value, why) in assumed(answers).items()
        ],
        not_counted=NOT_COUNTED,
        config=config,
        pictures=[
            (kind, Markup(costs(answers, found, decision, width=width)))  # noqa: S704
            for kind, width in (("broad", 900), ("narrow", 360))
        ],
    )


def _headline(decision: Decision) -> str:
    _, _, words = decision.headline.partition(": ")
    if not words:
        return decision.headline
    return f"What fits is {words}."


def _given(answers: ChooseSettings) -> list[tuple[str, str, bool]]:
    """Each answer, and whether it is a default."""
    shown = {
        "response_time": duration(answers.response_time),
        "requests_per_day": number(answers.requests_per_day),
        "peak": number(answers.peak_rate),
        "devices": number(answers.device_count),
        "upkeep_hours": "any" if answers.upkeep_hours is None else number(answers.upkeep_hours),
    }
    given = []
    for name, words in _ANSWERS.items():
        value = getattr(answers, name)
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        given.append((words, shown.get(name, text), name not in answers.given))
    return given


# ---------------------------------------------------------------- what a month costs, by traffic


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

    words = [f"{decision.headline} at {_short(present)} predictions a day"]
    words += [f"{change.words}: {change.strategy or 'none'}" for change in decision.changes
             if change.answer == "traffic"]  # fmt: skip
    return svg(width, 300, "; ".join(words), draw)


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
    stroke = color(SERIES[strategy])
    axes.plot(traffic, cost, color=stroke, linewidth=1.2, linestyle=(0, (1, 2.5)))
    axes.plot(traffic, np.where(fits, cost, np.nan), color=stroke, linewidth=2.6)
    here = evaluate(strategy, answers, found)
    present = answers.requests_per_day
    if here.total > 0:
        face = "none" if here.broken else stroke
        axes.plot(
            [present], [here.total], "o", color=stroke, markerfacecolor=face,
            markersize=7,
        )  # fmt: skip


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
