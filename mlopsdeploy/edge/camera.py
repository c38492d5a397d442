"""What `--camera` names: a device or a stream, which is live, or a video or pictures.

Of a live source it is always the newest frame, and never silence. Every read happens in a thread of
its own, because it may never return. A camera that goes quiet becomes an event within seconds, and
is opened again, until it is back; one that isn't there at the start is waited for likewise:

    lost ──► connected ──► frames ──► stalled ──► lost ──► (wait, longer each time) ──► reconnected
                              ▲           │
                              └─ resumed ─┘
"""

from __future__ import annotations

import glob
import os
import re
import select
import sys
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import cv2

from mlopsdeploy.data import cameras
from mlopsdeploy.data.cameras import redacted
from mlopsdeploy.edge.channel import Channel, Closed, feed
from mlopsdeploy.edge.events import Report
from mlopsdeploy.edge.frames import (
    Buffers,
    Capture,
    Frame,
    FrameSource,
    Paced,
    Pictures,
    Timing,
    Video,
    frames_per_second,
    is_picture,
)
from mlopsdeploy.edge.motion_jpeg import motion_jpeg
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.settings import EdgeSettings

SCHEMES = (*cameras.STREAMS, *cameras.WEB)
OPEN_SECONDS = 10.0  # that a camera may take until its first frame
VIDEO4LINUX = 81  # the major number of cameras


def open_source(settings: EdgeSettings, *, report: Report, timing: Timing) -> FrameSource:
    """The source that `settings.camera` names: a file is open, a camera yet to be, see `open`.

    Args:
        settings: of the device.
        report: gets what happens to it, in any thread.
        timing: gets the seconds that each read took, in the thread that reads.

    Raises:
        InputError: there is no such file, or it can't be read; the name can't be a camera's.
        ConfigError: what is asked does not fit the source.
    """
    camera, realtime, stall = settings.camera, settings.realtime, settings.stall_seconds
    name = redacted(camera)
    _check_scheme(camera)
    number = re.fullmatch(r"(?:/dev/video)?(\d+)", camera)
    if number or cameras.is_live(camera):
        path = f"/dev/video{number[1]}" if number else camera
        name = f"camera {number[1]}" if number else name
        if realtime:
            raise ConfigError(f"--realtime is for videos; {name} is live anyway")
        return Live(name, _opener(path, name, stall), settings, report=report, timing=timing)
    if settings.width or settings.height or settings.fps:
        raise ConfigError(f"--width, --height and --fps are asked of a camera; {name} is a file")
    capture: Capture
    if "://" in camera:
        capture = _stream(camera, stall)
    else:
        pictures = _pictures(camera)
        if pictures and realtime:
            raise ConfigError(f"--realtime is for videos; {name} has no speed of its own")
        if pictures:
            return Pictures(name, pictures, report=report, timing=timing)
        capture = cv2.VideoCapture(camera)
    return (Paced if realtime else Video)(name, capture, report=report, timing=timing)


def _check_scheme(camera: str) -> None:
    scheme, mark, _ = camera.partition("://")
    if mark and scheme.lower() not in SCHEMES:
        name = redacted(camera)
        raise InputError(f"{name}: can't read {scheme.lower()}://; can: {', '.join(SCHEMES)}")


def _opener(camera: str, name: str, stall_seconds: float) -> Callable[[], Capture]:
    """What opens a live source, each time anew."""
    if "://" in camera or camera.lower().endswith(cameras.PLAYLISTS):
        return partial(_stream, camera, stall_seconds)
    path = Path(camera)
    if path.is_fifo():
        return partial(_fifo, camera)
    linux = sys.platform.startswith("linux")
    if linux and path.exists() and os.major(path.stat().st_rdev) != VIDEO4LINUX:
        raise InputError(f"{name}: is a device, but not a camera")
    return partial(_device, camera, name)


def _device(path: str, name: str) -> cv2.VideoCapture:
    if sys.platform.startswith("linux"):
        _check_device(path, name)
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    else:
        capture = cv2.VideoCapture(int(path.removeprefix("/dev/video")), cv2.CAP_ANY)
    if not capture.isOpened():
        raise InputError(
            f"{name}: can't be opened; another program may be using it, or it is not a camera"
        )
    return capture


