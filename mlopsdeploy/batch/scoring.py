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
from mlopsdeploy.columns import Array, Columns, Field, Task, concat, joined, objects, rows_of, take
from mlopsdeploy.core import answers, images
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.inputs import has_numbers, missing, some
from mlopsdeploy.core.model import Model, Predicted
from mlopsdeploy.core.planner import Rows, plan, unique
from mlopsdeploy.data.sources import Window
from mlopsdeploy.errors import ConfigError

DECIMALS = 6  # of a score: more than the lowest precision in use can tell apart
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
        ConfigError: all scores of a model that has none, or does not name its labels.
    """
    task = model.task
    if task.finds_objects:
        if all_scores:
            raise ConfigError(f"--all-scores: {model.name} has one score for each object")
        return ["objects", "detections"]
    names = [field.name for field in answers.shown(task)]
    if not all_scores:
        return names
    scores = [name for name, _, _ in answers.score_columns(task)]
    if not scores and any(answer.scores for answer in task.answers):
        raise ConfigError(
            f"--all-scores: {model.name} does not name its labels; "
            f"put 'labels: [...]' into {model.name}.yaml beside the model"
        )
    if not scores:
        raise ConfigError(
            f"--all-scores: {model.name} has no scores of labels; it gives {some(names)}"
        )
    return names + scores


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
    if files is not None or (len(inputs) == 1 and _is_text(model.task.inputs[0])):
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
            present &= has_numbers(field, inputs[field.name])
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
        encoded = model.task.encode(_counted(model, distinct)) if rows_of(distinct) else {}
        cost = model.task.cost(encoded) if encoded else np.zeros(0, np.int64)
        batches = model.plan(encoded)
    return Planned(window, present, inverse, keys, there, found, encoded, cost, batches)


def _counted(model: Model, columns: Columns) -> Columns:
    """The same; of long texts all tokens are counted, as the summary says how many were lost."""
    texts = model.task.data == "text"
    return {**columns, "count_all": np.ones(rows_of(columns), bool)} if texts else columns


def _is_text(field: Field) -> bool:
    return field.dtype == "str" and not field.shape


def _keys(distinct: Columns) -> list[bytes]:
    """A digest of each row's values."""
    texts = next(iter(distinct.values()))
    if len(distinct) == 1 and all(isinstance(text, str | bytes) for text in texts):
        contents = (text if isinstance(text, bytes) else text.encode() for text in texts)
        return [blake2b(content, digest_size=16).digest() for content in contents]
    columns = [distinct[name] for name in sorted(distinct)]
    if any(column.dtype == object for column in columns):  # words among the numbers
        rows = zip(*(map(_listed, column) for column in columns), strict=True)
        return [blake2b(repr(row).encode(), digest_size=16).digest() for row in rows]
    count = rows_of(distinct)
    numbers = np.concatenate(
        [column.astype(np.float64).reshape(count, -1) for column in columns], axis=1
    )
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in numbers]


