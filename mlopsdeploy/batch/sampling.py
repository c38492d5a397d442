"""What a dry run measures: how many rows there are, windows of them, and what these take."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlopsdeploy.batch import job, scoring
from mlopsdeploy.batch.job import AHEAD, WINDOW, Job, Summary
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.batch.unfinished import Piped
from mlopsdeploy.columns import Array, concat, rows_of, take
from mlopsdeploy.core.machine import peak_memory, resident_memory
from mlopsdeploy.core.model import Model, Predicted
from mlopsdeploy.core.planner import Rows
from mlopsdeploy.data.bad_rows import MaxErrors
from mlopsdeploy.data.matching import content_column
from mlopsdeploy.data.sources import Chunk, Source, chunks
from mlopsdeploy.errors import MlopsDeployError

READ_SECONDS = 5.0  # to count rows; beyond that their number follows from the share read
ENCODE_SECONDS = 3.0  # to parse, encode and plan the sample
MODEL_SECONDS = 6.0  # to compute, for each precision
LEAST_SECONDS = 1.0  # less than that shows nothing
PROBE_SECONDS = 2.0  # to see whether there is time to compare precisions
SAMPLE_ROWS = 200_000
MOST_WINDOWS = 512
PICTURE_WINDOWS = 16  # they hold the pictures' files
IN_FLIGHT = 2 * AHEAD + 2  # windows that a run holds at most: read ahead, computed, written
WARM_UP_SECONDS = 0.5
WINDOW_ROWS = 32_000  # of the sample; sorting more rows than that together saves nothing

Load = Callable[[str | None], Model]
"""Loads a model in some precision; with None, as the run itself does it."""


class Clock:
    """Seconds since it was made, and those of all cores that this process took."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    @property
    def both(self) -> tuple[float, float]:
        """Seconds on the wall and of all cores."""
        return time.perf_counter() - self._started[0], time.process_time() - self._started[1]

    @property
    def seconds(self) -> float:
        """On the wall."""
        return self.both[0]


# ---------------------------------------------------------------- the input


@dataclass
class Survey:
    """The input as far as it was read."""

    chunks: list[Chunk]
    rows: int = 0
    windows: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    share: float | None = 1.0  # of the input
    counted: bool = True
    limit: int | None = None

    @property
    def total(self) -> int:
        """Rows that a run would score."""
        if self.counted or not self.share:
            return self.rows
        whole = round(self.rows / self.share)
        return min(whole, self.limit) if self.limit else whole


