"""Text in, label and score out: sentiment, topic, toxicity, language.

Works with any sequence classifier that a `tokenizer.json` feeds: one softmax over the labels, or
(multi-label) a sigmoid for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from mlopsdeploy.columns import (
    Array,
    Columns,
    Field,
    ModelFiles,
    Runtime,
    TaskOptions,
    objects,
    rows_of,
)
from mlopsdeploy.errors import ModelError


class TextClassification:
    """A tokenizer before, labels after.

    Args:
        tokenizer: path of a `tokenizer.json`.
        labels: label names in the order of the model's outputs.
        multi_label: each label has a probability of its own, rather than one among all.
        max_length: the most tokens the model takes, special tokens included; the rest of a
            longer text is cut off and the row marked `truncated`.
        pad_id: the token that fills up shorter rows of a batch.
        pad_side: where it goes; decoders and XLNet classify by the last token and need "left".
        threshold: two labels: the second is given from this probability on, else the first.
            More: a label is given from this probability on, else none (an empty string).
            Multi-label: every label from this probability on (0.5 when None), joined by "|".

    Raises:
        ModelError: the tokenizer's file can't be read.
    """

    batch_cost = 1024

    def __init__(
        self,
        tokenizer: Path,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        max_length: int = 512,
        pad_id: int = 0,
        pad_side: str = "right",
        threshold: float | None = None,
        text: str = "text",
    ) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"{tokenizer}: not a tokenizer that can be read ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.threshold = threshold
        self._pad_id = pad_id
        self._pad_left = pad_side == "left"
        self._text = text
        self._label_names = np.array([*self.labels, ""], dtype=object)
        self.inputs = (Field(text, "str"),)
        self.outputs = (
            Field("label", "str"),
            Field("score", "float32"),
            Field("truncated", "bool"),
            Field("scores", "float32", (len(self.labels),)),
        )

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:  # noqa: ARG003
        """From the files of a sequence classifier."""
        if files.tokenizer is None:
            raise ModelError(
                f"{files.name}: has no tokenizer.json; save it once with transformers: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        return cls(
            files.tokenizer,
            files.labels,
            multi_label=files.multi_label,
            max_length=files.max_length,
            pad_id=files.pad_id,
            pad_side=files.pad_side,
            threshold=files.threshold if options.threshold is None else options.threshold,
        )

    def encode(self, columns: Columns) -> Columns:
        """Token ids per row (ragged int64) and whether the text was longer than the model takes."""
        encodings = self._tokenizer.encode_batch_fast(columns[self._text].tolist())
        return {
            "input_ids": objects([np.array(encoding.ids, np.int64) for encoding in encodings]),
            "truncated": np.array([bool(encoding.overflowing) for encoding in encodings], bool),
        }

    def cost(self, encoded: Columns) -> Array:
        """Tokens per row."""
        ids = encoded["input_ids"]
        return np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids))

    def collate(self, encoded: Columns) -> Columns:
        """`input_ids`, `attention_mask` and `token_type_ids`, int64 of shape (rows, longest)."""
        lengths = self.cost(encoded)
        longest = int(lengths.max(initial=1))
        position = np.arange(longest)
        if self._pad_left:
            mask = position >= longest - lengths[:, None]
        else:
            mask = position < lengths[:, None]
        input_ids = np.full(mask.shape, self._pad_id, np.int64)
        if len(lengths):
            input_ids[mask] = np.concatenate(encoded["input_ids"])
        return {
            "input_ids": input_ids,
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros_like(input_ids),
        }

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Label, its probability, and the probabilities of all labels, shape (rows, labels).

        `margin` is how far the probabilities are from giving another label.

        Raises:
            ModelError: the model gives another number of outputs than it has labels.
        """
        logits = tensors["logits"] if "logits" in tensors else next(iter(tensors.values()))
        logits = np.asarray(logits, np.float32)
        if logits.shape != (rows_of(encoded), len(self.labels)):
            raise ModelError(
                f"the model answers with an array of shape {logits.shape} to {rows_of(encoded)} "
                f"rows, but has {len(self.labels)} labels; is it a text classifier?"
            )
        scores = _sigmoid(logits) if self.multi_label or logits.shape[1] == 1 else _softmax(logits)
        label, score = self._choose(scores)
        return {
            "label": label,
            "score": score,
            "truncated": encoded["truncated"],
            "scores": scores,
            "margin": self._margin(scores),
        }

    def _margin(self, scores: Array) -> Array:
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
        return np.asarray(margin)

    def _choose(self, scores: Array) -> tuple[Array, Array]:
        top = scores.argmax(axis=1)
        if self.multi_label:
            chosen = scores >= (0.5 if self.threshold is None else self.threshold)
            names = self._label_names[:-1]
            return objects(["|".join(names[row]) for row in chosen]), scores.max(axis=1)
        score = scores[np.arange(len(top)), top]
        if self.threshold is not None and len(self.labels) == 2:
            top = (scores[:, 1] >= self.threshold).astype(top.dtype)
            score = scores[np.arange(len(top)), top]
        elif self.threshold is not None:
            top = np.where(score >= self.threshold, top, len(self.labels))
        return self._label_names[top], score


def _softmax(logits: Array) -> Array:
    """Probabilities along the last axis, shifted by the maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return scores


def _sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), written so that it can't overflow."""
    scores: Array = 0.5 * (1 + np.tanh(0.5 * logits))
    return scores