def _check_device(path: str, name: str) -> None:
    """On Linux a camera is a file, which says more than a failed attempt to open it."""
    device = Path(path)
    if not device.exists():
        others = sorted(str(other) for other in Path("/dev").glob("video[0-9]*"))
        hint = f"there are: {', '.join(others)}" if others else "this machine shows no camera"
        raise InputError(f"{name}: {path} does not exist; {hint}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise InputError(
            f"{name}: no permission for {path}; 'sudo usermod -aG video $USER' and a new login "
            "give it"
        )


class _Piped:
    """A capture of what comes through a file that is open already, and is closed at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, True)
        self._capture = cv2.VideoCapture(f"pipe:{fd}", cv2.CAP_FFMPEG)
        self.is_opened = self._capture.isOpened
        self.read, self.get, self.set = self._capture.read, self._capture.get, self._capture.set

    def release(self) -> None:
        """Close both."""
        self._capture.release()
        os.close(self._fd)


def _fifo(path: str) -> _Piped:
    """A FIFO as soon as somebody writes to it: before that, opening it would not return."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not _has_data(fd, OPEN_SECONDS * 0.8):
        os.close(fd)
        raise InputError(f"{path}: nobody writes to this FIFO")
    capture = _Piped(fd)
    if not capture.is_opened():
        capture.release()
        raise InputError(f"{path}: what comes through this FIFO is no video that can be read")
    return capture


def _has_data(fd: int, seconds: float) -> bool:
    poll, end = select.poll(), time.monotonic() + seconds
    poll.register(fd, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if any(what & select.POLLIN for _, what in poll.poll(left * 1000)):
            return True
        time.sleep(0.02)  # a writer that has left says so at once, again and again
    return False


def _stream(address: str, stall_seconds: float) -> Capture:
    scheme, mark, rest = address.partition("://")
    if scheme.lower() in cameras.WEB and cameras.is_live(address):
        found = motion_jpeg(address, stall_seconds * 4)
        if found is not None:
            return found
    limits = (  # FFmpeg gives up by itself, some time after we have.
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_SECONDS * 800)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(stall_seconds * 4000)),
    )
    capture = cv2.VideoCapture(f"{scheme.lower()}{mark}{rest}" if mark else address,
                               cv2.CAP_FFMPEG, limits)  # fmt: skip
    if not capture.isOpened():
        hint = "is it running, and are address and password right?"
        raise InputError(f"{redacted(address)}: can't be opened; {hint}")
    return capture


