"""`mlopsdeploy batch`, from settings to summary: what a person sees of a job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from mlopsdeploy.batch import job, text_column
from mlopsdeploy.batch.sinks import check_output
from mlopsdeploy.batch.sources import open_source
from mlopsdeploy.config import BatchSettings
from mlopsdeploy.errors import InputError, ModelError
from mlopsdeploy.model import Model, load_model

PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal


def run_batch(settings: BatchSettings) -> dict[str, Any]:
    """Score `settings.input`; returns the summary, and shows it on standard error.

    Raises:
        MlopsDeployError: see `open_source`, `load_model` and `job.run`.
    """
    assert settings.input is not None
    console = Console(stderr=True, highlight=False)
    source = open_source(settings.input, delimiter=settings.delimiter, encoding=settings.encoding)
    try:
        output = settings.output or default_output(settings.input)
        if output != "-":
            check_output(output, source)
        sample = source.sample()
        model = load_model(
            settings.model,
            runtime=settings.runtime,
            precision=settings.precision,
            threads=settings.threads,
            threshold=settings.threshold,
            features=settings.features,
            trust_model=settings.trust_model,
            say=lambda line: console.print(line, style="dim"),
        )
        columns = _match_columns(model, sample, settings, source.path)
        with _progress(console, settings.limit) as progress:
            summary = job.run(
                model,
                source,
                output,
                columns=columns,
                batch_size=settings.batch_size,
                limit=settings.limit,
                all_scores=settings.all_scores,
                prefix=settings.prefix,
                progress=progress,
            )
    finally:
        source.close()
    _show(console, summary, model, output)
    return {
        **summary.as_dict(),
        "input": settings.input,
        "output": output,
        "columns": columns,
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "streams": model.runtime.streams,
    }


def default_output(path: str) -> str:
    """`reviews.csv.gz` -> `reviews.predictions.csv.gz`; standard input -> standard output."""
    if path == "-":
        return "-"
    file = Path(path)
    suffixes = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    return str(file.with_name(f"{file.name.removesuffix(suffixes)}.predictions{suffixes}"))


def _match_columns(
    model: Model, sample: dict[str, list[Any]] | Any, settings: BatchSettings, path: str
) -> dict[str, str]:
    """The model's input -> the file's column."""
    wishes = model.task.inputs
    if [wish.name for wish in wishes] == ["text"] and wishes[0].dtype == "str":
        return {"text": text_column.choose(sample, settings.text_column, path)}
    if settings.text_column:
        raise InputError(f"--text-column: {model.name} takes {len(wishes)} features, not a text")
    if any(len(wish.shape) > 1 for wish in wishes):
        raise ModelError(f"{model.name}: takes pictures or arrays, which no column of a table is")
    if nameless := next((wish for wish in wishes if wish.shape), None):
        raise ModelError(
            f"{model.name}: takes {nameless.shape[0]} features but does not name them; list the "
            "columns in the model's order with --features a,b,c or 'features:' in a YAML beside "
            "the file"
        )
    missing = [wish.name for wish in wishes if wish.name not in sample]
    if missing:
        raise InputError(
            f"{path}: lacks {_some(missing)}, which {model.name} needs; it has "
            f"{_some(list(sample))}"
        )
    return {wish.name: wish.name for wish in wishes}


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


@contextmanager
def _progress(console: Console, limit: int | None) -> Iterator[job.Progress]:
    """A bar on a terminal, a line now and then elsewhere."""
    meter = _Meter(limit)
    if not console.is_terminal:
        yield meter.tell
        return
    bar = Progress(
        SpinnerColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,.0f} rows"),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None, rows=0, rate=0, left="")

    def draw(rows: float, share: float | None) -> None:
        meter.add(rows, share)
        bar.update(
            task,
            total=1 if meter.share else None,
            completed=meter.share or 0,
            rows=meter.rows,
            rate=meter.rate,
            left=meter.left,
        )

    with bar:
        yield draw


class _Meter:
    """Rows and share done so far, the rate and the time left. Fed by several threads."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._started = self._said = time.monotonic()
        self.rows = 0.0
        self.share: float | None = None

    @property
    def rate(self) -> float:
        """Rows per second since the start."""
        return self.rows / max(time.monotonic() - self._started, 1e-9)

    @property
    def left(self) -> str:
        """The time left, as people say it."""
        if not self.share:
            return ""
        elapsed = time.monotonic() - self._started
        seconds = round(elapsed * max(1 / self.share - 1, 0))
        if seconds < 120:
            return f"{seconds} s left"
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"

    def add(self, rows: float, share: float | None) -> None:
        """Count what a batch came to."""
        with self._lock:
            self.rows += rows
            if share is not None:
                self.share = min((self.share or 0) + share, 1.0)
            if self._limit:
                self.share = max(min(self.rows / self._limit, 1.0), self.share or 0)

    def tell(self, rows: float, share: float | None) -> None:
        """Count, and print a line if the last one is some time ago."""
        self.add(rows, share)
        now = time.monotonic()
        with self._lock:
            if now - self._said < PLAIN_SECONDS:
                return
            self._said = now
        done = f", {self.share:.0%}, {self.left}" if self.share else ""
        print(f"{self.rows:,.0f} rows, {self.rate:,.0f} rows/s{done}", file=sys.stderr)


def _show(console: Console, summary: job.Summary, model: Model, output: str) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("time", f"{summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows/s")
    for place, (label, count) in enumerate(summary.labels.most_common(8)):
        share = count / max(summary.rows, 1)
        table.add_row("labels" if not place else "", f"{label or '(none)'} {count:,} ({share:.0%})")
    if summary.mean_score is not None:
        table.add_row("mean score", f"{summary.mean_score:.3f}")
    for name, count in (
        ("truncated", summary.truncated),
        ("duplicates", summary.duplicates),
        ("empty", summary.empty),
        ("failed", summary.failed),
    ):
        where = f", the first in row {summary.first_failed}" if name == "failed" and count else ""
        table.add_row(name, f"{count:,}{where}")
    runtime = f"{type(model.runtime).__name__.lower()} {model.runtime.precision}"
    version = f" {model.version}" if model.version else ""
    table.add_row("model", f"{model.name}{version}, {runtime}, {model.runtime.streams} streams")
    table.add_row("written to", "standard output" if output == "-" else output)
    console.print(table)
