"""A decision on one page: one HTML file, no network, no JavaScript.

Import this before a long measurement that ends in a page: it brings Matplotlib and Jinja, the
packages of the extra `report`.
"""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from mlopsdeploy import __version__
from mlopsdeploy.choose import picture
from mlopsdeploy.choose.assumptions import NOT_COUNTED, assumed, with_unit
from mlopsdeploy.choose.decide import Decision
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.options import FACTORS
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings
from mlopsdeploy.choose.show import together
from mlopsdeploy.choose.units import duration, money, number
from mlopsdeploy.errors import InputError, MlopsDeployError
from mlopsdeploy.report_pages import FOLDER

_PAGES = Path(__file__).parent / "pages"

_ANSWERS = {
    "response_time": "an answer within", "requests_per_day": "predictions a day",
    "peak": "a second at peak", "user_facing": "a person waits", "data_at": "data arise on a",
    "may_leave": "data may leave", "offline": "must work offline", "server": "server",
    "devices": "devices", "upkeep_hours": "hours a month for upkeep",
}  # fmt: skip


def check(path: str) -> None:
    """Whether a page can go there.

    Raises:
        InputError: its folder is not there, or it is one.
    """
    page = Path(path)
    if not page.parent.is_dir():
        raise InputError(f"{path}: there is no folder {page.parent}")
    if page.is_dir():
        raise InputError(f"{path}: is a folder; name an HTML file")


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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_PAGES, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    best = decision.option(decision.recommended) if decision.recommended else None
    return environment.get_template("choose.html").render(
        version=__version__,
        headline=_headline(decision),
        best=best,
        best_cost=money(best.total, answers.currency) if best else "",
        answers=answers,
        said=_said(answers),
        found=found,
        measured=[
            (name, speed.how)
            for name in STRATEGIES
            if not found.assumed and (speed := getattr(found, name)) is not None
        ],
        decision=decision,
        factors=FACTORS,
        series=picture.SERIES,
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
            (kind, Markup(picture.costs(answers, found, decision, width=width)))  # noqa: S704
            for kind, width in (("broad", 900), ("narrow", 360))
        ],
    )


def _headline(decision: Decision) -> str:
    _, _, words = decision.headline.partition(": ")
    if not words:
        return decision.headline
    return f"What fits is {words}."


def _said(answers: ChooseSettings) -> list[tuple[str, str, bool]]:
    """Each answer, and whether it is a default."""
    shown = {
        "response_time": duration(answers.response_time),
        "requests_per_day": number(answers.requests_per_day),
        "peak": number(answers.peak_rate),
        "devices": number(answers.device_count),
        "upkeep_hours": "any" if answers.upkeep_hours is None else number(answers.upkeep_hours),
    }
    said = []
    for name, words in _ANSWERS.items():
        value = getattr(answers, name)
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        said.append((words, shown.get(name, text), name not in answers.model_fields_set))
    return said
