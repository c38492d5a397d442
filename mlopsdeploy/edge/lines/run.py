"""A run over lines of text or of a sensor: where they come from, and where answers go."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from mlopsdeploy.bench.speed import made_up_rows
from mlopsdeploy.columns import Columns
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import Event, Reporter
from mlopsdeploy.edge.lines.answering import LinePipeline
from mlopsdeploy.edge.lines.parsing import Parser, parser_for
from mlopsdeploy.edge.lines.sources import comes_again, open_lines
from mlopsdeploy.edge.lines.writing import LineEvents, Outputs, Readable, Writer
from mlopsdeploy.edge.loading import check_outputs, load_edge
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.terminal import LineView
from mlopsdeploy.settings import EdgeSettings


class LineRun:
    """A run over the lines of `settings.lines`; see `watch.FrameRun`.

    Answers go to `settings.events`. Where that is not set they go to standard output, as JSON, or
    for people where it is a terminal.

    Raises:
        MlopsDeployError: see `open_lines`, `load_model` and `JsonLinesFile`.
    """

    finished = "all lines that were read are answered"

    def __init__(
        self,
        settings: EdgeSettings,
        inference: ThreadPoolExecutor,
        stack: ExitStack,
        log: Callable[[str], None],
    ) -> None:
        self.reporter = Reporter(log)
        source = open_lines(settings, self.reporter.report)
        stack.callback(source.stop)
        self.model, parser = inference.submit(_ready, settings, log).result()
        self.title = f"{source.name} · {self.model.name}"
        self.quiet = settings.events is None and sys.stdout.isatty()
        self.written = [settings.events] if settings.events not in (None, "-") else []
        writers = [*_writers(settings, self.model, readable_only=self.quiet)]
        self._outputs = Outputs(writers, log, self._stop)
        stack.callback(self._outputs.close)
        stats = Stats()
        self.view = LineView(stats, source)
        self.pipeline = LinePipeline(
            self.model,
            parser,
            source,
            self._outputs.write,
            stats,
            report=self.reporter.report,
            limit=settings.limit,
        )
        facts = {"source": source.name, "model": self.model.name}
        self.reporter.report(Event("connected", f"{source.name}: {source.description}", facts))
        self.reporter.connect([self._outputs.report])

    def turn(self, done: threading.Event, seconds: float) -> None:
        """Nothing but wait."""
        done.wait(seconds)

    def linger(self) -> None:
        """Nothing is left to do."""

    def _stop(self, reason: str) -> None:
        self.pipeline.stop(reason)

    def outcome(self) -> dict[str, Any]:
        """Outputs that failed."""
        return {"failed": self._outputs.failed}


def load(settings: EdgeSettings, log: Callable[[str], None]) -> tuple[Model, int]:
    """The model of the settings, and on how many threads it runs.

    Raises:
        ConfigError: the model takes no lines.
    """
    return load_edge(settings, _row, log)


def warm_up(model: Model) -> None:
    """Do now what is slow only once: the first call, and loading what rechecks close calls."""
    model.predict_columns(_row(model))
    if model.float32 is not None:
        model.float32()


def _row(model: Model) -> Columns:
    parser_for(model)
    return made_up_rows(model, 1)


def _ready(settings: EdgeSettings, log: Callable[[str], None]) -> tuple[Model, Parser]:
    model, _ = load(settings, log)
    parser = parser_for(model)
    warm_up(model)
    return model, parser


def _writers(settings: EdgeSettings, model: Model, *, readable_only: bool) -> Iterator[Writer]:
    if not readable_only:
        keep = not comes_again(str(settings.lines))
        check_outputs(settings, appends=keep)
        yield LineEvents(settings.events or "-", echo=settings.echo, keep=keep)
    if sys.stdout.isatty() and settings.events != "-":
        typed = settings.lines == "-" and sys.stdin.isatty()
        yield Readable(Console(highlight=False), model.task.labels, echo=not typed)
