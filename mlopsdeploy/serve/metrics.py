"""Numbers for Prometheus, right across worker processes.

A request is counted in shared memory: each worker has a file of its own, mapped, with one 64-bit
cell per number, and whichever worker is asked for the metrics adds all files up. That costs a
microsecond per request, where prometheus-client's own multiprocess mode takes nine, as long as the
prediction itself; its exposition format is used as it is.
"""

from __future__ import annotations

import mmap
import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from mlopsdeploy.columns import AnswerColumns, Array, Columns, Task
from mlopsdeploy.core import answers
from mlopsdeploy.core.language_codes import LANGUAGES
from mlopsdeploy.core.languages import UNKNOWN
from mlopsdeploy.core.machine import resident_memory
from mlopsdeploy.core.model import Model

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
CODES = (200, 400, 404, 405, 408, 411, 413, 414, 415, 421, 422, 429, 431, 500, 503)
_PLACES = {code: place for place, code in enumerate(CODES)}
CALLS = ("free", "full", "deadline")  # why a call of the model left, see `Queue`
UNREAD = (*LANGUAGES, UNKNOWN, "other")  # why a text isn't read, see `core.model.unread_in`

SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MOST_LABELS = 1024  # of an answer that have a count of their own
UNNAMED_LABELS = 64  # where nobody names the labels, they are numbers from 0 on
OTHER = "other"
FEW = 8  # rows that are counted one by one

# The cells of one model: three gauges; per code the buckets of the latency, then its sum in
# nanoseconds; the buckets of the rows, then their sum; the texts that it doesn't read, by why; and
# for each answer those of `AnswerCells`.
_IN_FLIGHT, _QUEUE, _CAPACITY, _LATENCY = 0, 1, 2, 3
_PER_CODE = len(SECONDS) + 2
_BATCH = _LATENCY + len(CODES) * _PER_CODE
_CALLS = _BATCH + len(ROWS) + 2
_UNREAD = _CALLS + len(CALLS)
_ANSWERS = _UNREAD + len(UNREAD)
_UNREAD_CELLS = {reason: _UNREAD + place for place, reason in enumerate(UNREAD)}
_NANOSECONDS = tuple(round(bound * 1e9) for bound in SECONDS)


class AnswerCells:
    """Where one answer of a model is counted.

    First a cell for each label and for all others; then, of a probability, the buckets of `SCORES`;
    last how many numbers there were, and their sum, a float64 in a cell of int64.

    Args:
        answer: what is counted.
        start: the first cell.
        several: whether a row may have several labels.
    """

    def __init__(self, answer: AnswerColumns, start: int, *, several: bool) -> None:
        self.answer = answer
        self.label, self.number, self.bounded = answer.label, answer.number, answer.is_probability
        self.several = several
        names = answer.labels or [*map(str, range(UNNAMED_LABELS))]
        kept = [*names[:MOST_LABELS], OTHER] if answer.label else []
        self.labels = {name: start + place for place, name in enumerate(kept)}
        self.other = start + len(kept) - 1
        self.scores = start + len(kept)
        self.count = self.scores + (len(SCORES) + 1) * self.bounded
        self.sum = self.count + 1
        self.end = self.sum + 1


def answer_cells(task: Task) -> list[AnswerCells]:
    """Those of each of a task's answers, after the cells that all models have."""
    cells: list[AnswerCells] = []
    for answer in task.answers:
        start = cells[-1].end if cells else _ANSWERS
        cells.append(AnswerCells(answer, start, several=task.multi_label or task.finds_objects))
    return cells


