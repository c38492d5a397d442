"""Tasks that are nothing but what they output: what becomes of data is of no matter here."""

from __future__ import annotations

from typing import Any

from mlopsdeploy.columns import Field, Task


class _Answering(Task):
    def __init__(self, *outputs: Field, **more: Any) -> None:
        self.outputs = outputs
        self.inputs = ()
        for name, value in more.items():
            setattr(self, name, value)


def answering(*outputs: Field, **more: Any) -> Any:
    """A task of these outputs; `more` are other attributes."""
    made: Any = _Answering
    return made(*outputs, **more)


def classifier(*labels: str) -> Any:
    """A label and its score of a text."""
    return answering(Field("label", "str"), Field("score", "float32"), labels=labels, data="text")


REGRESSION = answering(Field("value", "float32"))
TENSORS = answering(Field("embedding", "float32", (3,)), Field("places", "int64"), answers=())
