"""Green boxes, with label and score at their top left; answers to a whole picture in its corner."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.frames import Image

GREEN = (80, 220, 60)  # BGR
AMBER = (40, 180, 250)
INK = (10, 30, 5)

_writing = threading.Lock()  # OpenCV's fonts are not thread-safe


@dataclass(frozen=True)
class Place:
    """A part of the picture with a name.

    Attributes:
        text: its name and what is known of it.
        points: relative to the picture.
        closed: it is an area; else a line.
    """

    text: str
    points: tuple[tuple[float, float], ...]
    closed: bool


def draw(image: Image, detections: Sequence[Detection], places: Sequence[Place] = ()) -> None:
    """Draw what was found onto a picture, in place.

    Lines and letters grow with the picture; a label stays within it.

    Args:
        image: shape (height, width, 3), BGR.
        detections: the surest is drawn last, above the others.
        places: drawn below them.
    """
    for place in places:
        _draw_place(image, place)
    height, width = image.shape[:2]
    size = text_size(image)
    line = max(2, round(size / 7))
    upwards = sorted((one for one in detections if one.words), key=lambda found: found.order)
    boxes = [found.pixels(width, height) for found in upwards]
    for box in boxes:
        if box is not None:
            x1, y1, x2, y2 = box
            # A dark rim keeps the box visible on grass.
            cv2.rectangle(image, (x1, y1), (x2, y2), INK, line + 2)
            cv2.rectangle(image, (x1, y1), (x2, y2), GREEN, line)
    below = 0
    for found, box in zip(upwards, boxes, strict=True):
        tag = _tag(found.words, size)
        if found.track is not None:  # on its own, as words come again and again
            tag = np.hstack([_tag(f"#{found.track}", size), tag])
        if box is None:  # of the whole picture: one below the other in its corner
            below = paste(image, tag, 0, below)
        else:
            x1, y1 = box[0] - line // 2, box[1] - line // 2
            above = y1 - len(tag)
            paste(image, tag, x1, above if above >= 0 else y1)


def _draw_place(image: Image, place: Place) -> None:
    """Its outline in amber, an arrow the way that is in, and its text where it begins."""
    height, width = image.shape[:2]
    size = text_size(image)
    line = max(2, round(size / 7))
    points = np.round(np.array(place.points) * (width, height)).astype(np.int32)
    for color, thick in ((INK, line + 2), (AMBER, line)):
        cv2.polylines(image, [points], place.closed, color, thick, cv2.LINE_AA)
        if not place.closed:
            middle = points.mean(0)
            along = points[1] - points[0]
            aside = np.array([-along[1], along[0]]) * 2 * size / max(np.hypot(*along), 1)
            tip = np.round(middle + aside).astype(int).tolist()
            start = np.round(middle).astype(int).tolist()
            cv2.arrowedLine(image, start, tip, color, thick, cv2.LINE_AA, tipLength=0.3)
    paste(image, _tag(place.text, size, AMBER), int(points[0, 0]), int(points[0, 1]))


def text_size(image: Image) -> int:
    """Height of letters, in pixels, that can be read on a picture of that size."""
    height, width = image.shape[:2]
    return min(max(int(min(height, width * 3 / 4) / 28), 12), 64)


def paste(image: Image, tag: Image, x: int, y: int) -> int:
    """Put a small picture into another, moved and cut so that it fits; the row below it."""
    height, width = image.shape[:2]
    tag = tag[:height, :width]
    x = min(max(x, 0), width - tag.shape[1])
    y = min(max(y, 0), height - tag.shape[0])
    image[y : y + tag.shape[0], x : x + tag.shape[1]] = tag
    return y + len(tag)


@lru_cache(maxsize=512)
def _tag(text: str, size: int, paper: tuple[int, int, int] = GREEN) -> Image:
    """Text on a colour. Real letters take half a millisecond, and labels come again and again."""
    return write(text, size, INK, paper)


def write(text: str, size: int, ink: Sequence[int], paper: Sequence[int]) -> Image:
    """A line of text as a picture of its own, `size` pixels high and a margin."""
    margin = max(2, size // 4)
    baseline = margin + round(size * 0.85)
    canvas = np.full((size + 2 * margin, len(text) * size + 2 * margin, 3), paper, np.uint8)
    with _writing:
        if hasattr(cv2, "FontFace"):  # OpenCV 5: any alphabet
            (end, _), _ = cv2.putText(canvas, text, (margin, baseline), ink, _font(), size, 500)
        else:
            face, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, size / 27, max(1, size // 14)
            end = margin + cv2.getTextSize(text, face, scale, thick)[0][0]
            cv2.putText(canvas, text, (margin, baseline), face, scale, ink, thick, cv2.LINE_AA)
    return canvas[:, : end + margin].copy()


@lru_cache(maxsize=1)
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")
