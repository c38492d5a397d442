"""One window of rows: find what to compute, compute it, put it in order.

Every engine goes through these three steps, so that a row gets the same label wherever it is
scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.columns import Array, Columns, concat, objects, rows_of, take
from mlopsdeploy.core import images
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.inputs import missing
from mlopsdeploy.core.model import Model, Predicted
from mlopsdeploy.core.planner import Rows, plan, unique
from mlopsdeploy.data.sources import Window
from mlopsdeploy.errors import ConfigError

SIZE = "size"
"""Among a detector's predictions: height and width of each picture, in pixels."""

_DETECTIONS = pa.list_(
    pa.struct({
        "label": pa.string(),
        "score": pa.float64(),
        "box": pa.list_(pa.int32()),
        "relative": pa.list_(pa.float64()),
    })
)  # fmt: skip

Stage = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Planned:
    """A window, and what of it has to be computed: the distinct rows that nobody knows yet.

    Attributes:
        window: its rows; those whose input can't be encoded are among its bad ones already.
        present: which rows have a value to score, bool (rows,).
        inverse: for each present row, its place among the distinct ones.
        keys: what the distinct rows are known by, if anybody wants to know.
        known: which distinct rows are known, bool.
        found: the predictions of these.
        encoded: the other distinct rows, as the task encodes them; pictures, which are large, as
            their files: see `predict`.
        cost: work for each of those.
        batches: which of them to compute together.
    """

    window: Window
    present: Array
    inverse: Rows
    keys: list[bytes]
    known: Array
    found: Columns
    encoded: Columns
    cost: Array
    batches: list[Rows]

    @property
    def distinct(self) -> int:
        """How many distinct rows there are."""
        return len(self.known)


def new_columns(model: Model, *, all_scores: bool) -> list[str]:
    """The names of the columns that predictions add.

    Raises:
        ConfigError: all scores of a model that does not name its labels.
    """
    if model.task.finds_objects:
        if all_scores:
            raise ConfigError(f"--all-scores: {model.name} has one score for each object")
        return ["objects", "detections"]
    names = [field.name for field in model.task.outputs if field.name != "scores"]
    if all_scores:
        if not model.task.labels:
            raise ConfigError(
                f"--all-scores: {model.name} does not name its labels; "
                f"put 'labels: [...]' into {model.name}.yaml beside the model"
            )
        names += [f"score_{label}" for label in model.task.labels]
    return names


def prepare(
    model: Model, window: Window, columns: Mapping[str, str], known: ScoreStore | None = None
) -> Planned:
    """Find the rows to compute, encode them, plan their batches.

    Args:
        model: what to score with.
        window: the rows.
        columns: the model's input -> the window's column.
        known: rows scored before.
    """
    inputs = {name: window.columns[column] for name, column in columns.items()}
    files = window.pictures if model.task.data == "image" else None
    if files is not None or (len(inputs) == 1 and model.task.inputs[0].dtype == "str"):
        if files is not None:
            values, filled = files, [file is not None for file in files]
        else:
            (values,) = inputs.values()
            filled = [text is not None and bool(text.strip()) for text in values]
        present = np.array(filled, bool)
        kept = values[present].tolist()
        first, inverse = unique(kept)
        distinct = {name: objects(kept)[first] for name in inputs}
    else:
        present = np.ones(window.rows, bool)
        for field in model.task.inputs:
            if not field.dtype.startswith(("float", "str")):  # it has no way to say "missing"
                present &= ~np.isnan(inputs[field.name])
        # Exact duplicates among rows of numbers are rare, and finding them costs more than a row.
        distinct = inputs if present.all() else take(inputs, np.flatnonzero(present))
        inverse = np.arange(rows_of(distinct))
    keys: list[bytes] = []
    there = np.zeros(rows_of(distinct), bool)
    found: Columns = {}
    if known is not None and len(there):
        keys = _keys(distinct)
        there, found = known.find(keys)
        distinct = take(distinct, np.flatnonzero(~there))
    if files is not None:
        encoded, cost = distinct, np.ones(rows_of(distinct), np.int64)
        batches = plan(cost, model.task.batch_cost * model.runtime.batch_scale)
    else:
        encoded = model.task.encode(distinct) if rows_of(distinct) else {}
        cost = model.task.cost(encoded) if encoded else np.zeros(0, np.int64)
        batches = model.plan(encoded)
    return Planned(window, present, inverse, keys, there, found, encoded, cost, batches)


