"""What a supervisor is told: that we are ready, alive, reloading, stopping; see sd_notify(3).

Alive means that the main thread goes round and that no call of the model hangs. A camera that is
away is no reason to be started again: it is waited for. Where nobody supervises, as in Docker, a
process that hangs can end itself, and so be started again (`--watchdog`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

FRACTION = 3  # of the time in which systemd expects to hear from us


def notify(*states: str) -> None:
    """Tell systemd, where it asks to be told: `READY=1`, `STATUS=…`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.sendto("\n".join(states).encode(), name)


def reloading() -> None:
    """Tell systemd that settings are read again; `READY=1` says that it is over."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def expected_within() -> float | None:
    """Seconds within which systemd expects a sign of life; None: it doesn't."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) else None


class Watchdog:
    """Says that we are alive, as often as it is asked for, in a thread of its own.

    Args:
        silent: how long nothing went on that should have, in seconds.
        status: a line for `systemctl status`.
        limit: end the process when it is silent for so long; None: leave that to systemd.
        ends: how it ends.
    """

    def __init__(
        self,
        silent: Callable[[], float],
        status: Callable[[], str],
        *,
        limit: float | None,
        ends: Callable[[float], None],
    ) -> None:
        self._silent, self._status, self._limit, self._ends = silent, status, limit, ends
        self._expected = expected_within()
        self._stopped = threading.Event()
        shortest = min(filter(None, (self._expected, limit)), default=None)
        if shortest is not None:
            pause = shortest / FRACTION
            threading.Thread(target=self._run, args=(pause,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """No more is said."""
        self._stopped.set()

    def _run(self, pause: float) -> None:
        while not self._stopped.wait(pause):
            silent = self._silent()
            if self._expected is not None and silent < self._expected:
                notify("WATCHDOG=1", f"STATUS={self._status()}")
            if self._limit is not None and silent >= self._limit:
                self._ends(silent)
