"""Workers that die, models that change under them, and signals: the server lives on."""

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mlopsdeploy.core.machine import free_port

from .conftest import JSON, Got, ask_slow

ONE = ("--workers", "1")
SHORT = "import mlopsdeploy.serve.supervisor as one; one.SLOWEST = 0.8"


@pytest.fixture
def model(churn_onnx, tmp_path):
    """A model's file that may be changed."""
    return Path(shutil.copy(churn_onnx, tmp_path / "churn.onnx"))


@pytest.fixture
def other(churn_onnx, tmp_path):
    """The bytes of a model that answers otherwise."""
    graph = onnx.load(str(churn_onnx))
    for weights in graph.graph.initializer:
        array = numpy_helper.to_array(weights)
        if array.dtype == np.float32:
            weights.CopyFrom(numpy_helper.from_array(-array / 3, weights.name))
    return graph.SerializeToString()


def put(path, content):
    """At once, as a deployment does."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def messages(server, part):
    lines = (json.loads(line)["message"] for line in server.log.splitlines() if line[:1] == "{")
    return [line for line in lines if part in line]


def said_ready(server):
    lines = (json.loads(line) for line in server.log.splitlines() if line[:1] == "{")
    return {line["worker"] for line in lines if line["message"].startswith("worker ready")}


def until_said(server, part, times=1):
    server.until(lambda: len(messages(server, part)) >= times)


def answer(server):
    got = ask_slow(server, 0.0)
    assert got.status == 200, got
    return got.body


def zombies(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] == "Z":
            found.append(stat.parent.name)
    return found


def ends_well(server, tmp_path):
    server.until(lambda: not zombies(server.process.pid))
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log
    assert list((tmp_path / "tmp").glob("mlopsdeploy-*")) == []


# ---------------------------------------------------------------- deaths


def test_a_worker_that_dies_again_and_again_is_replaced_each_time_later(slow_server, tmp_path):
    server = slow_server("--workers", "2", ready=2, prelude=SHORT)
    healthy, _ = server.workers
    for deaths in range(1, 7):
        (other,) = set(server.workers) - {healthy}
        os.kill(other, signal.SIGKILL)
        until_said(server, "another one", deaths)
        assert ask_slow(server, 0).status == 200
        until_said(server, "worker ready", 2 + deaths)
        assert f"worker {other} ended by SIGKILL; another one starts in" in server.log
    assert healthy in server.workers
    pauses = [float(line.split()[-2]) for line in messages(server, "another one")]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 0.8, 0.8]
    ends_well(server, tmp_path)


def test_a_request_that_takes_its_worker_along_each_time(slow_server, tmp_path):
    server = slow_server("--workers", "2", ready=2, prelude=SHORT)
    for _ in range(6):
        with pytest.raises((OSError, http.client.HTTPException)):
            ask_slow(server, -2)
    until_said(server, "ended with exit code 9", 6)
    # One that is taken along as soon as it is ready may have no time to say so.
    server.until(lambda: len(server.workers) == 2 and set(server.workers) <= said_ready(server))
    assert ask_slow(server, 0).status == 200
    ends_well(server, tmp_path)


@pytest.mark.parametrize("damage", ["garbage", "another model", "nothing"])
def test_a_model_file_that_changes_in_between(slow_server, tmp_path, model, other, damage):
    """Each worker has the model that the server started with, or none."""
    server = slow_server("--workers", "2", ready=2, prelude=SHORT, model=model)
    good, before = model.read_bytes(), answer(server)
    if damage == "nothing":
        model.unlink()
    else:
        put(model, other if damage == "another model" else b"garbage" * 100)
    healthy, killed = server.workers
    os.kill(killed, signal.SIGKILL)
    until_said(server, "can't load its models, and tries again", 2)
    for _ in range(5):
        assert answer(server) == before
        assert server.get("/readyz").status == 200
    assert len(messages(server, "worker ready")) == 2
    put(model, good)
    until_said(server, "worker ready", 3)
    assert healthy in server.workers
    ends_well(server, tmp_path)


def test_a_worker_that_is_killed_while_the_first_ones_load(slow_server, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    server = slow_server("--workers", "2", ready=0, env={"SLOW_GATE": str(gate)})
    server.until(lambda: len(server.workers) == 2)
    time.sleep(0.5)  # by then they load
    os.kill(server.workers[0], signal.SIGKILL)
    gate.unlink()
    server.wait(2)
    assert ask_slow(server, 0).status == 200
    ends_well(server, tmp_path)


def test_three_deaths_before_any_was_ready_end_the_server(slow_server, tmp_path):
    server = slow_server("--workers", "1", ready=0, env={"SLOW_START": "60"})
    for deaths in range(3):
        while not (workers := server.workers):
            time.sleep(0.02)
        os.kill(workers[0], signal.SIGKILL)
        if deaths < 2:
            until_said(server, "another one", deaths + 1)
    assert server.process.wait(60) == 1
    said = server.log.splitlines()[-1]
    assert said == "mlopsdeploy: a worker ended by SIGKILL before it was ready"
    assert "Traceback" not in server.log
    assert list((tmp_path / "tmp").glob("mlopsdeploy-*")) == []


# ---------------------------------------------------------------- models anew


class Load:
    """Callers who ask on and on, half of them on one connection each."""

    def __init__(self, server):
        self.server, self.answers, self.wrong = server, set(), []
        self.over = threading.Event()
        self.count = 0
        self.threads = [
            threading.Thread(target=self.ask_on, args=(keep,)) for keep in (True, False) * 2
        ]

    def ask_on(self, keep):
        with contextlib.closing(self.connection()) as connection:
            while not self.over.is_set():
                try:
                    self.ask(connection)
                except (OSError, http.client.HTTPException) as error:
                    self.wrong.append(error)
                    connection.close()
                if not keep:
                    connection.close()  # the next request opens it again
                time.sleep(0.005)

    def connection(self):
        return http.client.HTTPConnection(self.server.host, self.server.port, timeout=60)

    def ask(self, connection):
        connection.request("POST", "/v1/models/churn:predict", b'{"instances": [0, 0, 0]}', JSON)
        got = connection.getresponse()
        self.answers.add((got.status, got.read()))
        self.count += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def reloaded(server, times):
    until_said(server, "the models are loaded anew", times)


def test_models_are_loaded_anew_and_no_request_fails(slow_server, tmp_path, model, other):
    server = slow_server("--workers", "2", ready=2, model=model)
    good, before, first = model.read_bytes(), answer(server), server.workers
    with Load(server) as load:
        put(model, other)
        server.process.send_signal(signal.SIGHUP)
        reloaded(server, 1)
        server.until(lambda: not set(first) & set(server.workers))
        after, second = answer(server), server.workers
        # What can't be loaded changes nothing.
        put(model, b"garbage" * 100)
        server.process.send_signal(signal.SIGHUP)
        until_said(server, "the models stay what they were, as they can't")
        server.until(lambda: len(server.workers) == 2)
        assert server.workers == second
        assert answer(server) == after
        # Once more while it is being done: what is there by then counts.
        put(model, other)
        server.process.send_signal(signal.SIGHUP)
        until_said(server, "loading the models anew", 3)
        put(model, good)
        server.process.send_signal(signal.SIGHUP)
        # The third fails where the file was changed in the middle of it; the fourth is of the last.
        until_said(server, "loading the models anew", 4)
        server.until(lambda: server.log.rfind("are loaded anew") > server.log.rfind("loading the"))
        server.until(lambda: len(server.workers) == 2)
    assert before != after
    assert load.wrong == []
    assert load.answers == {(200, before), (200, after)}
    assert load.count > 100
    assert answer(server) == before
    ends_well(server, tmp_path)


def test_models_anew_while_old_workers_have_something_to_do(slow_server, tmp_path):
    """There is never a third generation."""
    server = slow_server("--workers", "2", "--threads", "1", ready=2)
    got: list[Got] = []
    asking = threading.Thread(target=lambda: got.append(ask_slow(server, 4)))
    asking.start()
    server.until(lambda: server.get("/metrics").metric("mlopsdeploy_in_flight") == 1)
    server.process.send_signal(signal.SIGHUP)
    reloaded(server, 1)
    for _ in range(3):
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert len(server.workers) <= 4
    reloaded(server, 2)
    asking.join()
    assert got[0].status == 200
    server.until(lambda: len(server.workers) == 2)
    ends_well(server, tmp_path)


def test_models_anew_while_a_worker_is_being_replaced(slow_server, tmp_path, model, other):
    server = slow_server("--workers", "2", ready=2, model=model)
    before = answer(server)
    put(model, other)
    first = server.workers
    os.kill(first[0], signal.SIGKILL)
    until_said(server, "another one")
    server.process.send_signal(signal.SIGHUP)
    reloaded(server, 1)
    server.until(lambda: len(server.workers) == 2 and first[1] not in server.workers)
    for _ in range(5):
        assert answer(server) != before
    os.kill(server.workers[0], signal.SIGKILL)
    until_said(server, "another one", 2)
    server.until(lambda: len(server.workers) == 2)
    ends_well(server, tmp_path)


def test_a_new_worker_that_dies_leaves_the_old_ones(slow_server, tmp_path):
    gate = tmp_path / "gate"
    server = slow_server("--workers", "1", env={"SLOW_GATE": str(gate)})
    (old,) = server.workers
    gate.touch()
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: len(server.workers) == 2)
    (new,) = set(server.workers) - {old}
    os.kill(new, signal.SIGKILL)
    until_said(server, "stay what they were: a new worker ended by SIGKILL")
    gate.unlink()
    assert ask_slow(server, 0).status == 200
    assert server.workers == [old]
    ends_well(server, tmp_path)


# ---------------------------------------------------------------- terminals


@pytest.fixture
def in_terminal(tmp_path):
    """`in_terminal(ignore_hup)` starts a server in a terminal of its own; gives the process, the
    terminal's other end, and what reads its log."""
    started = []

    def start(nohup):
        master, slave = pty.openpty()
        port, log = free_port("127.0.0.1"), tmp_path / "log"

        def in_child():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if nohup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlopsdeploy", "serve", "--port", str(port), *ONE],
                stdin=slave, stdout=slave, stderr=file, start_new_session=True,
                preexec_fn=in_child, cwd=tmp_path,  # noqa: PLW1509
            )  # fmt: skip
        os.close(slave)
        started.append(process)
        return process, master, lambda: log.read_text("utf-8")

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_closes_ends_the_server_unless_it_was_told_not_to(in_terminal, nohup):
    process, master, log = in_terminal(nohup)
    wait_for(lambda: "worker ready" in log())
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the models are loaded anew" in log())
    os.close(master)
    if nohup:
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: log().count("the models are loaded anew") == 2)
        process.terminate()
    assert process.wait(60) == 0
    pids = {int(pid) for pid in re.findall(r'"worker":(\d+)', log())}
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert "Traceback" not in log()
