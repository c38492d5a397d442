"""The load against real servers of a few lines."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlopsdeploy.choose.load import closed_loop, open_loop
from mlopsdeploy.errors import MlopsDeployError


@contextlib.contextmanager
def server(*, pause=0.0, status=200, stall=None, close=False):
    """Answers `{}`; `stall` is a lock that an answer takes, `close` ends each connection after."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(pause)
            with stall or contextlib.nullcontext():
                body = b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = close

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/predict", seen
        finally:
            running.shutdown()
            thread.join()


def test_a_closed_loop_keeps_every_connection_busy():
    with server(pause=0.05) as (url, seen):
        found = closed_loop(url, [b"1", b"22"], connections=4, seconds=0.4)
    assert len(found.latencies) == len(seen)
    assert set(seen) == {b"1", b"22"}
    assert found.latencies[0] >= 0.05
    assert found.rate <= 4 / 0.05 * 1.01


def test_an_open_loop_sends_at_its_rate_whatever_the_server_does():
    with server() as (url, seen):
        found = open_loop(url, [b"x"], rate=100, seconds=0.5)
    assert len(found.latencies) == len(seen)
    assert 25 < len(seen) < 80


def test_a_stall_is_seen_in_all_who_wait_meanwhile():
    """A client that waits for each answer before the next request would see one long latency."""
    stall = threading.Lock()
    with server(stall=stall) as (url, _):
        stall.acquire()
        timer = threading.Timer(0.4, stall.release)
        timer.start()
        found = open_loop(url, [b"x"], rate=100, seconds=0.3)
        timer.join()
    assert found.percentile(0.5) > 0.15


def test_a_server_that_closes_connections_is_measured_all_the_same():
    with server(close=True) as (url, seen):
        found = closed_loop(url, [b"x"], connections=2, seconds=0.2)
    assert len(found.latencies) >= 2
    assert len(seen) >= len(found.latencies)


def test_an_answer_that_is_not_a_200_ends_it():
    with server(status=422) as (url, _), pytest.raises(MlopsDeployError, match="answered 422"):
        closed_loop(url, [b"x"], connections=1, seconds=0.1)


def test_no_server():
    with pytest.raises(MlopsDeployError, match="broke off"):
        closed_loop("http://127.0.0.1:9/x", [b"x"], connections=1, seconds=0.1)
