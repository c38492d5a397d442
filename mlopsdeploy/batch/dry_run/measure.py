"""What a sample takes: the model in a process of its own, the rest in this one."""

from __future__ import annotations

import copy
import io
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from mlopsdeploy.batch import job, scoring
from mlopsdeploy.batch.dry_run.sample import (
    Clock,
    Sample,
    Survey,
    cost_of,
    spread_out,
)
from mlopsdeploy.batch.job import Job
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.batch.unfinished import Piped
from mlopsdeploy.columns import take
from mlopsdeploy.core.machine import peak_memory, resident_memory
from mlopsdeploy.core.model import Model, Predicted
from mlopsdeploy.data.bad_rows import MaxErrors
from mlopsdeploy.data.matching import content_column
from mlopsdeploy.data.sources import Chunk, Source
from mlopsdeploy.errors import MlopsDeployError

MODEL_SECONDS = 6.0  # to compute, for each precision

# None: as the run itself does it.
Load = Callable[[str | None], Model]
T = TypeVar("T")


@dataclass
class Measured:
    """A precision on some of the batches.

    `seconds` are those of all streams together, from start to end; `cpu` is of all threads.
    `memory` is in bytes, `window` how much of it one window takes, `shape` how much a batch of
    another shape adds: runtimes keep what they prepared for each. `shapes` are those not yet run.
    """

    start: float
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

    @property
    def rows(self) -> int:
        """How many were scored."""
        return sum(len(part.rows) for part in self.computed.values())


def measure(work: Job, load: Load, name: str, sample: Sample) -> Measured | str:
    """One precision, in a process of its own; why not, if not."""
    chosen = name == work.model.runtime.precision
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, load, None if chosen else name, time.time())
    process = context.Process(target=_child, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        refusal = ours.recv()
        if refusal is None:
            ours.send(len(sample.planned))
            for planned in sample.planned:
                ours.send(planned)
            answer = ours.recv()
        else:
            answer = refusal
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
    assert isinstance(answer, Measured | str)
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
        before = resident_memory()
        planned = [pipe.recv() for _ in range(pipe.recv())]
        held = (resident_memory() - before) // max(len(planned), 1)
        measured = _timed(model, planned, MODEL_SECONDS)
        measured.start = start
        measured.window = max(held, 0)
        measured.memory = peak_memory()
        pipe.send(measured)
    except Exception as error:  # noqa: BLE001  # raised again by the one who waits
        pipe.send(error)


def _timed(model: Model, planned: Sequence[Planned], seconds: float) -> Measured:
    """Compute batches on all streams, for so many seconds or until all are done."""
    places = [
        (window, batch) for window, item in enumerate(planned) for batch in range(len(item.batches))
    ]
    batches = {place: (planned[place[0]], planned[place[0]].batches[place[1]]) for place in places}
    costs = {place: float(cost_of(*batches[place])) for place in places}
    lengths = {place: int(item.cost[rows].max()) for place, (item, rows) in batches.items()}
    places.sort(key=lengths.__getitem__)
    order = [places[number] for number in spread_out(len(places))]
    measured = Measured(0)
    if not order:
        return measured
    taken: dict[tuple[int, int], float] = {}
    streams = model.runtime.streams

    def predict(place: tuple[int, int]) -> Predicted:
        return scoring.predict(model, *batches[place])

    with ThreadPoolExecutor(streams) as pool:
        # The longest rows first, twice each: they show the peak of memory, and warm all up.
        first = [*places[-2 * streams :], *order[: 2 * streams]]
        list(pool.map(predict, first))
        memory = peak_memory()
        waiting = iter(order)
        clock = Clock()

        def work() -> None:
            while clock.seconds < seconds and (place := next(waiting, None)):
                started = time.perf_counter()
                measured.computed[place] = predict(place)
                taken[place] = time.perf_counter() - started

        for future in [pool.submit(work) for _ in range(streams)]:
            future.result()
        measured.seconds, measured.cpu = clock.both
    shapes = {place: (len(rows), lengths[place]) for place, (_, rows) in batches.items()}
    before = {shapes[place] for place in first}
    after = before | {shapes[place] for place in taken}
    if after - before:
        measured.shape = (peak_memory() - memory) / len(after - before)
    measured.shapes = len(set(shapes.values()) - after)
    time_of = np.array(list(taken.values()))
    costs_of = np.array([costs[place] for place in taken])
    measured.rate = float(costs_of.sum() / time_of.sum()) * streams
    measured.cost = float(costs_of.sum())
    count = len(taken)
    if count > 1:
        off = time_of - costs_of * (time_of.sum() / costs_of.sum())
        left = 1 - count / len(order)  # none is left to guess when all were computed
        variance = left * (off**2).sum() / (count * (count - 1))
        measured.error = float(math.sqrt(variance) / time_of.mean())
    return measured


def write_nowhere(work: Job, source: Source, sample: Sample, measured: Measured) -> Clock:
    """Write the sample to nowhere; rows that were not computed get an answer of others."""
    sink = work.make_sink(_Nowhere(), source)
    statistics = copy.deepcopy(work.statistics)
    parts = [part.predictions for part in measured.computed.values() if len(part.rows)]
    some = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    )
    clock = Clock()
    for number, planned in enumerate([*sample.planned[:1], *sample.planned]):
        if number == 1:
            clock = Clock()  # the first one was to warm up
        rows = np.arange(len(planned.cost))
        if len(rows) and not parts:
            break  # the model failed on all
        computed = [Predicted(rows, take(some, rows % len(some["label"])))] if len(rows) else []
        window, predictions = scoring.assemble(work.model, planned, computed)
        columns = scoring.written(
            work.model, predictions, all_scores=work.all_scores, prefix=work.prefix
        )
        if window.rows:
            sink.write(window, columns)
        text = content_column(work.columns)
        statistics.add(window.numbers, window.columns, predictions, text=text)
    clock.stop()
    return clock


def run_whole(work: Job, source: Source, survey: Survey) -> float:
    """Run the job itself on the windows that were kept.

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
