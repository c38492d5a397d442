"""What the ways to find out which output is which have in common: the YAML, notes, messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlopsdeploy.columns import Array, Columns, ModelFiles, Runtime
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.detection_outputs import Coordinates, Reader, beyond_one
from mlopsdeploy.tasks.picture_evidence import Evidence
from mlopsdeploy.tasks.pictures import PictureInput

Answer = tuple[Reader, int | None, list[Evidence]]
"""The reader, the number of classes without a background (None where nothing tells), and why."""

ROLES = ("boxes", "scores", "classes", "count")
_KEYS = {*ROLES, "order", "coordinates", "objectness", "logits"}
_ORDERS = {"xyxy": "x1 y1 x2 y2", "yxyx": "y1 x1 y2 x2", "xywh": "centre x y, width, height"}


class OutputFinder:
    """Looks at a detector's outputs and notes what it finds.

    Args:
        files: what its files say.
        runtime: its tensors.
        takes: its input.
        values: what it gave for one picture.
    """

    def __init__(
        self, files: ModelFiles, runtime: Runtime, takes: PictureInput, values: Columns
    ) -> None:
        said = files.said.get("outputs") or {}
        unknown = set(said) - _KEYS if isinstance(said, Mapping) else {str(said)}
        if unknown:
            raise ModelError(
                f"{files.name}: unknown key {min(unknown)!r} under 'outputs' in its YAML; "
                f"there are {', '.join(sorted(_KEYS))}"
            )
        self.said: Mapping[str, Any] = said
        self.files, self.takes, self.values = files, takes, values
        self.quantization = getattr(runtime, "quantization", {})
        self.names = [field.name for field in runtime.outputs]
        self.evidence: list[Evidence] = []

    def note(self, what: str, value: str, why: str) -> None:
        """Keep one finding."""
        self.evidence.append(Evidence(what, value, why))

    def logits(self, scores: Array) -> bool:
        """Whether scores still want a sigmoid."""
        if "logits" in self.said:
            logits, why = bool(self.said["logits"]), "the YAML"
        else:
            low, high = float(scores.min()), float(scores.max())
            # Logits are far below 0 wherever there is no object, which is nearly everywhere.
            logits = low < -0.05 or high > 1.05
            why = f"the values, {low:.2g} to {high:.2g}"
        self.note("scores are", "logits: a sigmoid follows" if logits else "probabilities", why)
        return logits

    def coordinates(self, boxes: Array, order: str, why: str) -> Coordinates:
        """How boxes are written, the order being this one unless something else is said."""
        said = self.said.get("order", self.files.metadata.get("box_order"))
        if said is not None:
            order, why = str(said), "the YAML" if "order" in self.said else "the file's metadata"
        if order not in _ORDERS:
            raise ModelError(
                f"{self.files.name}: outputs.order is {order!r}; use {', '.join(_ORDERS)}"
            )
        self.note("a box is", _ORDERS[order], why)
        if "coordinates" in self.said:
            unit = self.said["coordinates"]
            if unit not in ("pixels", "relative"):
                raise ModelError(
                    f"{self.files.name}: outputs.coordinates is {unit!r}; use pixels or relative"
                )
            pixels, why = unit == "pixels", "the YAML"
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

    def describe(self, name: str) -> str:
        """An output and its shape, for people."""
        return f"{name} {shape_of(self.values[name][0])}"

    def unclear(self) -> ModelError:
        """The error for outputs that fit nothing known."""
        shapes = ", ".join(self.describe(name) for name in self.names)
        if sum(value.ndim >= 4 for value in self.values.values()) == len(self.names) > 1:
            return ModelError(
                f"{self.files.name}: gives raw feature maps ({shapes}); export it with its boxes "
                "decoded"
            )
        return ModelError(
            f"{self.files.name}: gives {shapes}, and it can't be known which are boxes and scores; "
            "name them under 'outputs:' in a YAML beside the file, or say 'task: "
            "image_classification' there (other tasks on pictures are not supported)"
        )


def shape_of(value: Array) -> str:
    """The shape of an output for one picture, for people."""
    return f"({'×'.join(str(size) for size in value.shape)})" if value.ndim else "(one)"