def _listed(value: Any) -> Any:
    """A value that `repr` shows all of."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


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
    predictions = _spread(model.task, planned, distinct)
    lost = planned.present & ~answers.answered(model.task, predictions)
    for array in window.columns.values():
        if array.dtype.kind == "f":  # a number is missing
            lost &= ~answers.each_row(np.isnan(array))
    for row in np.flatnonzero(lost).tolist():
        reasons.setdefault(row, f"the model's {answers.numbers_of(model.task)} is not a number")
    if reasons:
        dropped = np.zeros(window.rows, bool)
        dropped[list(reasons)] = True
        bad = [window.bad_row(row, reason) for row, reason in reasons.items()]
        window = window.without(bad, dropped)
        predictions = {name: array[~dropped] for name, array in predictions.items()}
    return window, predictions


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
        name: joined([predictions[name] for _, predictions in filled])[place] for name in names
    }, failed


def _spread(task: Task, planned: Planned, distinct: Columns) -> Columns:
    """Predictions of all rows of the window."""
    rows = planned.window.rows
    if task.finds_objects:
        names = ("label", "score", "boxes", SIZE)
        predictions: Columns = {name: np.full(rows, None, object) for name in names}
        for name in distinct.keys() & predictions.keys():
            spread = distinct[name][planned.inverse]
            predictions[name][planned.present] = objects(list(spread))
        return predictions
    predictions = _none(task, rows)
    beside = {"unread", "model"} & distinct.keys() if task.data == "text" else ()
    predictions |= {name: objects([""] * rows) for name in beside}  # see `Task.decode`
    everywhere = bool(planned.present.all())
    for name in distinct.keys() & predictions.keys():
        spread = distinct[name][planned.inverse]
        if not everywhere:
            if not task.answers and spread.ndim > 1:  # a row without a list has none
                spread = objects(list(spread))
            kept = _with_room(predictions[name], spread, gaps=task.data == "table")
            kept[planned.present] = spread
            spread = kept
        predictions[name] = spread
    if task.data == "table" and not everywhere:  # where no number stands for a missing one
        for name in predictions.keys() - distinct.keys():
            if predictions[name].dtype.kind in "biu" or not task.answers:
                predictions[name] = objects([None] * rows)
    answers.blank(task, predictions)
    return predictions


def _none(task: Task, rows: int) -> Columns:
    """Predictions of rows that have none."""
    predictions = missing(task.outputs, rows)
    if task.data == "text" and any(field.name == "truncated" for field in task.outputs):
        predictions |= {name: np.zeros(rows, np.int64) for name in ("tokens", "lost_tokens")}
    for answer in task.answers:
        if answer.scores and answer.labels:  # as many, though only the model may know
            shape = rows, len(answer.labels)
            predictions[answer.scores] = np.full(shape, np.nan, np.float32)
    return predictions


def _with_room(none: Array, values: Array, *, gaps: bool) -> Array:
    """Rows without a value, for some like these; with `gaps` no number stands for a missing one."""
    kind = values.dtype
    if gaps and none.dtype.kind in "biu":
        kind = np.dtype(np.object_)
    if none.dtype == kind and none.shape[1:] == values.shape[1:]:
        return none
    fill: Any = {"O": None, "f": np.nan}.get(kind.kind, 0)
    return np.full((len(none), *values.shape[1:]), fill, kind)


def written(model: Model, predictions: Columns, *, all_scores: bool, prefix: str) -> dict[str, Any]:
    """The columns that go into the output; what NumPy has no type for, such as lists, as Arrow.

    Probabilities are rounded to `DECIMALS`. Of each object its label, its score, and its box as
    pixels and relative to the picture: x1, y1, x2, y2, see `detections.Detection`.
    """
    task = model.task
    if task.finds_objects:
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
    rounded = {answer.number for answer in task.answers if answer.is_probability}
    columns = {}
    for field in answers.shown(task):
        if field.name in predictions:
            values = predictions[field.name]
            column = _rounded(values) if field.name in rounded else _arrow(field, values)
            columns[prefix + field.name] = column
    if all_scores:
        for name, scores, place in answers.score_columns(task):
            columns[prefix + name] = _rounded(predictions[scores][:, place])
    return columns


def _rounded(scores: Array) -> Array:
    return np.round(scores.astype(np.float64), DECIMALS)


def _arrow(field: Field, values: Array) -> Any:
    """A column as it is where a sink knows the type; lists, and whole numbers with gaps, as Arrow.

    Args:
        field: what the task says of it.
        values: of shape (rows, ...); of object arrays None is a row without.
    """
    if values.dtype.kind in "US":
        values = values.astype(np.str_).astype(object)
    kind = np.dtype("O" if field.dtype == "str" else field.dtype)
    if values.dtype.kind == "f" and kind.kind == "f":
        values = values.astype(kind, copy=False)  # the same type in every window
    if values.dtype == np.float16:
        values, kind = values.astype(np.float32), np.dtype(np.float32)
    if values.dtype != object:
        kind = values.dtype
    if values.ndim == 1 and values.dtype == kind:
        return values
    type_ = pa.string() if kind.kind == "O" else pa.from_numpy_dtype(kind)
    if values.dtype == object:  # ragged, or with gaps
        for _ in field.shape:
            type_ = pa.list_(type_)
        return pa.array([None if value is None else _listed(value) for value in values], type_)
    column = pa.array(values.reshape(-1), type_)
    for axis in reversed(range(1, values.ndim)):
        lists = int(np.prod(values.shape[:axis]))
        ends = np.arange(lists + 1, dtype=np.int32) * values.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(ends), column)
    return column
