"""A frame, and the memory that frames live in."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field

import cv2

from mlopsdeploy.columns import Array

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