class Metrics:
    """All numbers of a server. Names follow Prometheus' conventions: base units, `_total`.

    Args:
        models: by name; every worker has the same.
        folder: where the workers of one server count; None: this process is the only one.
    """

    def __init__(self, models: Mapping[str, Model], folder: Path | None = None) -> None:
        self._models = models
        self._folder = folder
        self._answers = {name: answer_cells(model.task) for name, model in models.items()}
        sizes = [cells[-1].end if cells else _ANSWERS for cells in self._answers.values()]
        self._ends = np.cumsum([0, *sizes]).tolist()
        size = 8 * (self._ends[-1] + len(CODES))
        if folder is None:
            memory: bytearray | mmap.mmap = bytearray(size)
        else:
            with _taken_over(folder, size).open("a+b") as file:
                file.truncate(size)
                memory = mmap.mmap(file.fileno(), size)
        self._cells = memoryview(memory).cast("q")
        self._sums = memoryview(memory).cast("d")
        self._lock = threading.Lock()
        for start in self._ends[:-1]:  # what a worker that died was doing
            self._cells[start + _IN_FLIGHT] = self._cells[start + _QUEUE] = 0

    def of(self, model: str) -> ModelMetrics:
        """Where one model's requests are counted."""
        place = list(self._models).index(model)
        mine = slice(*self._ends[place : place + 2])
        task = self._models[model].task
        answers = self._answers[model]
        return ModelMetrics(self._cells[mine], self._sums[mine], task, answers, self._lock)

    def refused(self, code: int) -> None:
        """A request that is no model's was refused."""
        place = _PLACES.get(code, _PLACES[500])
        with self._lock:
            self._cells[self._ends[-1] + place] += 1

    def text(self) -> bytes:
        """The exposition of all workers together."""
        registry = CollectorRegistry()
        registry.register(self)
        exposed: bytes = prometheus_client.generate_latest(registry)
        return exposed

    def collect(self) -> Iterator[Metric]:
        """The families, as prometheus-client asks a collector for them."""
        workers = self._workers()
        living = {pid: cells for pid, cells in workers.items() if _lives(pid)}
        parts = dict(zip(self._models, zip(self._ends, self._ends[1:], strict=False), strict=True))
        whole = np.sum(list(workers.values()), axis=0)
        sums = np.sum([cells.view(np.float64) for cells in workers.values()], axis=0)
        yield from _requests({name: whole[slice(*part)] for name, part in parts.items()})
        yield from _answers(
            {
                name: (self._answers[name], whole[slice(*part)], sums[slice(*part)])
                for name, part in parts.items()
            }
        )
        refusals = CounterMetricFamily(
            "mlopsdeploy_refused", "Requests refused that are no model's.", labels=["code"]
        )
        for code, count in zip(CODES, whole[self._ends[-1] :].tolist(), strict=True):
            if count:
                refusals.add_metric([str(code)], count)
        yield refusals
        names = [[name] for name in self._models]
        now = np.sum(list(living.values()), axis=0)
        first = np.array(self._ends[:-1], np.intp)
        for name, text, cell in (
            ("in_flight", "Requests being worked on.", _IN_FLIGHT),
            ("queue", "Requests that wait for the model to be free.", _QUEUE),
            ("capacity", "Requests/s that can be taken, as measured at the start.", _CAPACITY),
        ):
            yield _gauge(name, text, ["model"], zip(names, now[first + cell].tolist(), strict=True))
        labels = ["model", "version", "digest", "runtime", "precision"]
        info = [(_facts(name, model), 1) for name, model in self._models.items()]
        yield _gauge("model_info", "The models that are served; always 1.", labels, info)
        memory = [([str(pid)], size) for pid in living if (size := resident_memory(pid))]
        yield _gauge("worker_resident_memory_bytes", "Memory per worker.", ["pid"], memory)

    def _workers(self) -> dict[int, Array]:
        """The cells of each worker that ever was, int64, by its pid."""
        if self._folder is None:
            found = {os.getpid(): bytes(self._cells)}
        else:
            files = sorted(self._folder.glob("*.cells"))
            found = {int(file.stem): file.read_bytes() for file in files}
        return {pid: np.frombuffer(raw, np.int64) for pid, raw in found.items()}


