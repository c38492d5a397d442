"""A connection: from bytes to requests and back, whoever is at its other end, and however slow."""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mlopsdeploy.core.machine import resident_memory
from mlopsdeploy.serve.connection import Connection
from mlopsdeploy.serve.messages import Answer, RequestIds, problem_answer
from mlopsdeploy.settings import ServeSettings

from .conftest import ask_slow
from .wire import GOOD, HEAD, POST, read_all, read_answers

# ---------------------------------------------------------------- in this process


class Transport:
    """Takes what is written; nobody reads it while `full`."""

    def __init__(self):
        self.written, self.unread = b"", 0
        self.closing = self.aborted = self.ended = self.paused = False

    def get_extra_info(self, _name):
        return ("127.0.0.1", 1)

    def write(self, data):
        assert not self.ended
        if not self.closing:
            self.written += data

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True

    def is_closing(self):
        return self.closing

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended = True

    def pause_reading(self):
        assert not self.paused
        self.paused = True

    def resume_reading(self):
        assert self.paused
        self.paused = False

    def get_write_buffer_size(self):
        return self.unread

    @property
    def statuses(self):
        return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+)", self.written)]


class Worker:
    """Answers with what was asked; at once, unless the path is /slow."""

    def __init__(self):
        self.clock = 0.0
        self.held, self.most_held = 0, 100_000
        self.draining = False
        self.settings = ServeSettings(
            header_timeout=10, body_timeout=30, body_rate=1000, keep_alive=120
        )
        self.ids = RequestIds()
        self.thread = threading.get_ident()
        self.app = SimpleNamespace(endpoints={}, max_body=50_000, log_requests=False)
        self.routes, self.heads, self.good_hosts, self.date = {}, {}, {"h"}, "now"
        self.asked, self.waiting, self.refused = [], [], []

    def now(self):
        return self.clock

    def opened(self, connection):
        pass

    closed = opened

    def write_later(self, connection):
        connection.flush()

    def check_host(self, host, version):
        pass

    def refuse(self, problem, request):
        self.refused.append(problem.status)
        return problem_answer(problem, request.id)

    def handle(self, request, done):
        headers = {name: text for name, text in request.headers.items() if name != "connection"}
        self.asked.append((request.method, request.path, request.query, request.body, headers))
        answer = Answer(200, "text/plain", request.path.encode() + b"=" + request.body)
        if request.path == "/slow":
            self.waiting.append(lambda: done(answer))
        else:
            done(answer)


@pytest.fixture
def opened():
    """`opened()`: a connection, its transport and its worker."""

    def made():
        worker, transport = Worker(), Transport()
        connection = Connection(worker)
        connection.connection_made(transport)
        return connection, transport, worker

    return made


