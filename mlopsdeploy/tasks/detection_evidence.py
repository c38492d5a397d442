"""Which output of a detector is what: by its YAML, names, shapes and values, never by its place.

Names are looked at first, then shapes; what is left open is decided by what the model really
gives for a made-up picture. Only where all of that is silent the order of the outputs decides, and
the evidence says so. In a `model.yaml`, for what can't be found out:

    outputs:
      boxes: StatefulPartitionedCall:1      # tensors by role: boxes, scores, classes, count
      order: yxyx                           # or xyxy, or xywh (of the centre)
      coordinates: relative                 # or pixels (of the model's input)
      objectness: false                     # YOLO: whether column 4 is one
      logits: false                         # whether scores still want a sigmoid
    boxes:                                  # an SSD's anchors: see `ssd.Ssd`
      size: [300, 300]
      strides: [16, 32, 64, 128, 256, 512]
"""

from __future__ import annotations

import re

import numpy as np

from mlopsdeploy.columns import Array, Columns, ModelFiles, Runtime
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.detection_outputs import (
    Anchored,
    GivenAnchors,
    Listed,
    Reader,
    Scored,
    beyond_one,
    which_are_scores,
)
from mlopsdeploy.tasks.grid_evidence import GridFinder, is_pointed, is_yolo
from mlopsdeploy.tasks.output_evidence import ROLES, Answer, OutputFinder
from mlopsdeploy.tasks.picture_evidence import starts_with_background
from mlopsdeploy.tasks.pictures import PictureInput
from mlopsdeploy.tasks.ssd import Ssd

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
) -> Answer:
    """How to read a detector's outputs.

    Args:
        files: what its files say.
        runtime: its tensors.
        takes: its input.
        values: what it gave for one picture.

    Returns:
        The reader, the number of classes without a background (None where nothing tells), and
        what speaks for it.

    Raises:
        ModelError: the outputs are none of a detector, or it can't be known what they are.
    """
    if is_yolo(runtime):
        return GridFinder(files, runtime, takes, values).one_tensor()
    if is_pointed(runtime):
        return GridFinder(files, runtime, takes, values).pointed()
    return RoleFinder(files, runtime, takes, values).several()