class ModelMetrics:
    """The cells of one model in this worker."""

    def __init__(
        self,
        cells: memoryview[int],
        sums: memoryview[float],
        task: Task,
        cells_of: list[AnswerCells],
        lock: threading.Lock,
    ) -> None:
        self._cells = cells
        self._sums = sums
        self._task = task
        self._answers = cells_of
        self._lock = lock

    def started(self) -> None:
        """A request came in."""
        with self._lock:
            self._cells[_IN_FLIGHT] += 1

    def can_take(self, requests_per_second: float) -> None:
        """What this worker can take of the model."""
        with self._lock:
            self._cells[_CAPACITY] = round(requests_per_second)

    def waits(self, requests: int) -> None:
        """A request begins (1) or ends (-1) to wait for the model."""
        with self._lock:
            self._cells[_QUEUE] += requests

    def answered(self, code: int, seconds: float, rows: int) -> None:
        """A request was answered; `rows` is 0 where none were predicted."""
        cells = self._cells
        with self._lock:
            cells[_IN_FLIGHT] -= 1
            self._took(code, seconds)
            if rows:
                cells[_BATCH + bisect_left(ROWS, rows)] += 1
                cells[_CALLS - 1] += rows

    def refused(self, code: int, seconds: float) -> None:
        """A request was refused before it was in flight."""
        with self._lock:
            self._took(code, seconds)

    def _took(self, code: int, seconds: float) -> None:
        nanoseconds = int(seconds * 1e9)
        start = _LATENCY + _PER_CODE * _PLACES.get(code, _PLACES[500])
        self._cells[start + bisect_left(_NANOSECONDS, nanoseconds)] += 1
        self._cells[start + _PER_CODE - 1] += nanoseconds

    def called(self, why: str) -> None:
        """A call of the model left the queue."""
        with self._lock:
            self._cells[_CALLS + CALLS.index(why)] += 1

    def predicted(self, predictions: Columns, rows: int) -> None:
        """What was answered: labels and numbers of so many rows, which all have an answer."""
        for one in self._answers:
            if rows > FEW or self._task.finds_objects:
                self._many(one, predictions)
            else:
                self._few(one, predictions)

    def _few(self, one: AnswerCells, predictions: Columns) -> None:
        cells = self._cells
        labels = predictions[one.label].tolist() if one.label else ()
        numbers = predictions[one.number].tolist() if one.number else ()
        if one.several:
            labels = answers.each_label(self._task, labels)
        with self._lock:
            for label in labels:
                cells[one.labels.get(label, one.other)] += 1
            for number in numbers:
                if one.bounded:
                    cells[one.scores + bisect_left(SCORES, number)] += 1
                self._sums[one.sum] += number
            cells[one.count] += len(numbers)

    def _many(self, one: AnswerCells, predictions: Columns) -> None:
        if self._task.finds_objects:
            _, labels, numbers = answers.counted(self._task, one.answer, predictions)
        else:
            labels = predictions[one.label].tolist() if one.label else []
            numbers = predictions[one.number] if one.number else None
        if one.several:
            labels = [*answers.each_label(self._task, labels)]
        numbers = np.zeros(0) if numbers is None else numbers
        buckets = np.bincount(np.searchsorted(SCORES, numbers)).tolist() if one.bounded else ()
        with self._lock:
            for label, count in Counter(labels).items():
                self._cells[one.labels.get(label, one.other)] += count
            for place, count in enumerate(buckets):
                self._cells[one.scores + place] += count
            self._cells[one.count] += len(numbers)
            self._sums[one.sum] += float(numbers.sum(dtype=np.float64))

    def unread(self, texts: Mapping[str, int]) -> None:
        """The model didn't read so many texts, by their language or another reason."""
        with self._lock:
            for reason, count in texts.items():
                self._cells[_UNREAD_CELLS.get(reason, _ANSWERS - 1)] += count


