"""`mlopsdeploy bench serve`: how many requests a model answers here, and what is possible."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from mlopsdeploy.bench import processes, speed
from mlopsdeploy.bench.load_client import load
from mlopsdeploy.columns import Columns
from mlopsdeploy.core import machine
from mlopsdeploy.core.console import counted, plain_table, print_line, progress_log
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.serve import server
from mlopsdeploy.serve.app import App, assembled
from mlopsdeploy.serve.endpoint import Predict, PredictPictures
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import JSON, Request
from mlopsdeploy.serve.pictures import decode_all, with_sizes
from mlopsdeploy.settings import ServeSettings

CONNECTIONS = (1, 4, 16, 64)
EMPTY_CONNECTIONS = 16
LONGEST_WAIT = 5.0  # seconds for an answer, before more connections are not tried
WARM_UP = 0.3  # seconds of each load that are not counted
PATIENCE = 60.0  # seconds that a request may take, if nobody says
START = 120.0  # seconds that a server may take to load its models
HALF = 0.5  # of saturation, where the open loop asks
PARTS_SECONDS = 1.0
MOSTLY = 0.5  # of a request's time: what takes that much sets the pace
CLIENT_BUSY = 0.9  # of a core: then the client was measured and not the server
_MEMORY = re.compile(r"^mlopsdeploy_worker_resident_memory_bytes\{.*\} (\S+)$", re.MULTILINE)
_PERCENTILES = ("p50_ms", "p99_ms")
_MEDIA = {".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}


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
    log = progress_log()
    if len(settings.models) > 1:
        raise ConfigError("bench serve: measures one model at a time; name one --model")
    cores = Cores()
    slo = settings.slo or PATIENCE  # the most is asked for, and nothing is to be refused
    settings = settings.replace(host="127.0.0.1", log_format="text", access_log=False, slo=slo)
    with cores.server_only():
        log("measuring the parts of a request")
        parts = Parts(settings, row)
        inside = parts.measure()
        workers = server.worker_count(settings)
    with tempfile.TemporaryDirectory() as folder:
        loads = Loads(cores, settings, Path(folder), parts, seconds)
        log("measuring an empty application on the same server")
        empty = loads.empty()
        log(f"measuring {parts.name} under load")
        closed, opened, memory = loads.model()
    return report(parts, cores, workers, inside, empty, closed, opened, memory)


class Cores:
    """Which cores the server has and which the client, so that neither takes from the other."""

    def __init__(self) -> None:
        cores = machine.usable_cores()[: machine.core_count()]
        self.apart = hasattr(os, "sched_setaffinity") and len(cores) > 1
        self.all = machine.usable_cores()
        self.server = cores[:-1] if self.apart else cores
        self.client = cores[-1:] if self.apart else cores

    @contextmanager
    def server_only(self) -> Iterator[None]:
        """What is started or loaded within runs on the cores of the server."""
        if not self.apart:
            yield
            return
        os.sched_setaffinity(0, self.server)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.all)


@dataclass(frozen=True)
class Loads:
    """Servers under load, each a process of its own with its files in `folder`."""

    cores: Cores
    settings: ServeSettings
    folder: Path
    parts: Parts
    seconds: float

    def empty(self) -> dict[str, Any]:
        """An application that does nothing."""
        command = (sys.executable, "-m", "mlopsdeploy.bench.empty_server")
        with self._running(command) as (process, url):
            return self._load(process, url, EMPTY_CONNECTIONS)

    def model(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[int]]:
        """The real server: closed loops, an open one, and bytes of each worker."""
        with self._running((*processes.OURS, "serve")) as (process, url):
            with self.cores.server_only():
                workers = server.worker_count(self.settings)
            # The first one that is ready answers for itself alone.
            process.wait_until(
                lambda: len(_memory(url)) >= workers, START, f"one of {workers} workers"
            )
            closed: list[dict[str, Any]] = []
            for count in CONNECTIONS:
                # More would only wait longer where each takes a large part of a second.
                if not closed or count / closed[-1]["requests_per_second"] < LONGEST_WAIT:
                    closed.append(self._load(process, url, count))
            most = max(load["requests_per_second"] for load in closed)
            opened = self._load(process, url, CONNECTIONS[-1], rate=HALF * most)
            return closed, opened, _memory(url)

    @contextmanager
    def _running(self, command: Sequence[str]) -> Iterator[tuple[processes.Process, str]]:
        """A server that answers, until the end of the block, and its address."""
        port = machine.free_port()
        config = self.folder / "serve.yaml"
        settings = self.settings.replace(port=port)
        config.write_text(yaml.safe_dump(settings.as_dict()), "utf-8")
        url = f"http://127.0.0.1:{port}"
        with ExitStack() as stack:
            with self.cores.server_only():
                process = stack.enter_context(
                    processes.start([*command, "--config", config], self.folder)
                )
            process.wait_until(lambda: processes.answers(f"{url}/readyz"), START, "the server")
            yield process, url

    def _load(
        self, process: processes.Process, url: str, connections: int, rate: float | None = None
    ) -> dict[str, Any]:
        parts, before = self.parts, machine.processor_seconds(process.pid)
        found = load(
            url + parts.path, [parts.body], parts.kind, connections=connections, rate=rate,
            seconds=self.seconds, warm_up=WARM_UP,
            cores=self.cores.client if self.cores.apart else (),
        )  # fmt: skip
        worked = machine.processor_seconds(process.pid) - before
        return {
            "connections": connections,
            **({"rate": rate} if rate else {}),
            **asdict(found),
            # The warm-up's requests took time too.
            "server_us": 1e6 * worked / found.sent if worked else None,
        }


def _memory(url: str) -> list[int]:
    """Bytes of each worker that is ready."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310  # ours
        text = answer.read().decode()
    return [int(float(value)) for value in _MEMORY.findall(text)]