def get(path, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: h\r\nX-Request-ID: i\r\n{more}\r\n".encode()


def post(path, body, more=""):
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nX-Request-ID: i\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = (
    b"POST /chunked HTTP/1.1\r\nHost: h\r\nX-Request-ID: i\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n"
    b"X-Request-ID: other\r\nX-More: 1\r\n\r\n"
)
H2C = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n"
ALL = [
    get("/a?b=c%20d"), post("/b", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), CHUNKED, get("/c%20d%2Fe"),
    b"\r\n\r\n" + get("http://h/absolute?x"), post("/up", b"of Java's", H2C), get("/up2", H2C),
    b"HEAD /head HTTP/1.1\r\nHost: h\r\n\r\n",
    post("/expects", b"x" * 99, "Expect: 100-continue\r\n"),
    get("/two", "A: 1\r\nA: 2\r\n"), post("/last", b"", "Connection: close\r\n"),
]  # fmt: skip
WRONG = [
    get("/" + "a" * 9000), get("/", "X: " + "a" * 66_000 + "\r\n"), get("/", "X: y\r\n" * 7000),
    get("/", "".join(f"X{number}: y\r\n" for number in range(101))), b"garbage\r\n\r\n",
    post("/", b"x" * 60_000), get("/", "Host: h\r\n"),
    b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    post("/", b"", "Content-Encoding: gzip\r\n"),
    post("/", b"", H2C + "Content-Encoding: gzip\r\n"),
    post("/", b"abc", "Content-Length: 4\r\n"),
    CHUNKED.replace(b"\r\n\r\n3", b"\r\n\r\nz"),
    post("/", b"abc", "Transfer-Encoding: chunked\r\n"),
    CHUNKED.replace(b"\r\n\r\n3;", b"\r\nContent-Length: 3\r\n\r\n3;"),
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    get("/", "X: a\r\n b\r\n"), get("/", "X: a\0b\r\n"), get("/", "X: a\nY: b\r\n"),
    get("/", "X\r\n"),
    b"GET / HTTP/1.1\nHost: h\n\n", get("http:///"), get("http://h:99999/"), get("foo"),
    get("/\x80"),
    b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip


def pieces(generator, data):
    """The data, cut in places that chance takes."""
    count = min(generator.choice((1, 2, 5, 30)), len(data) - 1)
    cuts = sorted(generator.sample(range(1, len(data)), count))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def fed(opened, parts):
    connection, transport, worker = opened()
    for part in parts:
        connection.data_received(part)
    return connection, transport, worker


def test_however_requests_are_cut_the_answers_are_the_same(opened, some):
    data = b"".join(ALL)
    _, transport, worker = fed(opened, [data])
    assert [path for _, path, *_ in worker.asked] == [
        *("/a", "/b", "/chunked", "/c d/e", "/absolute", "/up", "/up2", "/head", "/expects"),
        *("/two", "/last"),
    ]
    assert worker.asked[2][3:] == (b"abc0123456789abcdef", {
        "host": "h", "x-request-id": "i", "transfer-encoding": "chunked"
    })  # fmt: skip
    assert worker.asked[5][3] == b"of Java's"
    assert worker.asked[9][4]["a"] == "1, 2"
    assert transport.statuses == [*[200] * 8, 100, *[200] * 3]
    assert transport.closing
    assert worker.held == 0
    generator = random.Random(0)
    without_ids = re.compile(rb"X-Request-ID: [^i].*\r\n")
    ways = [pieces(generator, data) for _ in range(some(300, 5000))]
    for parts in [*ways, [bytes([one]) for one in data]]:
        _, again, other = fed(opened, parts)
        assert other.asked == worker.asked, parts
        assert without_ids.sub(b"", again.written) == without_ids.sub(b"", transport.written), parts


@pytest.mark.parametrize("place", range(len(WRONG)))
def test_however_what_is_wrong_is_cut_it_is_refused_the_same(opened, place):
    data = get("/first") + post("/second", b"body") + WRONG[place] + get("/smuggled")
    _, transport, worker = fed(opened, [data])
    assert transport.statuses[:2] == [200, 200]
    assert 400 <= transport.statuses[2] < 500
    assert len(transport.statuses) == 3
    assert [path for _, path, *_ in worker.asked] == ["/first", "/second"]
    generator = random.Random(place)
    for parts in [pieces(generator, data) for _ in range(30)]:
        _connection, again, other = fed(opened, parts)
        assert again.statuses == transport.statuses, parts
        assert other.asked == worker.asked
        assert other.refused == worker.refused
        assert again.ended
        assert other.held == 0
        assert b"Connection: close" in again.written


def test_slow_and_fast_answers_come_in_the_order_of_their_requests(opened):
    _connection, transport, worker = fed(
        opened, [get("/slow") + get("/1") + get("/slow"), get("/2")]
    )
    assert transport.written == b""
    worker.waiting.pop()()
    assert [path for _, path, *_ in worker.asked] == ["/slow", "/1", "/slow"]
    worker.waiting.pop()()
    assert re.findall(rb"\r\n\r\n(/\w+)=", transport.written) == [b"/slow", b"/1", b"/slow", b"/2"]


@pytest.mark.parametrize("behind", [get("/1"), get("/1", H2C)], ids=["plain", "h2c"])
def test_thousands_of_requests_sent_ahead(opened, behind):
    """They are no depth of the stack."""
    _connection, transport, worker = fed(opened, [get("/slow") + behind * 3000])
    assert transport.paused
    worker.waiting.pop()()
    assert transport.statuses == [200] * 3001
    assert not transport.paused


def test_a_refusal_waits_for_what_came_before(opened):
    _, transport, worker = fed(opened, [get("/slow") + b"garbage\r\n\r\n", b"more", get("/1")])
    assert transport.written == b""
    worker.waiting.pop()()
    assert transport.statuses == [200, 400]


def test_who_reads_no_answers_gets_no_more_of_them(opened):
    connection, transport, worker = opened()
    connection.pause_writing()
    for _ in range(100):
        connection.data_received(get("/1"))
    assert worker.asked == []
    assert transport.paused
    connection.resume_writing()
    assert len(worker.asked) == 100
    assert not transport.paused


def test_who_reads_too_little_is_cut_off_and_who_reads_slowly_is_not(opened):
    connection, transport, _worker = opened()
    transport.unread = 10_000_000
    connection.pause_writing()
    begun = connection.stuck
    for number in range(1, 5):
        transport.unread -= 100_000
        connection.overdue(begun + number * 31)
        assert not transport.aborted
    transport.unread -= 1000
    connection.overdue(begun + 5 * 31)
    assert transport.aborted


def test_who_reads_nothing_of_a_last_answer_is_cut_off(opened):
    connection, transport, _ = fed(opened, [get("/", "Connection: close\r\n")])
    transport.unread = 1000
    assert transport.closing
    connection.overdue(connection.stuck + 31)
    assert transport.aborted


def test_bodies_are_held_to_a_limit_until_they_are_answered(opened):
    one, _, worker = opened()
    one.data_received(post("/slow", b"x" * 40_000))
    assert worker.held == 40_000
    others = []
    for _ in range(2):
        connection = Connection(worker)
        connection.connection_made(Transport())
        connection.data_received(post("/slow", b"x" * 40_000)[:39_000])
        others.append(connection)
    assert others[0].transport.statuses == []
    assert others[1].transport.statuses == [503]
    assert b"Retry-After: 1" in others[1].transport.written
    others[0].connection_lost(None)
    assert worker.refused == [503, 400]
    one.connection_lost(None)
    assert worker.held == 40_000, "it may be in work"
    worker.waiting.pop()()
    assert worker.held == 0
    assert one.transport.written == b""


def test_bodies_that_are_sent_ahead_are_held_to_a_limit(opened):
    connection, transport, worker = fed(opened, [get("/slow"), post("/1", b"x" * 40_000)])
    assert not transport.paused
    connection.data_received(post("/2", b"x" * 40_000))
    assert transport.paused
    worker.waiting.pop()()
    assert transport.statuses == [200] * 3
    assert not transport.paused
    assert worker.held == 0


@pytest.mark.parametrize("grown", [b"2;" + b"a" * 1000 + b"\r\nab\r\n", b"0\r\nX: " + b"a" * 1000])
def test_what_is_no_body_has_a_limit_too(opened, grown):
    """Of sizes of chunks and headers behind them there could be any number."""
    connection, transport, _ = fed(opened, [CHUNKED[: CHUNKED.index(b"3;")], grown])
    for _ in range(200):
        connection.data_received(grown if grown[:1] == b"2" else b"a" * 1000)
    assert transport.statuses == [413]


def test_an_old_caller_is_not_told_to_go_on(opened):
    request = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    _, transport, _ = fed(opened, [request, b"x"])
    assert transport.statuses == [200]
    assert transport.closing


def at(connection, worker, seconds):
    worker.clock = seconds
    connection.overdue(seconds)


@pytest.mark.parametrize(
    ("start", "good", "over", "status"),
    [
        ([], 9, 11, []),  # says nothing
        ([b"GET / HT"], 9, 11, [408]),
        ([b"\r\n"], 9, 11, [408]),
        ([get("/1")], 119, 121, [200]),  # stays idle
        ([get("/1"), b"GET"], 9, 11, [200, 408]),
        ([post("/1", b"x" * 9000)[:-8000]], 4, 6, [408]),  # less than 1,000 bytes a second
        ([post("/1", b"x" * 9000)[:-1]], 8, 10, [408]),
        ([post("/1", b"x" * 49_000)[:-1]], 29, 31, [408]),
        ([get("/slow")], 119, 1e9, []),  # it is the server that is slow
    ],
)
def test_how_long_callers_may_take(opened, start, good, over, status):
    connection, transport, worker = fed(opened, start)
    connection.since = 0.0
    before = transport.statuses
    at(connection, worker, good)
    assert transport.statuses == before
    assert not transport.closing
    at(connection, worker, over)
    assert transport.statuses == status
    if start != [get("/slow")]:
        assert transport.closing or transport.ended
        at(connection, worker, over + 3)
        assert transport.closing, "who was refused has 2 s to be silent"


def test_who_sends_on_after_a_refusal_is_read_for_a_while(opened):
    connection, transport, worker = fed(opened, [post("/1", b"x" * 51_000)[:1000]])
    assert transport.statuses == [413]
    for second in range(25):
        at(connection, worker, second)
        connection.data_received(b"x" * 1000)
        assert not transport.closing
    for second in range(25, 32):
        at(connection, worker, second)
        connection.data_received(b"x" * 1000)
    assert transport.closing, "it has the time of a body"


def test_who_sends_on_and_on_after_a_refusal_is_cut_off(opened):
    connection, transport, _ = fed(opened, [post("/1", b"x" * 51_000)[:1000]])
    for _ in range(33):
        connection.data_received(bytes(1 << 20))
    assert transport.closing


def test_while_the_server_drains_answers_say_that_they_are_the_last(opened):
    connection, transport, worker = fed(opened, [get("/slow")])
    worker.draining = True
    connection.drain()
    assert not transport.closing
    worker.waiting.pop()()
    assert b"Connection: close" in transport.written
    assert transport.closing


SPLINTERS = [
    b"\r\n", b"\n", b"\0", b"\xff", b" ", b":", b"%zz", b"//", b"http://[", b"http://h:1/",
    b"HTTP/1.0", b"CONNECT ", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
    b"0\r\n\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"GET /slow HTTP/1.1\r\n",
]  # fmt: skip
SLOW = [get("/slow"), post("/slow", b"x" * 20_000), get("/slow", "Connection: close\r\n")]


def mangled(generator):
    data = bytearray(b"".join(generator.choices([*ALL, *WRONG, *SLOW], k=generator.randint(1, 6))))
    for _ in range(generator.choice((0, 1, 3, 10))):
        place = generator.randrange(len(data))
        if generator.random() < 0.5:
            data[place:place] = generator.choice(SPLINTERS)
        else:
            del data[place : place + generator.randint(1, 2)]
    return bytes(data)


def meanwhile(generator, connection, worker):
    """Something that may happen between two pieces."""
    happens = generator.randrange(6)
    if happens == 0 and worker.waiting:
        worker.waiting.pop(0)()
    elif happens == 1 and connection.stuck is None:
        connection.pause_writing()
    elif happens == 2 and connection.stuck is not None:
        connection.resume_writing()
    elif happens == 3:
        at(connection, worker, worker.clock + generator.choice((0.1, 6, 20)))
    elif happens == 4 and generator.random() < 0.05:
        worker.draining = True
        connection.drain()


def test_whatever_comes_and_happens_a_connection_ends_as_it_should(opened, some):
    """Nothing is raised, nothing waits for ever, and no byte of a body is counted for ever."""
    for seed in range(some(10_000, 200_000)):
        generator = random.Random(seed)
        connection, transport, worker = opened()
        for part in pieces(generator, mangled(generator)):
            if transport.closing:
                break
            connection.data_received(part)
            meanwhile(generator, connection, worker)
        while worker.waiting or (connection.stuck is not None and not transport.closing):
            if connection.stuck is not None and not transport.closing:
                connection.resume_writing()
            while worker.waiting:
                worker.waiting.pop(0)()
        assert transport.closing or (connection.request is None and not connection.ahead), seed
        assert transport.closing or not transport.paused, seed
        connection.connection_lost(None)
        assert worker.held == 0, seed


# ---------------------------------------------------------------- sockets


@pytest.fixture(scope="module")
def hasty(serve):
    """One worker that waits a second for a head, and as long for another request."""
    server = serve(workers=1, header_timeout=1.0, keep_alive=1.0)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    "start", [b"", b"PO", b"POST /detect_fraud HTTP/1.1\r\nHost: localhost\r\nX-Slow: a"]
)
def test_who_does_not_finish_a_head_is_cut_off(hasty, start):
    with hasty.connect() as connection:
        began = time.monotonic()
        connection.sendall(start)
        got = read_all(connection)
        assert time.monotonic() - began < 15, "the limit is 1 s"
        assert got == b"" or got.startswith(b"HTTP/1.1 4")


def test_an_idle_connection_is_closed_too(hasty):
    with hasty.connect() as connection:
        connection.sendall(POST)
        got = read_all(connection)
    assert got.startswith(b"HTTP/1.1 200")


def test_a_slow_body_holds_up_nobody(server):
    with server.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD[:50])
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(server.call, "POST", "/detect_fraud", GOOD) for _ in range(20)]
        assert {one.result().status for one in sent} == {200}
        assert server.get("/metrics").metric("mlopsdeploy_in_flight") == 0, "it is not there yet"
        slow.sendall(GOOD[50:])
        ((status, body),) = read_answers(slow, 1)
    assert status == 200
    assert "is_fraud" in json.loads(body)


