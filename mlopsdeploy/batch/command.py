"""`mlopsdeploy batch`, from settings to summary: what a person sees of a job."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from mlopsdeploy.batch import job, scoring
from mlopsdeploy.batch.breakdowns import choose_breakdowns
from mlopsdeploy.batch.drift import compare, named, rounded
from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.batch.job import Job
from mlopsdeploy.batch.languages import language_facts
from mlopsdeploy.batch.loading import load_for
from mlopsdeploy.batch.manifest import identity_of, manifest_of, read_manifest, shaping_a_row
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.batch.unfinished import Piped, UnfinishedRun
from mlopsdeploy.columns import Columns, objects
from mlopsdeploy.core.console import facts, progress_log
from mlopsdeploy.core.inputs import some
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.bad_rows import MaxErrors, TooManyBadRows
from mlopsdeploy.data.destinations import Destination, check_key, destination
from mlopsdeploy.data.files import ERRORS, beside, note_of
from mlopsdeploy.data.inputs import Input, default_output, means_pictures
from mlopsdeploy.data.matching import (
    check_kept,
    choose_text_column,
    listed,
    match_columns,
    reading,
    scored,
)
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.data.sinks import (
    delimiter_for,
    make_sink,
    output_format,
    passes_records,
    tables,
    with_predictions,
    write_parquet,
)
from mlopsdeploy.data.sources import Source, Wanted, chunks, parts_of, together, with_content
from mlopsdeploy.data.spelled_numbers import question_of_numbers
from mlopsdeploy.errors import (
    ConfigError,
    InputError,
    MlopsDeployError,
    Stopped,
    after_writing,
    needs,
)
from mlopsdeploy.settings import BatchSettings

CALIBRATION_ROWS = 4000  # for a model that is quantised, out of so many of the first rows
CALIBRATION_RANGE = 40_000
PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal
EXAMPLES = 5  # most and least certain rows of each label in a report
_OF_SCHEDULES = {"schedule", "notify_success", "notify_failure"}
_NOT_IN_SUMMARY = ("mlopsdeploy", "settings", "statistics", "summary", "errors")


def run_batch(
    settings: BatchSettings, console: Console | None = None, *, born: float | None = None
) -> dict[str, Any]:
    """Score `settings.input`; returns the summary, and shows it on a console or standard error.

    `born` is when the command was started, as `time.time` has it: now if None.

    Raises:
        MlopsDeployError: see `open_source`, `load_model`, `UnfinishedRun` and `job.run`.
    """
    assert settings.input is not None
    born = born or time.time()
    console = console or Console(stderr=True, highlight=False)
    log = progress_log(console)
    protected = Protected((settings.input,), (settings.model,), settings.overwrite, settings.query)
    if settings.report:
        with needs("--report", "report"):
            from mlopsdeploy.batch import report
        report.check_report(settings.report, protected)
    output = settings.output or default_output(
        settings.input, pictures=means_pictures(settings), sheet=settings.sheet
    )
    goal = None
    if settings.engine == "ray" and settings.input == "-":
        raise ConfigError("--engine ray: can't read standard input; name a file")
    if output == "-" and settings.incremental:
        raise ConfigError("--incremental: keeps its scores beside a file; name an --output")
    how: dict[str, Any] = {"if_exists": settings.if_exists, "key": settings.key}
    check_key(output, **how)
    if output != "-":
        goal = destination(output, partition_by=settings.partition_by, **how)
    inputs = Input(settings, goal.base if goal else None, log)
    writes = goal is not None and not settings.dry_run
    if goal and writes:
        goal.protect(protected)  # before a database's rows are fetched, which may take hours
    source = inputs.open()
    try:
        if writes:
            _check_partition(settings, source)
        work = job_for(settings, inputs, source, log, goal)
        if settings.dry_run:
            from mlopsdeploy.batch import dry_run

            price = settings.price_per_hour
            load = partial(load_for, settings)
            found = dry_run.estimate(work, load, price_per_hour=price, born=born)
            dry_run.show(found, console)
            return found
        if goal:
            goal.check_columns(lambda: _output_columns(work))
        with progress_of(console, settings.limit) as progress:
            work = replace(work, progress=progress)
            previous = read_manifest(note_of(goal.base)) if goal else None
            manifest = _run(work, settings, inputs, goal, source)
    finally:
        inputs.close()
    with after_writing():
        _conclude(settings, manifest, previous)
        console.print(facts(_facts(manifest, work.model, goal)))
    detail = {name: manifest[name] for name in manifest if name not in _NOT_IN_SUMMARY}
    return {**manifest["summary"], **detail}


def job_for(
    settings: BatchSettings,
    inputs: Input,
    source: Source,
    log: Callable[[str], None],
    goal: Destination | None = None,
) -> Job:
    """The job of some settings, with its model; by default to standard output.

    Raises:
        MlopsDeployError: see `load_model` and `match_columns`.
    """
    kept = settings.columns
    if kept is not None:
        check_kept(kept, source.sample(), source.path)
    calibrate = None
    if inputs.path != "-":
        calibrate = partial(_calibration_rows, settings, inputs, source)
    model = load_for(settings, calibrate=calibrate, log=log)
    columns = _columns(settings, model, source)
    pictures = model.task.data == "image"
    inputs.bring(columns, pictures=pictures)
    path = goal.path if goal else "-"
    format_ = goal.format if goal else output_format("-", source)
    sample = source.sample() if settings.report else {}
    taken = {part for column in columns.values() for part in (column, *parts_of(column, sample))}
    dates, categories = choose_breakdowns(sample, taken)
    return Job(
        model=model,
        columns=columns,
        open_source=inputs.reopen,
        make_sink=lambda file, source: make_sink(format_, path, file, source, kept),
        raw=passes_records(format_, source),
        shown=goal.shown if goal else "standard output",
        statistics=Statistics(
            model.task.answers,
            by_date=dates,
            by_category=categories,
            examples=EXAMPLES if settings.report else 0,
            pictures=pictures,
        ),
        kept=kept,
        delimiter=delimiter_for(path, source),
        breakdowns=(*([dates.name] if dates else []), *categories),
        batch_size=settings.batch_size,
        limit=settings.limit,
        all_scores=settings.all_scores,
        prefix=settings.prefix,
        max_errors=MaxErrors.parse(settings.max_errors),
        log=log,
    )


def _check_partition(settings: BatchSettings, source: Source) -> None:
    by, kept = settings.partition_by, settings.columns
    if by is None or by in (source.names if kept is None else kept):
        return
    if by not in source.names:
        raise InputError(f"--partition-by: the input has no column {by!r}")
    more = ",".join([*(kept or ()), by])
    raise ConfigError(f"--partition-by: column {by!r} is not written; say --columns {more}")


def _columns(settings: BatchSettings, model: Model, source: Source) -> dict[str, str]:
    """The model's input -> the source's column; all that is to be asked about, asked at once."""
    questions: list[str] = []
    columns: dict[str, str] = {}
    try:
        columns = match_columns(
            model,
            source,
            text_column=settings.text_column,
            image_column=settings.image_column,
            features=settings.features,
        )
    except InputError as error:
        questions.append(str(error).removeprefix(f"{source.path}: "))
    if columns and model.task.data == "text":
        questions += _question_of_languages(model, source, *columns.values())
    new = scoring.new_columns(model, all_scores=settings.all_scores)
    there = source.names if settings.columns is None else settings.columns
    if taken := [name for name in new if settings.prefix + name in there]:
        questions.append(
            f"already has {listed([settings.prefix + name for name in taken])}, as the new columns "
            f"are called; say --prefix {settings.prefix}predicted_"
        )
    if settings.numbers == "auto" and columns and model.task.data == "table":
        sample, fields = source.sample(), model.task.inputs
        names = [
            part
            for field in fields
            if field.dtype != "str" and not (field.shape and columns[field.name] in sample)
            for part in parts_of(columns[field.name], sample)
        ]
        questions += filter(None, [question_of_numbers({name: sample[name] for name in names})])
    if questions:
        raise InputError(f"{source.path}: {'; and it '.join(questions)}")
    return columns


def _question_of_languages(model: Model, source: Source, column: str) -> Iterator[str]:
    sample = source.sample()
    columns = [
        [None if value is None else str(value) for value in sample[name]]
        for name in parts_of(column, sample)
    ]
    texts = [text for text in together(columns) if text is not None]
    try:
        model.check_languages(texts, f"the first rows of {column!r}")
    except InputError as error:
        yield str(error)


def _calibration_rows(settings: BatchSettings, inputs: Input, source: Source) -> Columns:
    column = choose_text_column(source.sample(), settings.text_column, inputs.shown)
    texts: list[Any] = []
    opened = inputs.elsewhere()()  # `source` is read on by the job
    with closing(with_content(opened, {"text": column}, pictures=False)) as rows:
        wanted = Wanted({column: "str"}, raw=True)
        for chunk in chunks(rows, 1000, limit=CALIBRATION_RANGE):
            texts += rows.parse(chunk, wanted).columns[column].tolist()
    filled = [text for text in texts if text and text.strip()]
    return {"text": objects(filled[:: max(len(filled) // CALIBRATION_ROWS, 1)])}


def _output_columns(work: Job) -> pa.Schema:
    """The columns of a table to come, from the first of its rows."""
    with closing(work.open_source()) as source:
        chunk = source.read(1)
        assert chunk is not None
        window = source.parse(chunk, work.wanted)
    planned = scoring.prepare(work.model, window, work.columns)
    computed = [scoring.predict(work.model, planned, batch) for batch in planned.batches]
    window, _, columns = work.assemble(planned, computed)
    return with_predictions(window, columns, work.kept).schema


def _run(
    work: Job, settings: BatchSettings, inputs: Input, goal: Destination | None, source: Source
) -> dict[str, Any]:
    """Do the job; returns the run's manifest."""
    started = datetime.now(UTC)
    format_ = goal.format if goal else output_format("-", source)
    identity = identity_of(work.model, work.columns, settings, format_)
    shown = (inputs.shown, goal.shown if goal else "-")

    def run(work: Job, target: job.Run) -> dict[str, Any]:
        done = _compute(work, target, settings, inputs)
        return manifest_of(
            work.model, work.columns, identity, shown=shown, started=started, done=done
        )

    if goal is None:
        with _standard_output(format_) as file:
            return run(work, Piped(file, sys.stderr.buffer))
    with UnfinishedRun(
        goal.base,
        goal.shown,
        identity,
        every=settings.commit_seconds,
        fresh=settings.fresh or (inputs.path == "-" and settings.unfinished == "discard"),
        changed=settings.unfinished or "refuse",
    ) as target:
        try:
            if target.discarded:
                work.log(target.discarded)
                inputs.fetch_anew()
            with _store(settings, goal, identity) as store:
                manifest = run(replace(work, store=store), target)
            target.finish(goal, manifest)
        except Stopped as stopped:
            stopped.kept = target.kept
            raise
        except TooManyBadRows as error:
            raise TooManyBadRows(
                f"{error}; see {target.folder / ERRORS}; a higher --max-errors goes on from there"
            ) from error
        except MlopsDeployError as error:
            if not target.kept_rows:
                raise
            raise type(error)(f"{error}; {target.kept}") from error
    return manifest


