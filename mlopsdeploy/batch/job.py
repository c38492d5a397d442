"""The batch strategy on one machine: read, plan, compute, write, all four at the same time.

    reader thread            pool, one thread per stream      writer thread
    ─────────────            ───────────────────────────      ─────────────
    read and parse      ┌──► collate, run, decode a batch ──┐ restore the order
    skip duplicates     │    …                              ├──► write the rows
    encode, plan ───────┘    …                              ┘    commit now and then

A window is eight batches of reading. Within it rows are sorted by cost and cut into the batches
that are computed; the pool always has the next window's batches to go on with. Pictures come in
smaller windows, as their files, and are decoded in the pool. A commit also saves the batches that
are computed of windows that are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from mlopsdeploy.batch import scoring
from mlopsdeploy.batch.computed import OfWindow, key_of
from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.batch.statistics import OTHER, Statistics
from mlopsdeploy.batch.unfinished import Piped, UnfinishedRun
from mlopsdeploy.columns import Columns, Task
from mlopsdeploy.core import answers
from mlopsdeploy.core.model import Model, Predicted, unread_in
from mlopsdeploy.core.planner import Rows
from mlopsdeploy.data.bad_rows import BadRow, MaxErrors, TooManyBadRows
from mlopsdeploy.data.matching import content_column
from mlopsdeploy.data.sinks import Sink, Written
from mlopsdeploy.data.sources import Chunk, Source, Wanted, Window, chunks
from mlopsdeploy.errors import MlopsDeployError

WINDOW = 8  # batches of reading; 8 × 1,000 rows give over 95 % of the speed of a full sort
LEAST_WAIT = 0.05  # seconds between two looks whether there is something to commit
AHEAD = 2  # windows read and planned before they are needed
# A reason may quote the row, which is of any length, and there may be as many as rows.
MOST_REASONS = 100
LONGEST_REASON = 300  # characters

T = TypeVar("T")
Progress = Callable[[float, float | None], None]
Run = UnfinishedRun | Piped
"""Where a run's rows go, and what it has done before."""


