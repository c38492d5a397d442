"""`mlopsdeploy serve` as a command: flags, what a person sees, and what is refused at once."""

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "frawd"], ["no model called 'frawd'", "fraud"]),
        (["--model", "none.tflite"], ["none.tflite: no such file or folder"]),
        (["--model", "fraud", "--model", "fraud"], ["two models are called 'fraud'", "fraud-2="]),
        (["--model", "a=fraud", "--model", "a=sentiment"], ["two models are called 'a'"]),
        (["--model", "a b=fraud"], ["--model", "'a b'"]),
        (["--model", "=fraud"], ["--model", "''"]),
        (["--port", "99999"], ["--port", "99999"]),
        (["--port", "-1"], ["--port", "-1"]),
        (["--workers", "0"], ["--workers", "0"]),
        (["--server", "uvicorn"], ["--server", "'uvicorn'", "asyncio"]),
        (["--log-format", "xml"], ["--log-format", "'xml'"]),
        (["--runtime", "litrt"], ["no runtime called 'litrt'", "litert"]),
        (["--config", "none.yaml"], ["none.yaml: no such file"]),
        (["--config", "wrong.yaml"], ["models[0]: unknown key 'rout'", "mean 'route'?"]),
    ],
)
def test_what_is_asked_wrongly_is_one_line(mlopsdeploy, tmp_path, arguments, words):
    (tmp_path / "wrong.yaml").write_text("models: [{model: fraud, rout: /x}]\n", "utf-8")
    done = mlopsdeploy("serve", *arguments)
    assert done.code == 2, done
    assert len(done.lines) == 1, done
    assert done.out == b""
    for word in words:
        assert word in done.lines[0]


SERVE = "pip install 'mlopsdeploy[serve]'"


@pytest.mark.parametrize(("package", "message"), [
    *((name, f"{name!r}: {SERVE}")
      for name in ("flask", "httptools", "msgspec", "prometheus_client")),
    ("gunicorn", "pip install gunicorn"),
])  # fmt: skip
def test_a_missing_package_says_what_to_install(mlopsdeploy, tmp_path, package, message):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    server = "gunicorn" if package == "gunicorn" else "asyncio"
    env = {"PYTHONPATH": str(tmp_path)}
    done = mlopsdeploy("serve", "--port", "0", "--server", server, env=env)
    assert done.code == 2, done
    assert "Traceback" not in done.err
    assert message in done.lines[-1]


def test_environment_and_names(serve):
    env = {"MLOPSDEPLOY_MODELS": "scam=fraud", "MLOPSDEPLOY_WORKERS": "1"}
    server = serve(env=env)
    assert server.get("/readyz").json["models"] == ["scam"]
    answer = server.call("POST", "/detect_fraud", {"transaction_data": [0.0] * 30}).json
    assert answer["model"] == "scam"
    assert len(server.workers) == 1
    assert server.stop() == 0


def test_routes_from_a_yaml_file(serve, churn_onnx):
    server = serve(
        workers=1,
        runtime="onnxruntime",
        threshold=0.99,
        models=[
            {
                "model": str(churn_onnx),
                "name": "loyalty",
                "route": "/shop/leaving",
                "input": "customers",
                "answer": {"leaves": "label == 1", "risk": "scores.1", "from": "threshold"},
            },
            {"model": "fraud", "route": "/is-it", "runtime": "litert", "threshold": 0.0},
        ],
    )
    customer = {"age": 80, "visits": 0, "spend": 99}
    answer = server.call("POST", "/shop/leaving", {"customers": customer}).json
    assert answer == {"leaves": False, "risk": pytest.approx(0.981836, rel=1e-5), "from": 0.99}
    answer = server.call("POST", "/is-it", {"transaction_data": [0.0] * 30}).json
    assert (answer["is_fraud"], answer["threshold"]) == (True, 0.0)
    assert server.call("POST", "/detect_fraud", {}).status == 404
    assert server.stop() == 0


def test_what_a_person_sees_in_a_terminal(tmp_path):
    """Over a pseudo-terminal: where to look, that it is ready, and how it ended."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlopsdeploy", "serve", "--port", "0", "--workers", "1"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    said, end = b"", time.monotonic() + 60
    try:
        while b"worker ready" not in said:
            assert time.monotonic() < end, said
            said += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while b"stopped" not in said.rpartition(b"worker ready")[2]:
            assert time.monotonic() < end, said
            said += os.read(ours, 4096)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).replace("\r", "").splitlines()
    assert re.fullmatch(r"models +fraud *", lines[0])
    assert re.fullmatch(r"try it +http://127\.0\.0\.1:\d+/ *", lines[1])
    assert "openapi.json" in lines[2]
    assert re.fullmatch(r"server +1 worker *", lines[3])
    takes = "fraud: about .+ requests/s, p99 .+ ms"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d worker ready in \d+\.\d\d s; {takes}", lines[4])
    assert lines[5].endswith("stopping; what is in work is answered first")
    assert lines[6].endswith("stopped")
    assert len(lines) == 7, lines


COMPILING = """
import os, sys
from mlopsdeploy.settings import ServeSettings
from mlopsdeploy.serve import server

server.prepare_model = lambda *_, **__: os.kill(os.getpid(), int(sys.argv[1]))
server.run_serve(ServeSettings(port=0, log_format="text"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_serves(number):
    """As while a model compiles: no word of files, and the code of the signal."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILING, str(int(number))],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 128 + number
    assert done.stderr.endswith("stopped before it served\n")
    assert len(done.stderr.splitlines()) == 1
