"""From predictions to the JSON that a route's callers expect.

A template maps each key of the answer to where its value comes from, such as
`{is_fraud: "label == fraud", score: scores.fraud}`. It is read once; per request only the parts
are fetched.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlopsdeploy.columns import Columns
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model import Model

DEFAULT = {"label": "label", "score": "score"}
WORDS = ("label", "score", "scores", "threshold", "model", "version")

Part = Callable[[Columns, int], Any]


class Answers:
    """The shape of a route's answers.

    Args:
        model: whose predictions are answered.
        name: what the server calls the model.
        template: key of the answer -> where its value comes from.

    Raises:
        ConfigError: the template asks for what the model does not give.
    """

    def __init__(self, model: Model, name: str, template: Mapping[str, str]) -> None:
        self.labels: tuple[str, ...] = tuple(getattr(model.task, "labels", ()))
        self.template = dict(template)
        self._outputs = {field.name: field for field in model.task.outputs}
        self._facts = {
            "threshold": _threshold(model, self.labels),
            "model": name,
            "version": model.version,
        }
        self._parts = [(key, self._part(key, said)) for key, said in template.items()]
        self._shared = {key: self._facts[key] for key in ("model", "version")}

    def one(self, predictions: Columns, row: int = 0) -> dict[str, Any]:
        """The answer to one row."""
        return {key: part(predictions, row) for key, part in self._parts}

    def many(self, predictions: Columns, rows: int) -> dict[str, Any]:
        """The answer to a list of rows."""
        return {"predictions": [self.one(predictions, row) for row in range(rows)], **self._shared}

    def schema(self, key: str) -> dict[str, Any]:
        """JSON Schema of one part of an answer."""
        said = self.template[key]
        if "==" in said:
            return {"type": "boolean"}
        if said in ("model", "version"):
            return {"type": "string"}
        if said == "threshold":
            return {"type": ["number", "null"]}
        column, _, label = said.partition(".")
        number = {"type": "number"}
        if column == "scores" and not label and self.labels:
            properties = dict.fromkeys(self.labels, number)
            return {"type": "object", "required": list(self.labels), "properties": properties}
        field = self._outputs[column]
        if column == "label" and self.labels:
            return {"type": "string"}
        kind = {"s": "string", "b": "boolean", "i": "integer", "u": "integer"}
        schema: dict[str, Any] = {"type": kind.get(field.dtype[0], "number")}
        for _ in () if label else field.shape:
            schema = {"type": "array", "items": schema}
        return schema

    def _part(self, key: str, said: str) -> Part:
        left, equals, right = (word.strip() for word in said.partition("=="))
        if equals:
            self._check_label(key, right)
            return lambda predictions, row: predictions["label"][row] == right
        if left in self._facts:
            fact = self._facts[left]
            return lambda _predictions, _row: fact
        column, _, label = left.partition(".")
        if column not in self._outputs:
            words = (*WORDS, *self._outputs)
            near = difflib.get_close_matches(left, words, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(words)}"
            raise ConfigError(f"answer: {key}: {said!r} is nothing that the model gives; {hint}")
        if label and column == "scores":
            place = self._check_label(key, label)
            return lambda predictions, row: round(float(predictions["scores"][row, place]), 6)
        if column == "scores" and self.labels:
            return lambda predictions, row: {
                name: round(score, 6)
                for name, score in zip(
                    self.labels, predictions["scores"][row].tolist(), strict=True
                )
            }
        return lambda predictions, row: plain(predictions[column][row])

    def _check_label(self, key: str, label: str) -> int:
        if self.labels and label not in self.labels:
            raise ConfigError(
                f"answer: {key}: the model has no label {label!r}; it has {', '.join(self.labels)}"
            )
        return self.labels.index(label) if self.labels else int(label)


def plain(value: Any) -> Any:
    """A value of a column as JSON has it; floats with the six digits that mean something."""
    if isinstance(value, np.floating):
        return round(float(value), 6)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype.kind in "fO" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _threshold(model: Model, labels: tuple[str, ...]) -> float | None:
    """From where on the second of two labels is given."""
    said = getattr(model.task, "threshold", None)
    return 0.5 if said is None and len(labels) == 2 else said
