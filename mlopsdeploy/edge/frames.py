"""A frame, what was found on it, and the memory that frames live in."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mlopsdeploy.columns import Array, Columns

Image = Array  # uint8, shape (height, width, 3), BGR


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        number: its place in the source, from 0; frames that were dropped leave gaps.
        image: shape (height, width, 3), BGR. Belongs to this frame alone.
        captured: when it was read, seconds of `time.monotonic`.
        time: the same in seconds since 1970.
        media_time: its place in a video in seconds; None for a camera or a picture.
        name: file name of a picture.
    """

    number: int
    image: Image
    captured: float = field(default_factory=time.monotonic)
    time: float = field(default_factory=time.time)
    media_time: float | None = None
    name: str | None = None


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
        said: dict[str, Any] = {"label": self.label, "score": round(self.score, 4)}
        if self.box is not None:
            said["box"] = self.pixels(width, height)
            said["relative"] = [round(side, 5) for side in self.box]
        return said


def detections_of(predictions: Columns) -> tuple[Detection, ...]:
    """What a task says of the first row: boxes of a detector, or the label of a classifier."""
    labels, scores = predictions["label"][0], predictions["score"][0]
    if "boxes" not in predictions:
        return (Detection(str(labels), float(scores)),) if labels else ()
    boxes = np.asarray(predictions["boxes"][0], np.float32).tolist()
    return tuple(
        Detection(str(label), float(score), tuple(box))
        for label, score, box in zip(labels, scores, boxes, strict=True)
    )


class Buffers:
    """Pictures' memory, used again as soon as nobody holds it.

    Fresh memory for every frame costs as much time as converting the frame into it. A buffer is
    free when the only reference to it is the one here; a view of it counts as one too.
    """

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._buffers: list[Image] = []
        self._lock = threading.Lock()

    def take(self) -> Image | None:
        """A buffer that is free, to be read into; None where there is none yet."""
        with self._lock:
            for place in range(len(self._buffers)):
                buffer = self._buffers[place]
                if sys.getrefcount(buffer) <= 3:  # in the list, in `buffer`, and as an argument
                    return buffer
        return None

    def add(self, image: Image) -> None:
        """Remember a picture's memory, unless it is known."""
        with self._lock:
            if not any(buffer is image for buffer in self._buffers):
                self._buffers = [b for b in self._buffers if b.shape == image.shape]
                if len(self._buffers) < self._limit:
                    self._buffers.append(image)


def read_into(capture: cv2.VideoCapture, buffers: Buffers) -> Image | None:
    """The next frame of a capture, in memory that was used before where some is free."""
    free = buffers.take()
    good, image = capture.read() if free is None else capture.read(free)
    if not good:
        return None
    if image is not free:
        buffers.add(image)
    return image
