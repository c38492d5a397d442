"""Where results go: any number of outputs, each with a thread and a bounded queue of its own.

So none slows the model or another output, and one that fails leaves the others alone.
A sink says what it wants of a result (`pick`, quick, in the pipeline's thread) and does the work
(`write`, in its own thread).
"""

from __future__ import annotations

import glob
import os
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.data.files import note_of
from mlopsdeploy.data.overwriting import write_note, wrote
from mlopsdeploy.edge.channel import Channel
from mlopsdeploy.edge.draw import Place, draw
from mlopsdeploy.edge.events import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Event,
    JsonLinesFile,
    Log,
    Report,
    iso,
)
from mlopsdeploy.edge.frames import Frame, Image
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
LONGEST_STILL = 60.0  # seconds that a frame of a file stands in a video, at most
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
            OSError: it can't; the output is given up, or tried again.
        """

    def reopen(self) -> None:  # noqa: B027
        """Open again what failed, before it is written to again.

        Raises:
            OSError: it can't be opened.
        """

    def close(self) -> None:  # noqa: B027
        """Finish whatever was written."""


class Outlet:
    """A sink with its thread.

    One that fails is given up where the source comes again, and the run fails. Of a live source,
    which does not, it is tried again until it works: a disk is emptied, or mounted again.

    Args:
        sink: closed at the end.
        stats: gets the time of each write.
        keep: with its queue full the pipeline waits for it; otherwise the oldest is left out, and
            a failure is tried again.
        log: called with one line if the sink is given up.
        happened: called with an event if it fails and is tried again, and once it works.

    Attributes:
        failed: why it was given up or, at the end, still failing; or None.
    """

    def __init__(
        self, sink: Sink, stats: Stats, *, keep: bool, log: Log, happened: Report = lambda _: None
    ) -> None:
        self.sink = sink
        self.failed: str | None = None
        self._stats = stats
        self._log = log
        self._happened = happened
        self._keep = keep
        self._closing = threading.Event()
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
        self._closing.set()
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            try:
                for item in self._queue:
                    self._write(item)
            finally:
                self.sink.close()
        except (OSError, cv2.error) as error:
            self.failed = f"--{self.sink.name}: {_reason(error)}"
            self._log(f"{self.failed}; nothing more is written there, the rest goes on")
        finally:
            self._queue.cancel()

    def _write(self, item: Any) -> None:
        try:
            self._try(item)
        except (OSError, cv2.error) as error:
            if self._keep or isinstance(error, BrokenPipeError) or self._closing.is_set():
                raise
            self._tell("failed", f"{_reason(error)}; trying again", reason=_reason(error))
            self._write_again(item)

    def _write_again(self, item: Any) -> None:
        """Until it works, or the end comes, when it is tried once more."""
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            self._closing.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self.sink.reopen()
                self._try(item)
            except (OSError, cv2.error):
                if self._closing.is_set():
                    raise
                continue
            away = time.monotonic() - began
            text = f"works again after {away:.1f} s"
            self._tell("recovered", text, seconds=round(away, 2), left_out=self.dropped)
            return

    def _try(self, item: Any) -> None:
        with self._stats.timing(self.sink.name):
            self.sink.write(item)

    def _tell(self, kind: str, text: str, **facts: object) -> None:
        output = f"--{self.sink.name}"
        self._happened(Event(kind, f"{output}: {text}", {"output": output, **facts}))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


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

    def reopen(self) -> None:
        """Open the file again: its disk may have been mounted anew."""
        self._file.reopen()

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
        self._folder.mkdir(parents=True, exist_ok=True)
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

    def write(self, item: Result) -> None:
        """Append the frame as often as its time asks for."""
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


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A picture as a JPEG file."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
