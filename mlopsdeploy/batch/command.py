"""`mlopsdeploy batch`, from settings to summary: what a person sees of a job."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from mlopsdeploy.batch import job, scoring
from mlopsdeploy.batch.breakdowns import choose_breakdowns
from mlopsdeploy.batch.drift import compare
from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.batch.job import Job
from mlopsdeploy.batch.manifest import identity_of, manifest_of, read_manifest, shaping_a_row
from mlopsdeploy.batch.progress import progress_of
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.batch.unfinished import Piped, UnfinishedRun
from mlopsdeploy.columns import Columns, objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.bad_rows import MaxErrors, TooManyBadRows
from mlopsdeploy.data.destinations import Destination, destination
from mlopsdeploy.data.files import ERRORS, beside, note_of
from mlopsdeploy.data.inputs import Input, default_output, means_pictures
from mlopsdeploy.data.matching import choose_text_column, match_columns
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.data.sinks import (
    make_sink,
    output_format,
    passes_records,
    tables,
    with_predictions,
    write_parquet,
)
from mlopsdeploy.data.sources import Source, Wanted, chunks
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError, Stopped
from mlopsdeploy.settings import BatchSettings

CALIBRATION_ROWS = 4000  # for a model that is quantised, out of so many of the first rows
CALIBRATION_RANGE = 40_000
EXAMPLES = 5  # most and least certain rows of each label in a report
_NOT_IN_SUMMARY = ("mlopsdeploy", "settings", "statistics", "summary", "errors")


def run_batch(settings: BatchSettings, console: Console | None = None) -> dict[str, Any]:
    """Score `settings.input`; returns the summary, and shows it on a console or standard error.

    Raises:
        MlopsDeployError: see `open_source`, `load_model`, `UnfinishedRun` and `job.run`.
    """
    assert settings.input is not None
    console = console or Console(stderr=True, highlight=False)
    protected = Protected((settings.input,), (settings.model,), settings.overwrite, settings.query)
    if settings.report:
        _report_module().check_report(settings.report, protected)
    output = settings.output or default_output(settings.input, pictures=means_pictures(settings))
    goal = None
    if settings.engine == "ray" and settings.input == "-":
        raise ConfigError("--engine ray: can't read standard input; name a file")
    if output == "-" and settings.incremental:
        raise ConfigError("--incremental: keeps its scores beside a file; name an --output")
    if output != "-":
        goal = destination(output, if_exists=settings.if_exists, partition_by=settings.partition_by)
    inputs = Input(settings, goal.base if goal else None, lambda line: _say(console, line))
    if goal and not settings.dry_run:
        goal.protect(protected)  # before a database's rows are fetched, which may take hours
    source = inputs.open()
    try:
        if goal and not settings.dry_run:
            _check_partition(settings, source)
        model, columns = _load(settings, inputs, source, console)
        work = _job(settings, inputs, goal, source, model, columns, console)
        if settings.dry_run:
            return _dry_run(work, settings, console)
        if goal:
            goal.check_columns(lambda: _output_columns(work))
        with progress_of(console, settings.limit) as progress:
            work = replace(work, progress=progress)
            manifest = _run(work, settings, inputs, goal, source)
    finally:
        inputs.close()
    _show(console, manifest, model, goal)
    detail = {name: manifest[name] for name in manifest if name not in _NOT_IN_SUMMARY}
    return {**manifest["summary"], **detail}


def _check_partition(settings: BatchSettings, source: Source) -> None:
    if settings.partition_by and settings.partition_by not in source.names:
        raise InputError(f"--partition-by: the input has no column {settings.partition_by!r}")


def _say(console: Console, line: str) -> None:
    console.print(line, style="dim", markup=False)


def _load(
    settings: BatchSettings, inputs: Input, source: Source, console: Console
) -> tuple[Model, dict[str, str]]:
    """The model, and its input -> the file's column."""

    def calibration_rows() -> Columns:
        column = choose_text_column(source.sample(), settings.text_column, inputs.shown)
        texts: list[Any] = []
        rows = inputs.reopen()
        try:
            wanted = Wanted({column: "str"}, raw=True)
            for chunk in chunks(rows, 1000, limit=CALIBRATION_RANGE):
                texts += rows.parse(chunk, wanted).columns[column].tolist()
        finally:
            rows.close()
        filled = [text for text in texts if text and text.strip()]
        return {"text": objects(filled[:: max(len(filled) // CALIBRATION_ROWS, 1)])}

    model = load_model(
        settings.model,
        runtime=settings.runtime,
        precision=settings.precision,
        threads=settings.threads,
        threshold=settings.threshold,
        features=settings.features,
        long_text=settings.long_text,
        digest=settings.digest,
        trust_model=settings.trust_model,
        calibrate=None if inputs.path == "-" else calibration_rows,
        max_flips=settings.max_flips,
        log=lambda line: _say(console, line),
    )
    columns = match_columns(
        model, source, text_column=settings.text_column, image_column=settings.image_column
    )
    if model.task.data == "image":
        inputs.bring_pictures(*columns.values())
    return model, columns


def _job(
    settings: BatchSettings,
    inputs: Input,
    goal: Destination | None,
    source: Source,
    model: Model,
    columns: dict[str, str],
    console: Console,
) -> Job:
    path = goal.path if goal else "-"
    format_ = goal.format if goal else output_format("-", source)
    looked_at = source.sample() if settings.report else {}
    dates, categories = choose_breakdowns(looked_at, set(columns.values()))
    return Job(
        model=model,
        columns=columns,
        open_source=inputs.reopen,
        make_sink=lambda file, source: make_sink(format_, path, file, source),
        raw=passes_records(format_, source),
        shown=goal.shown if goal else "standard output",
        statistics=Statistics(
            model.task.labels,
            by_date=dates,
            by_category=categories,
            examples=EXAMPLES if settings.report else 0,
            pictures=model.task.data == "image",
        ),
        breakdowns=(*([dates.name] if dates else []), *categories),
        batch_size=settings.batch_size,
        limit=settings.limit,
        all_scores=settings.all_scores,
        prefix=settings.prefix,
        max_errors=MaxErrors.parse(settings.max_errors),
        log=lambda line: _say(console, line),
    )


def _output_columns(work: Job) -> pa.Schema:
    """The columns of a table to come, from the first of its rows."""
    source = work.open_source()
    try:
        chunk = source.read(1)
        assert chunk is not None
        window = source.parse(chunk, work.wanted)
    finally:
        source.close()
    planned = scoring.prepare(work.model, window, work.columns)
    computed = [scoring.predict(work.model, planned, batch) for batch in planned.batches]
    window, predictions = scoring.assemble(work.model, planned, computed)
    columns = scoring.written(
        work.model, predictions, all_scores=work.all_scores, prefix=work.prefix
    )
    return with_predictions(window, columns).schema


def _run(
    work: Job, settings: BatchSettings, inputs: Input, goal: Destination | None, source: Source
) -> dict[str, Any]:
    """Do the job; returns the run's manifest."""
    started = datetime.now(UTC)
    format_ = goal.format if goal else output_format("-", source)
    identity = identity_of(work.model, work.columns, settings, format_)
    shown = (inputs.shown, goal.shown if goal else "-")

    def manifest(done: tuple[job.Summary, Statistics, str]) -> dict[str, Any]:
        return manifest_of(
            work.model, work.columns, identity, shown=shown, started=started, done=done
        )

    if goal is None:
        with _standard_output(format_) as file:
            return manifest(_compute(work, Piped(file, sys.stderr.buffer), settings, inputs))
    previous = read_manifest(note_of(goal.base))
    with UnfinishedRun(
        goal.base, goal.shown, identity, every=settings.commit_seconds, fresh=settings.fresh
    ) as target:
        try:
            with _store(settings, goal.base, identity) as store:
                done = _compute(replace(work, store=store), target, settings, inputs)
            said = manifest(done)
            target.finish(goal, said)
        except Stopped as stopped:
            stopped.kept = target.kept
            raise
        except TooManyBadRows as error:
            raise TooManyBadRows(
                f"{error}; see {target.folder / ERRORS}; a higher --max-errors goes on from there"
            ) from error
        except MlopsDeployError as error:
            if not target.rows:
                raise
            raise type(error)(f"{error}; {target.kept}") from error
    if settings.report:
        _report_module().write_report(settings.report, said, previous)
    if previous:
        said["drift"] = compare(said, previous).as_dict()
    return said


def _compute(
    work: Job, target: job.Run, settings: BatchSettings, inputs: Input
) -> tuple[job.Summary, Statistics, str]:
    """The job, done by the engine that the settings name."""
    if settings.engine == "local":
        return job.run(work, target)
    try:
        from mlopsdeploy.batch import ray_engine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--engine ray needs the package {error.name!r}: pip install 'mlopsdeploy[ray]'"
        ) from error
    cluster = ray_engine.Cluster(
        settings.ray_address,
        _least_and_most(settings.ray_actors),
        settings.ray_cpus,
        settings.ray_gpus,
    )
    load = ray_engine.loader(settings, work.model, cluster)
    return ray_engine.run(work, target, opened=inputs.elsewhere(), load=load, cluster=cluster)


def _least_and_most(actors: str | None) -> tuple[int, int] | None:
    if actors is None:
        return None
    least, _, most = actors.partition("-")
    return int(least), max(int(most or least), int(least))


def _dry_run(work: Job, settings: BatchSettings, console: Console) -> dict[str, Any]:
    from mlopsdeploy.batch import dry_run

    found = dry_run.estimate(work, dry_run.loader(settings), price_per_hour=settings.price_per_hour)
    dry_run.show(found, console)
    return found


def _report_module() -> Any:
    """It draws, and so needs packages that no run without --report does."""
    try:
        from mlopsdeploy.batch import report
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--report needs the package {error.name!r}: pip install 'mlopsdeploy[report]'"
        ) from error
    return report


@contextmanager
def _standard_output(format_: str) -> Iterator[IO[bytes]]:
    """A file that ends up on standard output."""
    try:
        if format_ == "parquet":
            with tempfile.TemporaryFile() as rows:
                yield rows
                rows.seek(0)
                write_parquet(tables(rows), sys.stdout.buffer)
        else:
            yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError:
        # What is still in the buffer has nowhere to go: else it is tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _store(
    settings: BatchSettings, base: Path, identity: Mapping[str, Any]
) -> Iterator[ScoreStore | None]:
    if not settings.incremental:
        yield None
        return
    store = ScoreStore(beside(base, "scores.sqlite"), shaping_a_row(identity))
    try:
        yield store
    finally:
        store.close()


def _show(
    console: Console, manifest: Mapping[str, Any], model: Model, goal: Destination | None
) -> None:
    summary = manifest["summary"]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    attempts = f", in {summary['attempts']} attempts" if summary["attempts"] > 1 else ""
    pictures = model.task.data == "image"
    rows = "pictures" if pictures else "rows"
    table.add_row(rows, f"{summary['rows']:,}")
    table.add_row(
        "time", f"{summary['seconds']:.1f} s, {summary['rows_per_second']:,.0f} {rows}/s{attempts}"
    )
    labelled = summary.get("objects", summary["rows"])
    if "objects" in summary:
        each = labelled / max(summary["rows"] - summary["failed"] - summary["empty"], 1)
        table.add_row("objects", f"{labelled:,}, {each:.1f} a picture")
    for place, (label, count) in enumerate(list(summary["labels"].items())[:8]):
        share = count / max(labelled, 1)
        table.add_row("labels" if not place else "", f"{label or '(none)'} {count:,} ({share:.0%})")
    if summary["mean_score"] is not None:
        table.add_row("mean score", f"{summary['mean_score']:.3f}")
    lost = f", {summary['lost_tokens']:,} of {summary['tokens']:,} tokens not read"
    if not pictures:
        cut = f"{summary['truncated']:,}{lost if summary['truncated'] else ''}"
        table.add_row("truncated", cut)
    table.add_row("duplicates", f"{summary['duplicates']:,}")
    if summary["reused"]:
        table.add_row("known", f"{summary['reused']:,} from earlier runs")
    table.add_row("empty", f"{summary['empty']:,}")
    errors = f", set aside in {beside(goal.base, ERRORS)}" if goal else ""
    table.add_row("bad rows", f"{summary['failed']:,}{errors if summary['failed'] else ''}")
    if summary["failed"]:
        table.add_row("", f"the first: {summary['first_failed']}")
    runtime = f"{manifest['runtime']} {manifest['precision']}"
    version_ = f" {model.version}" if model.version else ""
    if "drift" in manifest:
        table.add_row("drift", manifest["drift"]["verdict"])
    table.add_row("model", f"{model.name}{version_}, {runtime}, {model.runtime.streams} streams")
    table.add_row("written to", goal.shown if goal else "standard output")
    console.print(table)


def run_again_and_again(expression: str, arguments: Sequence[str]) -> int:
    """The same command on cron's rhythm, each time in a process of its own; the exit code."""
    from mlopsdeploy.batch.schedule import run_on_schedule

    command = [sys.executable, "-m", "mlopsdeploy", *arguments, "--schedule", "off"]
    return run_on_schedule(expression, command, lambda line: print(line, file=sys.stderr))