class Parts:
    """One request, taken apart in this process."""

    def __init__(self, settings: ServeSettings, row: str | None) -> None:
        models = server.load_models(settings)
        self.name, self.model = next(iter(models.items()))
        self.app: App = assembled(models, settings)
        self.path, endpoint = next(
            (path, endpoint)
            for path, endpoint in self.app.endpoints.items()
            if isinstance(endpoint, Predict)
        )
        self.endpoint: Predict = endpoint
        if isinstance(endpoint, PredictPictures):
            self.kind, self.body = _picture(row, endpoint, self.model)
        else:
            given = _row(row, endpoint, self.model)
            self.kind, self.body = JSON, json.dumps({endpoint.instances.key: given}).encode()
        answer = endpoint(self._request())
        if answer.status != 200:
            detail = json.loads(answer.body).get("detail", "")
            raise InputError(f"{row or 'the example row'}: {self.name} refuses it: {detail}")

    def _request(self) -> Request:
        headers = {"content-type": self.kind, "content-length": str(len(self.body))}
        return Request("POST", self.path, headers, self.body, "bench", time.perf_counter())

    def _parse(self) -> Columns:
        if isinstance(self.endpoint, PredictPictures):
            return decode_all([self.body], [""])
        return self.endpoint.instances.decode(self.body)[0]

    def measure(self) -> dict[str, float]:
        """Median microseconds: parse, encode, model, decode, answer, endpoint.

        To parse is called "json", or "picture" where bodies are pictures.
        """
        model, endpoint = self.model, self.endpoint
        task, runtime = model.task, model.runtime
        pictures = isinstance(endpoint, PredictPictures)
        columns = self._parse()
        encoded = task.encode(columns)
        tensors = task.collate(encoded)
        outputs = runtime.run(tensors)
        predictions = task.decode(outputs, encoded)
        if pictures:
            predictions = with_sizes(predictions, columns["image"])
        calls: dict[str, Callable[[], object]] = {
            "picture" if pictures else "json": self._parse,
            "encode": lambda: task.collate(task.encode(columns)),
            "model": lambda: runtime.run(tensors),
            "decode": lambda: task.decode(outputs, encoded),
            "answer": lambda: endpoint._encode(endpoint.answers.one(predictions)),
            "endpoint": lambda: endpoint(self._request()),
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


def _read(row: str) -> bytes:
    try:
        return Path(row).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"--row {row}: can't be read ({error})") from error


def _picture(row: str | None, endpoint: PredictPictures, model: Model) -> tuple[str, bytes]:
    """The media type and the bytes of a picture's file."""
    if row is not None:
        return _MEDIA.get(Path(row).suffix.lower(), "image/jpeg"), _read(row)
    example = endpoint.example()
    if example is not None:
        kind, _, content = example.removeprefix("data:").partition(";base64,")
        return kind, b64decode(content)
    import cv2

    pixels = speed.made_up_rows(model, 1)["image"][0]
    return "image/jpeg", cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), 4))[1].tobytes()


def _row(row: str | None, endpoint: Predict, model: Model) -> Any:
    """One row as a caller would send it."""
    if row is None:
        example = endpoint.example()
        return _made_up(endpoint.instances, model) if example is None else example
    try:
        given = json.loads(row if row.lstrip().startswith(("[", "{", '"')) else _read(row))
    except ValueError as error:
        raise InputError(f"--row {row[:60]}: not JSON ({error})") from error
    key = endpoint.instances.key
    return given[key] if isinstance(given, dict) and set(given) == {key} else given


def _made_up(instances: Instances, model: Model) -> Any:
    row = {
        name: values[0] if isinstance(values[0], str) else values[0].tolist()
        for name, values in speed.made_up_rows(model, 1).items()
    }
    if instances.kind == "text" or (instances.kind == "arrays" and len(row) == 1):
        return next(iter(row.values()))
    return row.get(instances.matrix.name, row) if instances.matrix is not None else row


