"""`--save`: a video, or one after the other."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import cv2

from mlopsdeploy.data.files import note_of
from mlopsdeploy.data.overwriting import write_note, wrote
from mlopsdeploy.edge.events import iso
from mlopsdeploy.edge.frames import Frame, Image
from mlopsdeploy.edge.outputs import About, Sink
from mlopsdeploy.edge.results import Result, failing_as_output
from mlopsdeploy.errors import ConfigError

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
LONGEST_STILL = 60.0  # seconds that a frame of a file stands in a video, at most
RESERVE = 1 << 20  # bytes of disk left free, so that a video can still be finished


class VideoFile(Sink):
    """`--save`: a video with the boxes drawn in.

    Of a file it has every frame. A live source's frames come when they come, so each
    is repeated or left out such that the video runs at the speed of life.

    Args:
        path: `.mp4`, `.mkv` or `.avi`.
        fps: frames per second of the video, asked for at the first frame. Its size is the video's,
            and frames of another are fitted in.
        live: keep time.
        segment: begin another file after so many seconds, each named after the time it begins at.
        most: bytes that all segments may take; the oldest are deleted, ours alone.
    """

    name = "save"

    def __init__(
        self,
        path: str,
        *,
        fps: Callable[[], float],
        live: bool,
        segment: float | None = None,
        most: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._size = 0, 0
        self._asked_fps = fps
        self._fps = 0.0
        self._live = live
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._started: float | None = None
        self._next_look = 0.0
        codec = CODECS.get(self._path.suffix.lower())
        if codec is None:
            raise ConfigError(f"--save {path}: can't write that; can: {', '.join(CODECS)}")
        self._codec = codec
        self._first = self._path
        self._segment, self._most = segment, most
        self._last: Image | None = None
        self._ends = 0.0  # when the next segment begins
        self._first_time = 0.0
        self._check_place(path)

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Sink`. Pictures have no speed: one a second."""
        default, settings = 30.0 if about.live else 1.0, about.settings
        return cls(
            value, fps=lambda: about.fps() or default, live=about.live,
            segment=settings.segment, most=settings.save_limit,
        )  # fmt: skip

    def write(self, item: Result) -> None:
        """Append the frame as often as its time asks for."""
        with failing_as_output():
            self._append(item)

    def _append(self, item: Result) -> None:
        frame = item.frame
        now = frame.captured if frame.media_time is None else frame.media_time
        if self._segment and self._writer is not None and now >= self._ends:
            self.close()
        writer = self._writer or self._begin(frame, now)
        self._check_space()
        times = self._times(frame)
        if times:
            picture = fitted(item.drawn(), self._size)
            for _ in range(times - 1):  # until its time comes, the one before stands
                writer.write(picture if self._last is None else self._last)
            writer.write(picture)
            self._last = picture
            self._written += times

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: it can't be read again, as OpenCV says nothing when a write fails.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        write_note(self._path)
        saved = cv2.VideoCapture(str(self._path))
        readable = saved.isOpened()
        saved.release()
        written, self._written = self._written, 0
        if written and not readable:
            raise OSError(f"{self._path} could not be finished; is the disk full?")

    def reopen(self) -> None:
        """Finish what there is, and go on in a file of its own, so that nothing is lost of it."""
        with suppress(OSError):
            self.close()
        self._started, self._next_look = None, 0.0
        self._path = self._stamped(time.time())
        self._check_space()

    def _begin(self, frame: Frame, now: float) -> cv2.VideoWriter:
        height, width = frame.image.shape[:2]
        # Codecs take even sizes, and would cut an odd one.
        self._size, self._fps = (width + width % 2, height + height % 2), self._asked_fps()
        self._started, self._first_time = None, frame.media_time or 0.0
        self._last = None
        if self._segment:
            self._ends = now + self._segment
            self._path = self._stamped(frame.time)
            self._make_room()
        four = cv2.VideoWriter.fourcc(*self._codec)
        self._writer = cv2.VideoWriter(str(self._path), four, self._fps, self._size)
        if not self._writer.isOpened():
            raise OSError(f"this OpenCV can't write {self._codec} video")
        write_note(self._path, finished=False)
        return self._writer

    def _stamped(self, moment: float) -> Path:
        """`out-20261122T185012.345Z.mkv`."""
        stamp = iso(moment).replace("-", "").replace(":", "")
        return self._first.with_stem(f"{self._first.stem}-{stamp}")

    def _make_room(self) -> None:
        """Delete the oldest segments that we wrote, so that all take no more than they may."""
        if self._most is None:
            return
        pattern = f"{glob.escape(self._first.stem)}-*Z{self._first.suffix}"
        parts = sorted(part for part in self._first.parent.glob(pattern) if wrote(part))
        sizes = [part.stat().st_size for part in parts]
        # There has to be room for one more, which will be as large as the largest.
        while parts and sum(sizes) + max(sizes) > self._most:
            part = parts.pop(0)
            sizes.pop(0)
            part.unlink()
            note_of(part).unlink(missing_ok=True)

    def _check_place(self, path: str) -> None:
        if not self._path.parent.is_dir():
            raise ConfigError(f"--save {path}: the folder {self._path.parent} does not exist")
        there = self._path if self._path.exists() else self._path.parent
        if not os.access(there, os.W_OK):
            raise ConfigError(f"--save {path}: no permission to write there")

    def _check_space(self) -> None:
        """OpenCV does not say when the disk is full, and an MP4 needs room for its index."""
        now = time.monotonic()
        if now < self._next_look:
            return
        free = shutil.disk_usage(self._path.parent).free - 64 * self._written
        if free < RESERVE:
            raise OSError(f"{self._path}: no space left on the disk")
        # Look again before it can be full: a frame is less than its pixels.
        self._next_look = now + min(1.0, free / (3e6 * max(self._fps, 1.0)))

    def _times(self, frame: Frame) -> int:
        """How often a frame is written, so that it is shown when its time comes."""
        if not self._live:
            if frame.media_time is None:
                return 1
            # Every frame of a file, and longer where its frames are further apart.
            due = round((frame.media_time - self._first_time) * self._fps) + 1 - self._written
            return max(min(due, round(LONGEST_STILL * self._fps)), 1)
        captured = frame.captured
        if self._started is None:
            self._started = captured
        due = round((captured - self._started) * self._fps) + 1 - self._written
        # After a stall the video goes on after two seconds, rather than fill hours.
        longest = round(2 * self._fps) + 1
        if due > longest:
            self._started += (due - longest) / self._fps
        return max(min(due, longest), 0)


def fitted(image: Image, size: tuple[int, int]) -> Image:
    """A picture of that width and height, with a black rim if its shape is another."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    right, bottom = size[0] - width, size[1] - height
    if right in (0, 1) and bottom in (0, 1):  # an odd size, made even
        return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    scale = min(size[0] / width, size[1] / height)
    inner = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    right, bottom = size[0] - inner[0] - left, size[1] - inner[1] - top
    small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT)
