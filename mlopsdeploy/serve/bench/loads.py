"""Servers of a bench and their client, each a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.serve import server
from mlopsdeploy.serve.bench.cores import Cores
from mlopsdeploy.settings import ServeSettings

CONNECTIONS = (1, 4, 16, 64)
EMPTY_CONNECTIONS = 16
MEMORY = re.compile(r"^mlopsdeploy_worker_resident_memory_bytes\{.*\} (\S+)$", re.MULTILINE)
LONGEST_WAIT = 5.0  # seconds for an answer, before more connections are not tried
WARM_UP = 0.3  # seconds of each load that are not counted
START = 120.0  # seconds that a server may take to load its models
HALF = 0.5  # of saturation, where the open loop asks


class Loads:
    """Servers and a client, each a process of its own."""

    def __init__(
        self, cores: Cores, settings: ServeSettings, folder: Path, request: bytes, seconds: float
    ) -> None:
        self._cores = cores
        self._settings = settings
        self._folder = folder
        self._request = request
        self._seconds = seconds

    def empty(self) -> dict[str, Any]:
        """An application that does nothing."""
        settings = self._with_port()
        command = [sys.executable, "-m", "mlopsdeploy.serve.bench.empty"]
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
        return self._settings.model_copy(update={"port": server.free_port("127.0.0.1")})

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
            "requests": [self._request.decode("latin-1")],
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
