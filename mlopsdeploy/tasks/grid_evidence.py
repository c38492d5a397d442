"""Detectors that answer for all places of a grid: YOLO in one tensor, MediaPipe's in two."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.columns import Array, Runtime
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.detection_outputs import (
    EndToEnd,
    Pointed,
    Yolo,
    grid_points,
    yolo_positions,
)
from mlopsdeploy.tasks.output_evidence import Answer, OutputFinder, shape_of

_COARSE = 1 / 16  # a step of quantisation that leaves no score worth the name


def is_yolo(runtime: Runtime) -> bool:
    """Whether the shapes are those of a detector that answers in one tensor."""
    flat = [field.shape for field in runtime.outputs if len(field.shape) == 2]
    return len(flat) == 1 and min(flat[0]) >= 5


def is_pointed(runtime: Runtime) -> bool:
    """Whether the shapes are those of MediaPipe's detectors: boxes with key points, and scores."""
    shapes = [field.shape for field in runtime.outputs]
    return (
        len(shapes) == 2
        and all(len(shape) == 2 for shape in shapes)
        and shapes[0][0] == shapes[1][0] > 100
        and min(shapes[0][1], shapes[1][1]) == 1
        and max(shapes[0][1], shapes[1][1]) in range(6, 100, 2)
    )


class GridFinder(OutputFinder):
    """Tells the kinds of them apart."""

    def one_tensor(self) -> Answer:
        """A YOLO of any version."""
        name = next(name for name in self.names if self.values[name].ndim == 3)
        value = self.values[name][0]
        quantization = self.quantization.get(name)
        if quantization and quantization.scale > _COARSE:
            raise ModelError(
                f"{self.files.name}: its output is quantised in steps of {quantization.scale:.3g}, "
                "too coarse for scores from 0 to 1; export it with coordinates relative to the "
                "picture, or as float"
            )
        places = yolo_positions(self.takes.size)
        known = {places, 3 * places}
        if value.shape[1] == 6 and value.shape[0] not in known and _is_end_to_end(value):
            return self._end_to_end(name, value)
        transposed = value.shape[1] > value.shape[0]
        if {value.shape[0], value.shape[1]} & known:
            transposed = value.shape[1] in known
        columns = value if transposed else value.T
        if min(columns.shape) < 5:
            raise ModelError(f"{self.files.name}: {name} {value.shape} is no output of a detector")
        shape = "columns first" if transposed else "a row for each box"
        self.note("output", f"{name} {shape_of(value)}: YOLO, {shape}", "the shape")
        objectness = self._objectness(columns, places, transposed=transposed)
        left = len(columns) - 4 - objectness
        classes = len(self.files.labels) if 0 < len(self.files.labels) < left else left
        rest = f", {left - classes} more columns left unread" if left > classes else ""
        self.note("classes", f"{classes}{rest}", "the columns" + " and the labels" * bool(rest))
        logits = self.logits(columns[4 : 5 + classes if objectness else 4 + classes])
        coordinates = self.coordinates(columns[:4].T, "xywh", "the custom of YOLO")
        reader = Yolo(name, coordinates, transposed, objectness, classes, logits)
        return reader, classes, self.evidence

    def _end_to_end(self, name: str, value: Array) -> Answer:
        self.note(
            "output",
            f"{name} {shape_of(value)}: x1, y1, x2, y2, score, class of objects",
            "the shape and the values: column 5 holds whole numbers, corners are in order",
        )
        coordinates = self.coordinates(value[:, :4], "xyxy", "the values")
        return EndToEnd(name, coordinates), None, self.evidence

    def _objectness(self, columns: Array, places: int, *, transposed: bool) -> bool:
        labels = len(self.files.labels)
        for answer, why in (
            (self.said.get("objectness"), "the YAML"),
            (False if labels and len(columns) == labels + 4 else None, f"{labels} labels"),
            (True if labels and len(columns) == labels + 5 else None, f"{labels} labels"),
            (True if columns.shape[1] == 3 * places else None, f"three boxes at {places} places"),
            (False if transposed else None, "columns come first, as in YOLO v8 and newer"),
            (len(columns) == 85, "the number of columns (a guess)"),
        ):
            if answer is not None:
                self.note("objectness", "column 4" if answer else "none", why)
                return bool(answer)
        raise AssertionError

    def pointed(self) -> Answer:
        """Boxes with key points around the points of a grid."""
        scores, boxes = sorted(self.names, key=lambda name: self.values[name].shape[2])
        why = "the shape: boxes with key points, and a score for each"
        self.note("boxes", self.describe(boxes), why)
        self.note("scores", self.describe(scores), why)
        grids = grid_points(self.takes.size, self.values[boxes].shape[1])
        if grids is None:
            raise self.unclear()
        points, strides = grids
        self.note(
            "grid", f"{len(points)} points, strides {strides}", "their number: as MediaPipe's"
        )
        logits = self.logits(self.values[scores][0])
        return Pointed(boxes, scores, points, self.takes.size, logits), 1, self.evidence


def _is_end_to_end(rows: Array) -> bool:
    """Whether these are corners, score and class; rows that are all 0 stand for nothing."""
    scores, classes = rows[:, 4], rows[:, 5]
    ordered = (rows[:, 2:4] >= rows[:, :2]).all(axis=1).mean() > 0.95
    whole = (classes == np.rint(classes)).all() and (classes >= 0).all()
    return bool(ordered and whole and (scores >= 0).all() and (scores <= 1.0001).all())
