"""Boxes from the raw outputs of an SSD detector (Liu et al. 2016, https://arxiv.org/abs/1512.02325).

A single-shot detector answers, for each of a fixed set of anchor boxes, with an offset of that box
and a score per class. What stands between those and a list of objects is here:

    ssd = Ssd(**boxes)                    # `boxes:` of model.yaml
    found = ssd.detect(box_encodings[0], class_predictions[0], threshold=0.5)

Boxes are `ymin, xmin, ymax, xmax`, relative to the picture, as in TensorFlow's detection models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mlopsdeploy.tasks.scores import sigmoid

CANDIDATES = 30_000
"""Boxes that go into non-maximum suppression at most."""

AT_ONCE = 1000

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class Found(NamedTuple):
    """Objects in a picture, the surest first."""

    boxes: Floats
    """Shape (objects, 4): ymin, xmin, ymax, xmax, relative to the picture and within it."""

    scores: Floats
    """Shape (objects,): between 0 and 1."""

    classes: Indices
    """Shape (objects,): an index of the labels, the background not counted."""


@dataclass(frozen=True)
class Ssd:
    """How one model lays out its anchors and writes its boxes.

    The attributes are the keys of `boxes:` in a `model.yaml`, see `BoxKeys`; and, where the anchors
    are listed and not computed, `given`, as `anchors` has them.
    """

    size: Sequence[int]
    strides: Sequence[int]
    min_scale: float = 0.2
    max_scale: float = 0.95
    aspect_ratios: Sequence[float] = (1, 2, 1 / 2, 3, 1 / 3)
    reduced_lowest: bool = True
    coder: Sequence[float] = (10, 10, 5, 5)
    background: int | None = 0
    iou: float = 0.5
    limit: int = 100
    given: Floats | None = None

    @cached_property
    def anchors(self) -> Floats:
        """The anchor boxes, shape (anchors, 4): y and x of the centre, height, width."""
        if self.given is not None:
            return self.given
        scales = [*np.linspace(self.min_scale, self.max_scale, len(self.strides)), 1.0]
        layers = []
        for i, stride in enumerate(self.strides):
            if i == 0 and self.reduced_lowest:
                ratios, sides = [1.0, 2.0, 0.5], [0.1, scales[0], scales[0]]
            else:
                # One square more, of a size between this map's and the next one's.
                ratios = [*self.aspect_ratios, 1.0]
                sides = [scales[i]] * len(self.aspect_ratios)
                sides.append(np.sqrt(scales[i] * scales[i + 1]))
            layers.append(_grid(self.size, stride, np.array(ratios), np.array(sides)))
        return np.concatenate(layers)

    def detect(
        self, box_encodings: Floats, class_predictions: Floats, threshold: float = 0.5
    ) -> Found:
        """The objects that a model's raw outputs for one picture stand for.

        Each anchor gives its best class only: with labels that include each other, such as "Mug"
        and "Coffee cup", one anchor would else be two objects.

        Args:
            box_encodings: shape (anchors, 4).
            class_predictions: logits, shape (anchors, classes), the background included.
            threshold: the least score of an object, above 0 and below 1.

        Raises:
            ValueError: the model has another number of anchors.
        """
        if len(box_encodings) != len(self.anchors) or len(class_predictions) != len(self.anchors):
            raise ValueError(
                f"the model answers for {len(box_encodings)} boxes and {len(class_predictions)} "
                f"rows of scores, but strides {list(self.strides)} of {self.size[0]} x "
                f"{self.size[1]} pixels make {len(self.anchors)} anchors"
            )
        # The sigmoid is monotonic, so only the few logits above the threshold need one; and one
        # comparison of all is faster than a maximum per anchor.
        sure = class_predictions >= np.float32(np.log(threshold / (1 - threshold)))
        if self.background is not None:
            sure[:, self.background] = False
        anchors = np.unique(np.flatnonzero(sure) // sure.shape[1])
        logits = np.where(sure[anchors], class_predictions[anchors], -np.inf)
        classes = logits.argmax(axis=1)
        scores = sigmoid(logits.max(axis=1, initial=-np.inf))
        if self.background is not None:
            classes -= classes > self.background
        boxes = decode_boxes(box_encodings[anchors], self.anchors[anchors], self.coder)
        kept = non_max_suppression(boxes, scores, classes, self.iou, self.limit)
        return Found(boxes[kept].clip(0, 1), scores[kept], classes[kept])


def decode_boxes(encodings: Floats, anchors: Floats, coder: Sequence[float]) -> Floats:
    """Boxes from offsets to anchors, in the centre-size coding of Faster R-CNN and SSD.

    Args:
        encodings: shape (boxes, 4): y, x, height, width, each times its entry of `coder`; the
            centre in units of the anchor's size, the size as a logarithm of the ratio to it.
        anchors: shape (boxes, 4): y and x of the centre, height, width.
        coder: the four factors.

    Returns:
        Shape (boxes, 4): ymin, xmin, ymax, xmax; may reach beyond the picture.
    """
    offsets = encodings / np.asarray(coder, np.float32)
    centres = anchors[:, :2] + offsets[:, :2] * anchors[:, 2:]
    halves = anchors[:, 2:] * np.exp(offsets[:, 2:]) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def non_max_suppression(
    boxes: Floats, scores: Floats, classes: Indices, iou: float = 0.5, limit: int = 100
) -> Indices:
    """Of boxes of one class that overlap, the surest: OpenCV's greedy rule.

    It compares every box with every kept one, four seconds for 30,000 that lie apart. So the surest
    come first, `AT_ONCE` at a time with those that were kept, until `limit` are: the same boxes, in
    a tenth of a second at most. Of more than `CANDIDATES` the surest count, as in Ultralytics
    (`max_nms`, https://docs.ultralytics.com/reference/utils/nms/).

    Args:
        boxes: shape (boxes, 4): two opposite corners, the smaller first.
        scores: shape (boxes,), not below 0.
        classes: shape (boxes,); boxes of different classes leave each other alone.
        iou: the overlap, intersection over union, above which two boxes are one object.
        limit: boxes to keep at most.

    Returns:
        Indices of the kept boxes, the surest first; of equal scores, the first.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    rectangles = np.concatenate([boxes[:, :2], sides], axis=1)
    numbers = classes.astype(np.int32)
    suppress: Any = cv2.dnn.NMSBoxesBatched  # takes arrays, though its stub asks for lists
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    kept = order[:0]
    for start in range(0, len(order), AT_ONCE):
        some = np.concatenate([kept, order[start : start + AT_ONCE]])
        found = suppress(rectangles[some], scores[some], numbers[some], -1.0, iou)
        kept = some[np.array(found, np.intp)]
        if len(kept) >= limit:
            break
    return kept[:limit]


def grid_centres(size: Sequence[int], stride: int) -> Floats:
    """The y and x, relative, of the centres of a grid's places, row by row: shape (places, 2)."""
    rows, columns = (-(-extent // stride) for extent in size)
    y, x = np.mgrid[:rows, :columns] + 0.5
    return np.stack([y / rows, x / columns], axis=-1).reshape(-1, 2)


def _grid(size: Sequence[int], stride: int, ratios: Floats, sides: Floats) -> Floats:
    """Anchors of one feature map: row by row, all shapes at one place together."""
    shapes = np.stack([sides / np.sqrt(ratios), sides * np.sqrt(ratios)], axis=-1)
    parts = np.broadcast_arrays(grid_centres(size, stride)[:, None], shapes)
    return np.concatenate(parts, axis=-1).reshape(-1, 4).astype(np.float32)
