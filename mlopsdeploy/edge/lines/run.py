"""A run over lines of text or of a sensor, and where answers go: lines of JSON, or for people."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from mlopsdeploy.bench.speed import made_up_rows
from mlopsdeploy.columns import AnswerColumns, Columns, Task
from mlopsdeploy.core.answers import figure, shown, spoken, words_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Event,
    JsonLinesFile,
    Log,
    Report,
    Reporter,
    iso,
)
from mlopsdeploy.edge.lines.answering import TRUNCATED, Answer, LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.sources import comes_again, open_lines
from mlopsdeploy.edge.loading import check_outputs, load_edge, load_first
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.terminal import LineView
from mlopsdeploy.settings import EdgeSettings

COLORS = ("cyan", "magenta", "yellow", "green", "blue")  # of labels, by their place
UNSURE = 0.6  # a score below it is shown dim
WIDEST = 24  # columns of a label
LOOK = 0.1  # seconds between two looks at whether to stop
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
        writers = [*_writers(settings, self.model, readable_only=self.quiet)]
        again = self._running if self.live else None
        self._outputs = Outputs(writers, log, self._stop, again, self.reporter.report)
        stack.callback(self._outputs.close)
        stats, report, write = Stats(), self.reporter.report, self._outputs.write
        self.view = LineView(stats, source)
        # By default lines may be as rare as they are.
        patience = settings.stall_seconds if "stall_seconds" in settings.given else None
        self.pipeline = LinePipeline(
            self.model, parser_for(self.model), source, write, stats, settings.limit,
            report=report, patience=patience,
        )  # fmt: skip
        if source.there:
            source.happened("connected", source.description, model=self.model.name)
        self.reporter.connect([self._outputs.report])

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

    def _running(self) -> bool:
        return not self.pipeline.stopped

    def _stop(self, reason: str) -> None:
        self.pipeline.stop(reason)

    def outcome(self) -> dict[str, Any]:
        """Outputs that failed."""
        return {"failed": self._outputs.failed}


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


def _writers(settings: EdgeSettings, model: Model, *, readable_only: bool) -> Iterator[Writer]:
    if not readable_only:
        keep = not comes_again(str(settings.lines))
        check_outputs(settings, appends=keep)
        yield LineEvents(settings.events or "-", model.task, echo=settings.echo, keep=keep)
    if sys.stdout.isatty() and settings.events != "-":
        typed = settings.lines == "-" and sys.stdin.isatty()
        yield Readable(Console(highlight=False), model.task, echo=not typed)


class Outputs:
    """All that answers are written to.

    One that fails is given up, and the others go on. Of lines that don't come again it is tried
    again in place of that, until the run is stopped; meanwhile lines wait where they come from.

    Args:
        writers: where to.
        log: called with a line about each that fails, and about the first lines without an answer.
        stop: called where none is left, or whoever reads standard output went away.
        running: whether what failed is to be tried again; None: never.
        happened: called with an event when it is, and once it works.

    Attributes:
        failed: why outputs were given up.
    """

    def __init__(
        self,
        writers: Sequence[Writer],
        log: Log,
        stop: Callable[[str], None],
        running: Callable[[], bool] | None = None,
        happened: Report = lambda _: None,
    ) -> None:
        self._running, self._happened = running, happened
        self.failed: list[str] = []
        self._left = list(writers)
        self._all = writers
        self._log = log
        self._stop = stop
        self._shows_problems = any(isinstance(writer, Readable) for writer in writers)
        self._problems = 0
        self._lock = threading.Lock()  # events come from another thread

    def write(self, answers: Sequence[Answer]) -> None:
        """Write some answers, in order."""
        self._each(lambda writer: self._try(writer, answers))
        for answer in answers if not self._shows_problems else ():
            if answer.problem:
                self._problems += 1
                if self._problems <= LOGGED:
                    self._log(f"line {answer.line.number} {answer.problem}")
                elif self._problems == LOGGED + 1:
                    self._log("more lines can't be read; each is an event")

    def report(self, event: Event) -> None:
        """Write what happened to the source; an event that finds no room is lost."""
        if self._running is None:
            self._each(lambda writer: writer.report(event))
        elif self._lock.acquire(timeout=LOOK):
            try:
                for writer in self._left:
                    with suppress(OSError):
                        writer.report(event)
            finally:
                self._lock.release()

    def close(self) -> None:
        """Nothing more comes."""
        with self._lock:
            for writer in self._all:
                writer.close()

    def _try(self, writer: Writer, answers: Sequence[Answer]) -> None:
        try:
            writer.write(answers)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._running is None or not self._running():
                raise
            self._tell(writer, "failed", f"{error.strerror}; trying again")
            self._try_again(writer, answers, self._running)

    def _try_again(
        self, writer: Writer, answers: Sequence[Answer], running: Callable[[], bool]
    ) -> None:
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            end = time.monotonic() + pause
            while running() and time.monotonic() < end:
                time.sleep(LOOK)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                writer.write(answers)
            except OSError:
                if not running():
                    raise
                continue
            away = time.monotonic() - began
            self._tell(writer, "recovered", f"works again after {away:.1f} s")
            return

    def _tell(self, writer: Writer, kind: str, text: str) -> None:
        """In a thread, as outputs are locked while they are written to."""
        event = Event(kind, f"{writer.name}: {text}", {"output": writer.name})
        threading.Thread(target=self._happened, args=(event,), daemon=True).start()

    def _each(self, call: Callable[[Writer], None]) -> None:
        with self._lock:
            for writer in tuple(self._left):
                try:
                    call(writer)
                except BrokenPipeError:
                    self._left.remove(writer)
                    self._stop("reader left")
                except OSError as error:
                    self._left.remove(writer)
                    self.failed.append(f"{writer.name}: {error.strerror}")
                    rest = "the rest goes on" if self._left else "so this ends"
                    self._log(f"{self.failed[-1]}; nothing more is written there, {rest}")
                    if not self._left:
                        self._stop("nothing to write to")


class LineEvents:
    """`--events`: a line of JSON for each line.

    A file also gets what happens to the source. Standard output has a line for each of the input
    and nothing else, so that they can be put side by side.

    Args:
        path: of the file, or `-`.
        task: whose answers they are; a line with nothing to answer has null for each part of one.
        echo: whether to write the line itself too.
        keep: see `JsonLinesFile`.
    """

    def __init__(self, path: str, task: Task, *, echo: bool, keep: bool = False) -> None:
        self._nothing = dict.fromkeys(one.name for one in shown(task) if one.name != TRUNCATED)
        self.name = "standard output" if path == "-" else "--events"
        self._echo = echo
        self._stamp = 0.0, ""
        self._file = JsonLinesFile(path, keep=keep)

    def write(self, answers: Sequence[Answer]) -> None:
        """Append their lines."""
        self._file.append([self._document(answer) for answer in answers])

    def report(self, event: Event) -> None:
        """A line too, in a file."""
        if self.name == "--events":
            self._file.append([event.as_dict()])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _document(self, answer: Answer) -> dict[str, Any]:
        line = answer.line
        if line.time != self._stamp[0]:  # lines that came together have one time
            self._stamp = line.time, iso(line.time)
        kind = "unreadable" if answer.problem else "header" if answer.header else "line"
        document: dict[str, Any] = {"event": kind, "time": self._stamp[1], "line": line.number}
        if answer.problem:
            document["reason"] = answer.problem
        elif not answer.header:
            values = self._nothing if answer.values is None else answer.values
            taken = {*document, "text"} if self._echo else document.keys()
            document |= {f"output_{key}" if key in taken else key: values[key] for key in values}
        if answer.truncated:
            document["truncated"] = True
        if answer.unread:
            document["unread"] = answer.unread
        if self._echo:
            document["text"] = answer.text
        return document


class Readable:
    """A coloured line for each line, on a terminal.

    Args:
        console: of standard output.
        task: of the model; each label has its colour.
        echo: whether to show the line itself: not where it was typed on the same terminal.
    """

    name = "standard output"

    def __init__(self, console: Console, task: Task, *, echo: bool) -> None:
        self._console = console
        self._echo = echo
        self._task = task
        labels = [label for one in task.answers for label in one.labels]
        self._colors = {label: COLORS[place % len(COLORS)] for place, label in enumerate(labels)}
        self._width = min(max(map(len, labels), default=8), WIDEST)

    def write(self, answers: Sequence[Answer]) -> None:
        """Show them."""
        for answer in answers:
            self._console.print(self._line(answer), no_wrap=True, overflow="ellipsis", crop=True)

    def report(self, event: Event) -> None:
        """Nothing: standard error has it."""

    def close(self) -> None:
        """Nothing is open."""

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


Writer = LineEvents | Readable
