"""A real broker that can be killed, a web server that misbehaves, and who sends to them."""

import contextlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from mlopsdeploy.edge import sinks
from mlopsdeploy.edge.events import Event, Reporter
from mlopsdeploy.edge.outputs import About, Outlet
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.settings import EdgeSettings

from ..ports import lasting_port


class Broker:
    """A mosquitto on a port of its own, and somebody who hears all that it is told.

    Publishers come in by `port`, which is open only while the listener listens, and what comes is
    passed on at once: what a broker acknowledges and then loses, or has nobody for, is not ours.
    """

    def __init__(self, folder, options=""):
        self.port = lasting_port()
        self._inner = lasting_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"user root\nlistener {self._inner} 127.0.0.1\nallow_anonymous true\n{options}\n",
            "utf-8",
        )
        self.refuses_5 = False
        self.heard = []
        self._process = self._listener = None
        self._gate = None
        self._deaf = threading.Event()
        self._pairs = []

    def start(self, *, gate=True):
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self._process = subprocess.Popen(
            [program, "-c", str(self._config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers)
        ready = threading.Event()
        listener = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        # It says nothing itself, as it would stop to read when a killed broker can't hear it.
        listener.on_connect = lambda client, *_: client.subscribe("#", 0)
        listener.on_subscribe = lambda *_: ready.set()
        self._deaf.clear()
        listener.on_disconnect = lambda *_: self._deaf.set()
        listener.on_message = lambda _, __, message: self.heard.append(message)
        listener.connect("127.0.0.1", self._inner)
        listener.loop_start()
        assert ready.wait(20)
        self._listener = listener
        if gate:
            self.open()
        return self

    def open(self):
        self._gate = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._let_in, args=(self._gate,), daemon=True).start()

    def kill(self):
        """As a power cut does."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        if self._gate is not None:
            self._gate.shutdown(socket.SHUT_RDWR)
            self._gate.close()
        self._gate = None
        self.cut()
        if self._listener is not None:
            assert self._deaf.wait(20), "what was on its way to the listener is heard yet"
            self._listener.loop_stop()
        self._listener = None

    def cut(self):
        """Only connections."""
        while self._pairs:
            for one in self._pairs.pop():
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def events(self, kind=None):
        """Data of the envelopes that came, without those that came before."""
        seen, found = set(), []
        for message in tuple(self.heard):
            if "/events/" in message.topic:
                envelope = json.loads(message.payload)
                if envelope["id"] not in seen and kind in (None, envelope["data"]["event"]):
                    found.append(envelope["data"])
                seen.add(envelope["id"])
        return found

    def last(self, topic):
        """What was said last under a topic."""
        found = [one for one in tuple(self.heard) if one.topic.endswith(topic)]
        return found[-1].payload.decode() if found else None

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self._inner), 1).close()
        except OSError:
            return False
        return True

    def _let_in(self, gate):
        while True:
            try:
                outer, _ = gate.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self._inner))
            except OSError:
                outer.close()
                continue
            self._pairs.append((outer, inner))
            if self.refuses_5 and outer.recv(100, socket.MSG_PEEK)[8] == 5:
                outer.sendall(b"\x20\x02\x00\x01")  # a CONNACK of MQTT 3.1.1
                self._pairs.remove((outer, inner))
                outer.close()
                inner.close()
                continue
            for pair in ((outer, inner), (inner, outer)):
                threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def wait_until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path):
    """`broker()`: one that runs; options are lines of its configuration."""
    started = []

    def make(options="", **how):
        started.append(Broker(tmp_path, options))
        return started[-1].start(**how)

    yield make
    for one in started:
        one.kill()


class Receiver:
    """A web server that takes events. `answers`: what it does next; then 200.

    Each is a status, a status with Retry-After, `cut` (the connection, once the event has come),
    `rubbish`, or a number of seconds as a float that it takes for a 200.
    """

    def __init__(self):
        receiver = self
        self.answers = deque()
        self.requests = []
        self.accepted = []
        self.times = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
                receiver.times.append(time.monotonic())
                answer = receiver.answers.popleft() if receiver.answers else 200
                after = None
                if isinstance(answer, tuple):
                    answer, after = answer
                if answer == "cut":
                    self.close_connection = True
                    return
                if answer == "rubbish":
                    self.wfile.write(b"no HTTP at all\r\n\r\n")
                    self.close_connection = True
                    return
                if isinstance(answer, float):
                    receiver.closed.wait(answer)
                    answer = 200
                if answer == 200:
                    receiver.accepted.append(json.loads(body))
                self.send_response(answer)
                if after is not None:
                    self.send_header("Retry-After", after)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.closed = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook/s3cret"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def data(self):
        """Of the events that it accepted, without those that came before."""
        found = {one["id"]: one["data"] for one in self.accepted}
        return list(found.values())

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


class Lines:
    """A result with some events in it, as `outputs.Found` is."""

    something = True

    def __init__(self, *documents):
        self._documents = [
            {"event": "line", "time": "2026-01-01T00:00:00.000Z", **one} for one in documents
        ]

    def documents(self):
        return self._documents

    def labels(self):
        return [{one.get("label", ""): 1} for one in self._documents]

    def state(self):
        return {"answer": {"label": self._documents[-1].get("label")}}


class Sending:
    """The outbox and its senders, as a run has them."""

    def __init__(self, settings, model):
        self.events, self.said = [], []
        reporter = Reporter(self.said.append)

        def report(event):
            self.events.append(event)
            reporter.report(event)

        self.about = About(settings, "camera 0", True, model, self.said.append, dict)
        (self.sink,) = sinks.open_sinks(self.about, report)
        self.outlet = Outlet(self.sink, Stats(), keep=False, log=self.said.append, happened=report)
        reporter.connect([self.outlet.report])

    def put(self, *documents):
        self.outlet.put(Lines(*documents))

    def report(self, kind, **facts):
        self.outlet.report(Event(kind, kind, facts))

    def waiting(self):
        return sum(one.waiting for one in self.sink.standing().values())

    def kinds(self):
        return [event.kind for event in self.events]

    def close(self):
        self.outlet.close()


@pytest.fixture
def sending(tmp_path, model, monkeypatch):
    """`sending(mqtt=…)`: with settings of edge. Pauses are short, and so are commits."""
    monkeypatch.setattr("mlopsdeploy.edge.sending.Outgoing.pause", 0.02)
    monkeypatch.setattr("mlopsdeploy.edge.sending.LONGEST_PAUSE", 0.5)
    monkeypatch.setattr("mlopsdeploy.edge.sending.FIRST_PAUSE", 0.1)
    opened = []

    def make(**settings):
        settings = {
            "outbox": str(tmp_path / "outbox.db"),
            "device": "cam7",
            "send": "all",
            **settings,
        }
        opened.append(Sending(EdgeSettings(**settings), model))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def until():
    return wait_until


@pytest.fixture
def pauses():
    """Random ones, the same every time."""
    return random.Random(7)
