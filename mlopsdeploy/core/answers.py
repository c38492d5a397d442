"""How answers are rendered: the one place that knows what a task's outputs look like to people.

Strategies write tables, JSON and lines, count and compare; none of them needs to know whether an
answer is a label, a number, a distance or a tensor. A task declares that in `Task.answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Array, Columns, Field, Task, rows_of


class Counted(NamedTuple):
    """One answer of some rows: one each, or of a detector one for each object.

    Attributes:
        rows: which row each is of.
        labels: "" where the answer has none.
        numbers: float64; None where the answer has none.
    """

    rows: Array
    labels: list[str]
    numbers: Array | None


def answered(task: Task, predictions: Columns) -> Array:
    """Which rows have an answer: its numbers are finite, or it has a label; bool (rows,).

    Of tensors, which nobody counts, all rows have one.
    """
    found = np.ones(rows_of(predictions), bool)
    for answer in task.answers:
        if answer.number:
            found &= _finite(predictions[answer.number])
        else:
            found &= predictions[answer.label].astype(bool)
    return found


def counted(
    task: Task, answer: AnswerColumns, predictions: Columns, rows: Array | None = None
) -> Counted:
    """What is counted of one answer, over the rows that have one (`rows`, where that is known)."""
    if rows is None:
        rows = np.flatnonzero(answered(task, predictions))
    number = predictions[answer.number][rows] if answer.number else None
    labels = predictions[answer.label][rows].tolist() if answer.label else [""] * len(rows)
    if number is None or number.dtype != object:
        return Counted(rows, labels, None if number is None else number.astype(np.float64))
    counts = [len(row) for row in number]
    flat = np.concatenate([*number, np.zeros(0)], dtype=np.float64)
    return Counted(np.repeat(rows, counts), [label for row in labels for label in row], flat)


def blank(task: Task, predictions: Columns) -> None:
    """Take the label, which means nothing then, of each row that has no answer."""
    for answer in task.answers:
        if answer.label and answer.number and not task.finds_objects:
            predictions[answer.label][~_finite(predictions[answer.number])] = ""


def shown(task: Task) -> list[Field]:
    """The outputs that everybody wants to see: all but the probabilities of every label."""
    hidden = {answer.scores for answer in task.answers}
    return [field for field in task.outputs if field.name not in hidden]


def score_columns(task: Task) -> list[tuple[str, str, int]]:
    """For `--all-scores`: a column's name, and the output and place that its values come from."""
    return [
        (f"{answer.name}_score_{label}" if answer.name else f"score_{label}", answer.scores, place)
        for answer in task.answers
        for place, label in enumerate(answer.labels if answer.scores else ())
    ]


def document(task: Task, predictions: Columns, row: int = 0) -> dict[str, Any]:
    """The answer to one row, for JSON: numbers with the digits that mean something, NaN as null."""
    return {
        field.name: plain(predictions[field.name][row])
        for field in shown(task)
        if field.name in predictions
    }


def words(task: Task, predictions: Columns, row: int = 0) -> str:
    """The answer to one row, for people: `fraud 0.97`, `31.4`."""
    return ", ".join(_words(task, predictions, row))


def _words(task: Task, predictions: Columns, row: int) -> Iterator[str]:
    for answer in task.answers:
        parts = [answer.name] if answer.name else []
        if answer.label:
            parts.append(str(predictions[answer.label][row]))
        if answer.number:
            number = float(predictions[answer.number][row])
            parts.append(f"{number:.2f}" if answer.is_probability else f"{number:.6g}")
        yield " ".join(parts)


def plain(value: Any) -> Any:
    """A value of a column as JSON has it: six digits of a float, None for what is not finite."""
    if isinstance(value, np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype.kind in "fO" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def each_row(flags: Array) -> Array:
    """Whether any value of a row is true, bool (rows,), for values of shape (rows, ...)."""
    return np.asarray(flags.any(axis=tuple(range(1, flags.ndim))))


def _finite(values: Array) -> Array:
    if values.dtype != object:
        return np.isfinite(values)
    return np.array([row is not None and bool(np.isfinite(row).all()) for row in values], bool)
