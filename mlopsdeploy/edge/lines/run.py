"""A run over lines of text or of a sensor, and where answers go: lines of JSON, or for people."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.text import Text

from mlopsdeploy.bench.speed import made_up_rows
from mlopsdeploy.columns import AnswerColumns, Columns, Task
from mlopsdeploy.core.answers import figure, spoken, words_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import Log, Reporter
from mlopsdeploy.edge.lines.answering import Answer, Answers, Form, LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.sources import comes_again, open_lines
from mlopsdeploy.edge.loading import check_outputs, load_edge, load_first
from mlopsdeploy.edge.outputs import READER_LEFT, About, Outlet, Sink, outcomes, rows_of
from mlopsdeploy.edge.sinks import open_sinks
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.terminal import LineView
from mlopsdeploy.settings import EdgeSettings

COLORS = ("cyan", "magenta", "yellow", "green", "blue")  # of labels, by their place
UNSURE = 0.6  # a score below it is shown dim
WIDEST = 24  # columns of a label
WAITING = 2  # times that answers computed together wait for an output
LOGGED = 3  # lines that can't be read are logged one by one, up to so many


class LineRun:
    """A run over the lines of `settings.lines`; see `watch.FrameRun`.

    Answers go to `settings.events`. Where that is not set they go to standard output, as JSON, or
    for people where it is a terminal.

    Raises:
        MlopsDeployError: see `open_lines`, `load_model` and `JsonLinesFile`.
    """

    finished = "all lines that were read are answered"

    def __init__(
        self, settings: EdgeSettings, inference: ThreadPoolExecutor, stack: ExitStack, log: Log
    ) -> None:
        self._settings = settings
        self.reporter = Reporter(log)
        source = open_lines(settings, self.reporter.report)
        stack.callback(source.stop)
        self.model, _ = inference.submit(load, settings, log).result()
        self.title = f"{source.name} · {self.model.name}"
        self.quiet = settings.events is None and sys.stdout.isatty()
        self.written = [settings.events] if settings.events not in (None, "-") else []
        self._log, self._problems = log, 0
        self._form = Form(self.model.task, echo=settings.echo)
        self._outlets: list[Outlet] = []
        stats, report = Stats(), self.reporter.report
        self.view = LineView(stats, source, sent=lambda: rows_of(self._outlets))
        # By default lines may be as rare as they are.
        patience = settings.stall_seconds if "stall_seconds" in settings.given else None
        self.pipeline = LinePipeline(
            self.model, parser_for(self.model), source, self._write, stats, settings.limit,
            report=report, patience=patience,
        )  # fmt: skip
        self._shows_problems = False
        for sink in self._sinks(source.name):
            outlet = Outlet(
                sink, stats, keep=True, log=log, happened=report, again=self._running,
                left=lambda: self.pipeline.stop(READER_LEFT), given_up=self._given_up,
                waiting=WAITING,
            )  # fmt: skip
            self._outlets.append(outlet)
            stack.callback(outlet.close)
        if source.there:
            source.happened("connected", source.description, model=self.model.name)
        self.reporter.connect([outlet.report for outlet in self._outlets])

    def begin(self) -> None:
        """Run to the end, in the thread that loaded the model."""
        self.pipeline.run()

    @property
    def live(self) -> bool:
        """Whether its lines come but once."""
        return not comes_again(str(self._settings.lines))

    @staticmethod
    def try_model(settings: EdgeSettings, log: Log) -> None:
        """See that the model of other settings is there, and takes lines."""
        load_first(settings, plain_row, log)

    def turn(self, done: threading.Event, seconds: float) -> None:
        """Nothing but wait."""
        done.wait(seconds)

    def linger(self) -> None:
        """Nothing is left to do."""

    def outcome(self) -> dict[str, Any]:
        """What came of outputs."""
        return outcomes(self._outlets)

    def _sinks(self, name: str) -> Iterator[Sink]:
        """Answers go to standard output where no file is named: as JSON, or for people."""
        settings, to_people = self._settings, sys.stdout.isatty()
        about = About(settings, name, self.live, self.model, self._log, dict)
        check_outputs(settings, appends=self.live)
        if settings.events is None and not to_people:
            yield Events.opened("-", about)
        yield from open_sinks(about, self.reporter.report)
        if to_people and settings.events != "-":
            self._shows_problems = True
            typed = settings.lines == "-" and sys.stdin.isatty()
            yield Readable(Console(highlight=False), self.model.task, echo=not typed)

    def _write(self, answers: Sequence[Answer]) -> None:
        """Hand them to all outputs, and tell of the first lines that can't be read."""
        found = Answers(answers, self._form)
        for outlet in self._outlets:
            outlet.put(found)
        for answer in answers if not self._shows_problems else ():
            if answer.problem:
                self._problems += 1
                if self._problems <= LOGGED:
                    self._log(f"line {answer.line.number} {answer.problem}")
                elif self._problems == LOGGED + 1:
                    self._log("more lines can't be read; each is an event")

    def _running(self) -> bool:
        """Whether what failed is tried again; meanwhile lines wait where they come from."""
        return self.live and not self.pipeline.stopped

    def _given_up(self) -> str:
        """An output was; without any there is nothing to do."""
        if all(one.failed for one in self._outlets):
            self.pipeline.stop("nothing to write to")
            return "so this ends"
        return "the rest goes on"


