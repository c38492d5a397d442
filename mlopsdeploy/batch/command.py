"""`mlopsdeploy batch`, from settings to summary: what a person sees of a job."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from mlopsdeploy import __version__
from mlopsdeploy.batch import job, text_column
from mlopsdeploy.batch.bad_rows import MaxErrors, TooManyBadRows
from mlopsdeploy.batch.breakdowns import choose_breakdowns
from mlopsdeploy.batch.destination import destination
from mlopsdeploy.batch.drift import compare
from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.batch.job import Job, Summary
from mlopsdeploy.batch.progress import progress_of
from mlopsdeploy.batch.sinks import (
    check_output,
    make_sink,
    output_format,
    passes_records,
    tables,
    write_parquet,
)
from mlopsdeploy.batch.sources import SUFFIXES, Source, Wanted, chunks, files_of, open_source
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.batch.unfinished import ERRORS, MANIFEST, Piped, UnfinishedRun, beside
from mlopsdeploy.columns import Columns, objects
from mlopsdeploy.config import BatchSettings
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError, ModelError, Stopped
from mlopsdeploy.model import Model, load_model

CALIBRATION_ROWS = 4000  # for a model that is quantised, out of so many of the first rows
CALIBRATION_RANGE = 40_000
EXAMPLES = 5  # most and least certain rows of each label in a report
_NOT_IN_SUMMARY = ("mlopsdeploy", "settings", "statistics", "summary", "errors")
# Another version of one of these may move a score by its last digits.
_COMPUTING = ("openvino", "onnxruntime", "torch", "ai-edge-litert", "tokenizers")


def run_batch(settings: BatchSettings) -> dict[str, Any]:
    """Score `settings.input`; returns the summary, and shows it on standard error.

    Raises:
        MlopsDeployError: see `open_source`, `load_model`, `UnfinishedRun` and `job.run`.
    """
    console = Console(stderr=True, highlight=False)
    if settings.report:
        _report_module().check_report(settings.report)
    inputs = _Input(settings)
    source = inputs.open()
    try:
        if inputs.output != "-":
            check_output(inputs.output, source)
        sample = source.sample()
        model, columns = _load(settings, inputs, sample, console)
        work = _job(settings, inputs, source, sample, model, columns, console)
        with progress_of(console, settings.limit) as progress:
            manifest = _run(replace(work, progress=progress), settings, inputs, source)
    finally:
        inputs.close()
    _show(console, manifest, model, inputs.output)
    detail = {name: manifest[name] for name in manifest if name not in _NOT_IN_SUMMARY}
    return {**manifest["summary"], **detail}


class _Input:
    """The input, which a run may have to read twice."""

    def __init__(self, settings: BatchSettings) -> None:
        assert settings.input is not None
        self.path = settings.input
        self.output = settings.output or default_output(settings.input)
        self._settings = settings
        self._waiting: Source | None = None
        self._opened = False

    def open(self) -> Source:
        """The source at its start, to look at it; `reopen` gives the same one."""
        self._waiting = self._open()
        return self._waiting

    def reopen(self) -> Source:
        """The source at its start.

        Raises:
            InputError: it is standard input, which has been read.
        """
        source, self._waiting = self._waiting, None
        return source or self._open()

    def _open(self) -> Source:
        if self._opened and self.path == "-":
            raise InputError(
                "standard input: has other rows than the unfinished run began with; "
                "start over with --fresh"
            )
        self._opened = True
        settings = self._settings
        return open_source(
            self.path,
            delimiter=settings.delimiter,
            encoding=settings.encoding,
            output=self.output,
        )

    def close(self) -> None:
        """Close what nobody has taken."""
        if self._waiting:
            self._waiting.close()


def _load(
    settings: BatchSettings, inputs: _Input, sample: Mapping[str, list[Any]], console: Console
) -> tuple[Model, dict[str, str]]:
    """The model, and its input -> the file's column."""

    def calibration_rows() -> Columns:
        column = text_column.choose(sample, settings.text_column, inputs.path)
        texts: list[Any] = []
        source = inputs.reopen()
        try:
            wanted = Wanted({column: "str"}, raw=True)
            for chunk in chunks(source, 1000, limit=CALIBRATION_RANGE):
                texts += source.parse(chunk, wanted).columns[column].tolist()
        finally:
            source.close()
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
        trust_model=settings.trust_model,
        calibrate=None if inputs.path == "-" else calibration_rows,
        max_flips=settings.max_flips,
        say=lambda line: console.print(line, style="dim"),
    )
    return model, _match_columns(model, sample, settings, inputs.path)


def _job(
    settings: BatchSettings,
    inputs: _Input,
    source: Source,
    sample: Mapping[str, list[Any]],
    model: Model,
    columns: dict[str, str],
    console: Console,
) -> Job:
    output = inputs.output
    format_ = output_format(output, source)
    looked_at = sample if settings.report else {}
    dates, categories = choose_breakdowns(looked_at, set(columns.values()))
    return Job(
        model=model,
        columns=columns,
        open_source=inputs.reopen,
        make_sink=lambda file, source: make_sink(format_, output, file, source),
        raw=passes_records(format_, source),
        shown="standard output" if output == "-" else output,
        statistics=Statistics(
            getattr(model.task, "labels", ()),
            by_date=dates,
            by_category=categories,
            examples=EXAMPLES if settings.report else 0,
        ),
        breakdowns=(*([dates.name] if dates else []), *categories),
        batch_size=settings.batch_size,
        limit=settings.limit,
        all_scores=settings.all_scores,
        prefix=settings.prefix,
        max_errors=MaxErrors.parse(settings.max_errors),
        say=lambda line: console.print(line, style="dim"),
    )


