"""Prometheus metrics, right across worker processes.

With `PROMETHEUS_MULTIPROC_DIR` set, as `mlopsdeploy serve` does, each worker counts in files of
its own in that folder, and whichever of them is asked adds all up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

from mlopsdeploy.model import Model

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
SECONDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """All numbers of a server. Names follow Prometheus' conventions: base units, `_total`."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mlopsdeploy_requests", "Requests answered.", ["model", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            "mlopsdeploy_request_seconds",
            "Time from the request's head to its answer.",
            ["model", "code"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._rows = Histogram(
            "mlopsdeploy_batch_rows",
            "Rows per request.",
            ["model"],
            buckets=ROWS,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "mlopsdeploy_in_flight",
            "Requests being worked on.",
            ["model"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._queue = Gauge(
            "mlopsdeploy_queue",
            "Requests that wait for the model to be free.",
            ["model"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )

    def of(self, model: str) -> ModelMetrics:
        """The metrics of one model, looked up once."""
        return ModelMetrics(
            self._requests, self._seconds, self._rows, self._in_flight, self._queue, model
        )

    def text(self) -> bytes:
        """The exposition of all workers together."""
        registry = self._registry
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder:
            registry = CollectorRegistry()
            _forget_dead_workers(Path(folder))
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        facts = CollectorRegistry()
        facts.register(_Facts(self._models, folder))
        exposed: bytes = prometheus_client.generate_latest(registry)
        return exposed + prometheus_client.generate_latest(facts)


class ModelMetrics:
    """What is counted for one model; the label lookups are done."""

    def __init__(
        self,
        requests: Counter,
        seconds: Histogram,
        rows: Histogram,
        in_flight: Gauge,
        queue: Gauge,
        model: str,
    ) -> None:
        self._model = model
        self._all = requests, seconds
        self._codes: dict[int, tuple[Counter, Histogram]] = {}
        self.rows = rows.labels(model)
        self.in_flight = in_flight.labels(model)
        self.queue = queue.labels(model)

    def answered(self, code: int, seconds: float) -> None:
        """Count a request."""
        found = self._codes.get(code)
        if found is None:
            requests, histogram = self._all
            labels = (self._model, str(code))
            found = self._codes[code] = requests.labels(*labels), histogram.labels(*labels)
        found[0].inc()
        found[1].observe(seconds)


class _Facts:
    """What is known at any time, read when it is asked for."""

    def __init__(self, models: Mapping[str, Model], folder: str | None) -> None:
        self._models = models
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "mlopsdeploy_model_info",
            "The models that are served; always 1.",
            labels=["model", "version", "digest", "runtime", "precision"],
        )
        for name, model in self._models.items():
            runtime = type(model.runtime).__name__.lower()
            labels = [name, model.version, model.digest[:12], runtime, model.runtime.precision]
            info.add_metric(labels, 1)
        yield info
        memory = GaugeMetricFamily(
            "mlopsdeploy_worker_resident_memory_bytes", "Memory per worker.", labels=["pid"]
        )
        for pid in sorted(_workers(Path(self._folder)) if self._folder else {os.getpid()}):
            if resident := _resident_memory(pid):
                memory.add_metric([str(pid)], resident)
        yield memory


def _workers(folder: Path) -> set[int]:
    """The processes that have counted anything and still live."""
    found = (re.search(r"_(\d+)\.db$", file.name) for file in folder.glob("*.db"))
    return {pid for pid in (int(match[1]) for match in found if match) if _lives(pid)}


def _forget_dead_workers(folder: Path) -> None:
    """What a worker that died was just doing is not in flight any more; its counts stay."""
    for file in folder.glob("gauge_live*_*.db"):
        if (match := re.search(r"_(\d+)\.db$", file.name)) and not _lives(int(match[1])):
            file.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _resident_memory(pid: int) -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
