"""The loads on an HTTP server: `saturate` tells its most requests a second, `open_loop` its
latencies at a given rate. Both send the given bodies in turn over 16 connections.

`saturate` is wrk. A closed loop like wrk waits for a slow server before it asks again, and so
leaves out the very requests that would have waited ("coordinated omission"). So latencies come from
an open loop, that of `mlopsdeploy bench serve`: see mlopsdeploy/bench/load_client.py.

Neither can ask for more than a server can answer: that client in Python tires at some 20,000
requests a second, and a request without an answer is its failure. `storm` can, closed loop or open,
and tells what became of each request: see open_loop.c, which is compiled when first needed.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mlopsdeploy.bench import load_client, processes

CONNECTIONS = 16
PATIENCE = 60.0
SEED = 20
STORM = Path(__file__).resolve().parent / "open_loop.c"
RECORD = np.dtype(
    [("due", "f8"), ("late", "f4"), ("latency", "f4"), ("status", "i4"), ("kind", "i4")]
)
NO_ANSWER, BROKEN = 0, -1  # in place of a status
HEALTH, RETRY_AFTER = 1, 2  # bits of a kind

Json = dict[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]

# Requests are formatted once, so that wrk spends its time on the load.
WRK_SCRIPT = """\
local requests, turn = {}, 0

function init()
  wrk.headers["Content-Type"] = "application/json"
  for i, body in ipairs({
%s
  }) do
    requests[i] = wrk.format("POST", nil, nil, body)
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %%d, "seconds": %%f, "not_ok": %%d, "broken": %%d, "timeouts": %%d}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write, errors.timeout))
end
"""


def pinned(cores: Sequence[int], command: Iterable[str | Path]) -> list[str]:
    """The command with its whole process tree kept to those cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *map(str, command)]


def saturate(url: str, bodies: Sequence[str], seconds: float, core: int, folder: Path) -> Json:
    """As many requests as 16 connections get answered, each waiting for its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "load.lua"
    lines = ",\n".join(f"    [==[{body}]==]" for body in bodies)
    script.write_text(WRK_SCRIPT % lines, encoding="utf-8")
    options = ("--threads", "1", "--connections", str(CONNECTIONS), "--script", script)
    times = ("--duration", f"{seconds:.0f}s", "--timeout", f"{PATIENCE:.0f}s")
    command = pinned((core,), ("wrk", *options, *times, url))
    done = processes.run(command, folder, cwd=folder, timeout=seconds + 2 * PATIENCE)
    found: Json = json.loads(done.stdout.splitlines()[-1])
    if not found["requests"] or found["not_ok"]:
        message = f"{found['not_ok']} of {found['requests']} answers were not 200"
        raise processes.CommandError(message)
    return found


def open_loop(url: str, bodies: Sequence[str], rate: float, seconds: float, core: int) -> Json:
    """The figures of the toolkit's own client; a request without an answer is a failure."""
    encoded = [body.encode() for body in bodies]
    found = load_client.load(
        url, encoded, connections=CONNECTIONS, rate=rate, seconds=seconds, cores=(core,)
    )
    return {"rate": rate, **asdict(found)}


@dataclass(frozen=True)
class Storm:
    """What became of each request, in the order in which they were due.

    Attributes:
        due: seconds since the start, by request.
        latency: seconds from then to the answer's end, or until there was none.
        status: HTTP's, or `NO_ANSWER` where the client hung up, `BROKEN` where the server did.
        retry_after: whether the answer says when to come again.
        health: latencies of answers about its health with 200, in seconds; infinite without.
        seconds: of load.
        late_p99_ms: how late the client itself was.
        busy: the share of a core that the client used.
    """

    due: Array
    latency: Array
    status: Array
    retry_after: Array
    health: Array
    seconds: float
    late_p99_ms: float
    busy: float

    @property
    def accepted(self) -> Array:
        """Which requests were answered with 200."""
        return np.asarray(self.status == 200)

    @property
    def refused(self) -> Array:
        """Which were answered with something else: refused, where requests are all right."""
        return np.asarray((self.status > 0) & (self.status != 200))

    def within(self, budget: float) -> Array:
        """Which were answered with 200 in so many seconds."""
        return self.accepted & (self.latency <= budget)


@dataclass(frozen=True)
class Storming:
    """A running load."""

    process: subprocess.Popen[str]
    records: Path
    seconds: float

    def result(self) -> Storm:
        """Wait for its end.

        Raises:
            CommandError: the client failed.
        """
        out, messages = self.process.communicate()
        if self.process.returncode:
            raise processes.CommandError(f"the load: {messages.strip()}")
        found = np.fromfile(self.records, RECORD)
        found = found[np.argsort(found["due"], kind="stable")]
        is_probe = found["kind"] & HEALTH != 0
        asked, probes = found[~is_probe], found[is_probe]
        if not len(asked):
            raise processes.CommandError("the load sent nothing")
        healthy = np.where(probes["status"] == 200, probes["latency"], np.inf)
        ends = asked["due"] + asked["latency"]
        return Storm(
            due=asked["due"],
            latency=asked["latency"],
            status=asked["status"],
            retry_after=asked["kind"] & RETRY_AFTER != 0,
            health=healthy,
            seconds=self.seconds or float(ends.max()),
            late_p99_ms=1000 * percentile(asked["late"], 99),
            busy=json.loads(out)["busy"],
        )


@contextmanager
def storming(
    url: str,
    bodies: Sequence[str],
    folder: Path,
    core: int,
    *,
    rate: float,
    connections: int,
    patience: float,
    seconds: float = 0.0,
    count: int = 0,
    health: str | None = None,
    every: float = 0.05,
) -> Iterator[Storming]:
    """Load that runs with the block.

    Args:
        url: that answers POST, at this machine.
        bodies: of the requests, sent in turn.
        folder: for files.
        core: that the load keeps to.
        rate: requests a second, due at random moments whatever the server does; 0 is a closed loop.
        connections: at most; requests that find none free wait, which counts.
        patience: seconds after which a client hangs up.
        seconds, count: of load; what ends first, where it is not 0.
        health: a path to ask meanwhile, each time on a new connection.
        every: seconds between two of these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "open_loop"
    if not program.exists() or program.stat().st_mtime < STORM.stat().st_mtime:
        compiling = ("cc", "-O2", "-o", str(program), str(STORM), "-lm")
        subprocess.run(compiling, check=True)
    at = urlsplit(url)
    requests, records = folder / "requests.bin", folder / "records.bin"
    with requests.open("wb") as file:
        for body in map(str.encode, bodies):
            head = f"POST {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            file.write(struct.pack("=I", len(head) + len(body)) + head.encode() + body)
    figures = (at.port, requests, records, rate, seconds or 1e9, count, connections, patience, SEED)
    command = pinned((core,), (str(part) for part in (program, *figures)))
    if health:
        command += [health, str(every)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Storming(process, records, seconds)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def storm(url: str, bodies: Sequence[str], folder: Path, core: int, **load: Any) -> Storm:
    """The whole of a load; see `storming`."""
    with storming(url, bodies, folder, core, **load) as running:
        return running.result()


def percentile(values: Array, share: float) -> float:
    """By nearest rank; of nothing it is not a number."""
    if not len(values):
        return float("nan")
    return float(np.percentile(values, share, method="inverted_cdf"))
