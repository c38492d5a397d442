"""`mlopsdeploy edge --lines`, from settings to summary."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from mlopsdeploy.bench.speed import made_up_rows
from mlopsdeploy.columns import Columns
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.lines import terminal
from mlopsdeploy.edge.lines.outputs import JsonLines, Output, Readable
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.pipeline import Answer, LinePipeline, LineStats
from mlopsdeploy.edge.lines.sources import comes_again, open_lines
from mlopsdeploy.edge.loading import load_edge
from mlopsdeploy.edge.signals import STOPS, stopping
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import EdgeSettings

TICK = 0.05  # seconds between two looks at the terminal
TOLD = 3  # lines that can't be read are told of one by one, up to so many
OF_CAMERAS = (
    "camera", "width", "height", "fps", "stall_seconds", "save", "snapshots", "snapshot_seconds",
    "preview",
)  # fmt: skip


def read_lines(settings: EdgeSettings) -> tuple[dict[str, Any], int]:
    """Score the lines of `settings.lines`.

    Answers go to `settings.events`. Where that is not said they go to standard output, as JSON,
    or for people where it is a terminal.

    Returns:
        The summary, shown on standard error, and the exit code: 141 where the reader of standard
        output went away, as `head` does.

    Raises:
        MlopsDeployError: see `open_lines`, `load_model`, `JsonLines` and `LinePipeline.run`.
    """
    check_settings(settings)
    console = Console(stderr=True, highlight=False)

    def log(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True, markup=False)

    stats = LineStats()
    with ExitStack() as stack:
        outputs: list[Output] = []
        told = _Told(log, outputs)
        source = open_lines(
            str(settings.lines),
            follow=settings.follow,
            baud=settings.baud,
            realtime=settings.realtime,
            tell=told.tell,
        )
        stack.callback(source.stop)
        inference = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="inference"))
        model, parser = inference.submit(lambda: _ready(settings, log)).result()
        on_terminal = settings.events is None and sys.stdout.isatty()
        outputs += _outputs(settings, model, on_terminal=on_terminal)
        for output in outputs:
            stack.callback(output.close)
        facts = {"source": source.name, "model": model.name}
        told.tell(Event("connected", f"{source.name}: {source.said}", facts))
        pipeline = LinePipeline(
            model, parser, source, [*outputs, told], stats, tell=told.tell, limit=settings.limit
        )
        watched = _Watched(outputs, pipeline, log)
        screen = terminal.Screen(console, f"{source.name} · {model.name}", stats, source)  # type: ignore[arg-type]
        with stopping(pipeline.stop):
            running = inference.submit(pipeline.run)
            if on_terminal:
                _wait(running, watched.look)
            else:
                with screen.shown():
                    _wait(running, watched.look, screen.tick)
        told.tell(Event("ended", pipeline.ended, {"reason": pipeline.ended}))
        watched.look()
        seconds = time.monotonic() - stats.started
    summary = terminal.summarise(stats, source, ended=pipeline.ended, seconds=seconds)
    summary["model"] = {"name": model.name, "version": model.version, "digest": model.digest}
    summary["failed"] = watched.failed
    if pipeline.ended in STOPS:
        log(f"{pipeline.ended}; all lines that were read are answered")
    if pipeline.ended == "reader left":
        return summary, 141
    terminal.show_summary(console, summary, settings.events if settings.events != "-" else None)
    return summary, STOPS.get(pipeline.ended, 1 if watched.failed else 0)


def check_settings(settings: EdgeSettings) -> None:
    """Refuse what is said of cameras only.

    Raises:
        ConfigError: something is.
    """
    for name in OF_CAMERAS:
        if getattr(settings, name) != EdgeSettings.model_fields[name].default:
            raise ConfigError(f"--{name.replace('_', '-')} is for a camera, not for --lines")
    if settings.window:
        raise ConfigError("--window is for a camera, not for --lines")


def load(settings: EdgeSettings, log: Callable[[str], None]) -> tuple[Model, int]:
    """The model of the settings, and on how many threads it runs."""
    return load_edge(settings, a_row, log)


def a_row(model: Model) -> Columns:
    """One for the model, to measure with.

    Raises:
        ConfigError: the model takes no lines.
    """
    parser_for(model)
    return made_up_rows(model, 1)


def warm_up(model: Model) -> None:
    """Do now what is slow only once: the first call, and loading what looks at close calls."""
    model.predict(a_row(model))
    if model.exact is not None:
        model.exact()


def _ready(settings: EdgeSettings, log: Callable[[str], None]) -> tuple[Model, Any]:
    model, _ = load(settings, log)
    parser = parser_for(model)
    warm_up(model)
    return model, parser


def _outputs(settings: EdgeSettings, model: Model, *, on_terminal: bool) -> Iterator[Output]:
    if not on_terminal:
        keep = not comes_again(str(settings.lines))
        yield Output(JsonLines(settings.events or "-", echo=settings.echo, keep=keep))
    if sys.stdout.isatty() and settings.events != "-":
        typed = settings.lines == "-" and sys.stdin.isatty()
        yield Output(Readable(Console(highlight=False), model.task.labels, echo=not typed))


class _Told:
    """What happens to the source, for people and for outputs; the first lines that are wrong."""

    def __init__(self, log: Callable[[str], None], outputs: list[Output]) -> None:
        self._say = log
        self._outputs = outputs
        self._wrong = 0
        self._dropped = False

    def tell(self, event: Event) -> None:
        """Say it once where it may come often; outputs get all."""
        often = event.kind == "dropped" and self._dropped
        self._dropped |= event.kind == "dropped"
        if event.kind != "ended" and not often:
            self._say(event.text)
        for output in self._outputs:
            output.tell(event)

    def write(self, answers: Sequence[Answer]) -> None:
        """Say why a line has no answer."""
        if any(isinstance(output.writer, Readable) for output in self._outputs):
            return  # it is shown there
        for answer in answers:
            if answer.problem:
                self._wrong += 1
                if self._wrong <= TOLD:
                    self._say(f"line {answer.line.number} {answer.problem}")
                elif self._wrong == TOLD + 1:
                    self._say("more lines can't be read; each is an event")


class _Watched:
    """Outputs that fail: told once; without any left, or without who reads them, the run ends."""

    def __init__(
        self, outputs: Sequence[Output], pipeline: LinePipeline, log: Callable[[str], None]
    ) -> None:
        self._left = list(outputs)
        self._pipeline = pipeline
        self._say = log
        self.failed: list[str] = []

    def look(self) -> None:
        """To be called several times a second."""
        for output in list(self._left):
            error = output.failed
            if error is None:
                continue
            self._left.remove(output)
            if isinstance(error, BrokenPipeError):
                self._pipeline.stop("reader left")
                continue
            reason = f"{output.writer.name}: {error.strerror}"
            self.failed.append(reason)
            rest = "the rest goes on" if self._left else "so this ends"
            self._say(f"{reason}; nothing more is written there, {rest}")
            if not self._left:
                self._pipeline.stop("nothing to write to")


def _wait(running: Future[None], *ticks: Callable[[], None]) -> None:
    done = threading.Event()
    running.add_done_callback(lambda _: done.set())
    while not done.wait(TICK):
        for tick in ticks:
            tick()
    running.result()