def _run(work: Job, settings: BatchSettings, inputs: _Input, source: Source) -> dict[str, Any]:
    """Do the job; returns the run's manifest."""
    started = datetime.now(UTC)
    identity = _identity(work.model, work.columns, settings, output_format(inputs.output, source))

    def manifest(summary: Summary, statistics: Statistics, digest: str) -> dict[str, Any]:
        return _manifest(work, inputs, identity, started, summary, statistics, digest)

    if inputs.output == "-":
        with _standard_output(identity["format"]) as file:
            done = job.run(work, Piped(file, sys.stderr.buffer))
        return manifest(*done)
    goal = destination(inputs.output, source)
    previous = _read_manifest(beside(goal.base, MANIFEST))
    with UnfinishedRun(
        goal.base, goal.shown, identity, every=settings.commit_seconds, fresh=settings.fresh
    ) as target:
        try:
            with _store(settings, goal.base, identity) as store:
                done = job.run(replace(work, store=store), target)
            said = manifest(*done)
            target.finish(goal.publish, said)
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
    # What columns are called and how rows are read and written does not change a score.
    shaping = {name: identity[name] for name in _SHAPING_A_ROW}
    store = ScoreStore(beside(base, "scores.sqlite"), _digest(shaping))
    try:
        yield store
    finally:
        store.close()


def default_output(path: str) -> str:
    """`reviews.csv.gz` -> `reviews.predictions.csv.gz`; standard input -> standard output."""
    if path == "-":
        return "-"
    file = Path(path)
    if files := files_of(path):
        if not file.is_dir():
            raise InputError(f"{path}: is several files; name the one to write with --output")
        name = Path(files[0]).name.lower()
        suffix = next(suffix for suffix in SUFFIXES if name.removesuffix(".gz").endswith(suffix))
        return f"{str(file).rstrip('/')}.predictions{suffix}"
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


_SHAPING_A_ROW = ("model", "runtime", "precision", "threshold", "features", "long text", "packages")


def _identity(
    model: Model, columns: Mapping[str, str], settings: BatchSettings, format_: str
) -> dict[str, Any]:
    """What shapes the output, by the names that a message has for it."""
    return {
        "model": model.digest,
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "threshold": settings.threshold,
        "features": list(settings.features),
        "long text": settings.long_text,
        "columns": dict(columns),
        "batch size": settings.batch_size,
        "all scores": settings.all_scores,
        "prefix": settings.prefix,
        "delimiter": settings.delimiter,
        "encoding": settings.encoding,
        "format": format_,
        "packages": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"mlopsdeploy": __version__}
    for name in _COMPUTING:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _manifest(
    work: Job,
    inputs: _Input,
    identity: Mapping[str, Any],
    started: datetime,
    summary: Summary,
    statistics: Statistics,
    input_digest: str,
) -> dict[str, Any]:
    """What made the output, and what it is like."""
    model = work.model
    return {
        "mlopsdeploy": __version__,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": inputs.path,
        "output": inputs.output,
        "columns": dict(work.columns),
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
        "runtime": identity["runtime"],
        "precision": model.runtime.precision,
        "streams": model.runtime.streams,
        "proof": dict(model.proof),
        "settings": dict(identity),
        "settings_digest": _digest(identity),
        "input_digest": input_digest,
        "summary": summary.as_dict(),
        "stages": {name: round(seconds, 3) for name, seconds in summary.stages.items()},
        "errors": dict(summary.reasons.most_common()),
        "statistics": statistics.as_dict(),
    }


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """That of the last run, if it can be read."""
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return said


def _show(console: Console, manifest: Mapping[str, Any], model: Model, output: str) -> None:
    summary = manifest["summary"]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    attempts = f", in {summary['attempts']} attempts" if summary["attempts"] > 1 else ""
    table.add_row("rows", f"{summary['rows']:,}")
    table.add_row(
        "time", f"{summary['seconds']:.1f} s, {summary['rows_per_second']:,.0f} rows/s{attempts}"
    )
    for place, (label, count) in enumerate(list(summary["labels"].items())[:8]):
        share = count / max(summary["rows"], 1)
        table.add_row("labels" if not place else "", f"{label or '(none)'} {count:,} ({share:.0%})")
    if summary["mean_score"] is not None:
        table.add_row("mean score", f"{summary['mean_score']:.3f}")
    lost = f", {summary['lost_tokens']:,} of {summary['tokens']:,} tokens not read"
    table.add_row("truncated", f"{summary['truncated']:,}{lost if summary['truncated'] else ''}")
    table.add_row("duplicates", f"{summary['duplicates']:,}")
    if summary["reused"]:
        table.add_row("known", f"{summary['reused']:,} from earlier runs")
    table.add_row("empty", f"{summary['empty']:,}")
    errors = "" if output == "-" else f", set aside in {beside(Path(output), ERRORS)}"
    table.add_row("bad rows", f"{summary['failed']:,}{errors if summary['failed'] else ''}")
    if summary["failed"]:
        table.add_row("", f"the first: {summary['first_failed']}")
    runtime = f"{manifest['runtime']} {manifest['precision']}"
    version_ = f" {model.version}" if model.version else ""
    if "drift" in manifest:
        table.add_row("last run", manifest["drift"]["verdict"])
    table.add_row("model", f"{model.name}{version_}, {runtime}, {model.runtime.streams} streams")
    table.add_row("written to", "standard output" if output == "-" else output)
    console.print(table)


def run_again_and_again(expression: str, arguments: Sequence[str]) -> int:
    """The same command on cron's rhythm, each time in a process of its own; the exit code."""
    from mlopsdeploy.batch.schedule import run_on_schedule

    command = [sys.executable, "-m", "mlopsdeploy", *arguments, "--schedule", "off"]
    return run_on_schedule(expression, command, lambda line: print(line, file=sys.stderr))
