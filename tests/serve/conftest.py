"""Applications in this process, and real servers on a port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
import yaml

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.machine import free_port
from mlopsdeploy.core.model import Model
from mlopsdeploy.serve import create_app
from mlopsdeploy.serve import queue as queues
from mlopsdeploy.serve.messages import Answer, Request
from mlopsdeploy.serve.queue import Call, Queue
from mlopsdeploy.settings import ServeSettings

from ..forks import Forks

# ---------------------------------------------------------------- in this process


@pytest.fixture(scope="session")
def fraud() -> Model:
    """The built-in model: 30 numbers, LiteRT, a route of its own."""
    return load_model("fraud", threads=1)


@pytest.fixture(scope="session")
def churn(churn_onnx: Path) -> Model:
    """Three named numbers, and no route of its own."""
    return load_model(str(churn_onnx), runtime="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def sentiment() -> Model:
    """The built-in model of texts."""
    return load_model("sentiment", runtime="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def per_feature(per_feature_onnx: Path) -> Model:
    """A tensor per feature: `age` is a float, `visits` a whole number."""
    return load_model(str(per_feature_onnx), runtime="onnxruntime", threads=1)


class Got(NamedTuple):
    """An answer, however it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of `/metrics` that have this name and bear these labels."""
        total = 0.0
        for line in self.body.decode().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{said}"' in (found[1] or "") for key, said in labels.items()):
                total += float(found[2])
        return total


JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="session")
def client() -> Callable[..., Callable[..., Got]]:
    """`client(model, name=model, **settings)` is `call(method, path, body, headers)` of an app."""

    def of(served: dict[str, Model], through_flask: bool = False, **settings: Any):
        app = create_app(served, ServeSettings(**settings))
        if through_flask:
            app.before_request(lambda: None)
        werkzeug = app.test_client()

        def call(method: str, path: str, body: Any = None, headers: Any = JSON) -> Got:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            answer = werkzeug.open(path, method=method, data=raw, headers=headers)
            return Got(
                answer.status_code, {k.lower(): v for k, v in answer.headers}, answer.get_data()
            )

        call.app = app
        return call

    return of


@pytest.fixture(scope="session")
def ask() -> Callable[..., Any]:
    """`ask(queue, columns, **call)` waits for what a queue makes of a call."""

    def of(asked: Queue, columns: Any, rows: int = 1, **more: Any) -> Any:
        got: SimpleQueue[Any] = SimpleQueue()
        call = made_call(columns, rows, finish=lambda _, result: got.put(result), **more)
        asked.put(call, here=True)
        result = got.get(timeout=60)
        if isinstance(result, Exception):
            raise result
        return result

    return of


def made_call(columns: Any, rows: int = 1, *, age: float = 0.0, **more: Any) -> Call:
    """A call of a request that came so many seconds ago."""
    request = Request("POST", "/", {}, b"", "an-id", queues.perf_counter() - age)
    return Call(request, columns, rows, "row {}".format, lambda _: Answer(200, "", b""), **more)


# ---------------------------------------------------------------- real servers


class Server:
    """A `mlopsdeploy serve` process.

    Attributes:
        url: its base URL, without a slash at the end.
        port: where it listens.
    """

    def __init__(self, popen: Callable[..., Any], folder: Path, *arguments: str, host: str) -> None:
        self.host = host
        self.port = free_port(host)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._log = folder / f"{self.port}.log"
        with self._log.open("wb") as log:
            self.process = popen(
                *("serve", "--host", host, "--port", str(self.port), *arguments),
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self._log.read_text("utf-8")

    @property
    def workers(self) -> list[int]:
        """The processes that it started and that live."""
        return children(self.process.pid)

    def wait(self, workers: int = 1) -> None:
        """Until so many workers take requests."""
        self.until(lambda: self.log.count("worker ready") >= workers)
        self.until(self._ready)

    def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        """Until `true()` is; that the process ends meanwhile is a failure."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def get(self, path: str) -> Got:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None, headers: Any = JSON) -> Got:
        """One request on a connection of its own."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, raw, dict(headers))
            answer = connection.getresponse()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return Got(answer.status, given, answer.read())

    def connect(self) -> socket.socket:
        """A bare connection."""
        connection = socket.create_connection((self.host, self.port), timeout=30)
        connection.settimeout(30)
        return connection

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it as an operator would; gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def serve(
    forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """`serve("--workers", "1", ready=1, **settings)` starts a server, which ends by itself; it can
    import `modules` beside what is installed, and runs the Python of `prelude` first."""
    started: list[Server] = []

    def start(
        *arguments: str,
        ready: int = 1,
        env: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        modules: Sequence[Path] = (),
        prelude: str = "",
        **settings: Any,
    ) -> Server:
        folder = tmp_path_factory.mktemp("served")
        (folder / "serve.yaml").write_text(yaml.safe_dump(settings), "utf-8")
        popen = partial(
            forks.popen,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            prelude=f"import sys; sys.path[:0] = {list(map(str, modules))}\n{prelude}",
        )
        server = Server(popen, folder, "--config", "serve.yaml", *arguments, host=host)
        started.append(server)
        if ready:
            server.wait(ready)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server], churn_onnx: Path) -> Iterator[Server]:
    """Two workers with two models; must end well when all tests are done.

    Who sends in pieces, or on an open connection, may stand still for a while.
    """
    server = serve(
        ready=2,
        workers=2,
        header_timeout=30.0,
        keep_alive=30.0,
        max_body=200_000,
        access_log=True,
        models=["fraud", {"model": str(churn_onnx), "name": "churn", "runtime": "onnxruntime"}],
    )
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log
    assert "nothing was written" not in server.log
    for line in server.log.splitlines():
        assert set(json.loads(line)) >= {"time", "level", "logger", "message"}


@pytest.fixture
def slow_server(
    serve: Callable[..., Server], slow: Path, churn_onnx: Path, tmp_path: Path
) -> Callable[..., Server]:
    """`slow_server("--workers", "1")`: a request takes as many seconds as its `age` says.

    Its temporary files lie in `tmp_path / "tmp"`.
    """

    def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Server:
        folder = tmp_path / "tmp"
        folder.mkdir(exist_ok=True)
        env = {"TMPDIR": str(folder), **(env or {})}
        model = f"churn={options.pop('model', churn_onnx)}"
        arguments = ("--model", model, "--runtime", "slow", *arguments)
        return serve(*arguments, env=env, modules=[slow], **{"slo": 60, **options})

    return start


def ask_slow(server: Server, seconds: float, headers: Any = JSON) -> Got:
    """A request that takes so long."""
    body = {"instances": [seconds, 0, 0]}
    return server.call("POST", "/v1/models/churn:predict", body, headers)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


SLOW = '''
import os
import time

from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime


class Slow(OnnxRuntime):
    """Takes the `age` of each row in seconds, and SLOW_ROW; fails below 0, and takes the process
    with it below -1. With SLOW_STEADY it passes for a quick one. Neither loads nor computes while
    there is a file SLOW_GATE."""

    steady = "SLOW_STEADY" in os.environ

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        time.sleep(float(os.environ.get("SLOW_START", 0)))
        self.pass_gate()

    def run(self, tensors):
        ages = tensors["features"][:, 0]
        if ages.min() < -1:
            os._exit(9)
        if ages.min() < 0:
            raise OSError("s3cr3t-4711 is what the arena holds")
        time.sleep(float(ages.sum()) + len(ages) * float(os.environ.get("SLOW_ROW", 0)))
        self.pass_gate()
        return super().run(tensors)

    @staticmethod
    def pass_gate():
        while os.path.exists(os.environ.get("SLOW_GATE", "")):
            time.sleep(0.01)
'''


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of a runtime called "slow", as an outside package brings one."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "slow_runtime.py").write_text(SLOW, "utf-8")
    facts = folder / "slow_runtime-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-runtime\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[mlopsdeploy.runtimes]\nslow = slow_runtime:Slow\n")
    return folder
