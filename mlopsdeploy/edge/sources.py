"""What `--camera` names: a device, a stream, a video, pictures."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import cv2

from mlopsdeploy.edge.camera import OPEN_SECONDS, Live, Wish
from mlopsdeploy.edge.events import Tell
from mlopsdeploy.edge.files import Paced, Pictures, Video, is_picture
from mlopsdeploy.edge.frames import Frame
from mlopsdeploy.errors import ConfigError, InputError

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")


class Source(Protocol):
    """Frames, one after the other.

    Attributes:
        name: what it is called in messages, without a password.
        said: what there is to say of it: its size and speed.
        live: frames go by whether somebody looks or not.
        size: width and height of its first frame.
    """

    name: str
    said: str
    live: bool
    size: tuple[int, int]

    @property
    def fps(self) -> float | None:
        """Frames per second, where the source says so."""
        ...

    @property
    def total(self) -> int | None:
        """Frames in all, where that is known."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that went by unseen."""
        ...

    def frames(self) -> Iterator[Frame]:
        """The frames; to be asked for once."""
        ...

    def stop(self) -> None:
        """Let `frames` end soon. Callable from any thread."""
        ...


def open_source(
    camera: str,
    *,
    wish: Wish,
    realtime: bool,
    stall_seconds: float,
    tell: Tell,
    timing: Callable[[float], None],
) -> Source:
    """The source that `camera` names; a frame of it has already been read.

    Args:
        camera: `0`, `/dev/video0`, a URL such as `rtsp://…`, a video, a picture, a folder or a
            pattern of pictures.
        wish: size and speed asked of a camera.
        realtime: a video goes by at its own speed, as a camera does.
        stall_seconds: see `Live`.
        tell: told what happens to it, in any thread.
        timing: told the seconds that each read took, in the thread that reads.

    Raises:
        InputError: there is no such camera or file, or it can't be read.
        ConfigError: what is asked does not fit the source.
    """
    name = redacted(camera)
    device = re.fullmatch(r"(?:/dev/video)?(\d+)", camera)
    url = "://" in camera
    file_on_a_server = url and urlsplit(camera).path.lower().endswith(VIDEOS)
    if device or (url and not file_on_a_server):
        if realtime:
            raise ConfigError(f"--realtime is for videos; {name} is live anyway")
        name = f"camera {device[1]}" if device else name
        opener = _device(int(device[1])) if device else _stream(camera, stall_seconds)
        return Live(name, opener, wish=wish, stall_seconds=stall_seconds, tell=tell, timing=timing)
    if wish:
        raise ConfigError(f"--width, --height and --fps are asked of a camera; {name} is a file")
    if file_on_a_server:
        capture = _stream(camera, stall_seconds)()
    else:
        pictures = _pictures(camera)
        if pictures and realtime:
            raise ConfigError(f"--realtime is for videos; {name} has no speed of its own")
        if pictures:
            return Pictures(name, pictures, tell=tell, timing=timing)
        capture = cv2.VideoCapture(camera)
    if realtime:
        return Paced(Video(name, capture, tell=tell, timing=lambda _: None), timing=timing)
    return Video(name, capture, tell=tell, timing=timing)


def redacted(camera: str) -> str:
    """A URL as it may be shown: without the password."""
    password = urlsplit(camera).password if "://" in camera else None
    return camera.replace(f":{password}@", ":***@") if password else camera


def _device(number: int) -> Callable[[], cv2.VideoCapture]:
    linux = sys.platform.startswith("linux")

    def opener() -> cv2.VideoCapture:
        if linux:
            _check_device(number)
        capture = cv2.VideoCapture(number, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not capture.isOpened():
            raise InputError(
                f"camera {number}: can't be opened; another program may be using it, or it is not "
                "a camera"
            )
        return capture

    return opener


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


def _stream(url: str, stall_seconds: float) -> Callable[[], cv2.VideoCapture]:
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise InputError(f"{redacted(url)}: can't read {scheme}://; can: {', '.join(SCHEMES)}")

    def opener() -> cv2.VideoCapture:
        # FFmpeg gives up by itself, some time after we have.
        limits = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_SECONDS * 800,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: stall_seconds * 4000,
        }
        flat = [int(part) for pair in limits.items() for part in pair]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, flat)
        if not capture.isOpened():
            raise InputError(
                f"{redacted(url)}: can't be opened; is it running, and are address and password "
                "right?"
            )
        return capture

    return opener


def _pictures(camera: str) -> list[Path]:
    """The pictures that a path, folder or pattern stands for; none where it is a video.

    Raises:
        InputError: there is no such file, it may not be read, or the folder has no picture.
    """
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