def _requests(cells: Mapping[str, Array]) -> Iterator[Metric]:
    """What has been counted since the server started."""
    by_code = ["model", "code"]
    requests = CounterMetricFamily("mlopsdeploy_requests", "Requests answered.", labels=by_code)
    seconds = HistogramMetricFamily(
        "mlopsdeploy_request_seconds",
        "Time from a request's arrival to its answer, with the time that it waited.",
        labels=by_code,
    )
    rows = HistogramMetricFamily("mlopsdeploy_batch_rows", "Rows per request.", labels=["model"])
    calls = CounterMetricFamily(
        "mlopsdeploy_queued_calls",
        "Calls of the model with requests that waited, by why they left: no more waited (free), "
        "more didn't fit (full), or the first had no more time (deadline).",
        labels=["model", "reason"],
    )
    unread = CounterMetricFamily(
        "mlopsdeploy_unread_texts",
        "Texts that the model doesn't read, by language; unknown: those of unknown tokens.",
        labels=["model", "language"],
    )
    for model, counted in cells.items():
        for place, code in enumerate(CODES):
            start = _LATENCY + _PER_CODE * place
            *buckets, total = counted[start : start + _PER_CODE].tolist()
            if sum(buckets):
                requests.add_metric([model, str(code)], sum(buckets))
                seconds.add_metric([model, str(code)], _cumulative(SECONDS, buckets), total / 1e9)
        *buckets, total = counted[_BATCH:_CALLS].tolist()
        rows.add_metric([model], _cumulative(ROWS, buckets), total)
        for reason, count in zip(UNREAD, counted[_UNREAD:_ANSWERS].tolist(), strict=True):
            if count:
                unread.add_metric([model, reason], count)
        for why, count in zip(CALLS, counted[_CALLS:_UNREAD].tolist(), strict=True):
            calls.add_metric([model, why], count)
    yield from (requests, seconds, rows, unread, calls)


def _answers(
    models: Mapping[str, tuple[list[AnswerCells], Array, Array]],
) -> Iterator[Metric]:
    """What the models answered. `answer` is empty where a row has but one."""
    which = ["model", "answer"]
    labels = CounterMetricFamily(
        "mlopsdeploy_labels", "Labels given, of rows or objects.", labels=[*which, "label"]
    )
    scores = HistogramMetricFamily("mlopsdeploy_score", "Probabilities given.", labels=which)
    values = SummaryMetricFamily(
        "mlopsdeploy_value",
        "Numbers given that are no probabilities, such as a regression's values: how many, and "
        "their sum, so that their mean over time is rate(sum) / rate(count).",
        labels=which,
    )
    for model, (each, cells, sums) in models.items():
        for one in each:
            names = [model, one.answer.name]
            for label, cell in one.labels.items():
                if cells[cell]:
                    labels.add_metric([*names, label], int(cells[cell]))
            count, total = int(cells[one.count]), float(sums[one.sum])
            if one.bounded:
                buckets = cells[one.scores : one.count].tolist()
                scores.add_metric(names, _cumulative(SCORES, buckets), total)
            elif one.number:
                values.add_metric(names, count, total)
    yield from (labels, scores, values)


def _cumulative(bounds: tuple[float, ...], buckets: list[int]) -> list[tuple[str, float]]:
    totals = np.cumsum(buckets).tolist()
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, totals, strict=True))


def _facts(name: str, model: Model) -> list[str]:
    digest, precision = model.digest[:12], model.runtime.precision
    return [name, model.version, digest, model.runtime.name, precision]


def _gauge(
    name: str, text: str, labels: list[str], samples: Iterable[tuple[list[str], float]]
) -> Metric:
    gauge = GaugeMetricFamily(f"mlopsdeploy_{name}", text, labels=labels)
    for values, sample in samples:
        gauge.add_metric(values, sample)
    return gauge


def _taken_over(folder: Path, size: int) -> Path:
    """This worker's file: that of one that died, so that they don't become more and more."""
    mine = folder / f"{os.getpid()}.cells"
    for left in folder.glob("*.cells"):
        if not _lives(int(left.stem)) and left.stat().st_size == size:
            with suppress(OSError):  # another one has it
                return left.rename(mine)
    return mine


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
