"""Text in, numbers out: a rating, a price, how toxic or how easy to read it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Columns, Field, ModelFiles, Runtime, TaskOptions
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.scores import sigmoid, softmax
from mlopsdeploy.tasks.texts import Texts

_TAKEN = {"text", "label", "score", "scores", "truncated", "tokens", "lost_tokens", "unread"}


class TextRegression(Texts):
    """A tokenizer before, numbers after.

    Args:
        tokenizer: path of a `tokenizer.json`.
        names: of the numbers, in the order of the model's outputs; one alone is called `value`.
        activation: what the numbers still go through, "none" by default.
        texts: how texts become tokens, see `Texts`. Of a text in several windows, the mean.

    Raises:
        ModelError: two numbers have one name, or one has that of another column.
    """

    def __init__(
        self, tokenizer: Path, names: Sequence[str], *, activation: str | None = None, **texts: Any
    ) -> None:
        super().__init__(tokenizer, **texts)
        names = ("value",) if len(names) == 1 else tuple(names)
        for name in names:
            if name in _TAKEN or names.count(name) > 1:
                raise ModelError(
                    f"{tokenizer.parent}: a number called {name!r} would be taken for another "
                    "column; name them anew by 'labels: [...]' in a model.yaml"
                )
        self._names = names
        self._activation = activation or "none"
        self.outputs = (*(Field(name, "float32") for name in names), Field("truncated", "bool"))
        several = len(names) > 1
        self.answers = tuple(
            AnswerColumns(number=name, name=name if several else "") for name in names
        )

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From the files of a sequence classifier that was trained on numbers."""
        return cls._of_files(
            files, runtime, options, names=files.labels, activation=files.yaml.activation
        )

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """A number for each name, float32 of shape (rows,).

        `tokens` is how many the whole text has, `lost_tokens` how many of these the model did not
        see; `unread` as `encode` has it.

        Raises:
            ModelError: the model gives another number of outputs than there are names.
        """
        values = self._answers(tensors, encoded, len(self._names))
        if self._activation != "none":
            values = softmax(values) if self._activation == "softmax" else sigmoid(values)
        values = self._of_texts(values, encoded["windows"])
        found = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(self._names)}
        return {**found, **self._beside(encoded)}