def report(
    parts: Parts,
    cores: Cores,
    workers: int,
    inside: Mapping[str, float],
    empty: Mapping[str, Any],
    closed: Sequence[Mapping[str, Any]],
    opened: Mapping[str, Any],
    memory: Sequence[int],
) -> dict[str, Any]:
    """All of it, ready for JSON."""
    runtime = parts.model.runtime
    best = max(closed, key=lambda load: load["requests_per_second"])
    most = best["requests_per_second"]
    # Time of the processor, where it is known, is the same whatever other programs do.
    taken, of_empty = (
        load["server_us"] or 1e6 * workers / load["requests_per_second"] for load in (best, empty)
    )
    in_parallel = min(workers, len(cores.server))
    calls = 1e6 / inside["model"] * max(in_parallel, min(runtime.streams, len(cores.server)))
    spent = where(inside, taken)
    figures: dict[str, Any] = {
        **speed.about(parts.model),
        "model": parts.name,
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
        "parts_us": spent,
        # Of the server's cores: with less than all of it something else was waited for.
        "server_busy": round(min(most * taken / 1e6 / in_parallel, 1.0), 2),
        "memory": list(memory),
        "client_busy": round(max(load["busy"] for load in (*closed, empty)), 2),
        "bottleneck": max(spent, key=spent.__getitem__),
    }
    figures["verdict"] = verdict(figures)
    return figures


def where(inside: Mapping[str, float], whole: float) -> dict[str, float]:
    """A request's microseconds of processor time, by what they are spent on.

    Args:
        inside: as measured in process, see `Parts.measure`.
        whole: what the server spends on a request under load.
    """
    parts = {k: v for k, v in inside.items() if k != "endpoint"}
    parts["checks, metrics"] = inside["endpoint"] - sum(parts.values())
    parts["server, HTTP"] = whole - inside["endpoint"]
    return {name: round(max(value, 0.0), 1) for name, value in parts.items()}


def verdict(report: Mapping[str, Any]) -> str:
    """What a report of `bench_serve` comes to, in one sentence."""
    most, parts, part = report["most"], report["parts_us"], report["bottleneck"]
    share = parts[part] / (sum(parts.values()) or 1.0)
    rate = f"{most['requests_per_second']:,.0f} requests/s with "
    rate += counted(most["connections"], "connection")
    half = f"at half of that {report['open']['p99_ms']:.1f} ms is the 99th percentile"
    took = f"each takes {report['request_us']:,.0f} µs, and {report['empty_us']:.0f} µs with an "
    took += "empty application"
    if part == "model" and share >= MOSTLY:
        return (
            f"The model sets the pace with {share:.0%} of a request: {rate}, so a smaller model, "
            f"a lower precision or more cores are what helps; {half}."
        )
    if part == "server, HTTP":
        return (
            f"HTTP sets the pace with {share:.0%} of a request: {rate}; {took}; more cores or "
            f"several rows a request are what helps; {half}."
        )
    return f"{part} takes the most, {share:.0%} of a request: {rate}; {took}; {half}."


def _rounded(load: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"connections", "rate", "requests_per_second", *_PERCENTILES, "max_ms", "unanswered"}
    return {name: round(value, 3) for name, value in load.items() if name in kept}


def show(figures: Mapping[str, Any], console: Console) -> None:
    """A report for people."""
    right = ("requests/s", "p50", "p99, ms")
    table = plain_table("load", *right, right=right)
    empty = figures["limit"]["empty_requests_per_second"]
    table.add_row(
        f"empty application, {EMPTY_CONNECTIONS} connections", f"{empty:,.0f}", style="dim"
    )
    best = figures["most"]["connections"]
    loads = [
        (f"{counted(closed['connections'], 'connection')}, each waits for its answer", closed)
        for closed in figures["closed"]
    ]
    for name, found in (*loads, ("at random moments, half of the most", figures["open"])):
        cells = (f"{found['requests_per_second']:,.0f}", *(f"{found[p]:.2f}" for p in _PERCENTILES))
        at_best = found["connections"] == best and "rate" not in found
        table.add_row(name, *cells, style="green" if at_best else "")
    console.print(table)
    console.print()
    table = plain_table("a request", "µs", "share", right=("µs", "share"))
    whole = sum(figures["parts_us"].values()) or 1
    for name, value in figures["parts_us"].items():
        table.add_row(name, f"{value:,.1f}", f"{value / whole:.0%}")
    table.add_row("of an empty application", f"{figures['empty_us']:,.1f}", "", style="dim")
    console.print(table)
    console.print()
    cores = figures["cores"]
    if cores["shared"]:
        place = "server and client share the cores, so figures are lower than they could be"
    else:
        place = f"server on {counted(cores['server'], 'core')}, client on another one"
    memory = [f"{size / 1e6:.0f} MB" for size in figures["memory"]]
    line = f"{figures['model']} on {figures['runtime']} {figures['precision']}, "
    line += f"{counted(figures['workers'], 'worker')} of {' and '.join(sorted(set(memory)))}"
    print_line(console, f"{line}; {place}", "dim")
    text = ""
    if figures["client_busy"] >= CLIENT_BUSY:
        text = "the client was as busy as its core allows: the server may answer more than this"
    elif figures["server_busy"] < speed.ALONE:
        text = f"at its most the server had {figures['server_busy']:.0%} of its cores: it waited, "
        text += "most likely for other programs, so measure again when the machine is idle"
    if text:
        print_line(console, text, "yellow")
    print_line(console, figures["verdict"])
