"""Memory and capacity, from a short run of what was packaged, in a process of its own, here."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from mlopsdeploy.errors import MlopsDeployError

SECONDS = 3.0
CONNECTIONS = 4  # of the measuring client: enough that the one worker is never idle
SAMPLE = 2000  # rows of a batch
MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """What a run here took.

    Attributes:
        memory: bytes, the most that it ever held: of a server its parent and one worker.
        worker: bytes of one worker alone; 0 for a batch.
        per_second: requests (of one row each) or rows.
        latency: seconds of a request, the median, when one comes at a time; 0 for a batch.
        how: in words.
    """

    memory: int
    worker: int
    per_second: float
    latency: float
    how: str


def measure_server(config: Mapping[str, Any], name: str, folder: Path) -> Measured:
    """Serve for a few seconds with one worker and call its first model all the time.

    Args:
        config: settings of `serve`, as packaged.
        name: of the model that is called.
        folder: to run in; the model's paths are relative to it.

    Raises:
        MlopsDeployError: the server does not come up, or refuses what it was asked.
    """
    port = _free_port()
    settings = {**config, "host": "127.0.0.1", "port": port, "workers": 1}
    with _running("serve", settings, folder) as server:
        _until_ready(server, port)
        path, body = f"/v2/models/{name}/infer", _row(port, name)
        _call(port, path, body, time.monotonic() + 0.5)  # what happens only once has happened
        alone = _call(port, path, body, time.monotonic() + SECONDS / 3)
        end = time.monotonic() + SECONDS
        times: list[float] = []
        started = time.monotonic()

        def load() -> None:
            times.extend(_call(port, path, body, end))

        threads = [threading.Thread(target=load) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = len(times) / (time.monotonic() - started)
        peaks = [_peak_memory(pid) for pid in (server.pid, *_children(server.pid))]
    return Measured(
        memory=sum(peaks),
        worker=sum(peaks[1:]),
        per_second=rate,
        latency=float(np.median(alone)),
        how=f"one worker, {CONNECTIONS} connections from the same machine for {SECONDS:.0f} s, "
        f"one row a request, {os.cpu_count()} cores shared with the caller",
    )


def measure_batch(config: Mapping[str, Any], folder: Path) -> Measured:
    """Score the first rows of the input.

    Args:
        config: settings of `batch`, with the input as it is called here.
        folder: to run in.

    Raises:
        MlopsDeployError: the run fails.
    """
    with TemporaryDirectory() as name:
        settings = {**config, "output": str(Path(name) / "sample.csv"), "limit": SAMPLE}
        settings.pop("report", None)
        with _running("batch", settings, folder) as process:
            memory = 0
            while process.poll() is None:
                memory = max(memory, _peak_memory(process.pid))
                time.sleep(0.05)
            out = process.stdout.read() if process.stdout else b""
        summary = json.loads(out or b"{}")
    if process.returncode or "rows_per_second" not in summary:
        raise MlopsDeployError("--measure: the run of a sample failed; run it by itself to see why")
    return Measured(
        memory=memory,
        worker=0,
        per_second=float(summary["rows_per_second"]),
        latency=0.0,
        how=f"the first {summary['rows']} rows on {os.cpu_count()} cores",
    )


# ---------------------------------------------------------------- a process of our own


@contextmanager
def _running(
    strategy: str, settings: Mapping[str, Any], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with TemporaryDirectory() as name:
        config = Path(name) / f"{strategy}.yaml"
        config.write_text(yaml.safe_dump(dict(settings)), "utf-8")
        said = ["--json"] if strategy == "batch" else []
        with (Path(name) / "log").open("w+b") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlopsdeploy", strategy, "--config", str(config), *said],
                cwd=folder,
                env={key: value for key, value in os.environ.items() if "MLOPSDEPLOY_" not in key},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if said else log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
                if process.stdout:
                    process.stdout.close()


def _until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            if _ask(port, "GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise MlopsDeployError("--measure: the server does not come up; run 'mlopsdeploy serve' to see")


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _call(port: int, path: str, body: bytes, end: float) -> list[float]:
    """Seconds of each request, one after the other on one connection until `end`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times: list[float] = []
    try:
        while not times or time.monotonic() < end:
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            times.append(time.perf_counter() - started)
            if answer.status != 200:
                reason = said.decode(errors="replace")[:200]
                raise MlopsDeployError(f"--measure: the model refused a row ({reason})")
    finally:
        connection.close()
    return times


def _row(port: int, name: str) -> bytes:
    """One row that the model takes, as an Open Inference request."""
    metadata = json.loads(_ask(port, "GET", f"/v2/models/{name}")[1])
    inputs = []
    for field in metadata["inputs"]:
        shape = [1, *(side if side > 0 else 224 for side in field["shape"][1:])]
        text = "Arrived in two days and works like a charm, but the box was broken."
        data = [text] if field["datatype"] == "BYTES" else [0] * int(np.prod(shape))
        inputs.append({
            "name": field["name"], "datatype": field["datatype"], "shape": shape, "data": data,
        })  # fmt: skip
    return json.dumps({"inputs": inputs}).encode()


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in found.split()]


def _peak_memory(pid: int) -> int:
    """Bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
    return int(line.split()[1]) * 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
