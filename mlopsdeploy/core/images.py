"""Pictures from files and requests: JPEG, PNG, WebP, BMP or TIFF to BGR, upright.

Import this before anything that imports cv2, as OpenCV reads its limits when it is loaded. It is
loaded by the first picture, so that what only asks which files are pictures does without.
"""

from __future__ import annotations

import os
import re
import zlib

import numpy as np

from mlopsdeploy.columns import Array

MAX_PIXELS = 1 << 26  # 8192 × 8192, 200 MB; a small file can say that it is a picture of terabytes
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
# It would write about each damaged picture to standard error, which is what `decode` raises.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_JPEG_END = b"\xff\xd9"
_PIXELS = 0xDA  # the marker before them


def decode(content: bytes) -> Array:
    """A picture's pixels.

    Args:
        content: the whole file.

    Returns:
        uint8, (height, width, 3), BGR, turned upright if its EXIF data say so.

    Raises:
        ValueError: it is not a picture, is cut off or damaged, or is larger than `MAX_PIXELS`.
    """
    import cv2  # see above

    if not content:
        raise ValueError("the picture is empty")
    if not is_whole(content):
        raise ValueError("the picture is cut off or damaged")
    image = None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.func == "validateInputImageSize":
            raise ValueError(f"the picture has more than {MAX_PIXELS:,} pixels") from None
    if image is None:
        raise ValueError("not a picture that can be read")
    return image


def is_whole(content: bytes) -> bool:
    """Whether a JPEG, PNG or WebP goes on to its end; True for all else.

    Decoders may give the part that is there, and grey below. In a PNG the checksums of all chunks
    are looked at, too; damage within the pixels of a JPEG shows in the picture only.
    """
    if content.startswith(b"\xff\xd8"):
        return _jpeg_ends(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_ends(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    return True


def _jpeg_ends(content: bytes) -> bool:
    """From segment to segment, over thumbnails with ends of their own, to the pixels and their end.

    Coded pixels hold no end by chance: in them 0xFF is followed by 0, or a restart marker's number.
    """
    at = 2
    while found := _JPEG_MARKER.search(content, at):
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
        if found[0][-1] == _PIXELS:
            return content.find(_JPEG_END, at) >= 0
    return False


def _png_ends(content: bytes) -> bool:
    """From chunk to chunk up to the end's: length, name, data, checksum of name and data."""
    view = memoryview(content)
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if content.startswith(b"IEND", at + 4):
            return True
        at = end + 4
    return False
