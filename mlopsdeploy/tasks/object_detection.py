"""Pictures in, boxes with label and score out.

Any detector will do: what it takes is found out in `picture_input`, what it gives in
`detection_layout`; `facts` keeps what was understood and why.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    Task,
    TaskOptions,
    rows_of,
)
from mlopsdeploy.tasks.detection_layout import is_pointed, is_yolo, read_outputs
from mlopsdeploy.tasks.detection_outputs import Reader
from mlopsdeploy.tasks.picture_input import (
    example_picture,
    labels_found,
    read_input,
    starts_with_background,
)
from mlopsdeploy.tasks.pictures import PICTURE, SIZES, Pictures


class ObjectDetection(Task):
    """BGR pictures before, objects after.

    Args:
        pictures: how pictures become the model's input.
        reader: how its outputs become objects.
        labels: names of the classes; where a class has none, its number.
        offset: which label belongs to class 0.
        threshold: the least score of an object.
        facts: what was understood about the model, and why.
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

    def __init__(
        self,
        pictures: Pictures,
        reader: Reader,
        *,
        labels: Sequence[str] = (),
        offset: int = 0,
        threshold: float = 0.5,
        facts: Sequence[Fact] = (),
    ) -> None:
        self.labels = tuple(labels)
        self.offset = offset
        self.threshold = threshold
        self.facts = tuple(facts)
        self._pictures = pictures
        self._reader = reader
        # Logits of 0 and 1 are infinite.
        self._least = min(max(threshold, 1e-6), 1 - 1e-6)

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From what the files say, and from what the model answers to one made-up picture."""
        yolo = is_yolo(runtime)
        letterbox = yolo or is_pointed(runtime)
        takes, facts = read_input(files, runtime, letterbox=letterbox, from_zero=yolo)
        pictures = Pictures(takes)
        values = runtime.run(pictures.encode(example_picture()))
        reader, classes, found = read_outputs(files, runtime, takes, values)
        facts += found
        offset, named = label_offset(files, classes)
        facts += named
        threshold, why = _threshold(files, options)
        facts.append(Fact("threshold", f"{threshold:g}", why))
        return cls(
            pictures,
            reader,
            labels=files.labels,
            offset=offset,
            threshold=threshold,
            facts=facts,
        )

    def encode(self, columns: Columns) -> Columns:
        """The model's input tensor and the size of each picture."""
        return self._pictures.encode(columns["image"])

    def cost(self, encoded: Columns) -> Array:
        """The same for every picture."""
        return np.ones(rows_of(encoded), np.int64)

    def collate(self, encoded: Columns) -> Columns:
        """Rows are dense already."""
        return encoded

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Objects of each picture, the surest first, as object arrays.

        `boxes`: float32 (n, 4), x1, y1, x2, y2 relative to the picture; `label`: n names;
        `score`: float32 (n,).
        """
        sizes = encoded[SIZES]
        rows = len(sizes)
        made = {field.name: np.empty(rows, object) for field in self.outputs}
        for row in range(rows):
            boxes, scores, classes = self._reader.read(tensors, row, self._least)
            order = np.argsort(-scores, kind="stable")
            made["boxes"][row] = self._pictures.to_picture(boxes[order], sizes[row])
            made["score"][row] = scores[order].astype(np.float32, copy=False)
            made["label"][row] = self._names(classes[order])
        return made

    def _names(self, classes: Array) -> Array:
        names = np.empty(len(classes), object)
        for place, number in enumerate((classes + self.offset).tolist()):
            known = 0 <= number < len(self.labels) and self.labels[number]
            names[place] = known or str(number - self.offset)
        return names


def label_offset(files: ModelFiles, classes: int | None) -> tuple[int, list[Fact]]:
    """Which label belongs to class 0, and how that is known.

    Args:
        files: what the model's files say.
        classes: how many classes it has, a background not counted; None where nothing tells.
    """
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
    return offset, [*facts, Fact("label of class 0", _label(labels, offset), why)]


def _label(labels: Sequence[str], offset: int) -> str:
    return f"{labels[offset]!r}" if 0 <= offset < len(labels) else "none"


def _threshold(files: ModelFiles, options: TaskOptions) -> tuple[float, str]:
    for value, why in (
        (options.threshold, "as asked"),
        (files.threshold, "the YAML"),
        (files.metadata.get("threshold"), "the file's metadata"),
    ):
        if value is not None:
            return float(value), why
    return 0.5, "the default"
