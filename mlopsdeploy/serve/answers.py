"""From predictions to the JSON that a route's callers expect.

A template maps each key of the answer to where its value comes from, such as
`{is_fraud: "label == fraud", score: scores.fraud}`. It is read once; per request only the parts
are fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlopsdeploy.columns import Columns, Field
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, did_you_mean

DEFAULT = {"label": "label", "score": "score"}
DETECTIONS = {"detections": "detections", "width": "width", "height": "height"}
WORDS = ("label", "score", "scores", "threshold", "model", "version")
UNREAD = Field("unread", "str")
"""Why the model doesn't read a text: its language, or `unknown` where most tokens are; else ""."""
SIZE = (Field("width", "int64"), Field("height", "int64"))

Part = Callable[[Columns, int], Any]
_FLAG, _TEXT = {"type": "boolean"}, {"type": "string"}
_PIXELS = "x1, y1, x2, y2 in pixels of the picture."
_FOUR = {"type": "array", "minItems": 4, "maxItems": 4}
_DETECTION = {
    "label": {"type": "string"},
    "score": {"type": "number"},
    "box": {**_FOUR, "items": {"type": "integer"}, "description": _PIXELS},
    "relative": {**_FOUR, "items": {"type": "number"}, "description": "The same, 0 to 1."},
}
_OBJECT = {"type": "object", "required": list(_DETECTION), "properties": _DETECTION}


class Answers:
    """The shape of a route's answers.

    Args:
        model: whose predictions are answered.
        name: what the server calls the model.
        template: key of the answer -> where its value comes from; by default label and score, or
            all objects of a picture with its size.

    Attributes:
        schemas: JSON Schema of each part of an answer, by its key.

    Raises:
        ConfigError: the template asks for what the model does not output.
    """

    def __init__(self, model: Model, name: str, template: Mapping[str, str] | None = None) -> None:
        self.labels = model.task.labels
        more = {"image": SIZE, "text": (UNREAD,)}.get(model.task.data, ())
        outputs = (*model.task.outputs, *more)
        self._outputs = {field.name: field for field in outputs}
        self._detects = {"boxes", "width"} <= set(self._outputs)
        template = template or (DETECTIONS if self._detects else DEFAULT)
        self.template = dict(template)
        self._facts = {
            "threshold": _threshold(model, self.labels),
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
        return {"predictions": [self.one(predictions, row) for row in range(rows)], **self._shared}

    def _part(self, key: str, value: str) -> tuple[Part, dict[str, Any]]:
        """How to fetch a part of an answer, and its JSON Schema."""
        number = {"type": "number"}
        left, equals, right = (word.strip() for word in value.partition("=="))
        if equals and left == "label":
            self._place(key, right)
            if self._detects:  # whether any object is one
                return lambda columns, row: right in columns["label"][row].tolist(), _FLAG
            return lambda columns, row: columns["label"][row] == right, _FLAG
        if value == "detections" and self._detects:
            return _detections, {"type": "array", "items": _OBJECT}
        if not equals and left in self._facts:
            fact = self._facts[left]
            kind = ["number", "null"] if left == "threshold" else "string"
            return lambda _columns, _row: fact, {"type": kind}
        column, _, label = left.partition(".")
        if equals or column not in self._outputs or (label and column != "scores"):
            words = (*WORDS, *(("detections",) if self._detects else ()), *self._outputs)
            hint = did_you_mean(left, words)
            raise ConfigError(f"answer: {key}: {value!r} is nothing that the model outputs; {hint}")
        if column == UNREAD.name:  # a task of another package may not know
            return lambda columns, row: columns[column][row] if column in columns else "", _TEXT
        if label:
            place = self._place(key, label)
            return lambda columns, row: _short(columns["scores"][row, place]), number
        if column == "scores" and self.labels:
            properties = dict.fromkeys(self.labels, number)
            schema = {"type": "object", "required": list(self.labels), "properties": properties}
            return self._scores, schema
        return lambda columns, row: plain(columns[column][row]), _schema(self._outputs[column])

    def _scores(self, columns: Columns, row: int) -> dict[str, float]:
        scores = columns["scores"][row].tolist()
        return {name: _short(score) for name, score in zip(self.labels, scores, strict=True)}

    def _place(self, key: str, label: str) -> int:
        """Where a label stands; where nobody named them, they are numbers."""
        if label in self.labels:
            return self.labels.index(label)
        if self.labels or not label.isdecimal():
            known = ", ".join(self.labels) or "numbers from 0 on"
            raise ConfigError(f"answer: {key}: the model has no label {label!r}; it has {known}")
        return int(label)


def _schema(field: Field) -> dict[str, Any]:
    kinds = {"s": "string", "b": "boolean", "i": "integer", "u": "integer"}
    schema: dict[str, Any] = {"type": kinds.get(field.dtype[0], "number")}
    for _ in field.shape:
        schema = {"type": "array", "items": schema}
    return schema


def plain(value: Any) -> Any:
    """A value of a column as JSON has it."""
    if isinstance(value, np.floating):
        return _short(value)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype.kind in "fO" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _detections(predictions: Columns, row: int) -> list[dict[str, Any]]:
    """Each object: label, score, its box in pixels and relative to the picture."""
    width, height = (int(predictions[side][row]) for side in ("width", "height"))
    return [found.as_dict(width, height) for found in detections_of(predictions, row)]


def _short(value: float | np.floating[Any]) -> float:
    """The six digits that mean something of a float32."""
    return float(f"{value:.6g}")


def _threshold(model: Model, labels: tuple[str, ...]) -> float | None:
    """From where on the second of two labels is given."""
    threshold = model.task.threshold
    return 0.5 if threshold is None and len(labels) == 2 else threshold
