"""What a task found on a picture, as every strategy shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlopsdeploy.columns import Columns


@dataclass(frozen=True)
class Detection:
    """One object, or the class of the whole picture.

    Attributes:
        label: its name.
        score: 0 to 1.
        box: x1, y1, x2, y2 relative to the picture, 0 to 1; None for the whole picture.
    """

    label: str
    score: float
    box: tuple[float, float, float, float] | None = None

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int] | None:
        """The box in pixels of a picture of that size."""
        if self.box is None:
            return None
        x1, y1, x2, y2 = self.box
        return round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)

    def as_dict(self, width: int, height: int) -> dict[str, Any]:
        """The same for JSON."""
        found: dict[str, Any] = {"label": self.label, "score": round(self.score, 4)}
        if self.box is not None:
            found["box"] = self.pixels(width, height)
            found["relative"] = [round(side, 5) for side in self.box]
        return found


def detections_of(predictions: Columns, row: int = 0) -> tuple[Detection, ...]:
    """What a task says of a row: boxes of a detector, or the label of a classifier."""
    labels, scores = predictions["label"][row], predictions["score"][row]
    if "boxes" not in predictions:
        return (Detection(str(labels), float(scores)),) if labels else ()
    boxes = np.asarray(predictions["boxes"][row], np.float32).tolist()
    return tuple(
        Detection(str(label), float(score), tuple(box))
        for label, score, box in zip(labels, scores, boxes, strict=True)
    )
