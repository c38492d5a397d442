"""What there is of a frame when the model and the filters are done with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.draw import Place, draw
from mlopsdeploy.edge.events import iso
from mlopsdeploy.edge.frames import Frame, Image
from mlopsdeploy.edge.stages import Stats


@dataclass
class Result:
    """A frame and what was found on it; `places` are drawn as well."""

    frame: Frame
    detections: tuple[Detection, ...]
    stats: Stats
    places: Sequence[Place] = ()
    _drawing: threading.Lock = field(default_factory=threading.Lock)
    _drawn: bool = False

    def drawn(self) -> Image:
        """The frame with its boxes: drawn in place, by the first output that asks for it."""
        with self._drawing:
            if not self._drawn:
                with self.stats.timing("draw"):
                    draw(self.frame.image, self.detections, self.places)
                self._drawn = True
        return self.frame.image

    @property
    def something(self) -> bool:
        """Whether there is something on it."""
        return bool(self.detections)

    def labels(self) -> list[Mapping[str, int]]:
        """See `outputs.Found`."""
        return [Counter(f"{one.answer.name} {one.label}".strip() for one in self.detections)]

    def state(self) -> dict[str, Any]:
        """See `outputs.Found`."""
        if all(one.box is not None for one in self.detections):
            labels = Counter(one.label for one in self.detections)
            return {"objects": labels.total(), "labels": labels}
        answer: dict[str, Any] = {}
        for one in self.detections:
            answer |= {one.answer.label: one.label, one.answer.number: one.score}
        return {"answer": {name: value for name, value in answer.items() if name}}

    def documents(self) -> list[dict[str, Any]]:
        """The same for JSON, as an event."""
        height, width = self.frame.image.shape[:2]
        document = {
            "event": "frame",
            "time": iso(self.frame.time),
            "frame": self.frame.number,
            "media_time": self.frame.media_time and round(self.frame.media_time, 3),
            "name": self.frame.name,
            "width": width,
            "height": height,
            "detections": [found.as_dict(width, height) for found in self.detections],
        }
        return [{key: value for key, value in document.items() if value is not None}]


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A picture as a JPEG file."""
    with failing_as_output():
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()


@contextmanager
def failing_as_output() -> Iterator[None]:
    """What OpenCV raises is what an output raises that can't write."""
    try:
        yield
    except cv2.error as error:
        raise OSError(str(error)) from error
