"""Pictures from files and requests: JPEG, PNG, WebP, BMP or TIFF to BGR, upright.

Import this before anything that imports cv2, as OpenCV reads its limits when it is loaded.
"""

from __future__ import annotations

import os

MAX_PIXELS = 1 << 26  # 8192 × 8192, 200 MB; a small file can say that it is a picture of terabytes
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from mlopsdeploy.columns import Array  # noqa: E402

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def decode(content: bytes) -> Array:
    """A picture's pixels.

    Args:
        content: the whole file.

    Returns:
        uint8, (height, width, 3), BGR, turned upright if its EXIF data say so.

    Raises:
        ValueError: it is not a picture, is damaged, or is larger than `MAX_PIXELS`.
    """
    if not content:
        raise ValueError("the picture is empty")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):
            raise ValueError(f"the picture has more than {MAX_PIXELS:,} pixels") from None
        raise ValueError("not a picture that can be read") from None
    if image is None:
        raise ValueError("not a picture that can be read")
    return image