def load(settings: EdgeSettings, log: Log) -> tuple[Model, int]:
    """The model of the settings, and on how many threads it runs.

    What is slow only once is done: the first call, and loading what rechecks close calls, of
    models side by side for each.

    Raises:
        ConfigError: the model takes no lines.
    """
    model, threads = load_edge(settings, plain_row, log)
    for one in (model, *(part() for part in model.parts)):
        one.predict_columns(plain_row(one))
        if one.float32 is not None:
            one.float32()
    return model, threads


def plain_row(model: Model) -> Columns:
    """A row to try a model with.

    Raises:
        ConfigError: it takes no lines.
    """
    parser_for(model)
    return made_up_rows(model, 1)


class Readable(Sink):
    """A coloured line for each line, on a terminal.

    Args:
        console: of standard output.
        task: of the model; each label has its colour.
        echo: whether to show the line itself: not where it was typed on the same terminal.
    """

    name = called = "standard output"

    def __init__(self, console: Console, task: Task, *, echo: bool) -> None:
        self._console = console
        self._echo = echo
        self._task = task
        labels = [label for one in task.answers for label in one.labels]
        self._colors = {label: COLORS[place % len(COLORS)] for place, label in enumerate(labels)}
        self._width = min(max(map(len, labels), default=8), WIDEST)

    def pick(self, result: Answers) -> Sequence[Answer]:
        """The answers."""
        return result.answers

    def write(self, item: Sequence[Answer]) -> None:
        """Show them."""
        for answer in item:
            self._console.print(self._line(answer), no_wrap=True, overflow="ellipsis", crop=True)

    def _line(self, answer: Answer) -> Text:
        text = _printable(answer.text or "") if self._echo else ""
        if answer.problem:
            problem = f"line {answer.line.number}: {_printable(answer.problem)}"
            return Text.assemble((problem, "red"), "  ", (text, "dim"))
        if answer.header:
            return Text.assemble(("the header  ", "dim"), (text, "dim"))
        if answer.values is None:
            return Text("–", "dim")
        values = answer.values
        if self._task.answers:
            parts = [part for one in self._task.answers for part in self._parts(one, values)]
        else:
            parts = [_printable(words_of(self._task, values))]
        unread = f"not read ({answer.unread})  " if answer.unread else ""
        return Text.assemble(
            *(piece for part in parts for piece in (part, "  ")), (unread, "yellow"), text
        )

    def _parts(
        self, one: AnswerColumns, values: Mapping[str, Any]
    ) -> Iterator[str | tuple[str, str]]:
        """Of one answer its name, its label in colour, its number."""
        if one.name:
            yield one.name, "dim"
        number = values[one.number] if one.number else None
        if one.label:
            label = values[one.label]
            style = self._colors.setdefault(label, COLORS[len(self._colors) % len(COLORS)])
            unsure = number is not None and one.is_probability and number < UNSURE
            text = _printable(spoken(label)) or "–"
            yield text.ljust(self._width), f"{style} {'dim' if unsure else 'bold'}"
        if number is not None:
            yield f"{number:.3f}" if one.is_probability else figure(number)


def _printable(text: str) -> str:
    """Without what would move the cursor or change colours: a line may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else " " if letter == "\t" else "·" for letter in text
    )
