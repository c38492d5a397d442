"""Log lines for people and for machines."""

import contextlib
import fcntl
import http.client
import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest

from mlopsdeploy.core.machine import free_port
from mlopsdeploy.serve import logs


def said(log_format, script):
    """What a process writes on standard error; setting up logging closes others' handlers."""
    begin = f"import logging\nfrom mlopsdeploy.serve import logs\nlogs.configure({log_format!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + script],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines():
    first, second = map(json.loads, said("json", """
log = logging.getLogger("mlopsdeploy.serve")
log.info("worker ready in %.2f s", 0.5, extra={"worker": 7})
try:
    raise ValueError("a\\nb")
except ValueError:
    log.exception("request failed", extra={"request_id": "q1", "unknown": 1})
"""))  # fmt: skip
    assert first["time"][10] == "T"
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in first if key != "time"} == {
        "level": "info", "logger": "mlopsdeploy.serve", "message": "worker ready in 0.50 s",
        "worker": 7,
    }  # fmt: skip
    assert (second["level"], second["request_id"]) == ("error", "q1")
    assert second["traceback"].splitlines()[-2:] == ["ValueError: a", "b"]
    assert "unknown" not in second


def test_text():
    first, second = said("text", """
log = logging.getLogger("mlopsdeploy.access")
log.info("POST /x 200", extra={"seconds": 0.00123, "request_id": "q1", "status": 200})
log.warning("low on %s", "cores")
""")  # fmt: skip
    assert first[8:] == " POST /x 200  1.23 ms  q1"
    assert second[8:] == " warning: low on cores"
    assert len(first.partition(" ")[0]) == len("12:30:01")


def test_auto_is_json_where_nobody_reads_along(monkeypatch):
    assert not logs.as_text("json")
    assert logs.as_text("text")
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert not logs.as_text("auto")
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert logs.as_text("auto")


def test_of_the_server_only_what_an_operator_needs():
    lines = said("json", """
logging.getLogger("asyncio").info("Using selector")
logging.getLogger("gunicorn.error").info("Booting worker")
logging.getLogger("somebody.else").info("hello")
logging.getLogger("somebody.else").warning("careful")
""")  # fmt: skip
    messages = [json.loads(line)["message"] for line in lines]
    assert messages == ["careful"]


# ---------------------------------------------------------------- nobody reads


@pytest.mark.parametrize("waiting", [100, 4])  # of 4, others take the room that was just made
def test_lines_that_nobody_reads_are_dropped_and_counted(waiting):
    """Nothing waits for who reads; when somebody does again, it learns how many are missing."""
    script = f"""
import logging, os, sys, time
from mlopsdeploy.serve import logs
logs.WAITING = {waiting}
logs.configure("json")
log = logging.getLogger("mlopsdeploy.serve")
for number in range(5000):
    log.info("line %d", number)
print("done", flush=True)
sys.stdin.read(1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "done\n"
        written, dropped = [], 0
        for line in process.stderr:
            message = json.loads(line)["message"]
            if found := re.fullmatch(r"(\d+) lines of the log were dropped, .*", message):
                dropped += int(found[1])
            else:
                written.append(int(message.removeprefix("line ")))
            if len(written) + dropped == 5000:
                break
        process.communicate("x", timeout=30)
    assert written == sorted(written)
    assert dropped > 1000
    assert process.returncode == 0


def test_a_process_ends_though_nobody_reads():
    begin = "from mlopsdeploy.serve import logs; logs.configure('json'); import logging\n"
    script = begin + "for _ in range(2000): logging.getLogger('native').info('x' * 100)"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 0


def test_a_process_without_standard_error_ends_well():
    script = """
import os
from mlopsdeploy.serve import logs
os.close(2)
logs.configure("json")
logs.log.info("x")
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("server", ["asyncio", "gunicorn"])
def test_requests_are_answered_though_nobody_reads_the_log(forks, tmp_path, server):
    port = free_port()
    words = ("serve", "--port", str(port), "--workers", "1", "--server", server, "--access-log")
    process = forks.popen(
        *words, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        _until_ready(port)
        body = json.dumps({"transaction_data": [0.5] * 30})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection):
            for _ in range(3000):
                connection.request(
                    "POST", "/detect_fraud", body, {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
        process.terminate()
        lines = process.stderr.read().decode().splitlines()
        assert sum("/detect_fraud" in json.loads(line)["message"] for line in lines) > 1000
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _until_ready(port):
    end = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        assert time.monotonic() < end
        time.sleep(0.05)


# ---------------------------------------------------------------- native libraries


LOUD = '''
import os

from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime


class Loud(OnnxRuntime):
    """Writes as native libraries do, a lot of it; of `age` below 0 it is the last that it does.

    Not when it is warmed up, with zeros: so many calls write more lines than the log holds.
    """

    def run(self, tensors):
        age = float(tensors["features"][0, 0])
        if age > 0:
            os.write(2, b"INFO: Created a delegate for CPU.\\nW0000 00:00 slow\\n" * 1000)
        if age < 0:
            os.write(2, b"free(): invalid pointer\\n")
            os.abort()
        return super().run(tensors)
'''


def test_what_native_libraries_write_is_in_the_log(serve, churn_onnx, tmp_path):
    (tmp_path / "loud_runtime.py").write_text(LOUD, "utf-8")
    facts = tmp_path / "loud_runtime-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-runtime\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[mlopsdeploy.runtimes]\nloud = loud_runtime:Loud\n")
    model = {"model": str(churn_onnx), "name": "churn", "runtime": "loud"}
    server = serve("--workers", "1", modules=[tmp_path], models=[model], log_format="json")
    path = "/v1/models/churn:predict"
    assert server.call("POST", path, {"instances": [1, 2, 3]}).status == 200
    server.until(lambda: "W0000" in server.log)
    lines = [json.loads(line) for line in server.log.split("\n")[:-1]]  # the last is being written
    found = {(one["level"], one["message"]) for one in lines if one["logger"] == "native"}
    created = ("info", "INFO: Created a delegate for CPU.")
    assert found == {created, ("warning", "W0000 00:00 slow")}
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.call("POST", path, {"instances": [-1, 2, 3]})
    server.until(lambda: '"free(): invalid pointer"' in server.log)
    # Faulthandler's, which is no line of ours: written piece by piece, between those of the parent.
    for piece in ("Fatal Python error: ", "Aborted"):
        server.until(lambda piece=piece: piece in server.log)
    server.stop()


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.", logging.INFO),
        ("WARNING: All log messages before absl::InitializeLog() is called", logging.WARNING),
        ("W0000 00:00:1732 inference_feedback_manager.cc:114] Feedback", logging.WARNING),
        ("E0000 00:00:1732 cuda_dnn.cc:8310] Unable to register", logging.ERROR),
        ("[ WARN:0@0.021] global cap.cpp:323 open", logging.WARNING),
        ("[ERROR:0@0.1] global", logging.ERROR),
        ("2026-01-01 12:00:00.1 [W:onnxruntime:, graph.cc:109 Graph] x", logging.WARNING),
        ("2026-01-01 12:00:00.1 [E:onnxruntime:Default, x.cc:1] x", logging.ERROR),
        ("free(): invalid pointer", logging.INFO),
        ("It's fine: Warnings", logging.INFO),
    ],
)
def test_the_level_of_a_native_line(line, level):
    assert logs.native_level(line) == level
