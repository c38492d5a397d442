"""The window: the newest picture with its boxes, and the speed in a corner."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import cv2

from mlopsdeploy.edge.channel import Channel, Closed
from mlopsdeploy.edge.draw import paste, text_size, write
from mlopsdeploy.edge.results import Result

TITLE = "mlopsdeploy edge (q ends)"
_TRY = "import cv2; cv2.namedWindow('a'); cv2.destroyAllWindows()"


class Window:
    """Shows results as they come. All but `put` is for the main thread, as windows are.

    Whether one can be opened is tried in another process: where there is no display, Qt does not
    raise an error but aborts.
    """

    def __init__(self) -> None:
        self._newest: Channel[Result] = Channel(1, keep=False)
        self._open = False
        self._trial = subprocess.Popen(
            [sys.executable, "-c", _TRY],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def put(self, result: Result) -> None:
        """Show this next. Called by the pipeline."""
        self._newest.put(result)

    def usable(self) -> bool | None:
        """Whether there is a display and an OpenCV with windows; None: not known yet."""
        code = self._trial.poll()
        return None if code is None else code == 0

    def show(self, seconds: float) -> bool:
        """Show the newest result that comes within this time; False when it is to end.

        It ends by `q`, by Escape, or by closing the window.
        """
        try:
            result = self._newest.take(seconds)
        except TimeoutError:
            pass
        except Closed:
            return False
        else:
            started = time.perf_counter()
            self._draw(result)
            result.stats.add("window", time.perf_counter() - started)
        if not self._open:
            return True
        if cv2.pollKey() & 0xFF in (ord("q"), ord("Q"), 27):
            return False
        try:
            return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt has gone with its last window
            return False

    def close(self) -> None:
        """Close it."""
        self._newest.cancel()
        if self._trial.poll() is None:
            self._trial.kill()
        self._trial.wait()
        if self._open:
            cv2.destroyAllWindows()  # unlike destroyWindow right where the user has closed it

    def _draw(self, result: Result) -> None:
        # The speed belongs on the screen alone, and others may be reading the picture.
        picture = result.drawn().copy()
        if not self._open:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(TITLE, *_on_screen(picture.shape[1], picture.shape[0]))
            self._open = True
        size = text_size(picture)
        speed = write(f"{result.stats.fps:.1f} fps", size, (255, 255, 255), (30, 30, 30))
        paste(picture, speed, picture.shape[1], 0)
        cv2.imshow(TITLE, picture)


def display_named() -> bool:
    """Whether the environment speaks of a display at all."""
    if platform.system() == "Linux":
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def _on_screen(width: int, height: int) -> tuple[int, int]:
    """A size that fits on most screens, of the same proportions."""
    scale = min(1280 / width, 720 / height, 1)
    scale = max(scale, min(640 / width, 480 / height))  # and is not a stamp
    return max(round(width * scale), 1), max(round(height * scale), 1)