def test_a_connection_that_ends_within_its_body(server):
    def cut_off():
        return server.get("/metrics").metric("mlopsdeploy_requests_total", code="400")

    before = cut_off()
    for _ in range(6):
        with server.connect() as connection:
            connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n" + GOOD[:50])
    server.until(lambda: cut_off() - before == 6)
    assert server.get("/metrics").metric("mlopsdeploy_in_flight") == 0
    assert server.call("POST", "/detect_fraud", GOOD).status == 200


def test_keep_alive_and_requests_sent_ahead(server):
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(POST)
            assert read_answers(connection, 1)[0][0] == 200
    with server.connect() as connection:
        bad = HEAD + b"Content-Length: 2\r\n\r\n{}"
        connection.sendall(POST + bad + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + POST)
        assert [status for status, _ in read_answers(connection, 4)] == [200, 422, 200, 200]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 700_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", 431),
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (HEAD + b"Content-Length: many\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a chunk\r\n", 400),
        (HEAD + b"Content-Length: 2\r\n\r\n" + GOOD, 400),  # what is behind is no request
        (HEAD + b"Connection: close\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (POST.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    ],
)
def test_heads_of_all_kinds(server, request_, status):
    with server.connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request_)  # some are answered before they are read
        got = read_all(connection)
    assert int(got.split()[1]) == status, got[:300]
    assert b"Traceback" not in got
    assert server.get("/healthz").status == 200