class RoleFinder(OutputFinder):
    """Tells boxes, scores, classes and count of several tensors apart."""

    unsettled = False
    """Whether scores and classes still wait for a picture that shows which is which."""

    def several(self) -> Answer:
        """Boxes and scores, and mostly classes and a count, in tensors of their own."""
        roles = self._roles_said() or self._roles_named() or self._roles_shaped()
        boxes, scores = self.values[roles["boxes"]][0], self.values[roles["scores"]][0]
        if scores.ndim == 2 and "classes" not in roles:
            return self._raw(roles, boxes, scores)
        return self._listed(roles, boxes.reshape(-1, 4))

    def _roles_said(self) -> dict[str, str]:
        roles = {role: str(self.said[role]) for role in ROLES if role in self.said}
        for role, name in roles.items():
            if name not in self.names:
                raise ModelError(
                    f"{self.files.name}: outputs.{role} is {name!r}, but it gives "
                    f"{', '.join(self.names)}"
                )
            self.note(role, self.describe(name), "the YAML")
        if roles and not {"boxes", "scores"} <= set(roles):
            raise ModelError(f"{self.files.name}: 'outputs' names no boxes, or no scores")
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
                    said = f" {names[self.names.index(tensor)]!r}" if names is written else ""
                    self.note(role, self.describe(tensor), why + said + " and the shape")
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
        flat = [n for n in self.names if n != boxes and self.values[n].shape[1:] == (many,)]
        table = [
            n
            for n in self.names
            if n != boxes and self.values[n].ndim == 3 and self.values[n].shape[1] == many
        ]
        count = [n for n in self.names if self.values[n].ndim < 2 and n not in flat]
        roles = {"boxes": boxes}
        self.note("boxes", self.describe(boxes), "the shape: the only one of four columns")
        if count and (flat or table):
            roles["count"] = count[0]
            self.note("count", self.describe(count[0]), "the shape: one number")
        if len(flat) == 2:
            self._tell_apart(roles, flat)
        elif len(flat) + len(table) == 1:
            roles["scores"] = (flat + table)[0]
            self.note("scores", self.describe(roles["scores"]), "the shape: a row for each box")
        else:
            raise self.unclear()
        return roles

    def _tell_apart(self, roles: dict[str, str], pair: list[str]) -> None:
        """Scores and classes, both (n,): by the values, or else by the order of the outputs."""
        count = self._count(roles, len(self.values[pair[0]][0]))
        found = which_are_scores(*(self.values[name][0][:count] for name in pair))
        if found is None:
            # TensorFlow 1: boxes, classes, scores, count. Since TensorFlow 2 scores come before
            # classes: scores, boxes, count, classes, or count, scores, classes, boxes.
            found = 1 if self.names.index(roles["boxes"]) < self.names.index(pair[0]) else 0
            self.unsettled = True
            why = "the order of the outputs, until a picture with objects shows it"
        else:
            why = "the values: classes are whole numbers, scores lie between 0 and 1"
        roles["scores"], roles["classes"] = pair[found], pair[1 - found]
        for role in ("scores", "classes"):
            self.note(role, self.describe(roles[role]), why)

    def _listed(self, roles: dict[str, str], boxes: Array) -> Answer:
        scores = self.values[roles["scores"]][0].reshape(-1)
        classes, count = roles.get("classes"), roles.get("count")
        done = count is not None or bool((np.diff(scores) <= 1e-6).all())
        post_process = "TFLite_Detection_PostProcess" in self.files.metadata.get("operators", ())
        if post_process:
            order, why = "yxyx", "what TFLite_Detection_PostProcess gives"
        elif beyond_one(boxes) or not done:
            order, why = "xyxy", "the custom of models outside TensorFlow (a guess)"
        else:
            order, why = "yxyx", "the custom of TensorFlow (a guess)"
        coordinates = self.coordinates(boxes[: self._count(roles, len(boxes))], order, why)
        if done:
            reader: Reader = Listed(
                roles["boxes"],
                roles["scores"],
                classes,
                count,
                coordinates,
                settled=not self.unsettled,
            )
            return reader, None, self.evidence
        logits = self.logits(scores)
        self.note("overlaps", "non-maximum suppression here", "scores are not sorted, no count")
        return (
            Scored(roles["boxes"], roles["scores"], classes, coordinates, logits),
            None,
            self.evidence,
        )

    def _raw(self, roles: dict[str, str], boxes: Array, scores: Array) -> Answer:
        """Boxes (n, 4) and scores (n, classes): of an SSD with anchors, or boxes as they are."""
        columns = scores.shape[1]
        ssd = self._anchors(boxes, columns)
        metadata = self.files.metadata
        if ssd is None:
            if not _corners(boxes):
                raise ModelError(
                    f"{self.files.name}: gives {len(boxes)} boxes as offsets to anchors, which it "
                    "does not describe; say how they lie under 'boxes:' in a YAML beside the file "
                    "(size, strides, min_scale, max_scale, aspect_ratios)"
                )
            background = self._background(columns, usual=False)
            coordinates = self.coordinates(boxes, "xyxy", "the values: corners are in order")
            logits = self.logits(scores)
            classes = columns - (background is not None)
            reader: Reader = Scored(
                roles["boxes"], roles["scores"], None, coordinates, logits, background
            )
            return reader, classes, self.evidence
        if "anchors" in metadata and "boxes" not in self.files.said:
            logits = bool(metadata["sigmoid"])
            self.note("scores are", "logits" if logits else "probabilities", "the file's metadata")
        else:
            logits = self.logits(scores)
        if len(ssd.anchors) != len(boxes):
            raise ModelError(
                f"{self.files.name}: gives {len(boxes)} boxes, but its 'boxes:' describe "
                f"{len(ssd.anchors)} anchors"
            )
        classes = columns - (ssd.background is not None)
        return Anchored(roles["boxes"], roles["scores"], ssd, logits), classes, self.evidence

    def _anchors(self, boxes: Array, columns: int) -> Ssd | None:
        said = self.files.said.get("boxes")
        if said:
            try:
                ssd = Ssd(**said)
            except TypeError as error:
                raise ModelError(f"{self.files.name}: 'boxes' in its YAML: {error}") from error
            self.note("anchors", f"{len(ssd.anchors)}, strides {list(ssd.strides)}", "the YAML")
            return ssd
        given = self.files.metadata.get("anchors")
        if given is not None:
            self.note("anchors", f"{len(given)}, listed one by one", "the file's metadata")
            return GivenAnchors(
                self.takes.size,
                (),
                coder=self.files.metadata["coder"],
                background=self._background(columns, usual=False),
                given=given,
            )
        usual = Ssd(self.takes.size, _USUAL_STRIDES)
        if len(usual.anchors) == len(boxes) and not _corners(boxes):
            self.note(
                "anchors",
                f"{len(boxes)}, strides {list(_USUAL_STRIDES)}",
                "their number: those of SSD MobileNet (a guess)",
            )
            background = self._background(columns, usual=True)
            return Ssd(self.takes.size, _USUAL_STRIDES, background=background)
        return None

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