def _conclude(
    settings: BatchSettings, manifest: dict[str, Any], previous: Mapping[str, Any] | None
) -> None:
    """Write the report, and how the run compares with the one before."""
    if settings.report:
        from mlopsdeploy.batch import report

        report.write_report(settings.report, manifest, previous)
    if previous:
        manifest["drift"] = compare(manifest, previous).as_dict()


def _compute(
    work: Job, target: job.Run, settings: BatchSettings, inputs: Input
) -> tuple[job.Summary, Statistics, str]:
    """The job, done by the engine that the settings name."""
    if settings.engine == "local":
        return job.run(work, target)
    with needs("--engine ray", "ray"):
        from mlopsdeploy.batch import ray_engine
    actors = None
    if settings.ray_actors is not None:
        least, _, most = settings.ray_actors.partition("-")
        actors = int(least), max(int(most or least), int(least))
    cluster = ray_engine.Cluster(settings.ray_address, actors, settings.ray_cpus, settings.ray_gpus)
    load = ray_engine.loader(settings, work.model, cluster)
    return ray_engine.run(work, target, opened=inputs.elsewhere(), load=load, cluster=cluster)


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


def _store(
    settings: BatchSettings, goal: Destination, identity: Mapping[str, Any]
) -> AbstractContextManager[ScoreStore | None]:
    if not settings.incremental:
        return nullcontext()
    return closing(ScoreStore(beside(goal.base, "scores.sqlite"), shaping_a_row(identity)))


