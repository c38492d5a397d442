"""Frames, the memory that they live in, and files of them.

Of a file no frame is lost, however slow the model.
"""

from __future__ import annotations

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import cv2

from mlopsdeploy.columns import Array
from mlopsdeploy.core.images import SUFFIXES, decode
from mlopsdeploy.edge.channel import Channel, feed
from mlopsdeploy.edge.events import Event, Report, Source
from mlopsdeploy.errors import InputError

Image = Array  # uint8, shape (height, width, 3), BGR
Timing = Callable[[float], None]


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


class Capture(Protocol):
    """What of a `cv2.VideoCapture` is needed."""

    def read(self, image: Any = None, /) -> tuple[bool, Any]:
        """The next picture, in the memory of `image` where that fits."""

    def get(self, setting: int, /) -> float:
        """A number that is known of it."""

    def set(self, setting: int, value: float, /) -> bool:
        """Ask for it to be another."""

    def release(self) -> None:
        """Close it."""


class Buffers:
    """Pictures' memory, used again as soon as nobody holds it. For one thread at a time.

    Fresh memory for every frame costs as much time as converting the frame into it. A buffer is
    free when the only reference to it is the one here; a view of it counts as one too.
    """

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._buffers: list[Image] = []

    def take(self) -> Image | None:
        """A buffer that is free, to be read into; None where there is none yet."""
        for place in range(len(self._buffers)):
            buffer = self._buffers[place]
            if sys.getrefcount(buffer) <= 3:  # in the list, in `buffer`, and as an argument
                return buffer
        return None

    def add(self, image: Image) -> None:
        """Remember a picture's memory, unless it is known."""
        if not any(buffer is image for buffer in self._buffers):
            self._buffers = [b for b in self._buffers if b.shape == image.shape]
            if len(self._buffers) < self._limit:
                self._buffers.append(image)

    def read(self, capture: Capture, timing: Timing) -> Image | None:
        """The next frame of a capture, in memory that was used before where some is free."""
        start = time.perf_counter()
        free = self.take()
        image: Image | None
        good, image = capture.read() if free is None else capture.read(free)
        if not good:
            return None
        timing(time.perf_counter() - start)
        if image is not free:
            self.add(image)
        return image


