"""The batch strategy: read, plan, compute, write, all four at the same time.

    reader thread            pool, one thread per stream      writer thread
    ─────────────            ───────────────────────────      ─────────────
    read a window       ┌──► collate, run, decode a batch ──┐ restore the order
    skip duplicates     │    …                              ├──► write the rows
    encode, plan ───────┘    …                              ┘

A window is eight batches of reading. Within it rows are sorted by cost and cut into the batches
that are computed; the pool always has the next window's batches to go on with.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import numpy as np

from mlopsdeploy.batch.sinks import Sink, check_output, open_sink, passes_records
from mlopsdeploy.batch.sources import Source, Window
from mlopsdeploy.columns import Array, Columns, objects, rows_of, take
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.model import Model, in_order
from mlopsdeploy.planner import Rows, unique

WINDOW = 8  # batches of reading; 8 × 1,000 rows give over 95 % of the speed of a full sort
AHEAD = 2  # windows read and planned before they are needed

T = TypeVar("T")
Progress = Callable[[float, float | None], None]


@dataclass
class Summary:
    """What a run did. `failed` rows hold something that the model can't take as input."""

    rows: int = 0
    seconds: float = 0.0
    labels: Counter[str] = field(default_factory=Counter)
    mean_score: float | None = None
    truncated: int = 0
    duplicates: int = 0
    empty: int = 0
    failed: int = 0
    first_failed: int | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows over the whole run, reading and writing included."""
        return self.rows / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """The same for JSON."""
        known = {**asdict(self), "labels": dict(self.labels.most_common())}
        return {**known, "rows_per_second": round(self.rows_per_second, 1)}


@dataclass(frozen=True)
class _Planned:
    """A window and its rows that need computing: the distinct ones among those with a value."""

    window: Window
    present: Array  # which rows get a prediction, bool (rows,)
    inverse: Rows  # for each present row, its place among the distinct ones
    encoded: Columns
    cost: Array  # work per distinct row
    batches: list[Rows]


def run(
    model: Model,
    source: Source,
    output: str,
    *,
    columns: dict[str, str],
    batch_size: int = 1000,
    limit: int | None = None,
    all_scores: bool = False,
    prefix: str = "",
    progress: Progress = lambda *_: None,
) -> Summary:
    """Score all rows of a source into a file.

    Args:
        model: what to score with.
        source: an open input; it is read to its end, and not closed.
        output: path of the file to write, or "-".
        columns: the model's input -> the source's column.
        batch_size: rows per unit of reading; eight of them are planned together.
        limit: stop after so many rows.
        all_scores: write every label's score, as `score_<label>`.
        prefix: goes before the names of the new columns.
        progress: told after each computed batch how many rows that was worth, and how much of
            the input, from 0 to 1 (None where its size is unknown). Called from several threads.

    Returns:
        Counts and rates.

    Raises:
        ConfigError: all scores of a model that does not name its labels.
        InputError: the input is broken, or already has a column of a new one's name.
        MlopsDeployError: the model or the disk fails; no output is left.
    """
    wanted = {columns[wish.name]: wish.dtype for wish in model.task.inputs}
    new = _new_columns(model, all_scores, prefix)
    taken = [name for name in new if name in source.names]
    if taken:
        raise InputError(
            f"{source.path}: already has a column {taken[0]!r}; give the new ones other names, "
            "for instance --prefix predicted_"
        )
    if output != "-":
        check_output(output, source)
    started = time.perf_counter()
    summary = Summary()
    score_sum = 0.0
    windows = source.windows(
        batch_size * WINDOW, wanted, raw=passes_records(output, source), limit=limit
    )
    renamed = {wish.name: columns[wish.name] for wish in model.task.inputs}

    def finish(planned: _Planned, parts: list[Future[Columns]], sink: Sink) -> None:
        nonlocal score_sum
        results = [part.result() for part in parts]
        predictions = _assemble(model, planned, results, all_scores)
        score_sum += _count(summary, planned, predictions)
        sink.write(planned.window, {prefix + name: array for name, array in predictions.items()})
        if not planned.batches:
            progress(planned.window.rows, planned.window.share)

    pool = ThreadPoolExecutor(model.runtime.streams, thread_name_prefix="model")
    writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
    planned_windows = _ahead((_prepare(model, window, renamed) for window in windows), AHEAD)
    try:
        with open_sink(output, source) as sink:
            writing: deque[Future[None]] = deque()
            for planned in planned_windows:
                parts = [
                    pool.submit(_predict, model, planned, batch, progress)
                    for batch in planned.batches
                ]
                writing.append(writer.submit(finish, planned, parts, sink))
                if len(writing) > AHEAD:
                    writing.popleft().result()
            while writing:
                writing.popleft().result()
    finally:
        planned_windows.close()
        for executor in (pool, writer):
            executor.shutdown(cancel_futures=True)
    summary.seconds = time.perf_counter() - started
    scored = sum(summary.labels.values())
    summary.mean_score = score_sum / scored if scored else None
    return summary


def _new_columns(model: Model, all_scores: bool, prefix: str) -> list[str]:
    names = [wish.name for wish in model.task.outputs if wish.name != "scores"]
    if all_scores:
        labels: tuple[str, ...] = getattr(model.task, "labels", ())
        if not labels:
            raise ConfigError(
                f"--all-scores: {model.name} does not name its labels; "
                f"put 'labels: [...]' into {model.name}.yaml beside the model"
            )
        names += [f"score_{label}" for label in labels]
    return [prefix + name for name in names]


def _prepare(model: Model, window: Window, renamed: dict[str, str]) -> _Planned:
    """Find the rows to compute, encode them, plan their batches."""
    columns = {name: window.columns[column] for name, column in renamed.items()}
    present = ~window.unreadable
    texts = [columns[wish.name] for wish in model.task.inputs if wish.dtype == "str"]
    if len(texts) == 1 and len(columns) == 1:
        stripped = [text is not None and bool(text.strip()) for text in texts[0]]
        present &= np.array(stripped, bool)
        values = texts[0][present].tolist()
        first, inverse = unique(values)
        distinct = {name: objects(values)[first] for name in columns}
    else:
        # Exact duplicates among rows of numbers are rare, and finding them costs more than a row.
        distinct = {name: array[present] for name, array in columns.items()}
        inverse = np.arange(rows_of(distinct))
    encoded = model.task.encode(distinct) if rows_of(distinct) else {}
    cost = model.task.cost(encoded) if encoded else np.zeros(0, np.int64)
    return _Planned(window, present, inverse, encoded, cost, model.plan(encoded))


def _predict(model: Model, planned: _Planned, batch: Rows, progress: Progress) -> Columns:
    try:
        predictions = model.predict_batch(planned.encoded, batch)
    except MlopsDeployError:
        raise
    except (RuntimeError, ValueError, MemoryError) as error:  # what runtimes raise
        first, last = planned.window.first, planned.window.first + planned.window.rows - 1
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise MlopsDeployError(
            f"{model.name} failed within rows {first} to {last}: {reason}"
        ) from error
    window, part = planned.window, float(planned.cost[batch].sum() / planned.cost.sum())
    progress(window.rows * part, None if window.share is None else window.share * part)
    return predictions


def _assemble(model: Model, planned: _Planned, results: list[Columns], all_scores: bool) -> Columns:
    """Predictions in the window's order; "" and NaN for rows without one."""
    rows = planned.window.rows
    label = objects([""] * rows)
    score = np.full(rows, np.nan)
    predictions: Columns = {"label": label, "score": score}
    labels = getattr(model.task, "labels", ())
    if any(wish.name == "truncated" for wish in model.task.outputs):
        predictions["truncated"] = np.zeros(rows, bool)
    if not results:
        extra = {f"score_{name}": np.full(rows, np.nan) for name in labels}
        return {**predictions, **(extra if all_scores else {})}
    joined = take(in_order(planned.batches, results), planned.inverse)
    for name, array in predictions.items():
        array[planned.present] = joined[name]
    unknown = ~np.isfinite(score)
    label[unknown] = ""
    score[unknown] = np.nan
    if all_scores:
        for place, name in enumerate(labels):
            column = np.full(rows, np.nan)
            column[planned.present] = joined["scores"][:, place]
            predictions[f"score_{name}"] = column
    return predictions


def _count(summary: Summary, planned: _Planned, predictions: Columns) -> float:
    """Add a window to the summary; returns the sum of its scores."""
    window, score = planned.window, predictions["score"]
    scored = np.isfinite(score)
    failed = window.unreadable | (planned.present & ~scored)
    if failed.any() and summary.first_failed is None:
        summary.first_failed = window.first + int(np.flatnonzero(failed)[0])
    summary.rows += window.rows
    summary.labels.update(predictions["label"][scored].tolist())
    summary.duplicates += int(planned.present.sum()) - rows_of(planned.encoded)
    summary.empty += int((~planned.present & ~window.unreadable).sum())
    summary.failed += int(failed.sum())
    if "truncated" in predictions:
        summary.truncated += int(predictions["truncated"].sum())
    return float(score[scored].sum())


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
