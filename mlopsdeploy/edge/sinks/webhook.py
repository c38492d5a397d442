"""`--webhook`: each event a POST of its envelope, one after the other over one connection.

What the answer's status means:

    2xx                          accepted
    401, 403, 404, 407           about us and not about the event: it is tried again, as a token is
                                 renewed and a path is put in order; so it is with redirections
    408, 421, 425, 429, 5xx      not now: tried again, after `Retry-After` where that is given
    other 4xx                    never: the event is put aside, and the next one is sent

An address is a secret, as whoever has it can write there: no more than its host is shown.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from typing import Self
from urllib.parse import urlsplit

from mlopsdeploy import __version__
from mlopsdeploy.data.cameras import with_account
from mlopsdeploy.edge.outbox import Message
from mlopsdeploy.edge.outputs import About
from mlopsdeploy.edge.sending import Destination, Later

TIMEOUT = 10.0  # seconds to connect, and between two pieces of an answer
LONGEST = 65_536  # bytes of an answer that are read, so that the connection can be used again
ABOUT_US = (401, 403, 404, 407)
NOT_NOW = (408, 421, 425, 429)


class Webhook(Destination):
    """An HTTP server that takes events.

    Args:
        address: of it, with a user and password or without.
        token: sent as a bearer's.
    """

    name = "webhook"
    together = 20

    def __init__(self, address: str, token: str | None = None) -> None:
        url, account = with_account(address)
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": f"mlopsdeploy/{__version__}",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif account:
            coded = base64.b64encode(account.encode()).decode()
            self._headers["Authorization"] = f"Basic {coded}"
        self._connection: HTTPConnection | None = None

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Destination`."""
        return cls(value, about.settings.webhook_token)

    def send(self, messages: Sequence[Message]) -> Iterator[str]:
        """See `Destination`."""
        for message in messages:
            try:
                status, after = self._post(message.body)
            except (OSError, HTTPException) as error:
                self.close()
                raise Later(f"{self._host}: {_reason(error)}") from error
            if 200 <= status < 300:
                yield ""
            elif 400 <= status < 500 and status not in ABOUT_US + NOT_NOW:
                yield f"status {status}"
            else:
                raise Later(f"{self._host}: answers with status {status}", _seconds(after))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes) -> tuple[int, str]:
        """The answer's status, and its Retry-After."""
        used = self._connection is not None
        try:
            return self._ask(body)
        except (RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not used:
                raise
            self.close()  # one that has rested for long may be closed over there
            return self._ask(body)

    def _ask(self, body: bytes) -> tuple[int, str]:
        if self._connection is None:
            self._connection = self._connected()
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        answer.read(LONGEST)
        if not answer.isclosed():
            self.close()
        return answer.status, answer.headers.get("Retry-After", "")

    def _connected(self) -> HTTPConnection:
        if not self._secure:
            return HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        context = ssl.create_default_context()  # SSL_CERT_FILE names another authority
        return HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=context)


def _seconds(after: str) -> float | None:
    """How long `Retry-After` asks us to wait: seconds, or until a date."""
    if after.strip().isdecimal():
        return float(after)
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(after)
        left = (moment - datetime.now(moment.tzinfo or UTC)).total_seconds()
        return max(left, 0.0)
    return None


def _reason(error: Exception) -> str:
    """In words, and without the path, which an HTTP error may have."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, HTTPException) and not isinstance(error, OSError):
        return f"its answer is no HTTP ({type(error).__name__})"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
