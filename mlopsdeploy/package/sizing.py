"""Memory and capacity, from a short run of what was packaged, in a process of its own, here."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from mlopsdeploy.bench import processes
from mlopsdeploy.bench.load_client import load
from mlopsdeploy.core import machine
from mlopsdeploy.errors import MlopsDeployError

SECONDS = 3.0
START = 120.0  # seconds that a server may take to load its model
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
    port = machine.free_port()
    settings = {**config, "host": "127.0.0.1", "port": port, "workers": 1}
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory() as logs:
        command = _command("serve", settings, Path(logs))
        with processes.start(command, Path(logs), cwd=folder) as server:
            ready = f"{url}/readyz"
            server.wait_until(lambda: processes.answers(ready), START, "--measure: the server")
            url = f"{url}/v2/models/{name}"
            row = [_row(url)]
            # What happens only once happens in the warm-up.
            alone = load(f"{url}/infer", row, connections=1, seconds=SECONDS / 3, warm_up=0.5)
            most = load(f"{url}/infer", row, connections=CONNECTIONS, seconds=SECONDS)
            peaks = [machine.peak_memory(pid) for pid in machine.process_tree(server.pid)]
    return Measured(
        memory=sum(peaks),
        worker=sum(peaks[1:]),
        per_second=most.requests_per_second,
        latency=alone.p50_ms / 1000,
        how=f"one worker, {CONNECTIONS} connections from the same machine for {SECONDS:.0f} s, "
        f"one row a request, {machine.core_count()} cores shared with the caller",
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
        command = _command("batch", settings, Path(name))
        try:
            done = processes.run([*command, "--json"], Path(name), cwd=folder)
        except processes.CommandError as error:
            raise MlopsDeployError(f"--measure: the run of a sample failed: {error}") from error
    summary = json.loads(done.stdout)
    return Measured(
        memory=done.peak_memory,
        worker=0,
        per_second=float(summary["rows_per_second"]),
        latency=0.0,
        how=f"the first {summary['rows']} rows on {machine.core_count()} cores",
    )


def _command(strategy: str, settings: Mapping[str, Any], folder: Path) -> list[str]:
    config = folder / f"{strategy}.yaml"
    config.write_text(yaml.safe_dump(dict(settings)), "utf-8")
    return [*processes.OURS, strategy, "--config", str(config)]


def _row(url: str) -> bytes:
    """One row that the model takes, as an Open Inference request."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # ours
        metadata = json.load(answer)
    inputs = []
    for field in metadata["inputs"]:
        shape = [1, *(side if side > 0 else 224 for side in field["shape"][1:])]
        text = "Arrived in two days and works like a charm, but the box was broken."
        data = [text] if field["datatype"] == "BYTES" else [0] * int(np.prod(shape))
        inputs.append({
            "name": field["name"], "datatype": field["datatype"], "shape": shape, "data": data,
        })  # fmt: skip
    return json.dumps({"inputs": inputs}).encode()
