"""The questions on a terminal: what is asked, why, and what Enter stands for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mlopsdeploy.choose.assumptions import shown
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.settings import SettingError


@dataclass(frozen=True)
class Question:
    """One setting.

    `when` says whether it matters after the answers so far; `needed`, that Enter won't do.
    """

    setting: str
    asks: str
    why: str
    when: Callable[[ChooseSettings], bool] = lambda _: True
    needed: bool = False


QUESTIONS = (
    Question(
        "model", "Which model? A built-in name, a file, a folder, org/name; Enter: none at hand",
        "with one, its speed is measured here; without, it is assumed",
    ),
    Question(
        "sample", "A sample of what it gets? A file of rows, or a video or folder of pictures",
        "speed depends on how long texts and how large pictures are",
        lambda answers: answers.model is not None, needed=True,
    ),
    Question(
        "data", "What does it look at: table, text or pictures?",
        "the assumed speeds differ a thousandfold",
        lambda answers: answers.model is None,
    ),
    Question(
        "response_time", "How soon must an answer be there once its data are? 200ms, 5min, 1d",
        "below a minute batch is out, 25h allow a nightly run; count to when the answer is needed, "
        "which for a score that is looked up tomorrow is tomorrow",
    ),
    Question("requests_per_day", "How many predictions a day?", "it sets cost and machines"),
    Question(
        "peak", "How many a second in the busiest moment? Enter: ten times the mean",
        "machines are needed for the peak and paid for all day",
    ),
    Question(
        "user_facing", "Does a person wait for the answer?",
        "then a service gets one machine more than it needs, as one may fail",
    ),
    Question(
        "data_at", "Where do the data arise: server (databases, files) or device (camera, phone)?",
        "it decides what would have to travel",
    ),
    Question("may_leave", "May they leave the place they arise at?", "a no is final"),
    Question("offline", "Must it work without a network?", "so is a yes here"),
    Question(
        "server", "Which server is there: cloud (rented), own (where your data are), none?",
        "in a cloud, data leave your hands",
    ),
    Question(
        "devices", "How many devices could run the model?",
        "each has its price and wants to be updated",
    ),
    Question(
        "device_factor", "How fast is a device, as a share of this machine? 0.1: a tenth",
        "edge is measured here and scaled by it; nothing else is known of your device",
        lambda answers: answers.device_count > 0,
    ),
    Question(
        "device_price", "What does a device cost? 0 if it is there anyway",
        "it is spread over its years", lambda answers: answers.device_count > 0,
    ),
    Question(
        "price_per_hour", "What does a machine like this one cost an hour?",
        "the default is a 2-core one of a large cloud", lambda answers: answers.server != "none",
    ),
    Question(
        "upkeep_hours", "How many hours a month has somebody for it? Enter: as many as it takes",
        "a service wants more care than a nightly job; who has no time can't have one",
    ),
    Question("hourly_rate", "What does an hour of theirs cost?", "often more than the machines"),
)  # fmt: skip


def interview(
    settings: ChooseSettings, console: Console, read: Callable[[], str] = sys.stdin.readline
) -> ChooseSettings:
    """Ask what flags, environment and YAML leave open. An end of input keeps all defaults.

    `read` returns a line, and nothing at the end of input.
    """
    console.print("Enter takes what stands in brackets; Ctrl-C ends.", style="dim")
    for question in QUESTIONS:
        if question.setting in settings.given or not question.when(settings):
            continue
        settings, more = _ask(question, settings, console, read)
        if not more:
            console.print("\nno more answers: defaults for the rest", style="dim")
            break
    return settings


def _ask(
    question: Question, settings: ChooseSettings, console: Console, read: Callable[[], str]
) -> tuple[ChooseSettings, bool]:
    """The settings with the answer, and whether there is more to read."""
    console.print(f"\n{question.asks}", markup=False, highlight=False)
    console.print(Padding(Text(question.why, style="dim"), (0, 0, 0, 2)))
    while True:
        default = shown(question.setting, settings)
        console.print(f"  [{default}] > ", end="", markup=False, highlight=False)
        line = read()
        answer = line.strip()
        if not answer and not (question.needed and line):
            return settings, bool(line)
        problem = _problem(question, answer)
        try:
            if not problem:
                return with_answer(settings, {question.setting: answer}), True
        except SettingError as error:
            problem = f"{answer}: {error.problem}"
        console.print(f"  {problem}", style="red", markup=False, highlight=False)


def _problem(question: Question, answer: str) -> str:
    """What no type finds wrong with an answer: to be known at once, not after all the questions."""
    if not answer:
        return "a model is measured on a sample: name one, or Ctrl-C and go without a model"
    if question.setting == "sample" and not Path(answer).exists():
        return f"{answer}: no such file or folder"
    return ""


def with_answer(settings: ChooseSettings, answers: Mapping[str, Any]) -> ChooseSettings:
    """Settings with some answers more, checked; what is a default stays known as one."""
    given = {name: getattr(settings, name) for name in settings.given}
    return ChooseSettings(**{**given, **answers})
