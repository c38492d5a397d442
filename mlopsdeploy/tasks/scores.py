"""What classifiers have in common: numbers of a model to probabilities, and these to labels."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.columns import Array

_BACKGROUND = {"", "???", "background", "__background__", "_background_", "bg", "dummy", "none"}


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), written so that it can't overflow."""
    scores: Array = 0.5 * (1 + np.tanh(0.5 * logits))
    return scores


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis, shifted by the maximum so that nothing overflows."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return scores


def choose(scores: Array, names: Array, threshold: float | None) -> tuple[Array, Array]:
    """The label of each row, and its score.

    Args:
        scores: shape (rows, classes).
        names: of the classes, as objects, and an empty one for rows without a label.
        threshold: of two classes the second is the label from this score on, else the first; of
            more, the highest one is only from this score on. None: the highest one.
    """
    if threshold is not None and scores.shape[1] == 2:
        top = (scores[:, 1] >= threshold).astype(np.intp)
    else:
        top = scores.argmax(axis=1)
    score = scores[np.arange(len(top)), top]
    if threshold is not None and scores.shape[1] != 2:
        top = np.where(score >= threshold, top, scores.shape[1])
    return names[top], score


def starts_with_background(labels: tuple[str, ...]) -> bool:
    """Whether the first label stands for no object."""
    return bool(labels) and labels[0].strip().lower() in _BACKGROUND
