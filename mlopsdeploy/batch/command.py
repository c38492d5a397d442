"""`mlopsdeploy batch`, from settings to summary: what a person sees of a job."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
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
    TimeRemainingColumn,
)
from rich.table import Table

from mlopsdeploy.batch import job, text_column
from mlopsdeploy.batch.sinks import check_output
from mlopsdeploy.batch.sources import Source, open_source
from mlopsdeploy.config import BatchSettings
from mlopsdeploy.errors import InputError
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
            say=lambda line: console.print(line, style="dim"),
        )
        columns = _match_columns(model, sample, settings, source.path)
        with _progress(console, source, settings.limit) as progress:
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
def _progress(
    console: Console, source: Source, limit: int | None
) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    started = time.monotonic()

    def done(rows: int, position: int) -> float | None:
        if limit:
            return min(rows / limit, 1.0)
        return min(position / source.size, 1.0) if source.size else None

    if console.is_terminal:
        bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn("{task.fields[rate]:,.0f} rows/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        task = bar.add_task("", total=1.0 if source.size or limit else None, rows=0, rate=0.0)

        def draw(rows: int, position: int) -> None:
            rate = rows / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done(rows, position) or 0, rows=rows, rate=rate)

        with bar:
            yield draw
        return

    said = started

    def tell(rows: int, position: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < PLAIN_SECONDS:
            return
        said = now
        share = done(rows, position)
        left = f", {share:.0%}, {(now - started) * (1 / share - 1):,.0f} s left" if share else ""
        print(f"{rows:,} rows, {rows / (now - started):,.0f} rows/s{left}", file=sys.stderr)

    yield tell


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
