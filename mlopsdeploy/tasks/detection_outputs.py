"""The outputs of a detector as boxes, scores and classes, whatever it calls and orders them.

There is a reader for each way in which detectors output these; `read_outputs` in
`detection_layout` chooses one and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlopsdeploy.columns import Array, Columns
from mlopsdeploy.tasks.scores import sigmoid
from mlopsdeploy.tasks.ssd import Found, Ssd, grid_centres, non_max_suppression

IOU = 0.45
POINTED_IOU = 0.3
LIMIT = 100


Reader = Callable[[Columns, int, float], Found]
"""From outputs, a row and the least score: the objects of that row's picture, in any order.

Boxes are `x1, y1, x2, y2`, relative to the model's input.
"""


@dataclass
class Coordinates:
    """How a model writes a box.

    Attributes:
        order: "xyxy", "yxyx" or "xywh" (of the centre).
        size: height and width of the model's input, in pixels.
        pixels: whether they are pixels of the input; if not, parts of it.
    """

    order: str
    size: tuple[int, int]
    pixels: bool

    def corners(self, boxes: Array) -> Array:
        """Shape (n, 4): x1, y1, x2, y2, relative to the input."""
        if self.order == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        elif self.order == "xywh":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
        if not self.pixels and beyond_one(boxes):  # as none of the pictures before had shown
            self.pixels = True
        if self.pixels:
            height, width = self.size
            boxes = boxes / np.array([width, height, width, height], np.float32)
        return boxes


def beyond_one(boxes: Array) -> bool:
    """Whether these can't be parts of a picture: they may reach over its edge, but not by far."""
    return bool(len(boxes) and np.nanmax(np.abs(boxes)) > 4)


@dataclass
class Listed:
    """Boxes, scores, classes and mostly a count, after non-maximum suppression in the graph.

    TFLite_Detection_PostProcess does it, for one. Entries past the count are of other pictures.
    Scores and classes are taken for each other where nothing but values can tell them apart and
    no picture has shown them yet; `settled` is false until one does.
    """

    boxes: str
    scores: str
    classes: str | None
    count: str | None
    coordinates: Coordinates
    settled: bool = True

    def __call__(self, tensors: Columns, row: int, threshold: float) -> Found:
        """See `Reader`."""
        boxes = tensors[self.boxes].reshape(len(tensors[self.boxes]), -1, 4)[row]
        count = len(boxes)
        if self.count is not None:
            count = min(max(int(tensors[self.count].reshape(-1)[row]), 0), count)
        if not self.settled:
            self._settle(tensors, row, count)
        scores = _row(tensors, self.scores, row)[:count]
        sure = np.flatnonzero(scores >= threshold)
        classes = (
            np.zeros(len(sure), np.intp)
            if self.classes is None
            else np.rint(_row(tensors, self.classes, row)[sure]).astype(np.intp)
        )
        return Found(self.coordinates.corners(boxes[sure]), scores[sure], classes)

    def _settle(self, tensors: Columns, row: int, count: int) -> None:
        assert self.classes is not None
        order = which_are_scores(
            _row(tensors, self.scores, row)[:count], _row(tensors, self.classes, row)[:count]
        )
        if order is not None:
            self.settled = True
            if order == 1:
                self.scores, self.classes = self.classes, self.scores


def which_are_scores(first: Array, second: Array) -> int | None:
    """0 or 1, by the values: classes are whole numbers, scores are not and lie within 0 and 1.

    None where they could be either.
    """
    votes = [_like_scores(first) and _whole(second), _like_scores(second) and _whole(first)]
    return votes.index(True) if sum(votes) == 1 else None


def _like_scores(values: Array) -> bool:
    inside = ((values >= 0) & (values <= 1)).all()
    return bool(inside) and len(values) > 0 and not _whole(values)


def _whole(values: Array) -> bool:
    return np.array_equal(values, np.rint(values))


def _row(tensors: Columns, name: str, row: int) -> Array:
    flat: Array = tensors[name].reshape(len(tensors[name]), -1)
    return np.asarray(flat[row])


@dataclass
class Anchored:
    """Offsets to anchors and scores of classes: an SSD without its last step; see `ssd`."""

    boxes: str
    scores: str
    ssd: Ssd
    logits: bool

    def __call__(self, tensors: Columns, row: int, threshold: float) -> Found:
        """See `Reader`."""
        scores = tensors[self.scores][row]
        if not self.logits:  # which `Ssd` takes
            scores = np.clip(scores, 1e-7, 1 - 1e-7)
            scores = np.log(scores / (1 - scores))
        found = self.ssd.detect(tensors[self.boxes][row], scores, threshold)
        return found._replace(boxes=found.boxes[:, [1, 0, 3, 2]])


