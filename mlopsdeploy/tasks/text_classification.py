"""Text in, label and score out: sentiment, topic, toxicity, language.

Works with any sequence classifier that a `tokenizer.json` feeds: one softmax over the labels, or
(multi-label) a sigmoid for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, ModelFiles, Runtime, TaskOptions, objects
from mlopsdeploy.tasks.scores import choose, sigmoid, softmax
from mlopsdeploy.tasks.texts import Texts, answer_in

Activation = Literal["none", "sigmoid", "softmax"]


class TextClassification(Texts):
    """A tokenizer before, labels after.

    Args:
        tokenizer: path of a `tokenizer.json`.
        labels: label names in the order of the model's outputs.
        multi_label: each label has a probability of its own, rather than one among all.
        activation: what makes probabilities of the model's outputs; by default a sigmoid where
            there are several labels at a time or one label alone, else a softmax.
        threshold: two labels: the second is given from this probability on, else the first.
            More: a label is given from this probability on, else none (an empty string).
            Multi-label: every label from this probability on (0.5 when None), joined by "|".
        texts: how texts become tokens, see `Texts`.
    """

    def __init__(
        self,
        tokenizer: Path,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        activation: Activation | None = None,
        threshold: float | None = None,
        **texts: Any,
    ) -> None:
        super().__init__(tokenizer, **texts)
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.threshold = threshold
        each = multi_label or len(self.labels) == 1
        self._activation = activation or ("sigmoid" if each else "softmax")
        self._label_names = np.array([*self.labels, ""], dtype=object)
        self.outputs = (
            Field("label", "str"),
            Field("score", "float32"),
            Field("truncated", "bool"),
            Field("scores", "float32", (len(self.labels),)),
        )

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From the files of a sequence classifier."""
        made = files.written.outputs.get(answer_in(field.name for field in runtime.outputs))
        inside = made is not None and made.kind in ("softmax", "sigmoid")  # in the graph itself
        return cls._of_files(
            files,
            runtime,
            options,
            labels=files.labels,
            multi_label=files.multi_label,
            activation=files.yaml.activation or ("none" if inside else None),
            threshold=files.threshold if options.threshold is None else options.threshold,
        )

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Label, its probability, and the probabilities of all labels, shape (rows, labels).

        `margin` is how far the probabilities are from giving another label; `tokens` how many the
        whole text has, `lost_tokens` how many of these the model did not see; `unread` as `encode`
        has it.

        Raises:
            ModelError: the model gives another number of outputs than it has labels.
        """
        scores = self._answers(tensors, encoded, len(self.labels))
        if self._activation != "none":
            scores = softmax(scores) if self._activation == "softmax" else sigmoid(scores)
        scores = self._of_texts(scores, encoded["windows"])
        label, score = self._choose(scores)
        return {
            "label": label,
            "score": score,
            "scores": scores,
            "margin": self._margin(scores),
            **self._beside(encoded),
        }

    def _margin(self, scores: Array) -> Array:
        margin: Array
        threshold = 0.5 if self.threshold is None else self.threshold
        if self.multi_label or scores.shape[1] == 1:
            margin = np.abs(scores - threshold).min(axis=1)
        elif scores.shape[1] == 2:
            margin = np.abs(scores[:, 1] - threshold)
        else:
            top = np.partition(scores, -2, axis=1)
            margin = (top[:, -1] - top[:, -2]) / 2
            if self.threshold is not None:
                margin = np.minimum(margin, np.abs(top[:, -1] - self.threshold))
        return margin

    def _choose(self, scores: Array) -> tuple[Array, Array]:
        if not self.multi_label:
            return choose(scores, self._label_names, self.threshold)
        chosen = scores >= (0.5 if self.threshold is None else self.threshold)
        names = self._label_names[:-1]
        return objects(["|".join(names[row]) for row in chosen]), scores.max(axis=1)
