"""The two loads on an HTTP server: `saturate` tells its most requests a second, `open_loop` its
latencies at a given rate. Both send the given bodies in turn over 16 connections.

`saturate` is wrk. A closed loop like wrk waits for a slow server before it asks again, and so
leaves out the very requests that would have waited ("coordinated omission"). So latencies come from
an open loop, that of `mlopsdeploy bench serve`: see mlopsdeploy/bench/load_client.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlopsdeploy.bench import load_client, processes

CONNECTIONS = 16
PATIENCE = 60.0

Json = dict[str, Any]

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


def pinned(cores: Sequence[int], command: Sequence[str | Path]) -> list[str]:
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
