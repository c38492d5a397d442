"""Telling somebody how a run ended: a POST of a small JSON object to an address of theirs.

There are two addresses, and after a failure only the one for failures is called. That suits all who
wait for such calls: Healthchecks, Cronitor, Uptime Kuma and Dead Man's Snitch take any call as a
success, and have another address that means a failure; who reads the JSON, such as Slack's and
Mattermost's webhooks, may stand in both places.

An address is a secret, as whoever has it can say that all is well: no more than its host is shown.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mlopsdeploy import __version__
from mlopsdeploy.data.addresses import shown
from mlopsdeploy.errors import MlopsDeployError, Stopped, after_writing, one_line
from mlopsdeploy.settings import BatchSettings

TIMEOUT = 5.0  # seconds to connect, and to be answered
WAIT = TIMEOUT + 1  # that a program waits for calls at its end


@dataclass(frozen=True)
class Ended:
    """How a run ended, when nothing more is tried.

    Attributes:
        code: its exit code, as a shell has it (137 after SIGKILL); None if it could not start.
        how: in words, such as "failed: exit code 1, 2.1 s".
        seconds: of its last try.
        run: its number, from 1.
        tries: how often it began.
    """

    code: int | None
    how: str
    seconds: float
    run: int = 1
    tries: int = 1


class Notifier:
    """Calls the addresses of some settings, in threads of its own: no run waits for that."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._calls: list[_Call] = []

    def tell(self, ended: Ended, log: Callable[[str], None]) -> None:
        """Call the address for such an end, if there is one; `log` is told if that fails."""
        settings = self._settings
        address = settings.notify_success if ended.code == 0 else settings.notify_failure
        if address is None:
            return
        call = _Call(address, self._message(ended), log)
        call.start()
        self._calls = [one for one in self._calls if one.is_alive()] + [call]

    def wait(self) -> None:
        """Until all calls are over, or have taken too long."""
        end = time.monotonic() + WAIT
        for call in self._calls:
            call.join(max(end - time.monotonic(), 0.0))
            if call.is_alive():  # looking up the host's name, which nothing limits
                call.failed("it takes too long")

    def _message(self, ended: Ended) -> dict[str, Any]:
        what, host = shown(str(self._settings.input)), socket.gethostname()
        tries = f", {ended.tries} tries" if ended.tries > 1 else ""
        return {
            "text": f"mlopsdeploy batch {what} on {host} {ended.how}{tries}",
            "status": "ok" if ended.code == 0 else "failed",
            "exit_code": ended.code,
            "seconds": round(ended.seconds, 3),
            "run": ended.run,
            "tries": ended.tries,
            "input": what,
            "host": host,
        }


@contextmanager
def told(settings: BatchSettings, log: Callable[[str], None]) -> Iterator[None]:
    """Somebody is told how the run within ends; not of one that a signal ended."""
    started = time.monotonic()

    def tell(code: int) -> None:
        seconds = time.monotonic() - started
        how = f"{'failed' if code else 'done'}: exit code {code}, {seconds:.1f} s"
        notifier = Notifier(settings)
        notifier.tell(Ended(code, how, seconds), log)
        notifier.wait()

    try:
        yield
    except Stopped:
        raise
    except BrokenPipeError:
        tell(141)  # as the command line has it
        raise
    except Exception as error:
        tell(error.exit_code if isinstance(error, MlopsDeployError) else 1)
        raise
    with after_writing():
        tell(0)


class _NoRedirects(HTTPRedirectHandler):
    """What is at another place isn't who was to be told."""

    def redirect_request(self, *_: Any) -> None:
        """Raise the answer as an error."""


class _Call(threading.Thread):
    """One call. It logs a line if it fails."""

    def __init__(self, address: str, message: dict[str, Any], log: Callable[[str], None]) -> None:
        super().__init__(name="notify", daemon=True)
        self._address, self._message, self._log = address, message, log

    def run(self) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": f"mlopsdeploy/{__version__}"}
        message = json.dumps(self._message).encode()
        request = Request(self._address, message, headers)  # noqa: S310  # the setting sees to it
        try:
            build_opener(_NoRedirects).open(request, timeout=TIMEOUT).close()
        except HTTPError as error:
            error.close()
            self.failed(f"it answered with status {error.code}")
        except OSError as error:
            cause = getattr(error, "reason", error)
            self.failed(getattr(cause, "strerror", None) or one_line(cause))
        except (HTTPException, ValueError) as error:
            self.failed(type(error).__name__)  # its text may have the address

    def failed(self, reason: str) -> None:
        """Log that nobody was told."""
        self._log(f"could not notify {urlsplit(self._address).hostname}: {reason}")