class FrameSource(Source, ABC):
    """Frames, one after the other.

    Args:
        name: for messages.
        report: gets what happens to it, in any thread.
        timing: gets the seconds that each read took, in the thread that reads.

    Attributes:
        size: width and height of its first frame.
        fps: frames per second, where the source has them.
        total: frames in all, where that is known.
        cut_off: it ended before its end.
    """

    size: tuple[int, int]
    fps: float | None = None
    total: int | None = None
    cut_off = False

    def __init__(self, name: str, *, report: Report, timing: Timing) -> None:
        super().__init__(name, report)
        self._timing = timing

    @property
    def dropped(self) -> int:
        """Frames that went by unseen."""
        return 0

    def open(self) -> None:  # a file is open already
        """See that it gives frames; from here on its size is known.

        Raises:
            InputError: it gives none.
        """

    def wait(self) -> bool:
        """See that it gives frames, however long that takes; False if it was stopped before."""
        return True

    def is_there(self) -> None:
        """Report that it is connected, and what it gives."""
        width, height = self.size
        self.happened("connected", self.description, width=width, height=height, fps=self.fps)

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames; to be asked for once."""


class Pictures(FrameSource):
    """Pictures in the order of their names, `2.jpg` before `10.jpg`.

    One that can't be read is an event, and the others go on.

    Raises:
        InputError: none of them can be read.
    """

    def __init__(self, name: str, paths: list[Path], *, report: Report, timing: Timing) -> None:
        super().__init__(name, report=report, timing=timing)
        self._paths = sorted(paths, key=_natural)
        rest = self._read()
        first = next(rest, None)
        if first is None:
            one = len(paths) == 1
            what = "not a picture" if one else f"none of {len(paths)} files is a picture"
            raise InputError(f"{name}: {what} that can be read; it may be damaged")
        self._all = chain([first], rest)
        self.size = width, height = first.image.shape[1], first.image.shape[0]
        self.total = len(paths)
        self.description = f"{len(paths):,} pictures" if len(paths) > 1 else f"{width}×{height}"

    def frames(self) -> Iterator[Frame]:
        """All pictures."""
        return self._all

    def _read(self) -> Iterator[Frame]:
        for number, path in enumerate(self._paths):
            if self._stopped.is_set():
                return
            start = time.perf_counter()
            try:
                image = decode(path.read_bytes())
            except (OSError, ValueError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or str(error)
                facts = {"name": path.name, "reason": reason}
                self._report(Event("unreadable", f"{path.name}: {reason}", facts))
            else:
                self._timing(time.perf_counter() - start)
                yield Frame(number, image, name=path.name)


class Video(FrameSource):
    """Every frame of a video, in a file or on a web server.

    Raises:
        InputError: it holds no frame that can be read.
    """

    def __init__(self, name: str, capture: Capture, *, report: Report, timing: Timing) -> None:
        super().__init__(name, report=report, timing=timing)
        self._capture = capture
        self._buffers = Buffers()
        self._image: Image | None = self._buffers.read(capture, self._timing)
        if self._image is None:
            raise InputError(
                f"{name}: can't be read as a video or picture; it may be cut off, damaged, or in a "
                "format that OpenCV does not know"
            )
        self.size = width, height = self._image.shape[1], self._image.shape[0]
        self.fps = frames_per_second(capture)
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.total = total if total > 0 else None
        self.description = f"{width}×{height}" + (f" at {self.fps:.4g} fps" if self.fps else "")
        self.description += f", {total:,} frames" if self.total else ""

    def frames(self) -> Iterator[Frame]:
        """All frames, each with its time in the video."""
        number = 0
        try:
            while self._image is not None and not self._stopped.is_set():
                media_time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if not media_time and number and self.fps:  # a format without timestamps
                    media_time = number / self.fps
                frame = Frame(number, self._image, media_time=media_time)
                self._image = None  # from here on its memory is the caller's
                yield frame
                del frame
                number += 1
                self._image = self._buffers.read(self._capture, self._timing)
        finally:
            self._capture.release()
        # Some formats only estimate how many frames they have.
        if not self._stopped.is_set() and self.total and number < 0.9 * self.total:
            self.cut_off = True
            text = (
                f"{self.name}: ended after {number:,} of {self.total:,} frames; the file is cut "
                "off or damaged"
            )
            self._report(Event("unreadable", text, {"frames": number, "expected": self.total}))


class Paced(Video):
    """A video that goes by at its own speed: who looks away misses frames, as with a camera."""

    live = True

    def __init__(self, name: str, capture: Capture, *, report: Report, timing: Timing) -> None:
        super().__init__(name, capture, report=report, timing=lambda _: None)
        self.description += ", as if live"
        self._wait_timing = timing
        self._newest: Channel[Frame] = Channel(1, keep=False)

    @property
    def dropped(self) -> int:
        """Frames that went by."""
        return self._newest.dropped

    def frames(self) -> Iterator[Frame]:
        """The newest frame, again and again until the video ends."""
        feed(self._paced(), self._newest, "capture")
        yield from self._newest

    def stop(self) -> None:
        """End now."""
        super().stop()
        self._newest.cancel()

    def _paced(self) -> Iterator[Frame]:
        start = before = time.monotonic()
        for frame in super().frames():
            due = start + (frame.media_time or 0.0)
            if self._stopped.wait(max(due - time.monotonic(), 0)):
                return
            now = time.monotonic()
            self._wait_timing(now - before)  # as with a camera, waiting for it is a part
            before = now
            yield Frame(frame.number, frame.image, media_time=frame.media_time)
            del frame


def is_picture(path: Path) -> bool:
    """By its name, so that a damaged picture counts as one, or else by what is in it."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix != ".gif" and cv2.haveImageReader(str(path)))


def frames_per_second(capture: Capture) -> float | None:
    """What a source says of its speed, if it makes sense."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps < 1000 else None


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
