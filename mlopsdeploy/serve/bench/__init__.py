"""`mlopsdeploy bench serve`: how many requests a model answers here, beside what is possible."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import server
from mlopsdeploy.serve.bench.cores import Cores
from mlopsdeploy.serve.bench.loads import Loads
from mlopsdeploy.serve.bench.parts import Parts
from mlopsdeploy.serve.bench.report import report, show
from mlopsdeploy.settings import ServeSettings

__all__ = ["bench_serve", "show"]


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

    def log(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True, markup=False)

    if len(settings.models) > 1:
        raise ConfigError("bench serve: measures one model at a time; name one --model")
    cores = Cores()
    settings = settings.model_copy(
        update={"host": "127.0.0.1", "log_format": "text", "access_log": False}
    )
    with cores.of_server():
        log("measuring the parts of a request")
        parts = Parts(settings, row)
        inside = parts.measure()
        workers = server.worker_count(settings)
    with tempfile.TemporaryDirectory() as folder:
        loads = Loads(cores, settings, Path(folder), parts.request, seconds)
        log("measuring an empty application on the same server")
        empty = loads.empty()
        log(f"measuring {parts.name} under load")
        closed, opened, memory = loads.model()
    return report(parts, cores, workers, inside, empty, closed, opened, memory)