# Stride and boxes at each point: the grids of MediaPipe's detectors.
_GRIDS = (((8, 2), (16, 6)), ((16, 2), (32, 6)), ((8, 2), (16, 2), (32, 6)), ((4, 1),))


def grid_points(size: Sequence[int], count: int) -> tuple[Array, list[int]] | None:
    """The points (count, 2), x and y relative, and strides of the grids that have so many."""
    for grids in _GRIDS:
        layers = [
            np.repeat(grid_centres(size, stride)[:, ::-1], boxes, axis=0) for stride, boxes in grids
        ]
        points = np.concatenate(layers).astype(np.float32)
        if len(points) == count:
            return points, [stride for stride, _ in grids]
    return None


@dataclass
class Scored:
    """Boxes, and scores of all classes (n, classes) or of the best one (n,); not suppressed yet.

    With `points` (n, 2), x and y relative, boxes are offsets from these, and key points may follow
    them: MediaPipe's faces, palms and poses.
    """

    boxes: str
    scores: str
    classes: str | None
    coordinates: Coordinates
    logits: bool
    background: int | None = None
    points: Array | None = None

    def __call__(self, tensors: Columns, row: int, threshold: float) -> Found:
        """See `Reader`."""
        boxes = tensors[self.boxes][row]
        boxes = boxes.reshape(-1, boxes.shape[-1])[:, :4]
        scores = tensors[self.scores][row].reshape(len(boxes), -1)
        if self.background is not None:
            scores = np.delete(scores, self.background, axis=1)
        best = scores.max(axis=1)
        sure = surest(best, threshold, logits=self.logits)
        found = sigmoid(best[sure]) if self.logits else best[sure]
        chosen = (
            np.rint(_row(tensors, self.classes, row)[sure]).astype(np.intp)
            if self.classes is not None
            else scores[sure].argmax(axis=1)
        )
        corners = self.coordinates.corners(boxes[sure])
        if self.points is None:
            return suppressed(corners, found, chosen)
        return suppressed(corners + np.tile(self.points[sure], 2), found, chosen, POINTED_IOU)


@dataclass
class Yolo:
    """One tensor of x, y, width, height of the centre, mostly an objectness, and class scores.

    Not suppressed yet: YOLO v3 to v9, v11, v12.

    Attributes:
        tensor: its name; (n, columns) for each row, or (columns, n) if `transposed`.
        objectness: whether column 4 says how surely there is an object at all.
        classes: how many columns are scores; what follows them (masks, key points) is left.
        logits: whether scores want a sigmoid.
    """

    tensor: str
    coordinates: Coordinates
    transposed: bool
    objectness: bool
    classes: int
    logits: bool = False

    def __call__(self, tensors: Columns, row: int, threshold: float) -> Found:
        """See `Reader`."""
        # Columns as rows: a view of the one kind, and of the other too.
        columns = tensors[self.tensor][row]
        if not self.transposed:
            columns = columns.T
        start = 5 if self.objectness else 4
        scores = columns[start : start + self.classes]
        # No score is above its objectness, so most boxes need no look at their classes.
        best = columns[4] if self.objectness else scores.max(axis=0)
        sure = surest(best, threshold, logits=self.logits)
        scores, best = scores[:, sure], best[sure]
        if self.logits:
            best = sigmoid(best)
        if self.objectness:
            scores = (sigmoid(scores) if self.logits else scores) * best
            best = scores.max(axis=0)
            kept = best >= threshold
            sure, scores, best = sure[kept], scores[:, kept], best[kept]
        boxes = self.coordinates.corners(columns[:4, sure].T)
        return suppressed(boxes, best, scores.argmax(axis=0))


@dataclass
class EndToEnd:
    """One tensor of x1, y1, x2, y2, score, class: (n, 6) for each row; YOLO v10 and newer."""

    tensor: str
    coordinates: Coordinates

    def __call__(self, tensors: Columns, row: int, threshold: float) -> Found:
        """See `Reader`."""
        rows = tensors[self.tensor][row]
        rows = rows[rows[:, 4] >= threshold]
        boxes = self.coordinates.corners(rows[:, :4])
        return Found(boxes, rows[:, 4], np.rint(rows[:, 5]).astype(np.intp))


def surest(scores: Array, threshold: float, *, logits: bool = False) -> Array:
    """Indices of the scores from the threshold on."""
    return np.flatnonzero(scores >= (np.log(threshold / (1 - threshold)) if logits else threshold))


def suppressed(boxes: Array, scores: Array, classes: Array, iou: float = IOU) -> Found:
    """Without the boxes that overlap a surer one of their class."""
    kept = non_max_suppression(boxes, scores, classes, iou, LIMIT)
    return Found(boxes[kept], scores[kept], classes[kept])


def yolo_positions(size: Sequence[int]) -> int:
    """How many places the three grids of a YOLO have: steps of 8, 16 and 32 pixels."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in (8, 16, 32))