def _pictures(camera: str) -> list[Path]:
    """The pictures that a path, folder or pattern stands for; none where it is a video."""
    path = Path(camera).expanduser()
    if path.is_dir():
        found = [file for file in path.iterdir() if file.is_file() and is_picture(file)]
        if not found:
            raise InputError(f"{camera}: no pictures in this folder")
        return found
    if path.exists():
        if not os.access(path, os.R_OK):
            raise InputError(f"{camera}: no permission to read it")
        if path.is_file() and not path.stat().st_size:
            raise InputError(f"{camera}: the file is empty")
        return [path] if is_picture(path) else []
    if glob.has_magic(camera):
        found = [Path(file) for file in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        if not found:
            raise InputError(f"{camera}: no file fits this pattern")
        return found
    raise InputError(f"{camera}: no such camera or file")


class Live(FrameSource):
    """A camera or a stream, which need not be there yet.

    Args:
        name, report, timing: see `FrameSource`.
        opener: opens the camera; called anew, in a new thread, for each attempt.
        settings: size and speed requested of it, which may have another; without a frame for
            `stall_seconds` it is stalled, for three times as long lost.
    """

    live = True

    def __init__(
        self,
        name: str,
        opener: Callable[[], Capture],
        settings: EdgeSettings,
        *,
        report: Report,
        timing: Timing,
    ) -> None:
        super().__init__(name, report=report, timing=timing)
        self._opener = opener
        self._settings = settings
        self._number = 0
        self._dropped = 0
        self._newest: Channel[Frame] = Channel(1, keep=False)
        self.size = 0, 0

    def open(self) -> None:
        """See `FrameSource`."""
        self._sized(self._connect())
        self._dropped += 1  # by the time the model is ready it is old

    def wait(self) -> bool:
        """See `FrameSource`."""
        if self.size[0]:
            return True
        try:
            self.open()
        except InputError as error:
            if self._stopped.is_set():
                return False
            reason = self._reason(error)
            self.happened("lost", f"{reason}; trying until it is there", reason=reason)
            return self._come_back(self.open, MlopsDeployError, known=reason) is not None
        self._is_back()
        return True

    @property
    def dropped(self) -> int:
        """Frames that went by."""
        return self._dropped + self._newest.dropped

    def frames(self) -> Iterator[Frame]:
        """The newest frame, again and again until `stop`; to be asked for after `open`."""
        while True:
            reason = yield from self._until_lost()
            self._newest.cancel()
            if self._stopped.is_set():
                return
            self.happened("lost", f"{reason}; connecting again", reason=reason)
            found = self._come_back(self._reconnect, MlopsDeployError)
            if found is None:
                return
            frame, facts = found
            self.happened("reconnected", f"back after {facts['seconds']:.1f} s", **facts)
            self._look_at(frame)
            yield frame
            del frame, found

    def stop(self) -> None:
        """End now, even within a read that does not return."""
        super().stop()
        self._newest.cancel()

    def _until_lost(self) -> Generator[Frame, None, str]:
        """Frames as long as they come; then the reason why no more do."""
        last, stalled = time.monotonic(), False
        while True:
            patience = self._settings.stall_seconds * (3 if stalled else 1)
            try:
                frame = self._newest.take(max(last + patience - time.monotonic(), 0))
            except TimeoutError:
                silent = time.monotonic() - last
                if stalled:
                    return f"no frame for {silent:.1f} s"
                stalled = True
                self.happened("stalled", f"no frame for {silent:.1f} s", seconds=round(silent, 2))
                continue
            except Closed:
                return "the stream ended"
            except MlopsDeployError as error:
                return self._reason(error)
            if stalled:
                stalled = False
                silent = frame.captured - last
                self.happened(
                    "resumed", f"frames again after {silent:.1f} s", seconds=round(silent, 2)
                )
            last = frame.captured
            self._look_at(frame)
            yield frame
            del frame

    def _reconnect(self) -> Frame:
        self._dropped += self._newest.dropped
        return self._connect()

    def _connect(self) -> Frame:
        """Start a thread that opens the camera and reads it; its first frame."""
        self._newest = Channel(1, keep=False)
        if self._stopped.is_set():  # by a thread that knew the channel before
            self._newest.cancel()
        feed(self._read(), self._newest, "capture")
        try:
            return self._newest.take(OPEN_SECONDS)
        except TimeoutError:
            self._newest.cancel()
            reason = f"no frame within {OPEN_SECONDS:.0f} seconds"
            raise InputError(f"{self.name}: {reason}") from None
        except Closed:
            raise InputError(f"{self.name}: can be opened, but gives no frames") from None
        except BaseException:
            self._newest.cancel()
            raise

    def _look_at(self, frame: Frame) -> None:
        """A picture of another size is an event."""
        height, width = frame.image.shape[:2]
        if (width, height) != self.size:
            before = "{}×{}".format(*self.size)
            self._sized(frame)
            text = f"pictures are {width}×{height} now, before {before}"
            self.happened("resized", text, width=width, height=height)

    def _sized(self, frame: Frame) -> None:
        self.size = frame.image.shape[1], frame.image.shape[0]
        self.description = self._described()

    def _request(self, capture: Capture) -> None:
        """Request size and speed of a camera that was opened."""
        settings = self._settings
        if settings.width or settings.height:
            # Above 640×480, USB cameras reach their full speed only in motion JPEG.
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
            (cv2.CAP_PROP_FPS, settings.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),  # in the driver's queue a frame only grows old
        ):
            if value:
                capture.set(setting, value)

    def _described(self) -> str:
        """The size and speed it has, and what was requested where that differs."""
        width, height, fps = self._settings.width, self._settings.height, self._settings.fps
        has = (*self.size, self.fps and round(self.fps))
        found = "{}×{}".format(*self.size) + (f" at {self.fps:.4g} fps" if self.fps else "")
        if all(asked in (None, got) for asked, got in zip((width, height, fps), has, strict=True)):
            return found
        asked = [f"{width or 'any'}×{height or 'any'}"] * bool(width or height)
        asked += [f"{fps} fps"] * bool(fps)
        return f"{found} (requested {' at '.join(asked)})"

    def _read(self) -> Iterator[Frame]:
        capture = self._opener()
        buffers = Buffers()
        try:
            self._request(capture)
            self.fps = frames_per_second(capture)
            while (image := buffers.read(capture, self._timing)) is not None:
                frame = Frame(self._number, image)
                self._number += 1
                yield frame
                del image, frame
        finally:
            capture.release()