def take_survey(work: Job, source: Source) -> Survey:
    """Read, without parsing, for some seconds; keep windows at equal distances."""
    rows = min(work.batch_size * WINDOW, WINDOW_ROWS)
    room = min(max(SAMPLE_ROWS // rows, IN_FLIGHT), MOST_WINDOWS)
    if work.model.task.data == "image":
        room = PICTURE_WINDOWS
    survey = Survey([], limit=work.limit)
    share: float | None = 0.0
    every = 1
    clock = Clock()
    for chunk in chunks(source, rows, limit=work.limit):
        share = None if share is None or chunk.share is None else share + chunk.share
        if survey.windows % every == 0:
            survey.chunks.append(chunk)
            if len(survey.chunks) > room:
                survey.chunks = survey.chunks[::2]
                every *= 2
        survey.rows += chunk.rows
        survey.windows += 1
        if clock.seconds > READ_SECONDS:
            survey.counted = survey.rows == work.limit
            break
    survey.seconds, survey.cpu = clock.both
    if not survey.counted:
        survey.share = share
    return survey


@dataclass
class Sample:
    """The windows that were planned, what they hold and what they took."""

    planned: list[Planned] = field(default_factory=list)
    counts: Summary = field(default_factory=Summary)
    texts: int = 0  # encoded ones: distinct and not known
    seconds: float = 0.0  # in the reader's thread, reading excepted
    cpu: float = 0.0

    def add(self, planned: Planned, rows: int) -> None:
        """Count a window."""
        self.planned.append(planned)
        counts = self.counts
        counts.rows += rows
        counts.count_planned(planned)
        counts.count_bad(planned.window.bad)
        counts.empty += int((~planned.present).sum())
        if {"tokens", "lost_tokens"} <= planned.encoded.keys():
            # Every row counts, not every distinct text, as in the summary of a run.
            times = np.bincount(planned.inverse, minlength=planned.distinct)[~planned.known]
            lost = planned.encoded["lost_tokens"]
            self.texts += int(times.sum())
            counts.tokens += int((planned.encoded["tokens"] * times).sum())
            counts.lost_tokens += int((lost * times).sum())
            counts.truncated += int(times[lost > 0].sum())
            read = {"unread", "model"} & planned.encoded.keys()
            counts.count_read({name: np.repeat(planned.encoded[name], times) for name in read})

    @property
    def costs(self) -> Array:
        """Padded cost of each batch, window by window."""
        return np.array([_cost(item, batch) for item in self.planned for batch in item.batches])

    @property
    def spread(self) -> float:
        """How uncertain the cost of a row is, as a share of it, for windows differ."""
        sums = np.array([sum(_cost(item, rows) for rows in item.batches) for item in self.planned])
        if len(sums) < 2 or not sums.sum():
            return 0.0
        rows = np.array([item.window.rows + len(item.window.bad) for item in self.planned])
        error = sums - rows * (sums.sum() / rows.sum())
        count = len(sums)
        return float(math.sqrt((error**2).sum() / (count * (count - 1))) / sums.mean())

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        counts = self.counts.as_dict()
        same = (
            "rows", "duplicates", "empty", "failed", "reasons", "first_failed", "tokens",
            "truncated", "lost_tokens", "unread", "read_by",
        )  # fmt: skip
        return {
            **{name: counts[name] for name in same},
            "windows": len(self.planned),
            "known": counts["reused"],
            "texts": self.texts,
        }


def _cost(planned: Planned, batch: Rows) -> int:
    """The padded work of a batch."""
    return len(batch) * max(int(planned.cost[batch].max()), 1)


def take_sample(work: Job, source: Source, survey: Survey) -> Sample:
    """Parse, encode and plan the windows that were kept, as many as time allows."""

    def prepare(chunk: Chunk) -> Planned:
        chunk.add_to(hashlib.sha256())
        window = source.parse(chunk, work.wanted)
        return scoring.prepare(work.model, window, work.columns, work.store)

    sample = Sample()
    clock = Clock()
    for number, place in enumerate(spread_out(len(survey.chunks))):
        chunk = survey.chunks[place]
        planned = prepare(chunk)
        # What is slow only once counts for much, but of one window it does in the run, too.
        if not number and len(survey.chunks) > 1 and clock.seconds < WARM_UP_SECONDS:
            clock = Clock()
            planned = prepare(chunk)
        sample.add(planned, chunk.rows)
        if clock.seconds > ENCODE_SECONDS:
            break
    sample.seconds, sample.cpu = clock.both
    return sample


def spread_out(count: int) -> Iterator[int]:
    """Each of `count` places once; wherever one stops, those so far lie evenly (van der Corput)."""
    bits = max(count - 1, 0).bit_length()
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2) if bits else 0
        if place < count:
            yield place


# ---------------------------------------------------------------- the model


@dataclass
class Measured:
    """A precision on some of the batches.

    `seconds` are those of all streams together, from start to end; `cpu` is of all threads.
    `memory` is in bytes, `window` how much of it one window takes, `shape` how much a batch of
    another shape adds: runtimes keep what they prepared for each. `shapes` are those not yet run.
    """

    start: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    cost: float = 0.0  # padded
    rate: float = 0.0  # padded cost per second
    error: float = 0.0  # of the rate, as a share of it
    memory: int = 0
    window: int = 0
    shape: float = 0.0
    shapes: int = 0
    whole: float | None = None  # seconds that all windows that were kept took, reading excepted
    computed: dict[tuple[int, int], Predicted] = field(default_factory=dict)


def measure(work: Job, load: Load, name: str, sample: Sample, seconds: float) -> Measured | str:
    """One precision, so many seconds in a process of its own; why not, if not."""
    chosen = name == work.model.runtime.precision
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, load, None if chosen else name, time.time())
    process = context.Process(target=_child, args=arguments, daemon=True)
    process.start()
    theirs.close()
    answer: Measured | str | Exception | None
    try:
        answer = ours.recv()
        if answer is None:
            ours.send(seconds)
            ours.send(len(sample.planned))
            for planned in sample.planned:
                ours.send(planned)
            answer = ours.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        process.join(5)
        answer = MlopsDeployError(
            f"{name}: its process ended with code {process.exitcode}"
            + (", perhaps for want of memory" if process.exitcode == -9 else "")
        )
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, Exception):
        if chosen or not isinstance(answer, MlopsDeployError):
            raise answer
        return str(answer)
    assert answer is not None
    return answer


