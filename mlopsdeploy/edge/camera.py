"""What `--camera` names: a device or a stream, which is live, or a video or pictures.

Of a live source it is always the newest frame, and never silence. Every read happens in a thread of
its own, because it may never return. A camera that goes quiet becomes an event within seconds, and
is opened again, until it is back:

    connected ──► frames ──► stalled ──► lost ──► (wait, longer each time) ──► reconnected
                     ▲           │
                     └─ resumed ─┘
"""

from __future__ import annotations

import glob
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from mlopsdeploy.edge.channel import Channel, Closed, feed
from mlopsdeploy.edge.events import Report
from mlopsdeploy.edge.frames import (
    Buffers,
    Frame,
    FrameSource,
    Paced,
    Pictures,
    Timing,
    Video,
    frames_per_second,
    is_picture,
)
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.settings import EdgeSettings

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
OPEN_SECONDS = 10.0  # that a camera may take until its first frame


def open_source(settings: EdgeSettings, *, report: Report, timing: Timing) -> FrameSource:
    """The source that `settings.camera` names; a frame of it has already been read.

    Args:
        settings: of the device.
        report: gets what happens to it, in any thread.
        timing: gets the seconds that each read took, in the thread that reads.

    Raises:
        InputError: there is no such camera or file, or it can't be read.
        ConfigError: what is asked does not fit the source.
    """
    camera, realtime, stall = settings.camera, settings.realtime, settings.stall_seconds
    name = redacted(camera)
    device = re.fullmatch(r"(?:/dev/video)?(\d+)", camera)
    url = "://" in camera
    file_on_a_server = url and urlsplit(camera).path.lower().endswith(VIDEOS)
    if device or (url and not file_on_a_server):
        if realtime:
            raise ConfigError(f"--realtime is for videos; {name} is live anyway")
        opener = partial(_device, int(device[1])) if device else partial(_stream, camera, stall)
        name = f"camera {device[1]}" if device else name
        return Live(name, opener, settings, report=report, timing=timing)
    if settings.width or settings.height or settings.fps:
        raise ConfigError(f"--width, --height and --fps are asked of a camera; {name} is a file")
    if file_on_a_server:
        capture = _stream(camera, stall)
    else:
        pictures = _pictures(camera)
        if pictures and realtime:
            raise ConfigError(f"--realtime is for videos; {name} has no speed of its own")
        if pictures:
            return Pictures(name, pictures, report=report, timing=timing)
        capture = cv2.VideoCapture(camera)
    return (Paced if realtime else Video)(name, capture, report=report, timing=timing)


def redacted(camera: str) -> str:
    """A URL as it may be shown: without the password."""
    password = urlsplit(camera).password if "://" in camera else None
    return camera.replace(f":{password}@", ":***@") if password else camera


def _device(number: int) -> cv2.VideoCapture:
    linux = sys.platform.startswith("linux")
    if linux:
        _check_device(number)
    capture = cv2.VideoCapture(number, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
    if not capture.isOpened():
        raise InputError(
            f"camera {number}: can't be opened; another program may be using it, or it is not a "
            "camera"
        )
    return capture


def _check_device(number: int) -> None:
    """On Linux a camera is a file, which says more than a failed attempt to open it."""
    path = Path(f"/dev/video{number}")
    if not path.exists():
        others = sorted(str(other) for other in path.parent.glob("video[0-9]*"))
        hint = f"there are: {', '.join(others)}" if others else "this machine shows no camera"
        raise InputError(f"no camera {number}: {path} does not exist; {hint}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise InputError(
            f"camera {number}: no permission for {path}; 'sudo usermod -aG video $USER' and a new "
            "login give it"
        )


def _stream(url: str, stall_seconds: float) -> cv2.VideoCapture:
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise InputError(f"{redacted(url)}: can't read {scheme}://; can: {', '.join(SCHEMES)}")
    limits = (  # FFmpeg gives up by itself, some time after we have.
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_SECONDS * 800)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(stall_seconds * 4000)),
    )
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise InputError(
            f"{redacted(url)}: can't be opened; is it running, and are address and password right?"
        )
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
    """A camera or a stream.

    Args:
        name, report, timing: see `FrameSource`.
        opener: opens the camera; called anew, in a new thread, for each attempt.
        settings: size and speed requested of it, which may have another; without a frame for
            `stall_seconds` it is stalled, for three times as long lost.

    Raises:
        InputError: no first frame comes.
    """

    live = True

    def __init__(
        self,
        name: str,
        opener: Callable[[], cv2.VideoCapture],
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
        try:
            first = self._connect()  # for its size; by the time the model is ready it is old
        except TimeoutError:
            raise InputError(f"{name}: no frame within {OPEN_SECONDS:.0f} seconds") from None
        except Closed:
            raise InputError(f"{name}: can be opened, but gives no frames") from None
        self._dropped = 1
        self.size = first.image.shape[1], first.image.shape[0]
        self.description = self._described()

    @property
    def dropped(self) -> int:
        """Frames that went by."""
        return self._dropped + self._newest.dropped

    def frames(self) -> Iterator[Frame]:
        """The newest frame, again and again until `stop`."""
        while True:
            reason = yield from self._until_lost()
            self._newest.cancel()
            if self._stopped.is_set():
                return
            self.happened("lost", f"{reason}; connecting again", reason=reason)
            first = self._come_back(self._reconnect, TimeoutError, Closed, MlopsDeployError)
            if first is None:
                return
            yield first

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
                return str(error)
            if stalled:
                stalled = False
                silent = frame.captured - last
                self.happened(
                    "resumed", f"frames again after {silent:.1f} s", seconds=round(silent, 2)
                )
            last = frame.captured
            yield frame
            del frame

    def _reconnect(self) -> Frame:
        self._dropped += self._newest.dropped
        return self._connect()

    def _connect(self) -> Frame:
        """Start a thread that opens the camera and reads it; its first frame."""
        self._newest: Channel[Frame] = Channel(1, keep=False)
        feed(self._read(), self._newest, "capture")
        try:
            return self._newest.take(OPEN_SECONDS)
        except BaseException:
            self._newest.cancel()
            raise

    def _request(self, capture: cv2.VideoCapture) -> None:
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