def _keys(distinct: Columns) -> list[bytes]:
    """A digest of each row's values."""
    if len(distinct) == 1 and (texts := next(iter(distinct.values()))).dtype == object:
        contents = (text if isinstance(text, bytes) else text.encode() for text in texts)
        return [blake2b(content, digest_size=16).digest() for content in contents]
    columns = [distinct[name] for name in sorted(distinct)]
    if any(column.dtype == object for column in columns):  # words among the numbers
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [blake2b(repr(row).encode(), digest_size=16).digest() for row in rows]
    numbers = np.column_stack([column.astype(np.float64) for column in columns])
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in numbers]


def predict(
    model: Model, planned: Planned, batch: Rows, stage: Stage = lambda _: nullcontext()
) -> Predicted:
    """Compute a batch, without the rows that the model can't take.

    Pictures are decoded here, one at a time: hundreds of them would be gigabytes, and decoding,
    which may take longer than the model, is done by as many threads as compute.

    Args:
        model: what to score with.
        planned: the window.
        batch: some of its distinct rows.
        stage: told what begins, "decode" and "model"; what it returns is left at the end of that.
    """
    if model.task.data != "image":
        with stage("model"):
            return model.predict_rows(planned.encoded, batch)
    with stage("decode"):
        encoded, rows, failed = decoded(model, planned, batch)
    with stage("model"):
        part = model.predict_rows(encoded, np.arange(len(rows)))
    failed |= {int(rows[row]): reason for row, reason in part.failed.items()}
    predictions = part.predictions
    if model.task.finds_objects and len(part.rows):
        predictions = {**predictions, SIZE: encoded[SIZE][part.rows]}
    return Predicted(rows[part.rows], predictions, failed)


def decoded(model: Model, planned: Planned, batch: Rows) -> tuple[Columns, Rows, dict[int, str]]:
    """Pictures as the task encodes them, with their `SIZE`.

    Returns:
        The encoded pictures, which rows they are, and why the others can't be.
    """
    parts, rows, failed = [], [], {}
    for row in batch.tolist():
        ((name, files),) = planned.encoded.items()
        try:
            image = images.decode(files[row])
        except ValueError as error:
            failed[row] = str(error)
            continue
        encoded = model.task.encode({name: objects([image])})
        parts.append({**encoded, SIZE: np.array([image.shape[:2]], np.int64)})
        rows.append(row)
    return concat(parts) if parts else {}, np.array(rows, np.intp), failed


def assemble(
    model: Model, planned: Planned, computed: Sequence[Predicted]
) -> tuple[Window, Columns]:
    """The rows that have an answer, and the answers, in the window's order.

    Rows without a value, and those that lack one which the model can't do without, get "" and
    NaN, and None of a detector; rows that failed are among the window's bad ones.
    """
    window = planned.window
    distinct, failed = _gathered(planned, computed)
    reasons = {}
    if failed:
        rows = np.flatnonzero(planned.present).tolist()
        places = zip(rows, planned.inverse.tolist(), strict=True)
        reasons = {row: failed[place] for row, place in places if place in failed}
    predictions = _spread(model, planned, distinct)
    lost = planned.present & ~answered(predictions)
    for array in window.columns.values():
        if array.dtype.kind == "f":  # a number is missing
            lost &= ~np.isnan(array)
    for row in np.flatnonzero(lost).tolist():
        reasons.setdefault(row, "the model's score is not a number")
    if reasons:
        dropped = np.zeros(window.rows, bool)
        dropped[list(reasons)] = True
        bad = [window.bad_row(row, reason) for row, reason in reasons.items()]
        window = window.without(bad, dropped)
        predictions = {name: array[~dropped] for name, array in predictions.items()}
    return window, predictions


def answered(predictions: Columns) -> Array:
    """Which rows have an answer: a score that is a number, or objects with such; bool (rows,)."""
    scores = predictions["score"]
    if scores.dtype != object:
        return np.isfinite(scores)
    return np.array([row is not None and bool(np.isfinite(row).all()) for row in scores], bool)


