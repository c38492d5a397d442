"""Small pictures for a page that needs no other file."""

from __future__ import annotations

import base64
from pathlib import Path

from mlopsdeploy.core import images

SIDE = 160  # pixels of the longer one
QUALITY = 70


def thumbnail(name: str, table: str) -> str | None:
    """A picture as a `data:` address of some 5 kB; None if it can't be had any more.

    Args:
        name: its path, as a run's input has it.
        table: that input, whose folder the path may be relative to.
    """
    import cv2

    for path in (Path(name), Path(table).parent / name):
        try:
            image = images.decode(path.read_bytes()) if path.is_file() else None
        except (OSError, ValueError):
            return None
        if image is not None:
            part = SIDE / max(image.shape[:2])
            size = (max(round(image.shape[1] * part), 1), max(round(image.shape[0] * part), 1))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            return "data:image/jpeg;base64," + base64.b64encode(packed.tobytes()).decode()
    return None