@dataclass
class Summary:
    """What a run did so far.

    `failed` rows were set aside, `empty` ones lack a value to score, `reused` ones were scored
    by an earlier run. `seconds` are of all attempts together; `stages` are seconds of all threads.
    `read` is how the input was read, and what of it was left out (see `Source.how_read`). `unread`
    are rows that the model doesn't read, by their language; `read_by` are rows by the name of the
    one of several models that did. What the answers were, the statistics know.
    """

    rows: int = 0
    seconds: float = 0.0
    truncated: int = 0
    tokens: int = 0
    lost_tokens: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    read_by: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    reused: int = 0
    empty: int = 0
    failed: int = 0
    first_failed: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    read: dict[str, Any] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows over the whole run, reading and writing included."""
        return self.rows / self.seconds if self.seconds else 0.0

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Summary:
        """What `state` gave, also by way of JSON."""
        return cls(**{
            name: Counter(state.get(name)) if isinstance(value, Counter) else state[name]
            for name, value in vars(cls()).items()
        })  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All of it; `from_state` reads it."""
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    def as_dict(self) -> dict[str, Any]:
        """For scripts, with what follows from it."""
        return {
            **self.state(),
            "unread": dict(self.unread.most_common()),
            "read_by": dict(self.read_by.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "rows_per_second": round(self.rows_per_second, 1),
        }

    def merge(self, part: Summary) -> None:
        """Add what another part of the rows came to."""
        for name, other in vars(part).items():
            mine = getattr(self, name)
            if isinstance(mine, dict):  # a counter adds, another one takes over
                mine.update(other)
            else:
                setattr(self, name, (mine or other) if isinstance(mine, str) else mine + other)

    def count(self, task: Task, planned: Planned, window: Window, predictions: Columns) -> None:
        """Add a window: as planned, and as it came out."""
        self.rows += window.rows + len(window.bad)
        answered = answers.answered(task, predictions) if task.answers else planned.present
        self.empty += int(np.count_nonzero(~answered))
        self.count_planned(planned)
        self.count_bad(window.bad)
        if task.data != "text":  # where these may be names of its own outputs
            return
        self.count_read(predictions)
        for name in ("truncated", "tokens", "lost_tokens"):
            if name in predictions:
                setattr(self, name, getattr(self, name) + int(predictions[name].sum()))

    def count_planned(self, planned: Planned) -> None:
        """Add the rows of a window that cost nothing to compute."""
        self.duplicates += len(planned.inverse) - planned.distinct
        self.reused += int(planned.known[planned.inverse].sum())

    def count_read(self, texts: Columns) -> None:
        """Add what was read by whom, and what is not, of texts that are encoded or scored."""
        self.unread.update(unread_in(texts))
        self.read_by.update(name for name in texts.get("model", ()) if name)

    def count_bad(self, bad: Sequence[BadRow]) -> None:
        """Add rows that are set aside."""
        self.failed += len(bad)
        for row in bad:
            reason = row.reason[:LONGEST_REASON]
            if reason not in self.reasons and len(self.reasons) >= MOST_REASONS:
                reason = OTHER
            self.reasons[reason] += 1
        if bad and not self.first_failed:
            self.first_failed = f"{bad[0].path}: {bad[0].place}: {bad[0].reason[:LONGEST_REASON]}"


@dataclass(frozen=True)
class Job:
    """What to score and how; `run` does it.

    Attributes:
        model: what to score with.
        columns: the model's input -> the source's column.
        open_source: opens the input, at its start.
        make_sink: what writes to the run's file.
        shown: what messages call the output.
        raw: rows pass on as they stand (see `Wanted`).
        batch_size: rows per unit of reading; eight of them are planned together.
        limit: stop after so many rows.
        all_scores: write every label's score, as `score_<label>`.
        prefix: goes before the names of the new columns.
        max_errors: how many rows may be set aside.
        kept: the input's columns that are written, by name or path; None is all of them.
        delimiter: between the fields of CSV, where that is another than the input's.
        breakdowns: columns that the statistics want, beside the model's.
        statistics: an empty one, to fill.
        store: rows scored by earlier runs.
        progress: told after each computed batch how many rows that was worth, and how much of
            the input, from 0 to 1 (None where its size is unknown). Called from several threads.
        log: called with each line that a person should read.
    """

    model: Model
    columns: Mapping[str, str]
    open_source: Callable[[], Source]
    make_sink: Callable[[Any, Source], Sink]
    raw: bool
    shown: str
    statistics: Statistics
    batch_size: int = 1000
    limit: int | None = None
    all_scores: bool = False
    prefix: str = ""
    max_errors: MaxErrors = MaxErrors(share=0.01)  # noqa: RUF009  # never changed
    kept: tuple[str, ...] | None = None
    delimiter: str = ""
    breakdowns: tuple[str, ...] = ()
    store: ScoreStore | None = None
    progress: Progress = lambda *_: None
    log: Callable[[str], None] = lambda _: None

    @property
    def wanted(self) -> Wanted:
        """What is needed of each row."""
        names_pictures = self.model.task.data == "image"
        kinds = {
            self.columns[field.name]: "str" if names_pictures else field.dtype
            for field in self.model.task.inputs
        }
        extra = {name: "str" for name in self.breakdowns if name not in kinds}
        texts = tuple(name for name, kind in kinds.items() if kind == "str")
        new = tuple(self.new_columns) if self.kept is None else ()
        shapes = {
            self.columns[field.name]: field.shape
            for field in self.model.task.inputs
            if field.shape and not names_pictures
        }
        texts = tuple(name for name in texts if name not in shapes)
        every = {**kinds, **extra}
        return Wanted(every, self.raw, new, texts, self.kept, self.delimiter, shapes)

    @property
    def new_columns(self) -> list[str]:
        """The columns that the output has over the input's."""
        names = scoring.new_columns(self.model, all_scores=self.all_scores)
        return [self.prefix + name for name in names]

    def assemble(
        self, planned: Planned, computed: Sequence[Predicted]
    ) -> tuple[Window, Columns, Written]:
        """The rows of a window that have an answer, the answers, and the columns to write."""
        window, predictions = scoring.assemble(self.model, planned, computed)
        columns = scoring.written(
            self.model, predictions, all_scores=self.all_scores, prefix=self.prefix
        )
        return window, predictions, columns


def run(job: Job, target: Run) -> tuple[Summary, Statistics, str]:
    """Score all rows of the input that are not done yet.

    Returns:
        What happened, by counts and by statistics, and the digest of the input.

    Raises:
        ConfigError: all scores of a model that does not name its labels.
        InputError: the input is broken.
        MlopsDeployError: the model or the disk fails, or too many rows are bad.
    """
    with rows_to_do(job, target) as reading:
        return Running(job, target, reading).go()


@contextmanager
def rows_to_do(job: Job, target: Run) -> Iterator[Reading]:
    """The input behind the rows that are done; from its start, if these have changed."""
    source = job.open_source()
    try:
        reading = Reading(source, job.batch_size, job.limit, target.rows)
        if target.rows and not reading.skip(target.rows, target.done["input_digest"]):
            source.close()
            job.log(
                f"{source.path}: its first rows are not the {target.rows:,} that an unfinished run "
                "scored, or --limit cut these off elsewhere: starting over"
            )
            target.start_over()
            source = job.open_source()  # of standard input there is only one: see `Input`
            reading = Reading(source, job.batch_size, job.limit)
        yield reading
    finally:
        source.close()


class Reading:
    """The chunks of a source, a window's rows each, with the digest of all rows so far."""

    def __init__(self, source: Source, batch_size: int, limit: int | None, done: int = 0) -> None:
        self.source = source
        self.share = 0.0  # of the input, skipped
        # What the columns are called is not among the rows, but decides what they mean.
        self._digest = hashlib.sha256(json.dumps(source.names).encode())
        # A chunk ends where the rows that are done do, though the file may have grown since.
        left = None if limit is None else max(limit - done, 0)
        size = batch_size * WINDOW
        self._chunks = chain(
            chunks(source, size, limit=done if limit is None else min(done, limit)),
            chunks(source, size, limit=left),
        )

    def __iter__(self) -> Iterator[tuple[Chunk, str]]:
        for chunk in self._chunks:
            chunk.add_to(self._digest)
            yield chunk, self._digest.hexdigest()

    def windows(
        self, wanted: Wanted, clock: Clock, after: int = 0
    ) -> Iterator[tuple[Chunk, Window, str]]:
        """The chunks behind the first `after` rows, parsed, with the digest up to their end."""
        items = iter(self)
        while True:
            with clock.stage("read"):
                item = next(items, None)
            if item is None:
                return
            chunk, digest = item
            if chunk.first <= after:
                continue
            with clock.stage("parse"):
                window = self.source.parse(chunk, wanted)
            yield chunk, window, digest

    def skip(self, rows: int, digest: str) -> bool:
        """Read past rows that are done; whether they are still the same."""
        for chunk, now in self:
            self.share += chunk.share or 0
            if chunk.first + chunk.rows - 1 >= rows:
                return chunk.first + chunk.rows - 1 == rows and now == digest
        return False


class Running:
    """A run while it is on."""

    def __init__(self, job: Job, target: Run, reading: Reading) -> None:
        self._job = job
        self._target = target
        self._reading = reading
        self._started = time.perf_counter()
        self._clock = Clock()
        state = target.done.get("state", {})
        if job.store and not state:
            job.store.begin()
        if target.rows:
            self._statistics = Statistics.from_dict(state["statistics"])
        else:  # with what this attempt's report wants, though an earlier one has computed some
            self._statistics = job.statistics
        self._summary = Summary.from_state(state["summary"]) if state else Summary()
        self._summary.attempts += 1
        self._before = replace(self._summary, stages=Counter(self._summary.stages))
        self._left_out = False  # a window failed, so that none may follow it
        self._writing = False  # a window, which is then there in part only
        self._digest = target.done.get("input_digest", "") if state else ""
        self._share: float | None = reading.share
        self._open: dict[int, _Open] = {}  # by their first rows
        self._how_read: dict[str, Any] = {}  # by another process, where that reads
        self._sink = job.make_sink(target.file, reading.source)

    def go(self) -> tuple[Summary, Statistics, str]:
        """Until all is written."""
        job = self._job
        self._check_errors()
        if self._summary.rows:
            job.log(f"going on after {self._summary.rows:,} rows that are done")
            if job.statistics.keeps_examples and not self._statistics.keeps_examples:
                job.log("they were scored without --report, which will show no single rows")
            job.progress(0, self._share)
        try:
            self._score()
        finally:
            self._summary.read = self._how_read or self._reading.source.how_read()
            self._commit()  # also when interrupted: what is written is done
        self._share = 1.0
        self._check_errors()
        return self._summary, self._statistics, self._digest

    def _score(self) -> None:
        """All that is left, on this machine."""
        pool = ThreadPoolExecutor(self._job.model.runtime.streams, thread_name_prefix="model")
        writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        windows = _ahead(self._planned(), AHEAD)
        try:
            writing: deque[Future[None]] = deque()
            for first, planned, digest in windows:
                parts = self._computing(pool, first, planned, digest)
                writing.append(writer.submit(self._finish, first, planned, parts, digest))
                if len(writing) > AHEAD:
                    writing.popleft().result()
            while writing:
                writing.popleft().result()
        finally:
            windows.close()
            for executor in (pool, writer):
                executor.shutdown(cancel_futures=True)

    def _planned(self) -> Iterator[tuple[int, Planned, str]]:
        job = self._job
        for chunk, window, digest in self._reading.windows(job.wanted, self._clock):
            with self._clock.stage("encode"):
                planned = scoring.prepare(job.model, window, job.columns, job.store)
            yield chunk.first, planned, digest

    def _computing(
        self, pool: ThreadPoolExecutor, first: int, planned: Planned, digest: str
    ) -> list[Future[Predicted]]:
        """The batches of a window, under way, but for those that an earlier attempt computed."""
        key = key_of(planned, digest)
        found = self._target.computed(first, key)
        known = {place: part for place, part in found.items() if _is_of(part, planned, place)}
        if known:
            rows = sum(len(part.rows) for part in known.values())
            self._job.log(f"going on with {rows:,} rows from {first:,} on that are computed")
        parts = [
            pool.submit(self._predict, planned, batch, known.get(place))
            for place, batch in enumerate(planned.batches)
        ]
        self._open[first] = _Open(key, parts, set(known))
        return parts

    def _predict(self, planned: Planned, batch: Rows, known: Predicted | None) -> Predicted:
        computed = known or scoring.predict(self._job.model, planned, batch, self._clock.stage)
        window = planned.window
        part = float(planned.cost[batch].sum() / planned.cost.sum())
        rows = window.rows + len(window.bad)
        self._job.progress(rows * part, None if window.share is None else window.share * part)
        return computed

    def _finish(
        self, first: int, planned: Planned, parts: list[Future[Predicted]], digest: str
    ) -> None:
        """In the writer's thread, window by window in their order; none after one that failed."""
        if self._left_out:
            raise CancelledError
        self._left_out = True
        job = self._job
        computed = [self._result(part) for part in parts]
        with self._clock.stage("write"):
            window, predictions, columns = job.assemble(planned, computed)
            self._write(window, columns)
            if job.store:
                for part in computed:
                    unknown = np.flatnonzero(~planned.known)[part.rows]
                    outputs = {field.name for field in job.model.task.outputs}
                    kept = {
                        name: column
                        for name, column in part.predictions.items()
                        if name != "margin" or name in outputs
                    }
                    job.store.add([planned.keys[row] for row in unknown], kept)
        self._summary.count(job.model.task, planned, window, predictions)
        text = content_column(job.columns)
        self._statistics.add(job.model.task, window.numbers, window.columns, predictions, text=text)
        self._left_out = False
        del self._open[first]
        told = planned.window.rows + len(planned.window.bad) if not planned.batches else 0
        self._written(digest, window.share, progress=told)

    def _written(self, digest: str, share: float | None, *, progress: int) -> None:
        """A window is written and counted: `progress` rows that nobody was told of are done."""
        self._digest = digest
        self._share = None if share is None else (self._share or 0) + share
        self._writing = False
        if progress:
            self._job.progress(progress, share)
        if self._target.due_in() == 0:
            self._commit()
        self._check_errors()

    def _result(self, part: Future[Predicted]) -> Predicted:
        """A batch; while it is waited for, commits are made when they are due."""
        while not part.done():
            with contextlib.suppress(TimeoutError):
                part.exception(max(self._target.due_in(), LEAST_WAIT))
            if self._target.due_in() == 0:
                self._commit()
        return part.result()

    def _write(self, window: Window, columns: Written) -> None:
        self._writing = True
        try:
            self._sink.write(window, columns)
            lines = "".join(row.as_json() + "\n" for row in window.bad)
            self._target.errors.write(lines.encode())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise MlopsDeployError(
                f"{self._job.shown}: can't be written ({error.strerror or error})"
            ) from error

    def _commit(self) -> None:
        """What is written so far, what is known of it, and what else is computed."""
        summary, before = self._summary, self._before
        if self._writing:
            return
        computed = [one for first, window in list(self._open.items()) if (one := window.new(first))]
        if summary.rows == self._target.rows and not computed:
            return
        summary.seconds = before.seconds + time.perf_counter() - self._started
        summary.stages = before.stages + self._clock.seconds
        state = {"summary": summary.state(), "statistics": self._statistics.as_dict()}
        self._target.commit(summary.rows, self._digest, state, computed)
        if self._job.store:
            self._job.store.commit()

    def _check_errors(self) -> None:
        summary = self._summary
        if not self._job.max_errors.exceeded(summary.failed, summary.rows, self._share):
            return
        raise TooManyBadRows(
            f"{summary.failed:,} of {summary.rows:,} rows are bad, more than --max-errors allows; "
            f"the first: {summary.first_failed}"
        )


def _is_of(part: Predicted, planned: Planned, place: int) -> bool:
    """Whether it holds the rows of a batch, each with an answer or a reason."""
    if not 0 <= place < len(planned.batches):
        return False
    return sorted([*part.rows.tolist(), *part.failed]) == sorted(planned.batches[place].tolist())


@dataclass
class _Open:
    """A window on its way: its key, its batches, and which of these are saved."""

    key: str
    parts: Sequence[Future[Predicted]]
    saved: set[int]

    def new(self, first: int) -> OfWindow | None:
        """What is computed and not saved; from now on it counts as saved."""
        done = {
            place: part.result()
            for place, part in enumerate(self.parts)
            if place not in self.saved
            and part.done()
            and not part.cancelled()
            and part.exception() is None
        }
        self.saved |= done.keys()
        return OfWindow(first, self.key, done) if done else None


class Clock:
    """Seconds per stage, over all threads."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: Counter[str] = Counter(seconds)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens within."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - started  # type: ignore[assignment]


def _ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items, made by a thread that stays at most `depth` ahead.

    Nobody waits for that thread at the end: it may sit in a read of a pipe that stays silent.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    left = threading.Event()

    def read() -> None:
        try:
            for item in items:
                ready.put(item)
                if left.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001  # raised again by the one who waits
            ready.put(error)

    threading.Thread(target=read, name="reader", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        with contextlib.suppress(queue.Empty):  # make room, so that the reader can see it
            while True:
                ready.get_nowait()
