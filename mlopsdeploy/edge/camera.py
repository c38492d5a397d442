"""A live camera or stream: always its newest frame, and never silence.

Every read happens in a thread of its own, because it may never return. A camera that goes quiet
becomes an event within seconds, and is opened again, until it is back:

    connected ──► frames ──► stalled ──► lost ──► (wait, longer each time) ──► reconnected
                     ▲           │
                     └─ resumed ─┘
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import cv2

from mlopsdeploy.edge.channel import Channel, Closed, feed
from mlopsdeploy.edge.events import Event, Tell
from mlopsdeploy.edge.files import frames_per_second
from mlopsdeploy.edge.frames import Buffers, Frame, read_into
from mlopsdeploy.edge.retry import pauses
from mlopsdeploy.errors import InputError, MlopsDeployError

OPEN_SECONDS = 10.0  # that a camera may take until its first frame


@dataclass(frozen=True)
class Wish:
    """What a camera is asked for; it may give something else."""

    width: int | None = None
    height: int | None = None
    fps: int | None = None

    def __bool__(self) -> bool:
        return any((self.width, self.height, self.fps))

    def ask(self, capture: cv2.VideoCapture) -> None:
        """Ask."""
        if self.width or self.height:
            # Above 640×480, USB cameras reach their full speed only in motion JPEG.
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, self.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, self.height),
            (cv2.CAP_PROP_FPS, self.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),  # in the driver's queue a frame only grows old
        ):
            if value:
                capture.set(setting, value)

    def beside(self, size: tuple[int, int], fps: float | None) -> str:
        """What was got, and what was asked for where that is something else."""
        got = f"{size[0]}×{size[1]}" + (f" at {fps:.4g} fps" if fps else "")
        pairs = ((self.width, size[0]), (self.height, size[1]), (self.fps, fps and round(fps)))
        if all(asked in (None, given) for asked, given in pairs):
            return got
        asked = [f"{self.width or 'any'}×{self.height or 'any'}"] * bool(self.width or self.height)
        asked += [f"{self.fps} fps"] * bool(self.fps)
        return f"{got} (asked for {' at '.join(asked)})"


class Live:
    """A camera or a stream.

    Args:
        name: for messages.
        opener: opens the camera; called anew, in a new thread, for each attempt.
        wish: size and speed asked of it.
        stall_seconds: without a frame for this long it is stalled, for three times as long lost.
        tell: told what happens, in the thread that runs `frames`.
        timing: told how long each read took, the wait for the next frame included.

    Raises:
        InputError: no first frame comes.
    """

    live = True
    total = None

    def __init__(
        self,
        name: str,
        opener: Callable[[], cv2.VideoCapture],
        *,
        wish: Wish,
        stall_seconds: float,
        tell: Tell,
        timing: Callable[[float], None],
    ) -> None:
        self.name = name
        self.fps: float | None = None
        self._opener = opener
        self._wish = wish
        self._stall_seconds = stall_seconds
        self._tell = tell
        self._timing = timing
        self._number = 0
        self._dropped = 0
        self._stopped = threading.Event()
        try:
            first = self._connect()  # for its size; by the time the model is ready it is old
        except TimeoutError:
            raise InputError(f"{name}: no frame within {OPEN_SECONDS:.0f} seconds") from None
        except Closed:
            raise InputError(f"{name}: can be opened, but gives no frames") from None
        self._dropped = 1
        self.size = first.image.shape[1], first.image.shape[0]
        self.said = wish.beside(self.size, self.fps)

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
            self._say("lost", f"{reason}; connecting again", reason=reason)
            first = self._reconnect()
            if first is None:
                return
            yield first

    def stop(self) -> None:
        """End now, even within a read that does not return."""
        self._stopped.set()
        self._newest.cancel()

    def _until_lost(self) -> Generator[Frame, None, str]:
        """Frames as long as they come; then the reason why no more do."""
        last, stalled = time.monotonic(), False
        while True:
            patience = self._stall_seconds * (3 if stalled else 1)
            try:
                frame = self._newest.take(max(last + patience - time.monotonic(), 0))
            except TimeoutError:
                silent = time.monotonic() - last
                if stalled:
                    return f"no frame for {silent:.1f} s"
                stalled = True
                self._say("stalled", f"no frame for {silent:.1f} s", seconds=round(silent, 2))
                continue
            except Closed:
                return "the stream ended"
            except MlopsDeployError as error:
                return str(error)
            if stalled:
                stalled = False
                silent = frame.captured - last
                self._say("resumed", f"frames again after {silent:.1f} s", seconds=round(silent, 2))
            last = frame.captured
            yield frame
            del frame

    def _reconnect(self) -> Frame | None:
        """Try until a frame comes, which is returned; None if stopped before."""
        began = time.monotonic()
        for attempt, pause in enumerate(pauses(), 1):
            if self._stopped.wait(pause):
                return None
            self._dropped += self._newest.dropped
            try:
                first = self._connect()
            except (TimeoutError, Closed, MlopsDeployError):
                continue
            away = time.monotonic() - began
            self._say(
                "reconnected", f"back after {away:.1f} s", seconds=round(away, 2), attempts=attempt
            )
            return first
        raise AssertionError("pauses have no end")

    def _connect(self) -> Frame:
        """Start a thread that opens the camera and reads it; its first frame."""
        self._newest: Channel[Frame] = Channel(1, keep=False)
        feed(self._read(), self._newest, "capture")
        try:
            return self._newest.take(OPEN_SECONDS)
        except BaseException:
            self._newest.cancel()
            raise

    def _read(self) -> Iterator[Frame]:
        capture = self._opener()
        buffers = Buffers()
        try:
            self._wish.ask(capture)
            self.fps = frames_per_second(capture)
            while True:
                start = time.perf_counter()
                image = read_into(capture, buffers)
                if image is None:
                    return
                self._timing(time.perf_counter() - start)
                frame = Frame(self._number, image)
                self._number += 1
                yield frame
                del image, frame
        finally:
            capture.release()

    def _say(self, kind: str, text: str, **facts: object) -> None:
        self._tell(Event(kind, f"{self.name}: {text}", {"source": self.name, **facts}))