def _facts(
    manifest: Mapping[str, Any], model: Model, goal: Destination | None
) -> Iterator[tuple[str, str]]:
    """The summary for people."""
    summary = manifest["summary"]
    pictures = model.task.data == "image"
    rows = "pictures" if pictures else "rows"
    yield "scored", scored(manifest["columns"])
    yield "read as", ", ".join(reading(summary["read"]))
    yield rows, f"{summary['rows']:,}"
    attempts = f", in {summary['attempts']} attempts" if summary["attempts"] > 1 else ""
    speed = f"{summary['rows_per_second']:,.0f} {rows}/s"
    yield "time", f"{summary['seconds']:.1f} s, {speed}{attempts}"
    if "objects" in summary:
        each = summary["objects"] / max(summary["rows"] - summary["failed"] - summary["empty"], 1)
        yield "objects", f"{summary['objects']:,}, {each:.1f} a picture"
    for answer in summary["answers"]:
        yield from _answer_facts(answer, summary)
    if not summary["answers"]:
        yield "outputs", f"tensors as they are: {some([one.name for one in model.task.outputs])}"
    texts = model.task.data == "text"
    if texts and any(one.name == "truncated" for one in model.task.outputs):
        cut = f"{summary['truncated']:,}"
        if summary["truncated"]:
            cut += f", {summary['lost_tokens']:,} of {summary['tokens']:,} tokens not read"
        yield "truncated", cut
    yield from language_facts(summary, model.task.languages)
    yield "duplicates", f"{summary['duplicates']:,}"
    if summary["reused"]:
        yield "known", f"{summary['reused']:,} from earlier runs"
    yield "empty", f"{summary['empty']:,}"
    aside = f", set aside in {beside(goal.base, ERRORS)}" if goal and summary["failed"] else ""
    yield "bad rows", f"{summary['failed']:,}{aside}"
    if summary["failed"]:
        yield "", f"the first: {summary['first_failed']}"
    if "drift" in manifest:
        yield "drift", manifest["drift"]["verdict"]
    name = f"{model.name} {model.version}" if model.version else model.name
    runtime = f"{manifest['runtime']} {manifest['precision']}"
    yield "model", f"{name}, {runtime}, {model.runtime.streams} streams"
    yield "written to", goal.shown if goal else "standard output"


