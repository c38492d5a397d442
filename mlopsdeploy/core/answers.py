"""How answers are rendered: the one place that knows what a task's outputs look like to people.

Strategies write tables, JSON and lines, count and compare; none of them needs to know whether an
answer is a label, a number, a distance or a tensor. A task declares that in `Task.answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Array, Columns, Field, Task, rows_of

_FLOATS = (float, np.floating)
_LONGEST = 1e15  # from there on a number is written with an exponent
_GLANCE = 3  # values of an array that people are shown
# How many digits may tell a float of so many bytes from all others.
_DIGITS = {2: (1, 2, 3, 4, 5), 4: (6, 7, 8, 9)}


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


def counted_each(task: Task, answer: AnswerColumns, predictions: Columns, rows: Array) -> Counted:
    """As `counted`; of rows with several labels each label by itself, with its own probability."""
    if not (task.multi_label and answer.scores):
        return counted(task, answer, predictions, rows)
    place = {name: number for number, name in enumerate(answer.labels)}
    given = [label.split("|") if label else [""] for label in predictions[answer.label][rows]]
    highest = predictions[answer.number][rows].tolist()
    numbers = [
        float(scores[place[label]]) if label in place else best
        for labels, scores, best in zip(
            given, predictions[answer.scores][rows], highest, strict=True
        )
        for label in labels
    ]
    flat = [label for labels in given for label in labels]
    return Counted(np.repeat(rows, [len(labels) for labels in given]), flat, np.array(numbers))


def blank(task: Task, predictions: Columns) -> None:
    """Take the label, which means nothing then, of each row that has no answer."""
    for answer in task.answers:
        if answer.label and answer.number and not task.finds_objects:
            predictions[answer.label][~_finite(predictions[answer.number])] = ""


def unanswered(answers: Sequence[AnswerColumns], predictions: Columns) -> list[int]:
    """The rows that are not `answered`, ascending; the fast way, for columns of one row each."""
    found: list[int] = []
    for answer in answers:
        if not answer.number:
            labels = predictions[answer.label].tolist()
            found += [row for row, label in enumerate(labels) if not label]
            continue
        numbers = predictions[answer.number]
        if numbers.dtype == object:  # of a detector none is without
            continue
        listed = numbers.tolist()
        if not all(map(isfinite, listed)):
            found += [row for row, number in enumerate(listed) if not isfinite(number)]
    return sorted(set(found)) if found else found


def numbers_of(task: Task) -> str:
    """What an answer must have, by the outputs' names."""
    return " or ".join(answer.number or answer.label for answer in task.answers)


def answer_columns(task: Task) -> list[str]:
    """The outputs that an answer consists of: labels and numbers; all, where nothing is counted."""
    columns = [name for one in task.answers for name in (one.label, one.number) if name]
    return columns or [field.name for field in task.outputs]


def each_label(task: Task, labels: Iterable[str]) -> Iterator[str]:
    """The labels one by one: those of a row that may have several are joined by "|"."""
    for label in labels:
        if label:
            yield from label.split("|") if task.multi_label else (label,)


def spoken(label: str) -> str:
    """A label for people; of several, each."""
    return label.replace("|", ", ")


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
        field.name: renderer(task, field.name)(predictions[field.name][row])
        for field in shown(task)
        if field.name in predictions
    }


def documents(task: Task, predictions: Columns) -> list[dict[str, Any]]:
    """The `document` of each row."""
    names = [field.name for field in shown(task) if field.name in predictions]
    columns = [
        map(plain, predictions[name].tolist())
        if renderer(task, name) is plain
        else exact(predictions[name])
        for name in names
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def renderer(task: Task, name: str) -> Callable[[Any], Any]:
    """What makes JSON of an output's values: `plain` of probabilities, `exact` of all else."""
    for answer in task.answers:
        if answer.is_probability and name in (answer.number, answer.scores):
            return plain
    return exact


def words(task: Task, predictions: Columns, row: int = 0) -> str:
    """The answer to one row, for people: `fraud 0.97`, `31.4`."""
    return words_of(task, document(task, predictions, row))


def words_of(task: Task, values: Mapping[str, Any]) -> str:
    """The same, of the row's `document`."""
    if not task.answers:
        return ", ".join(f"{name} {glance(value)}" for name, value in values.items())
    parts = (
        (one.name, one.label and str(values[one.label]), _number(one, values))
        for one in task.answers
    )
    return ", ".join(" ".join(filter(None, part)) for part in parts)


def _number(answer: AnswerColumns, values: Mapping[str, Any]) -> str:
    if not answer.number:
        return ""
    number = values[answer.number]
    if number is None:
        return "–"
    return f"{number:.2f}" if answer.is_probability else figure(number)


def figure(number: float, digits: int = 6) -> str:
    """A number for people: so many digits, and all before the point: `31.4`, `1234567`, `1e-09`."""
    text = f"{number:.{digits}g}"
    return f"{number:.0f}" if "e+" in text and abs(number) < _LONGEST else text


def glance(value: Any) -> str:
    """A value for people; of a large array its first numbers and its shape: `0.1, 2, … (28×28)`."""
    array = np.asarray(value, object if isinstance(value, str) else None)
    shown = array.reshape(-1)[: _GLANCE if array.size > 2 * _GLANCE else None].tolist()
    text = ", ".join(figure(one) if isinstance(one, float) else str(one) for one in shown)
    return text if len(shown) == array.size else f"{text}, … ({'×'.join(map(str, array.shape))})"


def exact(value: Any) -> Any:
    """As `plain`, but of a float as few digits as tell it from all others of its type."""
    if isinstance(value, float):  # float64 too, of which Python itself writes no more than that
        return float(value) if isfinite(value) else None
    if isinstance(value, np.floating):
        return float(str(value)) if isfinite(value) else None
    if not isinstance(value, np.ndarray):
        return plain(value)
    if value.dtype.kind != "f":
        return [exact(item) for item in value] if value.dtype == object else value.tolist()
    shortest = _shortest(value)
    known = np.isfinite(shortest)
    if not known.all():
        shortest = shortest.astype(object)
        shortest[~known] = None
    return shortest.tolist()


def _shortest(values: Array) -> Array:
    """The decimal numbers with the fewest digits that are these in their type, as float64."""
    wide = values.astype(np.float64)
    made = wide.copy()
    with np.errstate(all="ignore"):
        power = np.floor(np.log10(np.abs(wide)))
        open_ = np.isfinite(power)
        for digits in _DIGITS.get(values.dtype.itemsize, ()):
            places = digits - 1 - power
            up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
            rounded = np.rint(wide * up / down) * down / up
            same = open_ & (rounded.astype(values.dtype) == values)
            made[same] = rounded[same]
            open_ &= ~same
    return made


def plain(value: Any) -> Any:
    """A value of a column as JSON has it: six digits of a float, None for what is not finite."""
    if isinstance(value, _FLOATS):
        return float(f"{value:.6g}") if isfinite(value) else None
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype.kind in "fO" else value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value.item() if isinstance(value, np.generic) else value


def each_row(flags: Array) -> Array:
    """Whether any value of a row is true, bool (rows,), for values of shape (rows, ...)."""
    return np.asarray(flags.any(axis=tuple(range(1, flags.ndim))))


def _finite(values: Array) -> Array:
    if values.dtype != object:
        return np.isfinite(values)
    return np.array([row is not None and bool(np.isfinite(row).all()) for row in values], bool)