def each_label(predictions: Columns) -> tuple[Rows, list[str], Array]:
    """Every label that was given: one a row, or one for each object of a row.

    Returns:
        The row, the label and the score (float64) of each.
    """
    rows = np.flatnonzero(answered(predictions))
    labels, scores = predictions["label"][rows], predictions["score"][rows]
    if scores.dtype != object:
        return rows, labels.tolist(), scores.astype(np.float64)
    counts = [len(row) for row in scores]
    flat = [label for row in labels for label in row]
    return np.repeat(rows, counts), flat, np.concatenate([*scores, np.zeros(0)], dtype=np.float64)


def _gathered(planned: Planned, computed: Sequence[Predicted]) -> tuple[Columns, dict[int, str]]:
    """Predictions of the distinct rows, and why some have none (theirs are of another row)."""
    unknown = np.flatnonzero(~planned.known)
    sources = [(np.flatnonzero(planned.known), planned.found)]
    sources += [(unknown[part.rows], part.predictions) for part in computed]
    failed = {int(unknown[row]): reason for part in computed for row, reason in part.failed.items()}
    filled = [(rows, predictions) for rows, predictions in sources if len(rows)]
    if not filled:
        return {}, failed
    place = np.zeros(planned.distinct, np.intp)
    place[np.concatenate([rows for rows, _ in filled])] = np.arange(planned.distinct - len(failed))
    names = set.intersection(*(set(predictions) for _, predictions in filled))
    return {
        name: np.concatenate([predictions[name] for _, predictions in filled])[place]
        for name in names
    }, failed


def _spread(model: Model, planned: Planned, distinct: Columns) -> Columns:
    """Predictions of all rows of the window."""
    rows, task = planned.window.rows, model.task
    if task.finds_objects:
        names = ("label", "score", "boxes", SIZE)
        predictions: Columns = {name: np.full(rows, None, object) for name in names}
        for name in distinct.keys() & predictions.keys():
            spread = distinct[name][planned.inverse]
            predictions[name][planned.present] = objects(list(spread))
        return predictions
    predictions = {"label": objects([""] * rows), "score": np.full(rows, np.nan)}
    if any(field.name == "truncated" for field in task.outputs):
        predictions["truncated"] = np.zeros(rows, bool)
        predictions["tokens"] = np.zeros(rows, np.int64)
        predictions["lost_tokens"] = np.zeros(rows, np.int64)
    for name in ("unread", "model"):  # of texts, see `Task.decode`
        if name in distinct:
            predictions[name] = objects([""] * rows)
    if task.labels:
        predictions["scores"] = np.full((rows, len(task.labels)), np.nan)
    # What a task of an outside package outputs besides.
    more = [one for one in task.outputs if one.name not in predictions and not one.shape]
    predictions |= missing(more, rows)
    for name in distinct.keys() & predictions.keys():
        predictions[name][planned.present] = distinct[name][planned.inverse]
    predictions["label"][~np.isfinite(predictions["score"])] = ""
    return predictions


def written(model: Model, predictions: Columns, *, all_scores: bool, prefix: str) -> dict[str, Any]:
    """The columns that go into the output; lists of objects, which NumPy has no type for, as Arrow.

    Of each object its label, its score, and its box as pixels and relative to the picture: x1, y1,
    x2, y2, see `detections.Detection`.
    """
    if model.task.finds_objects:
        found = [
            [
                each.as_dict(*size[::-1].tolist())
                for each in detections_of(model.task, predictions, row)
            ]
            if size is not None
            else None
            for row, size in enumerate(predictions[SIZE])
        ]
        counts = [None if row is None else len(row) for row in found]
        return {
            f"{prefix}objects": pa.array(counts, pa.int32()),
            f"{prefix}detections": pa.array(found, _DETECTIONS),
        }
    columns = {
        prefix + field.name: predictions[field.name]
        for field in model.task.outputs
        if field.name in predictions and field.name != "scores"
    }
    if all_scores:
        for place, label in enumerate(model.task.labels):
            columns[f"{prefix}score_{label}"] = predictions["scores"][:, place]
    return columns
