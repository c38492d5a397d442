"""How a run that lasts is ended from outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = {"interrupted": 130, "terminated": 143}  # exit codes
TWICE = 0.5  # seconds in which two signals are one: `timeout` sends its to process and group


@contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in good order; a second one ends it at once."""
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
    first: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            # In a thread, as the main one may hold a lock that stopping needs.
            word = words[signal.Signals(number)]
            threading.Thread(target=stop, args=(word,), daemon=True).start()
        elif time.monotonic() - first[0] > TWICE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = {number: signal.signal(number, handle) for number in words}
    try:
        yield
    finally:
        if not first:  # else the process is about to end, and so that it says how, none interrupts
            for number, handler in before.items():
                signal.signal(number, handler)