def chunked(*chunks):
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def test_a_body_in_chunks(server):
    with server.connect() as connection:
        connection.sendall(chunked(GOOD[:7], GOOD[7:100], GOOD[100:]) + POST)
        assert [status for status, _ in read_answers(connection, 2)] == [200, 200]


def test_a_body_in_chunks_that_is_too_long(server):
    with server.connect() as connection:
        connection.sendall(chunked(*[b" " * 50_000] * 5))
        ((status, body),) = read_answers(connection, 1)
    assert (status, json.loads(body)["type"]) == (413, "urn:mlopsdeploy:problem:too-long")


def test_who_asks_first_is_told_before_the_body(server):
    """Expect: 100-continue, as curl does with long bodies."""
    with server.connect() as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(GOOD)
        assert read_answers(connection, 1)[0][0] == 200


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """While there is such a file, the slow model computes nothing."""
    return tmp_path_factory.mktemp("gate") / "gate"


@pytest.fixture(scope="module")
def tight(serve, slow, churn_onnx, gate):
    """One worker that takes eight connections, with a slow model beside a fast one."""
    server = serve(
        workers=1, threads=1, slo=60, header_timeout=5.0, body_timeout=4.0, keep_alive=30.0,
        max_body=200_000, max_connections=8, allowed_hosts=["models.example"], modules=[slow],
        models=["fraud", {"model": str(churn_onnx), "name": "churn", "runtime": "slow"}],
        prelude="import mlopsdeploy.serve.connection as one; one.WRITE_SECONDS = 2",
        env={"SLOW_GATE": str(gate)},
    )  # fmt: skip
    yield server
    assert server.get("/metrics").metric("mlopsdeploy_in_flight") == 0
    assert server.stop() == 0
    assert "Traceback" not in server.log


def refusals(server, code):
    return server.get("/metrics").metric("mlopsdeploy_[a-z]+_total", code=str(code))


def test_requests_sent_ahead_of_a_slow_one(tight):
    body = json.dumps({"instances": [0.3, 0, 0]}).encode()
    slow = (
        b"POST /v1/models/churn:predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with tight.connect() as connection:
        connection.sendall(
            slow + POST + health + slow + b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n" + POST
        )
        answers = read_answers(connection, 6)
    assert [status for status, _ in answers] == [200, 200, 200, 200, 404, 200]
    kinds = ["fraud" if b"is_fraud" in one else one[:12].decode() for _, one in answers]
    assert kinds[0] == kinds[3] != kinds[1] == kinds[5] == "fraud"
    assert answers[2][1] == b'{"status":"ok"}'


@pytest.mark.parametrize("path", [
    "/detect_fraud?x=1", "/detect%5ffraud", "http://localhost/detect_fraud", "/detect_fraud",
])  # fmt: skip
def test_an_endpoint_is_found_however_its_path_is_written(tight, path):
    assert tight.call("POST", path, GOOD).status == 200
    too_long = tight.call("POST", path, b" " * 300_000)
    assert too_long.status == 413


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/", "/openapi.json"])
def test_head_is_get_without_its_body(tight, path):
    head, whole = tight.call("HEAD", path), tight.call("GET", path)
    assert (head.status, head.body) == (200, b"")
    if path != "/metrics":
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_head_of_what_takes_post_alone(tight):
    assert tight.call("HEAD", "/detect_fraud").status == 405


@pytest.mark.parametrize("cut", [0, 1, 100, len(GOOD)])
def test_javas_client_offers_another_protocol_and_gets_its_answer(tight, cut):
    """java.net.http.HttpClient, in its first request to a server that it doesn't know."""
    request = (
        b"POST /detect_fraud HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Content-Length: %d\r\nHost: localhost\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAA"
        b"AAAUAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17\r\n"
        b"Content-Type: application/json\r\n\r\n" % len(GOOD)
    )
    with tight.connect() as connection:
        connection.sendall(request + GOOD[:cut])
        time.sleep(0.05)
        connection.sendall(GOOD[cut:] + POST)
        answers = read_answers(connection, 2)
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/none", 404), ("/detect_fraud", 405)])
def test_a_websocket_is_answered_as_if_it_had_asked_for_a_page(tight, path, status):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert tight.call("GET", path, headers=headers).status == status


def test_no_proxy(tight):
    before = refusals(tight, 405)
    with tight.connect() as connection:
        connection.sendall(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\nsecret")
        assert read_answers(connection, 1)[0][0] == 405
    assert refusals(tight, 405) == before + 1


@pytest.mark.parametrize("kind", ["POST", "chunked", "expects"])
def test_who_sends_all_first_still_hears_why_it_is_refused(tight, kind):
    """As http.client and all that builds on it do: the answer must outlive what is not read."""
    body = bytes(20_000_000)
    headers = {"Content-Type": "application/json"}
    if kind == "expects":
        headers["Expect"] = "100-continue"
    sent = iter([body[:10_000]] * 2000) if kind == "chunked" else body
    connection = http.client.HTTPConnection(tight.host, tight.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/detect_fraud", sent, headers, encode_chunked=kind == "chunked")
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"at most 200,000 bytes" in answer.read()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_hears_it_too(tight, tmp_path, expect):
    (tmp_path / "large").write_bytes(bytes(9_000_000))
    done = subprocess.run(
        ["curl", "-s", "-w", " %{http_code}", "-H", expect, "-H", "Content-Type: application/json",
         "--data-binary", f"@{tmp_path / 'large'}", f"{tight.url}/detect_fraud"],
        check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done
    assert done.stdout.endswith(" 413"), done
    assert "at most 200,000 bytes" in done.stdout


@pytest.mark.parametrize("start", [b"POST /detect", HEAD + b"Content-Length: 500\r\n\r\n{"])
def test_who_is_slow_hears_so(tight, start):
    before = refusals(tight, 408)
    with tight.connect() as connection:
        connection.sendall(start)
        got = read_all(connection)
    assert got.startswith(b"HTTP/1.1 408")
    assert b"took too long" in got
    assert refusals(tight, 408) == before + 1


def test_who_drips_is_slow(tight):
    with tight.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        connection.settimeout(0.1)
        end, got = time.monotonic() + 30, b""
        while not got and time.monotonic() < end:
            connection.sendall(b"X: y\r\n")
            with contextlib.suppress(TimeoutError):
                got = connection.recv(1000)
    assert got.startswith(b"HTTP/1.1 408")


def test_who_reads_nothing_costs_no_memory_and_is_cut_off(tight):
    (worker,) = tight.workers
    asks = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
    tight.get("/openapi.json")
    before = resident_memory(worker)
    with tight.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.5)
        end = time.monotonic() + 40
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    connection.send(asks)
                assert tight.get("/healthz").status == 200
                assert resident_memory(worker) - before < 50_000_000
            pytest.fail("it is not cut off")


def test_who_hangs_up_while_it_waits_is_not_computed(tight, gate):
    def count(code):
        shown = tight.get("/metrics")
        return shown.metric("mlopsdeploy_requests_total", code=code, model="churn")

    before = count("200"), count("503")
    body = json.dumps({"instances": [0, 0, 0]}).encode()
    request = HEAD.replace(b"/detect_fraud", b"/v1/models/churn:predict")
    request += b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ThreadPoolExecutor(1) as pool:
        gate.touch()
        first = pool.submit(ask_slow, tight, 0)
        tight.until(lambda: tight.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        for _ in range(5):
            with tight.connect() as connection:
                connection.sendall(request)
                tight.until(lambda: tight.get("/metrics").metric("mlopsdeploy_in_flight") > 1)
        gate.unlink()
        assert first.result().status == 200
    tight.until(lambda: tight.get("/metrics").metric("mlopsdeploy_in_flight") == 0)
    computed, dropped = count("200") - before[0], count("503") - before[1]
    assert computed + dropped == 6
    assert dropped >= 4, "one may have been just begun"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421), ("evil.example:{port}", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421), ("localhost@evil.example", 421), ("evil.example.", 421),
        ("localhost", 200), ("LOCALHOST:{port}", 200), ("127.0.0.1:{port}", 200), ("[::1]", 200),
        ("[::1]:{port}", 200), ("model-server", 200), ("a.localhost", 200), ("models.example", 200),
        ("Models.Example:{port}", 200), ("localhost.", 200), ("10.1.2.3", 200),
    ],
)  # fmt: skip
def test_whom_callers_may_ask_for_on_this_machine(tight, host, status):
    headers = {"Host": host.format(port=tight.port)}
    for _ in range(2):  # what was good once is remembered
        assert tight.call("GET", "/healthz", headers=headers).status == status
        assert tight.call("POST", "/detect_fraud", GOOD, {**JSON, **headers}).status == status
    absolute = f"http://{headers['Host']}/healthz"
    assert tight.call("GET", absolute, headers={"Host": "localhost"}).status == status


JSON = {"Content-Type": "application/json"}


def test_no_host_at_all(tight):
    with tight.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert read_answers(connection, 1)[0][0] == 400
    with tight.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert read_answers(connection, 1)[0][0] == 200


def test_http_1_0_keeps_a_connection_where_it_is_asked_to(tight):
    request = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with tight.connect() as connection:
        for _ in range(2):
            connection.sendall(request)
            got = b""
            while not got.endswith(b'"ok"}'):
                got += connection.recv(1000)
            assert b"Connection: keep-alive" in got
    with tight.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in read_all(connection)


def test_one_connection_too_many_hears_so_at_once(tight):
    with contextlib.ExitStack() as stack:

        def full():  # what earlier tests closed may have been open here when it was asked
            stack.enter_context(tight.connect())
            return tight.get("/healthz").status == 503

        tight.until(full)
        for _ in range(30):
            refused = tight.get("/healthz")
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json["type"] == "urn:mlopsdeploy:problem:too-many-connections"
    tight.until(lambda: tight.get("/healthz").status == 200)
    assert refusals(tight, 503) >= 30
    assert tight.log.count("connections that a worker may have are taken") == 1


@pytest.mark.parametrize("most", [None, 1000])
def test_too_few_open_files_are_told(serve, most):
    """With 1,000 connections allowed, it is the system that says no."""
    server = serve(
        "--workers", "1", keep_alive=60.0, **({"max_connections": most} if most else {}),
        prelude="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
    )  # fmt: skip
    time.sleep(0.5)  # until those that asked whether it is ready are gone
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(server.connect())
        began = time.monotonic()
        assert server.get("/healthz").status == 503
        assert time.monotonic() - began < 20
    server.until(lambda: server.get("/healthz").status == 200)
    assert server.call("POST", "/detect_fraud", GOOD).status == 200
    assert server.log.count("ulimit -n") == 1
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_head_that_was_seen_before_gives_the_same_answers(server):
    """Of two bodies of one length each gets its own; one in pieces, or with more behind, too."""
    rows = [json.dumps({"transaction_data": [place] * 30}).encode() for place in (1.5, 2.5)]
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(rows[0])
    alone = [server.call("POST", "/detect_fraud", row).json["score"] for row in rows]
    assert alone[0] != alone[1]
    with server.connect() as connection:
        for pieces in (
            [head + rows[0]], [head + rows[1]], [head + rows[0]], [head, rows[1]],
            [head + rows[0] + head + rows[1]], [head + rows[1][:9], rows[1][9:]],
            [head + rows[0]],
        ):  # fmt: skip
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            sent = b"".join(pieces)
            answers = read_answers(connection, sent.count(b"POST"))
            wanted = [
                alone[rows.index(one.split(b"\r\n\r\n")[1])] for one in sent.split(b"POST")[1:]
            ]
            assert [json.loads(body)["score"] for _, body in answers] == wanted