def _answer_facts(
    answer: Mapping[str, Any], summary: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What was answered: labels, and how the numbers are spread."""
    whole = max(summary.get("objects", summary["rows"]), 1)
    for place, (label, count) in enumerate(list(answer.get("labels", {}).items())[:8]):
        heading = named(answer, "labels") if not place else ""
        yield heading, f"{label or '(none)'} {count:,} ({count / whole:.0%})"
    if answer.get("mean") is None:
        return
    if "median" not in answer:
        yield f"mean {named(answer, 'score')}", f"{answer['mean']:.3f}"
        return
    mean, median, low, high = (rounded(answer[name]) for name in ("mean", "median", "p5", "p95"))
    yield answer["number"], f"mean {mean}, median {median}; 9 of 10 from {low} to {high}"


@contextmanager
def progress_of(console: Console, limit: int | None) -> Iterator[job.Progress]:
    """A bar on a terminal, a line now and then elsewhere."""
    meter = _Meter(limit)
    if not console.is_terminal:
        yield meter.show
        return
    counts = TextColumn("{task.fields[rows]:,.0f} rows {task.fields[rate]:,.0f} rows/s")
    bar = Progress(
        *(SpinnerColumn(), BarColumn(), TaskProgressColumn(), counts, TimeElapsedColumn()),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None, rows=0, rate=0, left="")

    def draw(rows: float, share: float | None) -> None:
        meter.add(rows, share)
        done, total = meter.share or 0, 1 if meter.share else None
        bar.update(
            task, total=total, completed=done, rows=meter.rows, rate=meter.rate, left=meter.left
        )

    with bar:
        yield draw


class _Meter:
    """Rows and share done so far, the rate and the time left. Fed by several threads."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._started = self._shown = time.monotonic()
        self.rows = 0.0
        self.share: float | None = None

    @property
    def rate(self) -> float:
        return self.rows / max(time.monotonic() - self._started, 1e-9)

    @property
    def left(self) -> str:
        if not self.share:
            return ""
        elapsed = time.monotonic() - self._started
        seconds = round(elapsed * max(1 / self.share - 1, 0))
        if seconds < 120:
            return f"{seconds} s left"
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"

    def add(self, rows: float, share: float | None) -> None:
        with self._lock:
            self.rows += rows
            if share is not None:
                self.share = min((self.share or 0) + share, 1.0)
            if self._limit:
                self.share = max(min(self.rows / self._limit, 1.0), self.share or 0)

    def show(self, rows: float, share: float | None) -> None:
        """Count, and print a line if the last one is some time ago."""
        self.add(rows, share)
        now = time.monotonic()
        with self._lock:
            if now - self._shown < PLAIN_SECONDS:
                return
            self._shown = now
        done = f", {self.share:.0%}, {self.left}" if self.share else ""
        print(f"{self.rows:,.0f} rows, {self.rate:,.0f} rows/s{done}", file=sys.stderr)


def told(settings: BatchSettings) -> AbstractContextManager[None]:
    """Around a run of whose end somebody is to be told."""
    if settings.dry_run or not (settings.notify_success or settings.notify_failure):
        return nullcontext()
    from mlopsdeploy.batch import notify

    return notify.told(settings, lambda line: print(f"mlopsdeploy: {line}", file=sys.stderr))


def run_again_and_again(settings: BatchSettings, arguments: Sequence[str]) -> int:
    """The same command on cron's rhythm, each time in a process of its own; the exit code."""
    from mlopsdeploy.batch import schedule
    from mlopsdeploy.batch.notify import Notifier

    assert settings.schedule is not None
    changed = [] if settings.unfinished else ["--unfinished", "discard"]  # nobody is there to ask
    once = _once(arguments, changed)
    run = [sys.executable, "-m", schedule.__name__, str(os.getpid()), *once]
    notifier = Notifier(settings)
    code = schedule.run_on_schedule(
        settings.schedule, run, partial(print, file=sys.stderr),
        retries=settings.retries, notify=notifier.tell,
    )  # fmt: skip
    notifier.wait()
    return code


def _once(arguments: Sequence[str], more: Sequence[str]) -> list[str]:
    """The same command for one run, of which the schedule tells: no address is there for `ps`.

    Args:
        arguments: of the command.
        more: flags that are not among them.
    """
    flags = [one.spelled for one in BatchSettings.declared().values() if one.name in _OF_SCHEDULES]
    words, kept = iter(arguments), []
    for word in words:
        flag, equals, _ = word.partition("=")
        if word == "--":
            kept += [word, *words]
        elif flag not in flags:
            kept.append(word)
        elif not equals:
            next(words, None)
    off = [word for flag in flags for word in (flag, "off")]
    return [kept[0], *off, *more, *kept[1:]]
