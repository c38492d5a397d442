"""The load against real servers of a few lines: what is counted, never how fast."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlopsdeploy.bench import load_client
from mlopsdeploy.bench.load_client import arrivals, load, nearest
from mlopsdeploy.errors import MlopsDeployError


@contextlib.contextmanager
def server(*, pause=0.0, status=200, turn=None, close=False, chunked=False):
    """Answers `{}`; `turn` is a lock that an answer takes, `close` ends each connection after."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            with turn or contextlib.nullcontext():
                time.sleep(pause)
            self.send_response(status)
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"2\r\n{}\r\n0\r\n\r\n")
            else:
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
            self.close_connection = close

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass  # the client has hung up

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/predict", seen
        finally:
            running.shutdown()
            thread.join()


def test_a_closed_loop_keeps_every_connection_busy_and_waits_for_the_server():
    with server(pause=0.05) as (url, seen):
        found = load(url, [b"1", b"22"], connections=4, seconds=0.4)
    assert 10 <= found.requests <= found.sent == len(seen)
    assert set(seen) == {b"1", b"22"}
    assert 50 <= found.p50_ms <= found.p99_ms <= found.max_ms
    assert found.requests_per_second <= 4 / 0.05 * 1.01
    assert found.unanswered == 0
    assert 0 < found.busy < 1


def test_a_warm_up_is_not_counted():
    with server(pause=0.02) as (url, seen):
        found = load(url, [b"x"], connections=1, seconds=0.2, warm_up=0.4)
    assert found.requests < found.sent == len(seen)


def test_an_open_loop_sends_at_its_rate_whatever_the_server_does():
    with server() as (url, seen):
        found = load(url, [b"x"], connections=64, rate=100, seconds=0.5)
    due = list(arrivals(100, 0.5))
    assert 25 < len(due) < 80
    assert found.requests == found.sent == len(seen) == len(due)


def test_a_server_that_is_too_slow_is_seen_in_all_who_wait():
    """At twice what it can do, the last request waits about half as long as the load lasts."""
    with server(pause=0.02, turn=threading.Lock()) as (url, _):
        found = load(url, [b"x"], connections=16, rate=100, seconds=0.6)
    assert found.unanswered == 0
    assert found.max_ms > 300


def test_a_stall_is_seen_in_all_who_wait_meanwhile():
    """A client that waits for each answer before the next request would see one long latency."""
    stall = threading.Lock()
    with server(turn=stall) as (url, seen):
        stall.acquire()

        def release():
            while not seen:
                time.sleep(0.01)
            time.sleep(0.4)
            stall.release()

        ending = threading.Thread(target=release)
        ending.start()
        found = load(url, [b"x"], connections=64, rate=100, seconds=0.3)
        ending.join()
    assert found.p50_ms > 150


@pytest.mark.parametrize("how", [{"close": True}, {"chunked": True}])
def test_servers_that_close_connections_or_send_chunks_are_measured_all_the_same(how):
    with server(**how) as (url, seen):
        found = load(url, [b"x"], connections=2, seconds=0.2)
    assert 2 <= found.requests <= len(seen)


@pytest.mark.parametrize("status", [422, 503])
def test_an_answer_that_is_not_a_200_ends_it(status):
    with (
        server(status=status) as (url, seen),
        pytest.raises(MlopsDeployError, match=rf"server under load answered {status}: {{}}"),
    ):
        load(url, [b"x"], connections=1, seconds=30)
    assert len(seen) == 1


def test_no_server():
    with pytest.raises(MlopsDeployError, match="broke off: .*refused"):
        load("http://127.0.0.1:9/x", [b"x"], connections=1, seconds=0.1)


def test_no_answer(monkeypatch):
    monkeypatch.setattr(load_client, "PATIENCE", 0.2)
    orders = {"bodies": ["x"], "kind": "a/b", "connections": 1, "seconds": 0.1, "warm_up": 0.0}
    stuck = threading.Lock()
    with server(turn=stuck) as (url, _), stuck, load_client.selectors.DefaultSelector() as selector:
        client = load_client._Client({**orders, "url": url, "rate": None}, selector)
        with pytest.raises(TimeoutError, match="gave no answer"):
            client.run()
        for connection in client._all:
            connection.close()


def test_percentiles_are_by_nearest_rank():
    assert [nearest([1.0, 2.0, 3.0, 4.0], share) for share in (0, 0.5, 0.51, 1)] == [1, 2, 3, 4]