def _child(pipe: Any, load: Load, precision: str | None, born: float) -> None:
    """The other end of `measure`."""
    try:
        model = load(precision)
        if precision == "int8" and not model.proof and model.yaml.precision != "int8":
            pipe.send("not proven yet: --precision int8 calibrates it first, once, and says")
            return
        if model.float32 is not None:
            model.float32()  # which a run needs too, at its first close call
        start = time.time() - born
        pipe.send(None)
        seconds = pipe.recv()
        before = resident_memory()
        planned = [pipe.recv() for _ in range(pipe.recv())]
        held = (resident_memory() - before) // max(len(planned), 1)
        measured = timed(model, planned, seconds)
        measured.start = start
        measured.window = max(held, 0)
        measured.memory = peak_memory()
        pipe.send(measured)
    except Exception as error:  # noqa: BLE001  # raised again by the one who waits
        pipe.send(error)


Place = tuple[int, int]
"""Of a batch: the number of its window, and its own there."""


def timed(model: Model, planned: Sequence[Planned], seconds: float) -> Measured:
    """Compute batches on all streams, each once, for so many seconds or until all are done."""
    return _Timed(model, planned, seconds).measured()


class _Timed:
    """What `timed` does."""

    def __init__(self, model: Model, planned: Sequence[Planned], seconds: float) -> None:
        self._model = model
        self._seconds = seconds
        self._batches = {
            (window, number): (item, rows)
            for window, item in enumerate(planned)
            for number, rows in enumerate(item.batches)
        }
        self._costs = {place: float(_cost(*batch)) for place, batch in self._batches.items()}
        self._shapes = {
            place: (len(rows), int(item.cost[rows].max()))
            for place, (item, rows) in self._batches.items()
        }
        self._computed: dict[Place, Predicted] = {}
        self._taken: dict[Place, float] = {}
        self._clock = Clock()

    def measured(self) -> Measured:
        """Compute, and say what it took."""
        places = sorted(self._batches, key=lambda place: self._shapes[place][1])
        order = [places[number] for number in spread_out(len(places))]
        if not order:
            return Measured()
        # To warm up some of all, of each length, and the longest, which show the peak of memory.
        streams = self._model.runtime.streams
        warming = dict.fromkeys([*order[: 2 * streams], *places[-2 * streams :]])
        self._compute(list(warming)[: len(order) // 4], self._seconds / 2)
        first, memory = self._clock.both, peak_memory()
        warm, self._taken = self._taken, {}
        self._compute([place for place in order if place not in warm], self._seconds)
        if not self._computed:
            self._predict(order[0])
        everything = len(self._computed) == len(order)
        if everything or not self._taken:  # a run has to warm up too
            self._taken |= warm
            first = 0.0, 0.0
        wall, cpu = np.subtract(self._clock.both, first).tolist()
        cost = sum(map(self._costs.__getitem__, self._taken))
        shown = {self._shapes[place] for place in warm}
        more = {self._shapes[place] for place in self._taken} - shown
        return Measured(
            seconds=wall,
            cpu=cpu,
            cost=cost,
            rate=cost / wall if everything else self._rate() * streams,
            error=0.0 if everything else self._error(),
            shape=(peak_memory() - memory) / len(more) if more else 0.0,
            shapes=len(set(self._shapes.values()) - shown - more),
            computed=self._computed,
        )

    def _compute(self, places: Sequence[Place], until: float) -> None:
        waiting = iter(places)

        def work() -> None:
            while self._clock.seconds < until and (place := next(waiting, None)):
                if self._fits(place):
                    self._predict(place)

        streams = self._model.runtime.streams
        with ThreadPoolExecutor(streams) as pool:
            for future in [pool.submit(work) for _ in range(streams)]:
                future.result()

    def _predict(self, place: Place) -> None:
        started = time.perf_counter()
        self._computed[place] = scoring.predict(self._model, *self._batches[place])
        self._taken[place] = time.perf_counter() - started

    def _fits(self, place: Place) -> bool:
        """Whether a batch is done in time: one, of a text of many windows, may take hours."""
        budget = self._model.task.batch_cost * self._model.runtime.batch_scale
        if self._costs[place] <= budget:
            return True
        left = self._seconds - self._clock.seconds
        return bool(self._taken) and self._costs[place] <= self._rate() * left

    def _rate(self) -> float:
        """Padded cost per second of one stream."""
        taken = dict(self._taken)  # others add to it
        seconds = sum(taken.values())
        return sum(map(self._costs.__getitem__, taken)) / seconds if seconds else 0.0

    def _error(self) -> float:
        """Of the rate, as a share of it: how much batches differ, as far as they are known."""
        count = len(self._taken)
        if count < 2:
            return 0.0
        times = np.array(list(self._taken.values()))
        costs = np.array([self._costs[place] for place in self._taken])
        off = times - costs * (times.sum() / costs.sum())
        left = 1 - count / len(self._batches)
        variance = left * (off**2).sum() / (count * (count - 1))
        return float(math.sqrt(variance) / times.mean())


# ---------------------------------------------------------------- all else


def write_nowhere(
    work: Job, source: Source, sample: Sample, measured: Measured
) -> tuple[float, float]:
    """Write the sample to nowhere; rows that were not computed get an answer of others.

    Returns:
        Seconds on the wall and of all cores.
    """
    sink = work.make_sink(_Nowhere(), source)
    statistics = copy.deepcopy(work.statistics)
    parts = [part.predictions for part in measured.computed.values() if len(part.rows)]
    some = concat(parts) if parts else {}
    clock = Clock()
    warming = sample.planned[: len(sample.planned) > 1]
    for number, planned in enumerate([*warming, *sample.planned]):
        if number == len(warming):
            clock = Clock()  # the first one was to warm up
        rows = np.arange(len(planned.cost))
        if len(rows) and not parts:
            break  # the model failed on all
        computed = [Predicted(rows, take(some, rows % rows_of(some)))] if len(rows) else []
        window, predictions = scoring.assemble(work.model, planned, computed)
        columns = scoring.written(
            work.model, predictions, all_scores=work.all_scores, prefix=work.prefix
        )
        if window.rows:
            sink.write(window, columns)
        text = content_column(work.columns)
        statistics.add(work.model.task, window.numbers, window.columns, predictions, text=text)
    return clock.both


def run_whole(work: Job, source: Source, survey: Survey) -> float:
    """Run the job itself on the windows that were kept; the seconds.

    Where the model is quick, what its neighbours take counts, and how they get in each other's way.
    """
    clock = Clock()
    job.run(
        replace(
            work,
            open_source=lambda: _Again(source, survey.chunks),
            make_sink=lambda file, _: work.make_sink(file, source),
            statistics=copy.deepcopy(work.statistics),
            limit=None,
            max_errors=MaxErrors(),
            progress=lambda *_: None,
        ),
        Piped(_Nowhere(), _Nowhere()),
    )
    return clock.seconds


class _Again:
    """A source that gives the chunks that were kept of another."""

    def __init__(self, source: Source, kept: Sequence[Chunk]) -> None:
        self.format = source.format
        self.path = source.path
        self.names = source.names
        self.sample = source.sample
        self.parse = source.parse
        self.how_read = source.how_read
        self._left = iter(kept)

    def read(self, rows: int) -> Chunk | None:  # noqa: ARG002  # they are cut already
        """See `Source`."""
        return next(self._left, None)

    def close(self) -> None:
        """The other one is still needed."""


class _Nowhere(io.BytesIO):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes
