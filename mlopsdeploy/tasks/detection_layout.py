"""Which output of a detector is what: by its YAML, names, shapes and values, never by its place.

Names are looked at first, then shapes; what is left open is decided by what the model outputs for a
made-up picture. Only where all of that is silent the order of the outputs decides, and the facts
say so. What can't be found out stands in a `model.yaml`: see `OutputKeys` and `BoxKeys`.
"""

from __future__ import annotations

import re

import numpy as np

from mlopsdeploy.columns import Array, Columns, Fact, ModelFiles, Runtime
from mlopsdeploy.core.model_yaml import OutputKeys
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.detection_outputs import (
    Anchored,
    Coordinates,
    EndToEnd,
    Listed,
    Reader,
    Scored,
    Yolo,
    beyond_one,
    grid_points,
    which_are_scores,
    yolo_positions,
)
from mlopsdeploy.tasks.pictures import PictureInput
from mlopsdeploy.tasks.scores import starts_with_background
from mlopsdeploy.tasks.ssd import Ssd

Answer = tuple[Reader, int | None]
"""The reader, and the number of classes without a background (None: unknown)."""

ROLES = ("boxes", "scores", "classes", "count")
_ORDERS = {"xyxy": "x1 y1 x2 y2", "yxyx": "y1 x1 y2 x2", "xywh": "centre x y, width, height"}
_COARSE = 1 / 16  # a step of quantisation that leaves no score worth the name
# The first that matches: "class_scores" are scores, "num_classes" is a count.
_NAMES = {
    "count": re.compile(r"num|count", re.IGNORECASE),
    "boxes": re.compile(r"box|location|coord", re.IGNORECASE),
    "scores": re.compile(r"score|prob|conf", re.IGNORECASE),
    "classes": re.compile(r"class|categor|label", re.IGNORECASE),
}
_BESIDE = re.compile(r"raw_|multiclass|anchor_indices|mask|keypoint", re.IGNORECASE)
_POST_PROCESS = re.compile(r"TFLite_Detection_PostProcess(?::(\d))?$")
_POST_PROCESS_ROLES = ("boxes", "classes", "scores", "count")
# SSD MobileNet for COCO, the commonest layout of anchors by far.
_USUAL_STRIDES = (16, 32, 64, 128, 256, 512)


def read_outputs(
    files: ModelFiles, runtime: Runtime, takes: PictureInput, values: Columns
) -> tuple[Reader, int | None, list[Fact]]:
    """How to read a detector's outputs.

    Args:
        files: what its files say.
        runtime: its tensors.
        takes: its input.
        values: its outputs for one picture.

    Returns:
        The reader, the number of classes without a background (None: unknown), and
        the facts that were found.

    Raises:
        ModelError: the outputs are none of a detector, or it can't be known what they are.
    """
    finder = _OutputFinder(files, runtime, takes, values)
    if is_yolo(runtime):
        reader, classes = finder.one_tensor()
    elif is_pointed(runtime):
        reader, classes = finder.pointed()
    else:
        reader, classes = finder.several()
    return reader, classes, finder.facts


def is_yolo(runtime: Runtime) -> bool:
    """Whether the shapes are those of a detector with all in one tensor."""
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


class _OutputFinder:
    """Looks at a detector's outputs for one picture and notes what it finds."""

    def __init__(
        self, files: ModelFiles, runtime: Runtime, takes: PictureInput, values: Columns
    ) -> None:
        self.keys = files.yaml.outputs or OutputKeys()
        self.files, self.takes, self.values = files, takes, values
        self.quantization = runtime.quantization
        self.names = [field.name for field in runtime.outputs]
        self.facts: list[Fact] = []
        self.settled = True  # no picture is needed to show which are scores and which classes

    def note(self, what: str, value: str, why: str) -> None:
        self.facts.append(Fact(what, value, why))

    def note_tensor(self, role: str, name: str, why: str) -> None:
        self.note(role, f"{name} {_shape_of(self.values[name][0])}", why)

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self.files.name}: {what}")

    def logits(self, scores: Array) -> bool:
        """Whether scores still want a sigmoid."""
        if self.keys.logits is not None:
            logits, why = self.keys.logits, "the YAML"
        else:
            low, high = float(scores.min()), float(scores.max())
            # Logits are far below 0 wherever there is no object, which is nearly everywhere.
            logits = low < -0.05 or high > 1.05
            why = f"the values, {low:.2g} to {high:.2g}"
        self.note("scores are", "logits: a sigmoid follows" if logits else "probabilities", why)
        return logits

    def coordinates(self, boxes: Array, order: str, why: str) -> Coordinates:
        """How boxes are written; the order is this one unless the YAML or the file has another."""
        if self.keys.order:
            order, why = self.keys.order, "the YAML"
        elif "box_order" in self.files.metadata:
            order, why = self.files.metadata["box_order"], "the file's metadata"
        self.note("a box is", _ORDERS[order], why)
        if self.keys.coordinates:
            pixels, why = self.keys.coordinates == "pixels", "the YAML"
        elif self.files.metadata.get("pixels"):
            pixels, why = True, "the file's metadata"
        elif len(boxes):
            # Centres: what stands for nothing may be many pictures wide, but lies within one.
            centres = boxes[:, :2] if order == "xywh" else (boxes[:, :2] + boxes[:, 2:]) / 2
            pixels = beyond_one(centres)
            why = f"the values: centres up to {float(centres.max()):.4g}"
        else:
            pixels, why = False, "the custom (no box to see it by yet)"
        self.note("coordinates", "pixels of the input" if pixels else "relative", why)
        return Coordinates(order, self.takes.size, pixels)

    def unclear(self) -> ModelError:
        """The error for outputs that fit nothing known."""
        shapes = ", ".join(f"{name} {_shape_of(self.values[name][0])}" for name in self.names)
        if all(self._is_of_pixels(value) for value in self.values.values()):
            return self.error(
                f"gives an answer for each pixel ({shapes}), which is no object's; 'task: tensors' "
                "in a YAML beside the file, or --task tensors, gives its outputs as they are"
            )
        if sum(value.ndim >= 4 for value in self.values.values()) == len(self.names) > 1:
            return self.error(
                f"gives raw feature maps ({shapes}); export it with its boxes decoded, or say "
                "'task: tensors' for its outputs as they are"
            )
        return self.error(
            f"gives {shapes}, and it can't be known which are boxes and scores; name them under "
            "'outputs:' in a YAML beside the file, or say what it is there, as in 'task: "
            "image_classification', or 'task: tensors' for its outputs as they are"
        )

    def _is_of_pixels(self, value: Array) -> bool:
        """Whether an output is as high and wide as the picture, as masks are."""
        return self.takes.size in (value.shape[1:3], value.shape[2:4])

    # ------------------------------------------------------------ one tensor, or a grid

    def one_tensor(self) -> Answer:
        """A YOLO of any version."""
        name = next(name for name in self.names if self.values[name].ndim == 3)
        value = self.values[name][0]
        quantization = self.quantization.get(name)
        if quantization and quantization.scale > _COARSE:
            raise self.error(
                f"its output is quantised in steps of {quantization.scale:.3g}, too coarse for "
                "scores from 0 to 1; export it with coordinates relative to the picture or as float"
            )
        places = yolo_positions(self.takes.size)
        known = {places, 3 * places}
        if value.shape[1] == 6 and value.shape[0] not in known and _is_end_to_end(value):
            self.note(
                "output",
                f"{name} {_shape_of(value)}: x1, y1, x2, y2, score, class of objects",
                "the shape and the values: column 5 holds whole numbers, corners are in order",
            )
            return EndToEnd(name, self.coordinates(value[:, :4], "xyxy", "the values")), None
        transposed = value.shape[1] > value.shape[0]
        if {value.shape[0], value.shape[1]} & known:
            transposed = value.shape[1] in known
        columns = value if transposed else value.T
        if min(columns.shape) < 5:
            raise self.error(f"{name} {value.shape} is no output of a detector")
        shape = "columns first" if transposed else "a row for each box"
        self.note("output", f"{name} {_shape_of(value)}: YOLO, {shape}", "the shape")
        objectness = self._objectness(columns, places, transposed=transposed)
        left = len(columns) - 4 - objectness
        classes = len(self.files.labels) if 0 < len(self.files.labels) < left else left
        rest = f", {left - classes} more columns left unread" if left > classes else ""
        self.note("classes", f"{classes}{rest}", "the columns" + " and the labels" * bool(rest))
        logits = self.logits(columns[4 : 5 + classes if objectness else 4 + classes])
        coordinates = self.coordinates(columns[:4].T, "xywh", "the custom of YOLO")
        return Yolo(name, coordinates, transposed, objectness, classes, logits), classes

    def _objectness(self, columns: Array, places: int, *, transposed: bool) -> bool:
        labels = len(self.files.labels)
        known, why = next(
            (known, why)
            for known, why in (
                (self.keys.objectness, "the YAML"),
                (self.files.metadata.get("objectness"), "the file's metadata"),
                (False if labels and len(columns) == labels + 4 else None, f"{labels} labels"),
                (True if labels and len(columns) == labels + 5 else None, f"{labels} labels"),
                (columns.shape[1] == 3 * places or None, f"three boxes at {places} places"),
                (False if transposed else None, "columns come first, as in YOLO v8 and newer"),
                (len(columns) == 85, "the number of columns (a guess)"),
            )
            if known is not None
        )
        self.note("objectness", "column 4" if known else "none", why)
        return bool(known)

    def pointed(self) -> Answer:
        """Boxes with key points around the points of a grid."""
        scores, boxes = sorted(self.names, key=lambda name: self.values[name].shape[2])
        why = "the shape: boxes with key points, and a score for each"
        self.note_tensor("boxes", boxes, why)
        self.note_tensor("scores", scores, why)
        grids = grid_points(self.takes.size, self.values[boxes].shape[1])
        if grids is None:
            raise self.unclear()
        points, strides = grids
        why = "their number: as MediaPipe's"
        self.note("grid", f"{len(points)} points, strides {strides}", why)
        logits = self.logits(self.values[scores][0])
        coordinates = Coordinates("xywh", self.takes.size, pixels=True)
        return Scored(boxes, scores, None, coordinates, logits, points=points), 1

    # ------------------------------------------------------------ several tensors

    def several(self) -> Answer:
        """Boxes and scores, and mostly classes and a count, in tensors of their own."""
        roles = self._roles_of_yaml() or self._roles_named() or self._roles_shaped()
        boxes, scores = self.values[roles["boxes"]][0], self.values[roles["scores"]][0]
        if scores.ndim == 2 and "classes" not in roles:
            return self._raw(roles, boxes, scores)
        return self._listed(roles, boxes.reshape(-1, 4))

    def _roles_of_yaml(self) -> dict[str, str]:
        roles = {role: name for role, name in dict(self.keys).items() if role in ROLES and name}
        for role, name in roles.items():
            if name not in self.names:
                raise self.error(
                    f"outputs.{role} is {name!r}, but it gives {', '.join(self.names)}"
                )
            self.note_tensor(role, name, "the YAML")
        if roles and not {"boxes", "scores"} <= set(roles):
            raise self.error("'outputs' names no boxes, or no scores")
        return roles

    def _roles_named(self) -> dict[str, str]:
        """By what their author calls them in the file, or in its metadata."""
        written = self.files.metadata.get("outputs", [])
        for names, why in ((self.names, "the name"), (written, "the name in the metadata")):
            roles: dict[str, str] = {}
            if len(names) == len(self.names):
                for name, tensor in zip(names, self.names, strict=True):
                    role = _role_of(name)
                    if role and role not in roles and self._fits(role, tensor):
                        roles[role] = tensor
            if {"boxes", "scores"} <= set(roles) and not self._belies(roles, names):
                for role, tensor in roles.items():
                    name = f" {names[self.names.index(tensor)]!r}" if names is written else ""
                    self.note_tensor(role, tensor, f"{why}{name} and the shape")
                return roles
        return {}

    def _belies(self, roles: dict[str, str], names: list[str]) -> bool:
        """Whether names leave a list of numbers out, or the values say the opposite of them."""
        many = len(self.values[roles["boxes"]][0])
        for name, tensor in zip(names, self.names, strict=True):
            unnamed = tensor not in roles.values() and not _BESIDE.search(name)
            if unnamed and self.values[tensor].shape[1:] == (many,):
                return True
        if "classes" not in roles or self.values[roles["scores"]].ndim > 2:
            return False
        count = self._count(roles, many)
        pair = [self.values[roles[role]][0].reshape(-1)[:count] for role in ("scores", "classes")]
        return which_are_scores(*pair) == 1

    def _count(self, roles: dict[str, str], many: int) -> int:
        """How many of the boxes are objects of this picture."""
        if "count" not in roles:
            return many
        return min(max(int(self.values[roles["count"]].reshape(-1)[0]), 0), many)

    def _fits(self, role: str, name: str) -> bool:
        value = self.values[name]
        if role == "boxes":
            return value.ndim >= 3 and value.shape[-1] == 4
        return value.ndim <= 3 and (role != "count" or value.size == len(value))

    def _roles_shaped(self) -> dict[str, str]:
        """By shape: (n, 4) are boxes, one number is a count; then by value."""
        four = [name for name in self.names if self._fits("boxes", name)]
        if len(four) != 1:
            raise self.unclear()
        boxes = four[0]
        many = len(self.values[boxes][0])
        others = {name: self.values[name].shape[1:] for name in self.names if name != boxes}
        flat = [name for name, shape in others.items() if shape == (many,)]
        table = [name for name, shape in others.items() if len(shape) == 2 and shape[0] == many]
        count = [name for name, shape in others.items() if not shape]
        roles = {"boxes": boxes}
        self.note_tensor("boxes", boxes, "the shape: the only one of four columns")
        if count and (flat or table):
            roles["count"] = count[0]
            self.note_tensor("count", count[0], "the shape: one number")
        if len(flat) == 2:
            self._tell_apart(roles, flat)
        elif len(flat) + len(table) == 1:
            roles["scores"] = (flat + table)[0]
            self.note_tensor("scores", roles["scores"], "the shape: a row for each box")
        else:
            raise self.unclear()
        return roles

    def _tell_apart(self, roles: dict[str, str], pair: list[str]) -> None:
        """Scores and classes, both (n,): by the values, or else by the order of the outputs."""
        count = self._count(roles, len(self.values[pair[0]][0]))
        found = which_are_scores(*(self.values[name][0][:count] for name in pair))
        why = "the values: classes are whole numbers, scores lie between 0 and 1"
        if found is None:
            # TensorFlow 1: boxes, classes, scores, count. Since TensorFlow 2 scores come before
            # classes: scores, boxes, count, classes, or count, scores, classes, boxes.
            found = 1 if self.names.index(roles["boxes"]) < self.names.index(pair[0]) else 0
            self.settled = False
            why = "the order of the outputs, until a picture with objects shows it"
        roles["scores"], roles["classes"] = pair[found], pair[1 - found]
        for role in ("scores", "classes"):
            self.note_tensor(role, roles[role], why)

    def _listed(self, roles: dict[str, str], boxes: Array) -> Answer:
        scores = self.values[roles["scores"]][0].reshape(-1)
        names = roles["boxes"], roles["scores"]
        classes, count = roles.get("classes"), roles.get("count")
        done = count is not None or bool((np.diff(scores) <= 1e-6).all())
        if "TFLite_Detection_PostProcess" in self.files.metadata.get("operators", ()):
            order, why = "yxyx", "what TFLite_Detection_PostProcess gives"
        elif beyond_one(boxes) or not done:
            order, why = "xyxy", "the custom of models outside TensorFlow (a guess)"
        else:
            order, why = "yxyx", "the custom of TensorFlow (a guess)"
        coordinates = self.coordinates(boxes[: self._count(roles, len(boxes))], order, why)
        if done:
            return Listed(*names, classes, count, coordinates, settled=self.settled), None
        logits = self.logits(scores)
        self.note("overlaps", "non-maximum suppression here", "scores are not sorted, no count")
        return Scored(*names, classes, coordinates, logits), None

    def _raw(self, roles: dict[str, str], boxes: Array, scores: Array) -> Answer:
        """Boxes (n, 4) and scores (n, classes): of an SSD with anchors, or boxes as they are."""
        columns = scores.shape[1]
        names = roles["boxes"], roles["scores"]
        ssd = self._anchors(boxes, columns)
        if ssd is None:
            if not _corners(boxes):
                raise self.error(
                    f"gives {len(boxes)} boxes as offsets to anchors, which it does not describe; "
                    "say how they lie under 'boxes:' in a YAML beside the file (size, strides, "
                    "min_scale, max_scale, aspect_ratios)"
                )
            background = self._background(columns, usual=False)
            coordinates = self.coordinates(boxes, "xyxy", "the values: corners are in order")
            reader = Scored(*names, None, coordinates, self.logits(scores), background)
            return reader, columns - (background is not None)
        if ssd.given is not None:
            logits = bool(self.files.metadata["sigmoid"])
            self.note("scores are", "logits" if logits else "probabilities", "the file's metadata")
        else:
            logits = self.logits(scores)
        if len(ssd.anchors) != len(boxes):
            raise self.error(
                f"gives {len(boxes)} boxes, but its 'boxes:' describe {len(ssd.anchors)} anchors"
            )
        return Anchored(*names, ssd, logits), columns - (ssd.background is not None)

    def _anchors(self, boxes: Array, columns: int) -> Ssd | None:
        size, metadata = self.takes.size, self.files.metadata
        if self.files.yaml.boxes:
            ssd = Ssd(**dict(self.files.yaml.boxes))
            self.note("anchors", f"{len(ssd.anchors)}, strides {list(ssd.strides)}", "the YAML")
            return ssd
        given = metadata.get("anchors")
        if given is not None:
            self.note("anchors", f"{len(given)}, listed one by one", "the file's metadata")
            background = self._background(columns, usual=False)
            return Ssd(size, (), coder=metadata["coder"], background=background, given=given)
        if len(Ssd(size, _USUAL_STRIDES).anchors) != len(boxes) or _corners(boxes):
            return None
        why = "their number: those of SSD MobileNet (a guess)"
        self.note("anchors", f"{len(boxes)}, strides {list(_USUAL_STRIDES)}", why)
        return Ssd(size, _USUAL_STRIDES, background=self._background(columns, usual=True))

    def _background(self, columns: int, *, usual: bool) -> int | None:
        """Column 0 if it stands for no object, by the number of labels or by custom."""
        labels = self.files.labels
        if columns - len(labels) in (0, 1):
            background = columns > len(labels) or starts_with_background(labels)
            why = f"{len(labels)} labels"
        else:
            background, why = usual, "the custom of such models (a guess)"
        self.note("background", "column 0" if background else "none", why)
        return 0 if background else None


def _shape_of(value: Array) -> str:
    return f"({'×'.join(str(size) for size in value.shape)})" if value.ndim else "(one)"


def _is_end_to_end(rows: Array) -> bool:
    """Whether these are corners, score and class; rows that are all 0 stand for nothing."""
    scores, classes = rows[:, 4], rows[:, 5]
    ordered = (rows[:, 2:4] >= rows[:, :2]).all(axis=1).mean() > 0.95
    whole = (classes == np.rint(classes)).all() and (classes >= 0).all()
    return bool(ordered and whole and (scores >= 0).all() and (scores <= 1.0001).all())


def _role_of(name: str) -> str | None:
    post_process = _POST_PROCESS.search(name)
    if post_process:
        return _POST_PROCESS_ROLES[int(post_process[1] or 0) % 4]
    if _BESIDE.search(name):
        return None
    return next((role for role, pattern in _NAMES.items() if pattern.search(name)), None)


def _corners(boxes: Array) -> bool:
    """Whether these are corners, the smaller first, and not offsets or sizes."""
    ordered = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = boxes.min() > -0.5 * max(float(boxes.max()), 1)
    return bool(ordered.mean() > 0.95 and inside)
