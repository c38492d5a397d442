"""From predictions to the JSON that a route's callers expect.

A template maps each key of the answer to where its value comes from, such as
`{is_fraud: "label == fraud", score: scores.fraud}`. It is read once; per request only the parts
are fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlopsdeploy.columns import AnswerColumns, Columns, Field, Task
from mlopsdeploy.core.answers import answer_columns, exact, plain, renderer
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, did_you_mean
from mlopsdeploy.serve import unread

DETECTIONS = {"detections": "detections", "width": "width", "height": "height"}
UNREAD = Field(unread.UNREAD, "str")
"""Why the model doesn't read a text: its language, or `unknown` where most tokens are; else ""."""
SIZE = (Field("width", "int64"), Field("height", "int64"))

Part = Callable[[Columns, int], Any]
_FLAG, _TEXT, _NUMBER = {"type": "boolean"}, {"type": "string"}, {"type": "number"}
_PIXELS = "x1, y1, x2, y2 in pixels of the picture."
_FOUR = {"type": "array", "minItems": 4, "maxItems": 4}
_BOXES = {
    "box": {**_FOUR, "items": {"type": "integer"}, "description": _PIXELS},
    "relative": {**_FOUR, "items": {"type": "number"}, "description": "The same, 0 to 1."},
}


class Answers:
    """The shape of a route's answers.

    Args:
        model: whose predictions are answered.
        name: what the server calls the model.
        template: key of the answer -> where its value comes from; by default what the task's
            answers consist of, such as label and score, all outputs where it counts none, or all
            objects of a picture with its size.

    Attributes:
        schemas: JSON Schema of each part of an answer, by its key.

    Raises:
        ConfigError: the template asks for what the model does not output.
    """

    def __init__(self, model: Model, name: str, template: Mapping[str, str] | None = None) -> None:
        self._task = task = model.task
        more = {"image": SIZE, "text": (UNREAD,)}.get(task.data, ())
        self._outputs = {field.name: field for field in (*task.outputs, *more)}
        self._detects = task.finds_objects and "width" in self._outputs
        self._by_label = {one.label: one for one in task.answers if one.label}
        self._by_scores = {one.scores: one for one in task.answers if one.scores}
        self._numbers = {one.number for one in task.answers}
        if not template:
            columns = answer_columns(task)
            template = DETECTIONS if self._detects else dict(zip(columns, columns, strict=True))
        self.template = dict(template)
        self._facts = {
            "threshold": _threshold(task),
            "model": name,
            "version": model.version,
        }
        parts = {key: self._part(key, value) for key, value in template.items()}
        self._parts = [(key, part) for key, (part, _) in parts.items()]
        self.schemas = {key: schema for key, (_, schema) in parts.items()}
        self._shared = {key: self._facts[key] for key in ("model", "version")}

    def one(self, predictions: Columns, row: int = 0) -> dict[str, Any]:
        """The answer to one row."""
        return {key: part(predictions, row) for key, part in self._parts}

    def many(self, predictions: Columns, rows: int) -> dict[str, Any]:
        """The answer to a list of rows."""
        parts = self._parts
        listed = [{key: part(predictions, row) for key, part in parts} for row in range(rows)]
        return {"predictions": listed, **self._shared}

    def _part(self, key: str, value: str) -> tuple[Part, dict[str, Any]]:
        """How to fetch a part of an answer, and its JSON Schema."""
        left, equals, right = (word.strip() for word in value.partition("=="))
        if equals and left in self._by_label:
            return self._is_label(key, self._by_label[left], right), _FLAG
        if value == "detections" and self._detects:
            return partial(_detections, self._task), {"type": "array", "items": self._object()}
        if not equals and left in self._facts and left not in self._outputs:
            fact = self._facts[left]
            kind = ["number", "null"] if left == "threshold" else "string"
            return lambda _columns, _row: fact, {"type": kind}
        column, label = left, ""
        if left not in self._outputs:
            column, _, label = left.partition(".")
        answer = self._by_scores.get(column)
        if equals or column not in self._outputs or (label and answer is None):
            more = ("detections",) if self._detects else ()
            words = (*self._outputs, *self._facts, *more)
            hint = did_you_mean(left, words)
            raise ConfigError(f"answer: {key}: {value!r} is nothing that the model outputs; {hint}")
        if column == UNREAD.name:  # a task of another package may not know
            return lambda columns, row: columns[column][row] if column in columns else "", _TEXT
        if label and answer is not None:
            place = self._place(key, answer, label)
            return lambda columns, row: plain(columns[column].item(row, place)), _NUMBER
        if answer is not None and answer.labels:
            properties = dict.fromkeys(answer.labels, _NUMBER)
            schema = {"type": "object", "required": list(answer.labels), "properties": properties}
            return partial(_scores, column, answer.labels), schema
        return self._value(self._outputs[column])

    def _value(self, field: Field) -> tuple[Part, dict[str, Any]]:
        """An output as it is."""
        name, render = field.name, renderer(self._task, field.name)
        schema = _schema(field, known=name in self._numbers)
        if field.shape or (render is exact and field.dtype.startswith("float")):
            return lambda columns, row: render(columns[name][row]), schema
        # As Python's own value, which is rendered in half the time of NumPy's.
        return lambda columns, row: render(columns[name].item(row)), schema

    def _is_label(self, key: str, answer: AnswerColumns, label: str) -> Part:
        """Whether a label was given."""
        self._place(key, answer, label)
        column = answer.label
        if self._detects:  # whether any object is one
            return lambda columns, row: label in columns[column][row].tolist()
        if self._task.multi_label:
            return lambda columns, row: label in columns[column][row].split("|")
        return lambda columns, row: columns[column][row] == label

    def _place(self, key: str, answer: AnswerColumns, label: str) -> int:
        """Where a label stands; where nobody named them, they are numbers."""
        if label in answer.labels:
            return answer.labels.index(label)
        if answer.labels or not label.isdecimal():
            known = ", ".join(answer.labels) or "numbers from 0 on"
            raise ConfigError(f"answer: {key}: the model has no label {label!r}; it has {known}")
        return int(label)

    def _object(self) -> dict[str, Any]:
        """Of an object found."""
        (answer,) = self._task.answers
        properties = {answer.label: _TEXT, answer.number: _NUMBER, **_BOXES}
        return {"type": "object", "required": list(properties), "properties": properties}


def _scores(column: str, labels: tuple[str, ...], columns: Columns, row: int) -> dict[str, Any]:
    scores = columns[column][row].tolist()
    return {name: plain(score) for name, score in zip(labels, scores, strict=True)}


def _schema(field: Field, *, known: bool) -> dict[str, Any]:
    """Of an output's values; unless all are `known`, null stands for a number that isn't finite."""
    kind = {"s": "string", "b": "boolean", "i": "integer", "u": "integer"}.get(field.dtype[0])
    schema: dict[str, Any] = {"type": kind or ("number" if known else ["number", "null"])}
    for size in reversed(field.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _detections(task: Task, predictions: Columns, row: int) -> list[dict[str, Any]]:
    """Each object: label, score, its box in pixels and relative to the picture."""
    width, height = (int(predictions[side.name][row]) for side in SIZE)
    return [found.as_dict(width, height) for found in detections_of(task, predictions, row)]


def _threshold(task: Task) -> float | None:
    """From where on the second of two labels is given."""
    return 0.5 if task.threshold is None and len(task.labels) == 2 else task.threshold
