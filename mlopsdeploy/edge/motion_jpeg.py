"""Motion JPEG over HTTP, as web cameras send it: a JPEG after the other, each a part of one answer.

Read here and not by FFmpeg, because OpenCV stretches all later pictures to the size of the first.
"""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any

from mlopsdeploy.core.images import decode
from mlopsdeploy.data.cameras import request_for
from mlopsdeploy.edge.frames import Image

KIND = "multipart/x-mixed-replace"
LONGEST = 32 << 20  # bytes of a part
MOST_LINES = 32  # of a part's head


class MotionJpeg:
    """Stands for a `cv2.VideoCapture`.

    Args:
        answer: whose body has not been read.
    """

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer
        name = str(answer.headers.get_param("boundary", "")).strip('"')
        self._boundary = b"--" + name.removeprefix("--").encode()

    def get(self, _: int) -> float:
        """Nothing is known of its speed."""
        return 0.0

    def set(self, *_: Any) -> bool:
        """Nothing can be asked of it."""
        return False

    def read(self, _: Image | None = None) -> tuple[bool, Image | None]:
        """The next picture; one that is cut off or damaged is left out."""
        try:
            while (content := self._part()) is not None:
                with suppress(ValueError):
                    return True, decode(content)
        except (OSError, ValueError, HTTPException):
            pass  # it has gone, or is silent for too long
        return False, None

    def release(self) -> None:
        """Hang up."""
        self._answer.close()

    def _part(self) -> bytes | None:
        """What the next part holds; None at the end."""
        length = 0
        for _ in range(MOST_LINES):
            line = self._answer.readline(LONGEST)
            if not line:
                return None
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
                if not 0 < length <= LONGEST:
                    return None
            if not line.strip() and length:
                content = self._answer.read(length)
                return content if len(content) == length else None
            if line.startswith(b"\xff\xd8"):  # without a length: up to the next boundary
                return self._to_boundary(line)
        return b""

    def _to_boundary(self, start: bytes) -> bytes | None:
        content = bytearray(start)
        while len(content) <= LONGEST:
            line = self._answer.readline(LONGEST)
            if not line:
                return None
            if line.startswith(self._boundary):
                return bytes(content)
            content += line
        return None


def motion_jpeg(address: str, seconds: float) -> MotionJpeg | None:
    """What answers there, if it is motion JPEG; None if it is something else, or nothing.

    Args:
        address: http:// or https://.
        seconds: that it may be silent.
    """
    from urllib.request import urlopen  # only for these addresses

    try:
        answer: HTTPResponse = urlopen(request_for(address), timeout=seconds)  # noqa: S310
    except (OSError, HTTPException, ValueError):
        return None  # FFmpeg may know more, such as other ways to log in
    if answer.headers.get_content_type() == KIND:
        return MotionJpeg(answer)
    answer.close()
    return None
