"""Pictures in, label and score out."""

from __future__ import annotations

from typing import Self

import numpy as np

from mlopsdeploy.columns import (
    Array,
    Columns,
    DataKind,
    Fact,
    Field,
    ModelFiles,
    Quantization,
    Runtime,
    TaskOptions,
    rows_of,
)
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.pictures import PICTURE, labels_found, probe, starts_with_background
from mlopsdeploy.tasks.scores import DenseTask, choose, sigmoid, softmax


class ImageClassification(DenseTask):
    """BGR pictures before, labels after; `facts` says how the model was understood, and why.

    Of two classes the second is given from the threshold on (0.5 when None); of more, a label is
    given from the threshold on, else none (an empty string).
    """

    data: DataKind = "image"
    finds_objects = False
    inputs = (PICTURE,)
    batch_cost = 8

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        self._pictures, values, facts = probe(files, runtime)
        self._tensor, scores, output = _output(files, values)
        self._activation, why = _activation(files, scores, runtime.quantization.get(self._tensor))
        self.labels, named = _labels(files, max(scores.shape[1], 2))
        self.facts = (*facts, output, Fact("scores are", _MEANING[self._activation], why), *named)
        self.threshold = files.threshold if options.threshold is None else options.threshold
        self.outputs = (
            Field("label", "str"),
            Field("score", "float32"),
            Field("scores", "float32", (len(self.labels),)),
        )
        self._names = np.array([*self.labels, ""], dtype=object)

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From what the files say, and from what the model answers to one made-up picture."""
        return cls(files, runtime, options)

    def encode(self, columns: Columns) -> Columns:
        """The model's input tensor."""
        return self._pictures.encode(columns["image"])

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Label, its probability, and those of all classes, shape (rows, classes)."""
        rows = rows_of(encoded)
        scores = tensors[self._tensor].reshape(rows, -1).astype(np.float32, copy=False)
        if self._activation != "none":
            scores = (sigmoid if self._activation == "sigmoid" else softmax)(scores)
        if scores.shape[1] == 1:
            scores = np.hstack([1 - scores, scores])
        threshold = 0.5 if self.threshold is None and scores.shape[1] == 2 else self.threshold
        label, score = choose(scores, self._names, threshold)
        return {"label": label, "score": score, "scores": scores}


_MEANING = {
    "none": "probabilities",
    "sigmoid": "logits: a sigmoid follows",
    "softmax": "logits: a softmax follows",
}


def _output(files: ModelFiles, values: Columns) -> tuple[str, Array, Fact]:
    """The output that holds a number for each class: its name and values as (1, classes)."""
    named = files.yaml.output
    if named is not None and named not in values:
        raise ModelError(f"{files.name}: output is {named!r}, but it gives {', '.join(values)}")
    flat = {
        name: value.reshape(1, -1)
        for name, value in values.items()
        if value.ndim >= 2 and value.size == max(value.shape) and value.dtype.kind in "fiu"
    }
    if named is None and not flat:
        shapes = ", ".join(f"{name} {value.shape[1:]}" for name, value in values.items())
        raise ModelError(f"{files.name}: gives {shapes}, and not a number for each class")
    name = named if named is not None else max(flat, key=lambda name: flat[name].size)
    scores = values[name].reshape(1, -1)
    why = "the YAML" if named else "the only output" if len(values) == 1 else "the most classes"
    return name, scores, Fact("scores", f"{name} ({scores.shape[1]})", why)


def _activation(files: ModelFiles, scores: Array, steps: Quantization | None) -> tuple[str, str]:
    if files.yaml.activation is not None:
        return files.yaml.activation, "the YAML"
    if steps is not None:
        lowest = (np.iinfo(steps.dtype).min - steps.zero_point) * steps.scale
        if abs(lowest) < 1e-6 and abs(steps.scale * 256 - 1) < 0.01:
            return "none", "quantised in steps of 1/256 from 0, as a softmax is"
    low, high, total = float(scores.min()), float(scores.max()), float(scores.sum())
    if low >= -1e-4 and high <= 1 + 1e-4:
        if abs(total - 1) < 0.02:
            return "none", f"the values lie within 0 and 1 and add up to {total:.3f}"
        return "none", f"the values lie within 0 and 1, {low:.2g} to {high:.2g}"
    one = scores.shape[1] == 1
    return "sigmoid" if one else "softmax", f"the values, {low:.3g} to {high:.3g}"


def _labels(files: ModelFiles, classes: int) -> tuple[tuple[str, ...], list[Fact]]:
    """One name for each class; lists with and without a background line fit either way."""
    labels = files.labels
    facts = labels_found(files, classes)
    offset = files.yaml.label_offset
    if not labels:
        return tuple(str(number) for number in range(classes)), facts
    if offset is not None:
        why = "the YAML"
    elif len(labels) == classes:
        offset, why = 0, f"as many classes as labels, {classes}"
    elif len(labels) == classes + 1 and starts_with_background(labels):
        offset, why = 1, f"the first label, {labels[0]!r}, has no class"
    elif len(labels) == classes - 1 and not starts_with_background(labels):
        offset, why = -1, f"{classes} classes for {len(labels)} labels: class 0 is the background"
    else:
        raise ModelError(
            f"{files.name}: gives {classes} classes, but {files.labels_from} names {len(labels)}; "
            "name as many, or say which label is the first class's with 'label_offset:'"
        )
    named = {number: labels[number] for number in range(len(labels))}
    names = tuple(
        named.get(number, "background" if number < 0 else str(number))
        for number in range(offset, offset + classes)
    )
    return names, [*facts, Fact("label of class 0", repr(names[0]), why)]
