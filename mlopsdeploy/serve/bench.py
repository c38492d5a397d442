"""`mlopsdeploy bench serve`: how many requests a model answers here, beside what is possible."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from mlopsdeploy import measure
from mlopsdeploy.columns import Columns
from mlopsdeploy.config import ServeSettings
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.serve import server
from mlopsdeploy.serve.app import App, create_app
from mlopsdeploy.serve.command import _free_port
from mlopsdeploy.serve.endpoint import JSON, Predict
from mlopsdeploy.serve.instances import Instances

CONNECTIONS = (1, 4, 16, 64)
EMPTY_CONNECTIONS = 16
MEMORY = re.compile(r"^mlopsdeploy_worker_resident_memory_bytes\{.*\} (\S+)$", re.MULTILINE)
LONGEST_WAIT = 5.0  # seconds for an answer, before more connections are not tried
WARM_UP = 0.3  # seconds of each load that are not counted
START = 120.0  # seconds that a server may take to load its models
PARTS_SECONDS = 1.0  # for the parts of a request, in process
HALF = 0.5  # of saturation, where the open loop asks
MOSTLY = 0.5  # of a request's time: what takes that much sets the pace
CLIENT_BUSY = 0.9  # of a core: then the client was measured and not the server
ALONE = 0.85  # of the server's cores: below it others are at work, and figures say less


def bench_serve(
    settings: ServeSettings, *, row: str | None = None, seconds: float = 2.0
) -> dict[str, Any]:
    """Measure a real server under load, an empty application on it, and each part of a request.

    Args:
        settings: as of `mlopsdeploy serve`, with one model; host and port are chosen here.
        row: one row as JSON, or a file that holds it; by default the example of `model.yaml`, or
            one that is made up.
        seconds: of each load.

    Returns:
        `cores`: of server and client, which share them where there is only one; `closed`: by
        connections: requests_per_second, p50_ms, p99_ms; `open`: the same at half of the most;
        `limit`: requests_per_second of bare calls of the model and of an empty application;
        `request_us` and `empty_us`: processor time of the server for a request to either, and
        `parts_us`: where it goes; `server_busy`: the share of its cores that the server had;
        `memory`: bytes per worker; `bottleneck`; `verdict`.

    Raises:
        ConfigError: several models are named.
        InputError: the row is not JSON, or the model does not take it.
        MlopsDeployError: see `load_model`; or the server does not start or answer.
    """
    console = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True, markup=False)

    if len(settings.models) > 1:
        raise ConfigError("bench serve: measures one model at a time; name one --model")
    cores = _Cores()
    settings = settings.model_copy(
        update={"host": "127.0.0.1", "log_format": "text", "access_log": False}
    )
    with cores.of_server():
        say("measuring the parts of a request")
        parts = _Parts(settings, row)
        inside = parts.measure()
        workers = server.worker_count(settings)
    with tempfile.TemporaryDirectory() as folder:
        loads = _Loads(cores, settings, Path(folder), parts.request, seconds)
        say("measuring an empty application on the same server")
        empty = loads.empty()
        say(f"measuring {parts.name} under load")
        closed, opened, memory = loads.model()
    return report(parts, cores, workers, inside, empty, closed, opened, memory)


class _Cores:
    """Which cores the server has and which the client, so that neither takes from the other."""

    def __init__(self) -> None:
        known = hasattr(os, "sched_setaffinity")
        cores = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
        self.apart = known and len(cores) > 1
        self.all = cores
        self.server = cores[:-1] if self.apart else cores
        self.client = cores[-1:] if self.apart else cores

    @contextmanager
    def of_server(self) -> Iterator[None]:
        """What is started or loaded within runs there."""
        with self._kept_to(self.server):
            yield

    @contextmanager
    def of_client(self) -> Iterator[None]:
        """The same for the client."""
        with self._kept_to(self.client):
            yield

    @contextmanager
    def _kept_to(self, cores: Sequence[int]) -> Iterator[None]:
        if not self.apart:
            yield
            return
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.all)


# ---------------------------------------------------------------- in this process


class _Parts:
    """One request, taken apart."""

    def __init__(self, settings: ServeSettings, row: str | None) -> None:
        models = server.load_models(settings)
        self.name, self.model = next(iter(models.items()))
        self.app: App = create_app(models, settings)
        self.path, endpoint = next(
            (path, endpoint)
            for path, endpoint in self.app.endpoints.items()
            if isinstance(endpoint, Predict)
        )
        self.endpoint: Predict = endpoint
        given = _row(row, endpoint, self.model)
        self.body = json.dumps({endpoint.instances.key: given}).encode()
        self.request = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {JSON}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n{self.body.decode()}"
        )
        answer = endpoint(self._environ(), "bench")
        if answer.status != 200:
            detail = json.loads(answer.body).get("detail", "")
            raise InputError(f"{row or 'the example row'}: {self.name} refuses it: {detail}")

    def _environ(self) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": self.path,
            "CONTENT_TYPE": JSON,
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.input": io.BytesIO(self.body),
        }

    def measure(self) -> dict[str, float]:
        """Median microseconds: JSON, encode, model, decode, answer, endpoint, application."""
        model, endpoint = self.model, self.endpoint
        task, runtime = model.task, model.runtime
        columns: Columns = endpoint.instances.decode(self.body)[0]
        encoded = task.encode(columns)
        tensors = task.collate(encoded)
        outputs = runtime.run(tensors)
        predictions = task.decode(outputs, encoded)
        calls: dict[str, Callable[[], object]] = {
            "json": lambda: endpoint.instances.decode(self.body),
            "encode": lambda: task.collate(task.encode(columns)),
            "model": lambda: runtime.run(tensors),
            "decode": lambda: task.decode(outputs, encoded),
            "answer": lambda: endpoint._encode(endpoint.answers.one(predictions)),
            "endpoint": lambda: endpoint(self._environ(), "bench"),
            "application": lambda: list(self.app.wsgi_app(self._environ(), lambda *_: None)),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        gc.collect()
        gc.freeze()  # as a worker does when it is ready
        end = time.perf_counter() + PARTS_SECONDS
        while len(times["model"]) < 5 or time.perf_counter() < end:
            for name, call in calls.items():  # in turns, so that all meet the same machine
                started = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - started)
        gc.unfreeze()
        return {name: 1e6 * float(np.median(values[1:])) for name, values in times.items()}


def _row(said: str | None, endpoint: Predict, model: Any) -> Any:
    """One row as a caller would send it."""
    if said is not None:
        text = said
        if not said.lstrip().startswith(("[", "{", '"')):
            try:
                text = Path(said).read_text("utf-8")
            except (OSError, ValueError) as error:
                raise InputError(f"--row {said}: can't be read ({error})") from error
        try:
            given = json.loads(text)
        except ValueError as error:
            raise InputError(f"--row {said[:60]}: not JSON ({error})") from error
        key = endpoint.instances.key
        return given[key] if isinstance(given, dict) and set(given) == {key} else given
    example = endpoint.example()
    return _made_up(endpoint.instances, model) if example is None else example


def _made_up(instances: Instances, model: Any) -> Any:
    columns = measure.made_up_rows(model, 1)
    if instances.kind == "text":
        return next(iter(columns.values()))[0]
    if instances.kind == "arrays" and len(columns) == 1:
        return next(iter(columns.values()))[0].tolist()
    if instances.matrix is not None and instances.matrix.name in columns:
        return columns[instances.matrix.name][0].tolist()
    return {
        name: values[0] if isinstance(values[0], str) else values[0].tolist()
        for name, values in columns.items()
    }


# ---------------------------------------------------------------- under load


class _Loads:
    """Servers and a client, each a process of its own."""

    def __init__(
        self, cores: _Cores, settings: ServeSettings, folder: Path, request: str, seconds: float
    ) -> None:
        self._cores = cores
        self._settings = settings
        self._folder = folder
        self._request = request
        self._seconds = seconds

    def empty(self) -> dict[str, Any]:
        """An application that does nothing."""
        settings = self._with_port()
        command = [sys.executable, "-m", "mlopsdeploy.serve.empty"]
        with self._running(command, settings, settings.model_dump_json()) as pid:
            return self._load(settings.port, EMPTY_CONNECTIONS, pid)

    def model(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[int]]:
        """The real server: closed loops, an open one, and bytes of each worker."""
        settings = self._with_port()
        config = self._folder / "serve.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), "utf-8")
        command = [sys.executable, "-m", "mlopsdeploy", "serve", "--config", str(config)]
        with self._running(command, settings) as pid:
            self._wait_for_workers(settings)
            closed: list[dict[str, Any]] = []
            for count in CONNECTIONS:
                # More would only wait longer where each takes a large part of a second.
                if not closed or count / closed[-1]["requests_per_second"] < LONGEST_WAIT:
                    closed.append(self._load(settings.port, count, pid))
            most = max(load["requests_per_second"] for load in closed)
            opened = self._load(settings.port, CONNECTIONS[-1], pid, rate=HALF * most)
            text = _get(settings.port, "/metrics")
        memory = MEMORY.findall(text)
        return closed, opened, [int(float(value)) for value in memory]

    def _with_port(self) -> ServeSettings:
        return self._settings.model_copy(update={"port": _free_port("127.0.0.1")})

    @contextmanager
    def _running(
        self, command: Sequence[str], settings: ServeSettings, orders: str = ""
    ) -> Iterator[int]:
        """A server that answers, until the end of the block; its process."""
        # What these say is in the settings already, and would win over them.
        ours = {f"MLOPSDEPLOY_{name.upper()}" for name in ServeSettings.model_fields}
        env = {name: value for name, value in os.environ.items() if name not in ours}
        log = self._folder / f"{settings.port}.log"
        with log.open("wb") as file, self._cores.of_server():
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        try:
            assert process.stdin is not None
            process.stdin.write(orders.encode())
            process.stdin.close()
            self._wait(process, settings, log)
            yield process.pid
        finally:
            _end(process)

    def _wait(self, process: subprocess.Popen[bytes], settings: ServeSettings, log: Path) -> None:
        """Until it answers."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if process.poll() is not None:
                lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no reason"]
                raise MlopsDeployError(
                    f"the server ended at once: {lines[-1].removeprefix('mlopsdeploy: ')}"
                )
            try:
                _get(settings.port, "/readyz")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise MlopsDeployError(f"the server was not ready after {START:.0f} s")

    def _wait_for_workers(self, settings: ServeSettings) -> None:
        """The first one that is ready answers for itself alone."""
        with self._cores.of_server():
            workers = server.worker_count(settings)
        end = time.monotonic() + START
        while len(MEMORY.findall(_get(settings.port, "/metrics"))) < workers:
            if time.monotonic() > end:
                raise MlopsDeployError(f"not all {workers} workers were ready after {START:.0f} s")
            time.sleep(0.1)

    def _load(
        self, port: int, connections: int, pid: int, rate: float | None = None
    ) -> dict[str, Any]:
        orders = {
            "host": "127.0.0.1",
            "port": port,
            "requests": [self._request],
            "connections": connections,
            "seconds": self._seconds,
            "warm_up": WARM_UP,
            "rate": rate,
        }
        script = Path(__file__).with_name("load_client.py")
        before = _processor_seconds(pid)
        with self._cores.of_client():
            done = subprocess.run(
                [sys.executable, "-P", str(script)],
                input=json.dumps(orders),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            raise MlopsDeployError(f"the client of the load failed: {last}")
        found: dict[str, Any] = json.loads(done.stdout)
        worked = _processor_seconds(pid) - before
        if found["refused"] or not found["requests"]:
            raise MlopsDeployError(
                f"{found['refused']} of {found['requests']} answers were no 200: "
                f"{found['refusal'] or 'none came'}"
            )
        # The warm-up's requests took time too.
        asked = found["asked"]
        return {
            "connections": connections,
            **({"rate": rate} if rate else {}),
            **found,
            "server_us": 1e6 * worked / asked if worked else None,
        }


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        body: bytes = answer.read()
    return body.decode()


def _processor_seconds(pid: int) -> float:
    """That a process and all that it started have taken so far; 0 where nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_processor_seconds(int(child)) for child in children)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# ---------------------------------------------------------------- what it comes to


def report(
    parts: _Parts,
    cores: _Cores,
    workers: int,
    inside: Mapping[str, float],
    empty: Mapping[str, Any],
    closed: Sequence[Mapping[str, Any]],
    opened: Mapping[str, Any],
    memory: Sequence[int],
) -> dict[str, Any]:
    """All of it, ready for JSON."""
    model = parts.model
    best = max(closed, key=lambda load: load["requests_per_second"])
    most = best["requests_per_second"]
    # Time of the processor, where it is known, is the same whatever other programs do.
    taken, of_empty = (
        load["server_us"] or 1e6 * workers / load["requests_per_second"] for load in (best, empty)
    )
    in_parallel = min(workers, len(cores.server))
    calls = 1e6 / inside["model"] * max(in_parallel, min(model.runtime.streams, len(cores.server)))
    said: dict[str, Any] = {
        "model": parts.name,
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "route": parts.path,
        "body_bytes": len(parts.body),
        "workers": workers,
        "cores": {
            "server": len(cores.server),
            "client": len(cores.client),
            "shared": not cores.apart,
        },
        "closed": [_rounded(load) for load in closed],
        "open": _rounded(opened),
        "limit": {
            "model_calls_per_second": round(calls, 1),
            "empty_requests_per_second": round(empty["requests_per_second"], 1),
        },
        "most": {"connections": best["connections"], "requests_per_second": round(most, 1)},
        "request_us": round(taken, 1),
        "empty_us": round(of_empty, 1),
        "ratio": round(most / calls, 3),
        "parts_us": where(inside, taken),
        # Of the server's cores: with less than all of it something else was waited for.
        "server_busy": round(min(most * taken / 1e6 / in_parallel, 1.0), 2),
        "memory": list(memory),
        "client_busy": round(max(load["busy"] for load in (*closed, empty)), 2),
    }
    said["bottleneck"] = max(said["parts_us"], key=said["parts_us"].__getitem__)
    said["verdict"] = verdict(said)
    return said


def where(inside: Mapping[str, float], whole: float) -> dict[str, float]:
    """A request's microseconds of processor time, by what they are spent on.

    Args:
        inside: as measured in process, see `_Parts.measure`.
        whole: what the server spends on a request under load.
    """
    own = ("json", "encode", "model", "decode", "answer")
    parts = {name: inside[name] for name in own}
    parts["checks, metrics"] = inside["endpoint"] - sum(parts.values())
    parts["application"] = inside["application"] - inside["endpoint"]
    parts["server, HTTP"] = whole - inside["application"]
    return {name: round(max(value, 0.0), 1) for name, value in parts.items()}


def verdict(said: Mapping[str, Any]) -> str:
    """What a report of `bench_serve` comes to, in one sentence."""
    most, parts = said["most"], said["parts_us"]
    whole = sum(parts.values()) or 1.0
    part = said["bottleneck"]
    share = parts[part] / whole
    speed = f"{most['requests_per_second']:,.0f} requests/s with "
    speed += _count(most["connections"], "connection")
    half = f"at half of that {said['open']['p99_ms']:.1f} ms is the 99th percentile"
    if part == "model" and share >= MOSTLY:
        return (
            f"The model sets the pace with {share:.0%} of a request: {speed}, so a smaller model, "
            f"a lower precision or more cores are what helps; {half}."
        )
    if part == "server, HTTP":
        return (
            f"HTTP sets the pace with {share:.0%} of a request: {speed}; each takes "
            f"{said['request_us']:,.0f} µs, with an empty application {said['empty_us']:.0f}; "
            f"more cores or several rows a request are what helps; {half}."
        )
    return (
        f"{part} takes the most, {share:.0%} of a request: {speed}; each takes "
        f"{said['request_us']:,.0f} µs, and {said['empty_us']:.0f} µs with an empty application; "
        f"{half}."
    )


def _rounded(load: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "connections",
        "rate",
        "requests_per_second",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "unanswered",
    )
    return {
        name: round(load[name], 3) if isinstance(load[name], float) else load[name]
        for name in kept
        if name in load
    }


def show(said: Mapping[str, Any], console: Console) -> None:
    """A report for people."""
    table = _table("load", "requests/s", "p50", "p99, ms")
    empty = said["limit"]["empty_requests_per_second"]
    table.add_row(
        f"empty application, {EMPTY_CONNECTIONS} connections", f"{empty:,.0f}", style="dim"
    )
    for load in said["closed"]:
        best = load["connections"] == said["most"]["connections"]
        one = "connection" if load["connections"] == 1 else "connections"
        table.add_row(
            f"{load['connections']} {one}, each waits for its answer",
            f"{load['requests_per_second']:,.0f}",
            f"{load['p50_ms']:.2f}",
            f"{load['p99_ms']:.2f}",
            style="green" if best else "",
        )
    half = said["open"]
    table.add_row(
        "at random moments, half of the most",
        f"{half['requests_per_second']:,.0f}",
        f"{half['p50_ms']:.2f}",
        f"{half['p99_ms']:.2f}",
    )
    console.print(table)
    console.print()
    table = _table("a request", "µs", "share")
    whole = sum(said["parts_us"].values()) or 1
    for name, value in said["parts_us"].items():
        table.add_row(name, f"{value:,.1f}", f"{value / whole:.0%}")
    table.add_row("of an empty application", f"{said['empty_us']:,.1f}", "", style="dim")
    console.print(table)
    console.print()
    cores = said["cores"]
    if cores["shared"]:
        place = "server and client share the cores, so figures are lower than they could be"
    else:
        place = f"server on {_count(cores['server'], 'core')}, client on another one"
    memory = [f"{size / 1e6:.0f} MB" for size in said["memory"]]
    line = f"{said['model']} on {said['runtime']} {said['precision']}, "
    line += f"{_count(said['workers'], 'worker')} of {' and '.join(sorted(set(memory)))}; {place}"
    console.print(line, soft_wrap=not console.is_terminal, markup=False, style="dim")
    if said["client_busy"] >= CLIENT_BUSY:
        console.print(
            "the client was as busy as its core allows: the server may answer more than this",
            style="yellow",
            soft_wrap=not console.is_terminal,
        )
    elif said["server_busy"] < ALONE:
        console.print(
            f"at its most the server had {said['server_busy']:.0%} of its cores: it waited, "
            "most likely for other programs, so measure again when the machine is idle",
            style="yellow",
            soft_wrap=not console.is_terminal,
        )
    console.print(said["verdict"], soft_wrap=not console.is_terminal, markup=False)


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table
