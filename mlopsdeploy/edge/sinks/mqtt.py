"""`--mqtt`: events to a broker, with quality of service 1, and how things stand, retained.

    PREFIX/DEVICE/events/KIND     an envelope each (crossed, frame, lost …)
    PREFIX/DEVICE/state           how things stand now, retained
    PREFIX/DEVICE/availability    online; offline when we leave, or the broker misses us; retained

An event is done with when the broker has acknowledged it. MQTT 5 is spoken where the broker does,
as it then says of an event that it doesn't take it; else 3.1.1. A new connection begins with
nothing of the old one: what was not acknowledged is sent again, in order, from the outbox.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mlopsdeploy.data.cameras import with_account
from mlopsdeploy.edge.outbox import Message
from mlopsdeploy.edge.outputs import About
from mlopsdeploy.edge.sending import Destination
from mlopsdeploy.edge.sinks.home_assistant import entities

PREFIX = "mlopsdeploy"
TIMEOUT = 10.0  # seconds to connect, and for an acknowledgement
KEEP_ALIVE = 30  # seconds; after half as much again without a sign the broker says that we are away
INFLIGHT = 100  # events that may be on their way without an acknowledgement
HEAD = 32  # bytes of a packet beside topic and content, at most
FAILED = 0x80  # from here on reason codes are of failures
OLDER = ("Unsupported protocol version", "Protocol error", "Malformed packet")
NEVER = (0x87, 0x90, 0x95, 0x99)  # not authorized, topic name, too large, payload format


class Mqtt(Destination):
    """A broker.

    Args:
        address: `mqtt[s]://[USER:PASSWORD@]HOST[:PORT][/PREFIX]`.
        about: the run.
    """

    name = "mqtt"
    together = INFLIGHT

    def __init__(self, address: str, about: About) -> None:
        url, account = with_account(address)
        parts = urlsplit(url)
        self._secure = parts.scheme == "mqtts"
        self._host = parts.hostname or ""
        self._port = parts.port or (8883 if self._secure else 1883)
        self._user, _, self._password = account.partition(":")
        self._about = about
        self._base = f"{parts.path.strip('/') or PREFIX}/{about.device}"
        self._protocol = paho.MQTTv5
        self._client: paho.Client | None = None
        self._changed = threading.Condition()
        self._connected: ReasonCode | None = None
        self._lost = ""
        self._largest, self._inflight = sys.maxsize, INFLIGHT
        self._acknowledged: dict[int, ReasonCode] = {}
        self._stated: Mapping[str, Any] | None = None

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Destination`."""
        return cls(value, about)

    def keep(self, state: Mapping[str, Any]) -> None:
        """See `Destination`."""
        if self._client is None or self._lost:
            self._leave()
            self._connect()
        if state != self._stated:
            self._retain("state", json.dumps(state, ensure_ascii=False))
            self._stated = dict(state)

    def send(self, messages: Sequence[Message]) -> Iterator[str]:
        """See `Destination`."""
        self._acknowledged.clear()
        sent: deque[int | None] = deque()
        for message in messages:
            while len(sent) >= self._inflight:
                yield self._refusal(sent.popleft())
            topic = f"{self._base}/events/{message.kind}"
            fits = len(topic) + len(message.body) + HEAD <= self._largest
            sent.append(self._publish(topic, message.body) if fits else None)
        for mid in sent:
            yield self._refusal(mid)

    def _refusal(self, mid: int | None) -> str:
        """Empty when the broker has accepted what was sent, or why it never will."""
        if mid is None:
            return "larger than the broker takes"
        code = self._acknowledgement(mid)
        if code.value >= FAILED and code.value not in NEVER:
            raise OSError(f"{self._host}: answers with {str(code).lower()}")
        return "" if code.value < FAILED else str(code).lower()

    def close(self) -> None:
        """Say that we leave, which a broker does not say of who leaves in good order."""
        if self._client is not None and not self._lost:
            info = self._client.publish(f"{self._base}/availability", "offline", 1, retain=True)
            with self._changed:
                self._changed.wait_for(lambda: info.mid in self._acknowledged, 1.0)
        self._leave()

    # ------------------------------------------------------------ the connection

    def _connect(self) -> None:
        try:
            code = self._try()
            if str(code) in OLDER and self._protocol == paho.MQTTv5:
                self._leave()
                self._protocol = paho.MQTTv311
                code = self._try()
        except OSError as error:
            self._leave()
            raise OSError(f"{self._host}: {_reason(error)}") from error
        if code is None or code.is_failure:
            self._leave()
            reason = self._lost or "does not answer" if code is None else str(code).lower()
            raise OSError(f"{self._host}: {reason}")
        self._retain("availability", "online")
        self._stated = None
        if self._about.settings.home_assistant:
            for topic, entity in entities(self._about, self._base):
                self._publish(topic, json.dumps(entity, ensure_ascii=False).encode(), retain=True)

    def _try(self) -> ReasonCode | None:
        """Connect; how the broker answers, and None where it does not."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, f"mlopsdeploy-{self._about.device}",
            protocol=self._protocol, reconnect_on_failure=False,
        )  # fmt: skip
        if self._user:
            client.username_pw_set(self._user, self._password or None)
        if self._secure:
            client.tls_set_context(ssl.create_default_context())  # SSL_CERT_FILE: an authority
        client.will_set(f"{self._base}/availability", "offline", 1, retain=True)
        client.connect_timeout = TIMEOUT
        client.max_inflight_messages_set(0)  # as `send` sees to it
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._connected, self._lost = None, ""
        self._client = client
        client.connect(self._host, self._port, KEEP_ALIVE)
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None or self._lost, TIMEOUT)
        return self._connected

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            client.loop_stop()

    def _retain(self, topic: str, text: str) -> None:
        self._publish(f"{self._base}/{topic}", text.encode(), retain=True)

    def _publish(self, topic: str, body: bytes, *, retain: bool = False) -> int:
        assert self._client is not None
        info = self._client.publish(topic, body, 1, retain)
        if self._lost or info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise OSError(f"{self._host}: {self._lost or 'the connection is lost'}")
        return info.mid

    def _acknowledgement(self, mid: int) -> ReasonCode:
        end = time.monotonic() + TIMEOUT
        with self._changed:
            self._changed.wait_for(
                lambda: mid in self._acknowledged or self._lost, end - time.monotonic()
            )
            if mid in self._acknowledged:
                return self._acknowledged[mid]
            self._lost = self._lost or "does not acknowledge what it is sent"
            raise OSError(f"{self._host}: {self._lost}")

    # ------------------------------------------------------------ in the thread of the client

    def _on_connect(
        self, _: paho.Client, __: Any, ___: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._inflight = min(getattr(properties, "ReceiveMaximum", INFLIGHT), INFLIGHT)
        self._largest = getattr(properties, "MaximumPacketSize", sys.maxsize)
        with self._changed:
            self._connected = code
            self._changed.notify_all()

    def _on_disconnect(
        self, client: paho.Client, _: Any, __: Any, code: ReasonCode, ___: Any
    ) -> None:
        with self._changed:
            if client is self._client:
                self._lost = "the connection is lost" if code.value < FAILED else str(code).lower()
                self._changed.notify_all()

    def _on_publish(self, client: paho.Client, _: Any, mid: int, code: ReasonCode, __: Any) -> None:
        with self._changed:
            if client is self._client:
                self._acknowledged[mid] = code
                self._changed.notify_all()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return error.strerror or str(error) or type(error).__name__
