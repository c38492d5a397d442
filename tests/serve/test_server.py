"""Real servers: what arrives at their sockets, and how they start, stop and survive."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import ask_slow as ask
from .wire import GOOD, read_all

# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["asyncio", "gunicorn"])
def test_what_is_in_work_is_answered_before_the_end(slow_server, tmp_path, number, kind):
    server = slow_server("--workers", "1", "--server", kind)
    with ThreadPoolExecutor(1) as pool:
        in_work = pool.submit(ask, server, 1.5)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        assert server.stop(number) == 0
        if number == signal.SIGTERM or kind == "asyncio":  # SIGINT is gunicorn's quick end
            assert in_work.result().status == 200
    assert "Traceback" not in server.log
    assert "nothing was written" not in server.log
    assert list((tmp_path / "tmp").glob("mlopsdeploy-*")) == []
    with pytest.raises(ConnectionError):
        server.get("/healthz")


def test_who_comes_while_the_server_ends_is_turned_away_at_once(slow_server):
    late = "import mlopsdeploy.serve.worker as one; one.LAST = 60"
    server = slow_server("--workers", "2", ready=2, prelude=late)
    with ThreadPoolExecutor(1) as pool, server.connect() as idle:
        in_work = pool.submit(ask, server, 3)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: "stopping" in server.log)
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Connection: close" in read_all(idle), "what was on its way is answered"
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            server.get("/healthz")
        assert in_work.result().status == 200
    assert server.process.wait(60) == 0


def test_a_second_signal_does_not_wait(slow_server):
    server = slow_server("--workers", "1")
    with ThreadPoolExecutor(1) as pool:
        in_work = pool.submit(ask, server, 60)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        server.process.send_signal(signal.SIGINT)
        server.until(lambda: "stopping" in server.log)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        assert isinstance(in_work.exception(), OSError)
    assert "Traceback" not in server.log


def test_what_takes_too_long_is_given_up(slow_server):
    server = slow_server("--workers", "1", drain_timeout=1.0)
    with ThreadPoolExecutor(1) as pool:
        in_work = pool.submit(ask, server, 60)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 40
        assert isinstance(in_work.exception(), OSError)
    assert "1 request is given up" in server.log


def test_a_signal_while_workers_load(slow_server, tmp_path):
    server = slow_server("--workers", "2", ready=0, env={"SLOW_START": "60"})
    server.until(lambda: len(server.workers) == 2)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 40
    assert "nothing was written" not in server.log
    assert "Traceback" not in server.log
    assert list((tmp_path / "tmp").glob("mlopsdeploy-*")) == []


def test_ctrl_c_in_a_terminal_reaches_the_whole_group(slow_server):
    """The workers leave it to their parent, so that none looks as if it had crashed."""
    server = slow_server("--workers", "2", ready=2)
    groups = {os.getpgid(pid) for pid in server.workers}
    assert os.getpgid(server.process.pid) not in groups
    assert server.stop(signal.SIGINT) == 0
    assert "Unexpected" not in server.log


@pytest.mark.parametrize("kind", ["asyncio", "gunicorn"])
def test_workers_end_when_their_parent_is_killed(slow_server, tmp_path, kind):
    server = slow_server("--workers", "2", "--server", kind, ready=2)
    workers = server.workers
    assert len(workers) == 2
    server.process.kill()
    server.process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "a worker lives on"
        time.sleep(0.05)
    assert list((tmp_path / "tmp").glob("mlopsdeploy-*")) == []
    assert "Traceback" not in server.log


# ---------------------------------------------------------------- surviving


def test_a_model_that_fails_and_one_that_takes_its_worker_along(slow_server):
    server = slow_server("--workers", "2", ready=2)
    failed = ask(server, -0.5)
    assert failed.status == 500
    assert "s3cr3t" not in failed.body.decode()
    assert "Traceback" not in failed.body.decode()
    server.until(lambda: '"traceback"' in server.log)
    (line,) = [one for one in map(json.loads, server.log.splitlines()) if "traceback" in one]
    assert line["request_id"] == failed.json["request_id"]
    assert "OSError" in line["traceback"]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, -2)
    server.until(lambda: server.log.count("worker ready") == 3)
    assert ask(server, 0).status == 200
    assert server.stop() == 0


def test_what_a_killed_worker_was_doing_is_not_in_flight(slow_server):
    server = slow_server("--workers", "2", ready=2)
    with ThreadPoolExecutor(1) as pool:
        in_work = pool.submit(ask, server, 60)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        for pid in server.workers:
            os.kill(pid, signal.SIGKILL)
        server.wait(4)
        assert isinstance(in_work.exception(), (OSError, http.client.HTTPException))
    assert server.get("/metrics").metric("mlopsdeploy_in_flight") == 0
    assert server.stop() == 0


def test_requests_wait_their_turn_and_are_counted_meanwhile(slow_server):
    server = slow_server("--workers", "1", "--threads", "1")
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(ask, server, 1.5)]
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_queue") == 0)
        sent += [pool.submit(ask, server, 0.5) for _ in range(2)]
        server.until(lambda: server.get("/metrics").metric("mlopsdeploy_queue") == 2)
        assert server.get("/metrics").metric("mlopsdeploy_in_flight") == 3
        assert server.get("/healthz").status == 200
        assert {one.result().status for one in sent} == {200}
    assert server.get("/metrics").metric("mlopsdeploy_queue") == 0
    assert server.stop() == 0


# ---------------------------------------------------------------- starting


def refused(mlopsdeploy, *arguments, code=2, **options):
    """The last line of a server that did not start."""
    done = mlopsdeploy("serve", *arguments, **options)
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert done.out == b""
    assert done.lines[-1].startswith("mlopsdeploy: "), done
    assert "worker ready" not in done.err
    return done.lines[-1].removeprefix("mlopsdeploy: ")


def test_a_port_that_is_in_use(mlopsdeploy, server):
    said = refused(mlopsdeploy, "--port", server.port)
    assert said == f"--port: 127.0.0.1:{server.port} is in use; choose another one"


@pytest.mark.parametrize(("host", "message"), [
    *((host, f"--host: {host!r}")
      for host in ("no.such.host.invalid", "999.1.1.1", "256.256.256.256")),
    ("192.0.2.1", "192.0.2.1"),  # another machine's
])  # fmt: skip
def test_a_host_that_is_none_of_this_machine(mlopsdeploy, host, message):
    assert message in refused(mlopsdeploy, "--host", host, "--port", "0")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_a_port_that_needs_rights(mlopsdeploy):
    assert "from 1024 on" in refused(mlopsdeploy, "--port", "81")


def test_any_port(mlopsdeploy, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "mlopsdeploy", "serve", "--port", "0", "--workers", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = json.loads(process.stderr.readline())
        port = int(said["url"].rpartition(":")[2])
        assert port > 0
        assert said["models"] == ["fraud"]
        assert "worker ready" in process.stderr.readline()
        for _ in range(100):  # the worker is ready a moment before its socket
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=30).close()
                break
            time.sleep(0.1)
        else:
            pytest.fail("nobody listens at the port that was said")
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)
    assert (process.returncode, rest[0]) == (0, "")
    messages = [json.loads(line)["message"] for line in rest[1].splitlines()]
    assert messages[0] == "stopping; what is in work is answered first"
    assert messages[-1] == "stopped"


def test_all_addresses_are_served_with_a_warning_and_loopback_with_none(serve, server):
    assert '"warning"' not in server.log
    server = serve("--workers", "1", host="0.0.0.0")
    (line,) = [one for one in map(json.loads, server.log.splitlines()) if one["level"] == "warning"]
    assert "no login and no TLS" in line["message"]
    assert server.get("/healthz").status == 200
    assert server.stop() == 0


def test_an_address_of_ipv6(serve):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve("--workers", "1", host="::1")
    assert f"http://[::1]:{server.port}" in server.log
    assert server.call("POST", "/detect_fraud", GOOD).status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["asyncio", "gunicorn"])
def test_a_model_that_cannot_be_loaded_ends_the_server_at_once(mlopsdeploy, tmp_path, kind):
    (tmp_path / "corrupt.onnx").write_bytes(b"not a model" * 100)
    began = time.monotonic()
    said = refused(
        mlopsdeploy, "--model", "corrupt.onnx", "--port", "0", "--server", kind,
        "--runtime", "onnxruntime", "--workers", "2",
    )  # fmt: skip
    assert "corrupt.onnx: not an ONNX file, or cut off" in said
    assert time.monotonic() - began < 30


def test_what_is_wrong_with_a_route_is_one_line(mlopsdeploy, tmp_path):
    (tmp_path / "s.yaml").write_text("models: [{model: fraud, answer: {x: nothing}}]\n", "utf-8")
    said = refused(mlopsdeploy, "-c", "s.yaml", "--port", "0")
    assert said.startswith("answer: x: 'nothing' is nothing that the model outputs")


def test_a_mistake_of_ours_in_a_worker_keeps_its_traceback_and_ends_with_1(
    mlopsdeploy, slow, churn_onnx
):
    done = mlopsdeploy(
        "serve", "--port", "0", "--model", churn_onnx, "--runtime", "slow", "--workers", "1",
        env={"PYTHONPATH": str(slow), "SLOW_START": "soon"},
    )  # fmt: skip
    assert done.code == 1, done
    assert "ValueError" in done.err
    assert done.lines[-1] == "mlopsdeploy: a worker could not start; the log has the reason"


def test_gunicorn_hosts_it_too(serve):
    server = serve("--server", "gunicorn", "--workers", "2", ready=2)
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(server.call, "POST", "/detect_fraud", GOOD) for _ in range(20)]
    assert {one.result().status for one in sent} == {200}
    for _ in range(6):
        shown = server.get("/metrics")
        assert shown.metric("mlopsdeploy_requests_total", code="200") == 20
    assert server.stop() == 0
    assert "Traceback" not in server.log
    for line in server.log.splitlines():
        json.loads(line)


def test_many_connections_at_once(server):
    """More than there are threads; all are answered."""
    with ThreadPoolExecutor(60) as pool:
        sent = [pool.submit(server.call, "POST", "/detect_fraud", GOOD) for _ in range(60)]
    assert [one.result().status for one in sent] == [200] * 60
