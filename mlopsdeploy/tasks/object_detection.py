"""Pictures in, boxes with label and score out.

Any detector will do: what it takes is found out in `pictures`, what it outputs in
`detection_layout`; `facts` keeps what was understood and why.
"""

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
    Runtime,
    TaskOptions,
)
from mlopsdeploy.tasks.detection_layout import is_pointed, is_yolo, read_outputs
from mlopsdeploy.tasks.heads import DenseTask
from mlopsdeploy.tasks.pictures import PICTURE, SIZES, labels_found, probe
from mlopsdeploy.tasks.scores import starts_with_background


class ObjectDetection(DenseTask):
    """BGR pictures before, objects after; `facts` says how the model was understood, and why.

    `threshold` is the least score of an object; a class without a label is called by its number.
    """

    data: DataKind = "image"
    finds_objects = True
    inputs = (PICTURE,)
    outputs = (
        Field("boxes", "float32", (-1, 4)),
        Field("label", "str", (-1,)),
        Field("score", "float32", (-1,)),
    )
    batch_cost = 4

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        yolo = is_yolo(runtime)
        letterbox = yolo or is_pointed(runtime)
        pictures, values, facts = probe(
            files, runtime, options, letterbox=letterbox, from_zero=yolo
        )
        self._pictures = pictures
        self._reader, classes, found = read_outputs(files, runtime, pictures.takes, values)
        self.labels = files.labels
        self._offset, named = _label_offset(files, classes)
        self.threshold: float
        self.threshold, why = _threshold(files, options)
        threshold = Fact("threshold", f"{self.threshold:g}", why)
        self.facts = (*facts, *found, *named, threshold)

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From what the files say, and from what the model answers to one made-up picture."""
        return cls(files, runtime, options)

    def encode(self, columns: Columns) -> Columns:
        """The model's input tensor and the size of each picture."""
        return self._pictures.encode(columns["image"])

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Objects of each picture, the surest first, as object arrays.

        `boxes`: float32 (n, 4), x1, y1, x2, y2 relative to the picture; `label`: n names;
        `score`: float32 (n,).
        """
        sizes = encoded[SIZES]
        rows = len(sizes)
        least = min(max(self.threshold, 1e-6), 1 - 1e-6)  # logits of 0 and 1 are infinite
        made = {field.name: np.empty(rows, object) for field in self.outputs}
        for row in range(rows):
            boxes, scores, classes = self._reader(tensors, row, least)
            order = np.argsort(-scores, kind="stable")
            made["boxes"][row] = self._pictures.to_picture(boxes[order], sizes[row])
            made["score"][row] = scores[order].astype(np.float32, copy=False)
            made["label"][row] = self._names(classes[order])
        return made

    def _names(self, classes: Array) -> Array:
        names = np.empty(len(classes), object)
        for place, number in enumerate((classes + self._offset).tolist()):
            known = 0 <= number < len(self.labels) and self.labels[number]
            names[place] = known or str(number - self._offset)
        return names


def _label_offset(files: ModelFiles, classes: int | None) -> tuple[int, list[Fact]]:
    """Which label belongs to class 0, and why; `classes` (None: unknown) without a background."""
    labels, facts = files.labels, labels_found(files, classes)
    if not labels:
        return 0, facts
    if files.yaml.label_offset is not None:
        offset, why = files.yaml.label_offset, "the YAML"
    elif classes == len(labels):
        offset, why = 0, f"as many classes as labels, {classes}"
    elif starts_with_background(labels) and classes in (None, len(labels) - 1):
        offset, why = 1, f"the first label, {labels[0]!r}, stands for no object"
    elif classes is not None:
        offset, why = 0, f"{classes} classes for {len(labels)} labels (a guess)"
    else:
        offset, why = 0, "the first label is no background"
    label = repr(labels[offset]) if 0 <= offset < len(labels) else "none"
    return offset, [*facts, Fact("label of class 0", label, why)]


def _threshold(files: ModelFiles, options: TaskOptions) -> tuple[float, str]:
    for value, why in (
        (options.threshold, "as asked"),
        (files.threshold, "the YAML"),
        (files.metadata.get("threshold"), "the file's metadata"),
    ):
        if value is not None:
            return float(value), why
    return 0.5, "the default"
