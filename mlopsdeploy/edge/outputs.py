"""Where results go: any number of outputs, each with a thread and a bounded queue of its own.

So none slows the model or another output, and one that fails leaves the others alone.
A sink says what it wants of a result (`pick`, quick, in the pipeline's thread) and does the work
(`write`, in its own thread).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.data.overwriting import write_note
from mlopsdeploy.edge.channel import Channel
from mlopsdeploy.edge.draw import Place, draw
from mlopsdeploy.edge.events import Event, JsonLinesFile, Log, iso
from mlopsdeploy.edge.frames import Frame, Image
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError, MlopsDeployError

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
RESERVE = 1 << 20  # bytes of disk left free, so that a video can still be finished


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

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
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
        return {key: value for key, value in document.items() if value is not None}


class Sink(ABC):
    """One place that results go to.

    Attributes:
        name: what it is called in messages and statistics.
        waiting: how many items may wait for it. Where they hold a picture, few.
    """

    name: str
    waiting = 1

    def pick(self, result: Result) -> Any:
        """What it needs of a result; None if nothing. Must be quick."""
        return result

    def pick_event(self, event: Event) -> Any:  # noqa: ARG002
        """What it needs of something that happened to the source; None if nothing."""
        return None

    @abstractmethod
    def write(self, item: Any) -> None:
        """Do the work.

        Raises:
            OSError: it can't; the output is given up.
        """

    def close(self) -> None:  # noqa: B027
        """Finish whatever was written."""


class Outlet:
    """A sink with its thread.

    Args:
        sink: closed at the end.
        stats: gets the time of each write.
        keep: with its queue full the pipeline waits for it; otherwise the oldest is left out.
        log: called with one line if the sink fails.

    Attributes:
        failed: why it was given up, or None.
    """

    def __init__(self, sink: Sink, stats: Stats, *, keep: bool, log: Log) -> None:
        self.sink = sink
        self.failed: str | None = None
        self._stats = stats
        self._log = log
        self._queue: Channel[Any] = Channel(sink.waiting, keep=keep)
        self._thread = threading.Thread(target=self._run, name=sink.name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Results left out because it was too slow."""
        return self._queue.dropped

    def put(self, result: Result) -> None:
        """Hand it a result."""
        self._hand(self.sink.pick(result))

    def report(self, event: Event) -> None:
        """Hand it something that happened to the source."""
        self._hand(self.sink.pick_event(event))

    def _hand(self, item: Any) -> None:
        if item is not None:
            self._queue.put(item)

    def close(self) -> None:
        """Wait until all is written and finished."""
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            try:
                for item in self._queue:
                    with self._stats.timing(self.sink.name):
                        self.sink.write(item)
            finally:
                self.sink.close()
        except (OSError, cv2.error) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            self.failed = f"--{self.sink.name}: {reason}"
            self._log(f"{self.failed}; nothing more is written there, the rest goes on")
        finally:
            self._queue.cancel()


class FrameEvents(Sink):
    """`--events`: a line of JSON for each frame, and for what happens to the source.

    Of a live source only frames with something on them get a line, and the first one after: a
    camera that looks at an empty room for a year fills no disk. What it saw does not come again, so
    a file that is there is appended to; of a video or pictures it is written anew.
    """

    name = "events"
    waiting = 1000

    def __init__(self, path: str, *, live: bool) -> None:
        self._live = live
        self._something = True
        self._file = JsonLinesFile(path, keep=live)

    def pick(self, result: Result) -> dict[str, Any] | None:
        """The line, without the picture."""
        before, self._something = self._something, bool(result.detections)
        if self._live and not (before or self._something):
            return None
        return result.as_dict()

    def pick_event(self, event: Event) -> dict[str, Any]:
        """A line too."""
        return event.as_dict()

    def write(self, item: dict[str, Any]) -> None:
        """Append it."""
        self._file.append([item])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Snapshots(Sink):
    """`--snapshots`: a JPEG of a frame with something on it, at most one every few seconds.

    Args:
        folder: made if it isn't there.
        seconds: the least time between two, in the video's own time where it has one.
    """

    name = "snapshots"

    def __init__(self, folder: str, *, seconds: float) -> None:
        self._folder = Path(folder)
        self._seconds = seconds
        self._last = float("-inf")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--snapshots {folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"--snapshots {folder}: no permission to write there")

    def pick(self, result: Result) -> Result | None:
        """The frame, if there is something on it and the last one is long enough ago."""
        frame = result.frame
        now = frame.captured if frame.media_time is None else frame.media_time
        often = frame.name is None and now - self._last < self._seconds  # every picture of a folder
        if not result.detections or often:
            return None
        self._last = now
        return result

    def write(self, item: Result) -> None:
        """Write `20261122T185012.345Z-000123.jpg`; it appears whole or not at all."""
        stamp = iso(item.frame.time).replace("-", "").replace(":", "")
        path = self._folder / f"{stamp}-{item.frame.number:06d}.jpg"
        part = path.with_suffix(".part")
        try:
            part.write_bytes(encode_jpeg(item.drawn(), 92))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


class VideoFile(Sink):
    """`--save`: a video with the boxes drawn in.

    Of a file it has every frame. A live source's frames come when they come, so each
    is repeated or left out such that the video runs at the speed of life.

    Args:
        path: `.mp4`, `.mkv` or `.avi`.
        size: width and height; frames of another size are fitted in.
        fps: frames per second of the video.
        live: keep time.
    """

    name = "save"

    def __init__(self, path: str, *, size: tuple[int, int], fps: float, live: bool) -> None:
        self._path = Path(path)
        self._size = size
        self._fps = fps
        self._live = live
        self._written = 0
        self._started: float | None = None
        self._next_look = 0.0
        codec = CODECS.get(self._path.suffix.lower())
        if codec is None:
            raise ConfigError(f"--save {path}: can't write that; can: {', '.join(CODECS)}")
        self._check_place(path)
        self._writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*codec), fps, size)
        if not self._writer.isOpened():
            raise MlopsDeployError(f"--save {path}: this OpenCV can't write {codec} video")
        try:
            write_note(self._path, finished=False)
        except OSError as error:
            raise ConfigError(f"--save {path}: {error.strerror}") from error

    def write(self, item: Result) -> None:
        """Append the frame as often as its time asks for."""
        self._check_space()
        times = self._times(item.frame.captured)
        if times:
            picture = fitted(item.drawn(), self._size)
            for _ in range(times):
                self._writer.write(picture)
            self._written += times

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: it can't be read again, as OpenCV says nothing when a write fails.
        """
        self._writer.release()
        write_note(self._path)
        written = cv2.VideoCapture(str(self._path))
        readable = written.isOpened()
        written.release()
        if self._written and not readable:
            raise OSError(f"{self._path} could not be finished; is the disk full?")

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
        self._next_look = now + min(1.0, free / (3e6 * self._fps))

    def _times(self, captured: float) -> int:
        if not self._live:
            return 1
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
    scale = min(size[0] / width, size[1] / height)
    inner = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    right, bottom = size[0] - inner[0] - left, size[1] - inner[1] - top
    small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT)


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A picture as a JPEG file."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
