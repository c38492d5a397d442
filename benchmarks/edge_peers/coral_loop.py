"""A loop as Coral's examples have it: Pillow resizes, objects are lists of named tuples."""

from __future__ import annotations

from typing import Any, NamedTuple

import contestant
import cv2
from PIL import Image


class BBox(NamedTuple):
    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Object(NamedTuple):
    id: int
    score: float
    bbox: BBox


def get_objects(results: tuple[Any, Any, Any], threshold: float, scale: Any) -> list[Object]:
    """As pycoral's `detect.get_objects`: the objects from `threshold` up, in pixels."""
    width, height = scale
    return [
        Object(
            int(number),
            float(score),
            BBox(int(x1 * width), int(y1 * height), int(x2 * width), int(y2 * height)),
        )
        for (y1, x1, y2, x2), number, score in zip(*results, strict=True)
        if score >= threshold
    ]


if __name__ == "__main__":
    import numpy as np

    options = contestant.options(__doc__)
    detector, meter = contestant.Detector(options), contestant.Meter(options)
    capture = cv2.VideoCapture(options.camera)
    while True:
        good, frame = capture.read()
        if not good:
            break
        number = meter.see(frame)
        image = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        small = image.resize((detector.width, detector.height), Image.Resampling.LANCZOS)
        objects = get_objects(detector.run(np.asarray(small)), options.threshold, image.size)
        for found in objects:
            box = found.bbox
            text = f"{int(100 * found.score)}% {options.labels[found.id]}"
            cv2.rectangle(frame, (box.xmin, box.ymin), (box.xmax, box.ymax), contestant.GREEN, 2)
            place = (box.xmin, box.ymin + 30)
            cv2.putText(frame, text, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 0, 0), 2)
        if not meter.result(number, len(objects)):
            break
    capture.release()
    meter.close()
