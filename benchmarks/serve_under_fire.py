"""Serving more than a server can: mlopsdeploy beside its rivals, each with its own batching on.

    python benchmarks/serve_under_fire.py --setup     once: the rivals' environments
    python benchmarks/serve_under_fire.py             the figures, in benchmarks/results/

**What is compared.** Two models, the built-in sentiment model (a MiniLM in int8, on OpenVINO) with
the reviews of examples/ and the built-in fraud network (LiteRT) with its transactions. Every
server runs the same file in the same runtime with one thread. mosec, LitServe, MLServer and Ray
Serve batch as their documentation shows, up to 32 rows, for which a batch may wait a tenth of the
budget; BentoML's adaptive batching is told the budget. mosec is there a second time with its one
knob that sheds load set by hand: a queue of as many requests as it was just seen to answer in a
budget. `mlopsdeploy serve` gets `--slo`, where it has that option, and nothing else. One worker,
the server's whole process tree pinned to one core; the load comes from another one. Before and
after, each must answer rows right.

**What is timed.** The budget is the time from the moment a request was due to the end of its
answer. A client hangs up after 20 budgets.

- `capacity`: answers with 200 a second in a closed loop, the best of several numbers of
  connections. Who is refused there asks again after 10 ms.
- `goodput`: answers with 200 within the budget, a second, in an open loop (load.py's `storm`) at
  0.5, 1, 2, 3 and 4 times that server's own capacity; with it p99 of the accepted (200), the share
  that was refused (any other answer), how long refusals took and whether they say when to come
  again, the shares that had no answer (the client hung up) and were broken off, and the health
  check: every 50 ms on a new connection.
- `recovery`: seconds after the load of 4 times capacity until it answers in time again, asked
  one by one.
- `at equal rates`: p99 of every server at half of mosec's capacity and at all of it, in the same
  round.
- `kill -9`: of two workers one is killed, the one that worked most, at half of the capacity:
  requests that were lost (broken or never answered) and the seconds until a new process holds 0.8
  of the memory that the killed one held, and answers in time are again 0.95 of what they were.
- `restart`: a rolling one at the same load, where a server has one: SIGHUP for mlopsdeploy, a
  reload of its model for MLServer. The others are restarted as a whole by what stands around them,
  so they have no figure; Ray Serve replaces replicas when a new version is deployed, which is no
  restart.
- `memory`: of the process tree (PSS) after 2 % of many requests to the fraud network and after all,
  or as many as are answered in a quarter of an hour.
- `bare call`: the model in a loop on the same core, per rows of a call: the limit.

Each figure is a median of the rounds; servers take turns, mosec first, as its rates are the others'
too. The share of the cores that other processes took meanwhile, and how late the load was with
requests, are kept with every load: both should be near zero, or the figures are of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import load
import numpy as np
import serve
from batch import BUILTIN, check, last_json, log, machine
from load import Storm, percentile, pinned
from report import save, spread
from serve import OURS, PEERS, Case, Cores, Protocol, Server, choose_cores, versions

from mlopsdeploy.bench import processes
from mlopsdeploy.core.machine import free_port, resident_memory
from mlopsdeploy.errors import MlopsDeployError

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

MODELS = ("sentiment", "fraud")
MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0)
SHOWN = (1.0, 2.0, 4.0)  # of these, in tables of their own; all are in the JSON
CLOSED = (2, 8, 32, 128)  # connections of the closed loop
CONNECTIONS = 2048  # of the open loop, at most
HANG_UP = 20  # budgets
LATE = 0.1  # budgets: a load that is later than that has not asked as it should
ROWS, WAIT = 32, 0.1  # of a rival's batch at most; that it waits, in budgets
RECOVER = 6  # times the seconds of a load, for the recovery
KILLED_WORKERS = 2
KILL_SECONDS, QUICK_KILL_SECONDS = 40.0, 16.0  # of load around a kill, three quarters of it after
MEMORY_SECONDS = 900.0  # at most, for the many requests after which memory is read
MEMORY_CONNECTIONS = 32
WINDOW = 0.5  # seconds
FULL = 0.95  # of the answers in time before the kill
HELD = 0.8  # of the memory of a killed worker
CHECKED = 8  # rows that are asked before and after the load
MOSEC, OUR_NAME = "mosec", "ours"

BOTH = ("openvino==2026.4.1", "tokenizers==0.23.3")
PINS = {
    name: (*serve.PINS[name], *BOTH) for name in ("mosec", "litserve", "bentoml", "mlserver", "ray")
}
PINS["mlserver"] += ("uvloop<0.22",)  # its workers ask for a loop that newer ones no longer make

Json = dict[str, Any]

OUR_CONFIG = """\
models:
  - model: {model}
    route: /predict
    input: input
    answer: {{label: label, score: score}}
"""


@dataclass(frozen=True)
class Contestant:
    """One server. `venv` None is the product; `restart` makes it renew its workers one by one."""

    name: str
    title: str
    venv: str | None
    command: tuple[str, ...]
    health: str
    protocols: dict[str, Protocol]
    restart: Callable[[Server], None] | None = None


def _post(server: Server, path: str) -> None:
    url = f"http://{serve.HOST}:{server.port}{path}"
    subprocess.run(["curl", "-sf", "-X", "POST", url], check=True, stdout=subprocess.DEVNULL)


def _infer(datatype: str, shape: Callable[[Any], list[int]]) -> Protocol:
    def body(row: Any) -> Json:
        data = row if isinstance(row, list) else [row]
        given = {"name": "input", "shape": shape(row), "datatype": datatype, "data": data}
        return {"inputs": [given]}

    return Protocol("/v2/models/model/infer", body, lambda answer: answer["outputs"][0]["data"][0])


def _both(protocol: Protocol) -> dict[str, Protocol]:
    return dict.fromkeys(MODELS, protocol)


ONE = _both(Protocol("/predict", lambda row: {"input": row}, lambda answer: answer["label"]))
LISTS = _both(Protocol("/predict", lambda row: {"input": [row]}, lambda answer: answer[0]["label"]))
INFER = {
    "sentiment": _infer("BYTES", lambda _: [1, 1]),
    "fraud": _infer("FP32", lambda row: [1, len(row)]),
}


def _script(name: str) -> tuple[str, ...]:
    return ("python", str(PEERS / name))


CONTESTANTS = (
    Contestant(MOSEC, "mosec", "mosec", _script("fire_mosec.py"), "/", ONE),
    Contestant(
        "mosec_knob",
        "mosec, queue set by hand",
        "mosec",
        (*_script("fire_mosec.py"), "--capacity", "{queue}"),
        "/",
        ONE,
    ),
    Contestant("litserve", "LitServe", "litserve", _script("fire_litserve.py"), "/health", ONE),
    Contestant(
        "bentoml",
        "BentoML",
        "bentoml",
        ("bentoml", "serve", "fire_bentoml:Batching", "--host", "{host}", "--port", "{port}"),
        "/livez",
        LISTS,
    ),
    Contestant(
        "mlserver",
        "MLServer",
        "mlserver",
        _script("fire_mlserver.py"),
        "/v2/health/live",
        INFER,
        lambda server: _post(server, "/v2/repository/models/model/load"),
    ),
    Contestant("ray", "Ray Serve", "ray", _script("fire_ray.py"), "/-/healthz", ONE),
    Contestant(
        OUR_NAME,
        "**mlopsdeploy serve**",
        None,
        (),
        "/healthz",
        ONE,
        lambda server: os.kill(server.pid, signal.SIGHUP),
    ),
)


@dataclass
class Fire:
    """One load on one server. Rates per second, times as their names say, shares of requests."""

    rate: float
    goodput: float
    accepted: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    refused: float
    refused_p50_ms: float | None
    refused_p99_ms: float | None
    retry_after: float | None
    no_answer: float
    broken: float
    health_p50_ms: float | None
    health_p99_ms: float | None
    health_failed: float
    statuses: dict[int, int]
    late_p99_ms: float
    load_busy: float
    others: float = 0.0


@dataclass
class Blow:
    """What a kill or a restart did. `ready` and `full` are seconds, None where it never was."""

    lost: int
    refused: int
    late: int
    sent: int
    ready: float | None
    full: float | None
    p99_ms: float | None


@dataclass
class Run:
    """One server with one model in one round; memory in MB."""

    cold_start: float
    capacity: float = 0.0
    closed: dict[int, float] = field(default_factory=dict)
    fires: dict[str, Fire] = field(default_factory=dict)
    equal: dict[str, Fire] = field(default_factory=dict)
    recovery: float | None = None
    killed: Blow | None = None
    restarted: Blow | None = None
    memory: Json | None = None


@dataclass
class Round:
    load_average: float
    bare: dict[str, dict[str, float]] = field(default_factory=dict)
    servers: dict[str, dict[str, Run]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    slo: float
    multiples: tuple[float, ...]
    memory_requests: int
    only: frozenset[str]
    models: tuple[str, ...]
    parts: frozenset[str]
    sentiment: Path
    fraud: Path
    peers: Path
    work: Path
    results: Path
    python: Path
    cores: Cores
    checks: int = CHECKED

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only


PARTS = ("overload", "equal", "kill", "restart", "memory")


def _ms(values: load.Array, share: float) -> float | None:
    found = 1000 * percentile(values, share)
    return found if np.isfinite(found) else None


def fire(storm: Storm, rate: float, slo: float) -> Fire:
    """The figures of a load."""
    sent, accepted, refused = len(storm.due), storm.accepted, storm.refused
    kinds, counts = np.unique(storm.status, return_counts=True)
    return Fire(
        rate=rate or sent / storm.seconds,
        goodput=float(storm.within(slo).sum()) / storm.seconds,
        accepted=float(accepted.mean()),
        accepted_p50_ms=_ms(storm.latency[accepted], 50),
        accepted_p99_ms=_ms(storm.latency[accepted], 99),
        refused=float(refused.mean()),
        refused_p50_ms=_ms(storm.latency[refused], 50),
        refused_p99_ms=_ms(storm.latency[refused], 99),
        retry_after=float(storm.retry_after[refused].mean()) if refused.any() else None,
        no_answer=float((storm.status == load.NO_ANSWER).mean()),
        broken=float((storm.status == load.BROKEN).mean()),
        health_p50_ms=_ms(storm.health, 50),
        health_p99_ms=_ms(storm.health, 99),
        health_failed=float(np.isinf(storm.health).mean()) if len(storm.health) else 0.0,
        statuses=dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        late_p99_ms=storm.late_p99_ms,
        load_busy=storm.busy,
    )


class Bench:
    """Everything that one run of the benchmark makes and knows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = settings.work / "models"
        self.cases: dict[str, list[Case]] = {}
        self.rounds: list[Round] = []
        self.queues: dict[str, int] = {}  # requests that mosec answers in a budget, by model
        self.failures: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.machine = machine()
        self.has_slo = self._has_slo()

    def _has_slo(self) -> bool:
        command = [str(self.settings.python), "-m", "mlopsdeploy", "serve", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return "--slo" in done.stdout

    def program(self, environment: str, name: str) -> Path:
        return self.settings.peers / environment / "bin" / name

    def environment(self, model: str, port: int, programs: Path, workers: int) -> dict[str, str]:
        slo_ms = 1000 * self.settings.slo
        return {
            **serve.peer_environment(self.models, port, programs, self.settings.work),
            "MODEL": model,
            "WORKERS": str(workers),
            "ROWS": str(ROWS),
            "WAIT_MS": str(max(round(slo_ms * WAIT), 1)),
            "SLO_MS": str(round(slo_ms)),
        }

    def make_models(self) -> None:
        settings = self.settings
        python = settings.python
        options: list[str | Path] = ["--sentiment", settings.sentiment, "--fraud", settings.fraud]
        options += ["--reviews", EXAMPLES / "reviews.csv"]
        options += ["--transactions", EXAMPLES / "transactions.csv"]
        path = os.pathsep.join((str(PEERS), str(HERE.parent)))
        environment = {"NETWORK": str(self.models), "PYTHONPATH": path}
        command = (python, PEERS / "fire_make.py", *options)
        check(command, settings.work / "make", serve.START_SECONDS, environment)
        for model in MODELS:
            facts = json.loads((self.models / f"{model}.json").read_text(encoding="utf-8"))
            self.cases[model] = [Case(**case) for case in facts["cases"]]

    @contextlib.contextmanager
    def serving(self, contestant: Contestant, model: str, workers: int = 1) -> Iterator[Server]:
        port, settings = free_port(), self.settings
        folder = settings.work / "run" / contestant.name
        folder.mkdir(parents=True, exist_ok=True)
        known = {"host": serve.HOST, "port": port, "queue": self.queues.get(model, 4 * ROWS)}
        command = [part.format(**known) for part in contestant.command]
        environment: dict[str, str] = {}
        if contestant.venv is None:
            source = settings.sentiment if model == "sentiment" else settings.fraud
            config = folder / "serve.yaml"
            config.write_text(OUR_CONFIG.format(model=json.dumps(str(source))), encoding="utf-8")
            command = [str(settings.python), "-m", "mlopsdeploy", "serve", "--config", str(config)]
            command += ["--port", str(port), "--workers", str(workers)]
            if self.has_slo:
                command += ["--slo", f"{1000 * settings.slo:g}ms"]
        else:
            program = self.program(contestant.venv, command[0])
            command[0] = str(program)
            environment = self.environment(model, port, program.parent, workers)
        protocol = contestant.protocols[model]
        where = (settings.cores.server,)
        server = Server(protocol, pinned(where, command), folder, port, environment)
        try:
            yield server
        finally:
            server.stop()

    # --- the load ---

    def bodies(self, contestant: Contestant, model: str) -> list[str]:
        body = contestant.protocols[model].body
        return [json.dumps(body(case.row)) for case in self.cases[model]]

    @contextlib.contextmanager
    def storming(
        self, contestant: Contestant, server: Server, model: str, **how: Any
    ) -> Iterator[load.Storming]:
        """Load with this benchmark's patience and health checks."""
        patience = HANG_UP * self.settings.slo
        bodies, folder = self.bodies(contestant, model), self.settings.work / "load"
        usual = {"connections": CONNECTIONS, "health": contestant.health, "patience": patience}
        core, asked = self.settings.cores.load, {**usual, **how}
        with load.storming(server.url, bodies, folder, core, **asked) as running:
            yield running

    def fire(self, contestant: Contestant, server: Server, model: str, **how: Any) -> Fire:
        """A whole load, and what other processes took meanwhile."""
        busy, used, start = processes.busy_seconds(), server.cpu_seconds(), time.perf_counter()
        own = processes.own_seconds()
        with self.storming(contestant, server, model, **how) as running:
            found = fire(running.result(), how["rate"], self.settings.slo)
        wall = time.perf_counter() - start
        ours = processes.own_seconds() - own + server.cpu_seconds() - used
        others = (processes.busy_seconds() - busy - ours) / wall / (os.cpu_count() or 1)
        found.others = max(0.0, others)
        return found

    def measure_capacity(
        self, contestant: Contestant, server: Server, model: str
    ) -> dict[int, float]:
        """Answers a second by connections; the first load, which warms up, is not counted."""
        found: dict[int, float] = {}
        for connections in (CLOSED[-1], *CLOSED):
            self.settle(server, self.cases[model][0])  # what was asked before is done
            seconds = max(self.settings.seconds / 2, 1.0)
            with self.storming(
                contestant, server, model, rate=0, seconds=seconds, **closed(connections)
            ) as running:
                storm = running.result()
            ends = storm.due + storm.latency
            span = max(seconds, float(ends.max()))  # the last ones may take longer
            found[connections] = float(storm.accepted.sum()) / span
        return found

    def settle(self, server: Server, case: Case) -> float | None:
        """Seconds until it answers in time, three times in turn; None where it never does."""
        began, good = time.perf_counter(), 0
        while (waited := time.perf_counter() - began) < RECOVER * self.settings.seconds:
            start = time.perf_counter()
            with contextlib.suppress(MlopsDeployError, OSError):
                serve.ask(server.port, server.protocol, case.row)
                good = good + 1 if time.perf_counter() - start < self.settings.slo else 0
                if good == 3:
                    return waited
                continue
            good = 0
            time.sleep(0.01)
        return None

    def measure(self, contestant: Contestant, model: str, equal: float | None) -> Run:
        cases, settings = self.cases[model], self.settings
        with self.serving(contestant, model) as server:
            run = Run(server.wait_until_right(cases[0]))
            server.check_answers(cases[: settings.checks])
            run.closed = self.measure_capacity(contestant, server, model)
            run.capacity = max(run.closed.values())
            rates = {} if equal is None else {"half of mosec's": equal / 2, "mosec's": equal}
            if contestant.name == MOSEC:
                self.queues[model] = max(round(run.capacity * settings.slo), 1)
                rates = {"half of mosec's": run.capacity / 2, "mosec's": run.capacity}
            if "equal" in settings.parts:
                for title, rate in rates.items():
                    self.settle(server, cases[0])
                    run.equal[title] = self.fire(
                        contestant, server, model, rate=rate, seconds=settings.seconds
                    )
            for multiple in settings.multiples if "overload" in settings.parts else ():
                self.settle(server, cases[0])
                rate = multiple * run.capacity
                found = run.fires[f"{multiple:g}"] = self.fire(
                    contestant, server, model, rate=rate, seconds=settings.seconds
                )
                log(
                    f"  {contestant.name}, {model}, {multiple:g} × {run.capacity:,.0f}/s: goodput "
                    f"{found.goodput:,.0f}/s, refused {found.refused:.0%}, no answer "
                    f"{found.no_answer + found.broken:.0%}, {found.others:.0%} to others, "
                    f"the load late by {found.late_p99_ms:.1f} ms"
                )
            run.recovery = self.settle(server, cases[0])
            if run.recovery is not None:
                server.check_answers(cases[: settings.checks])
        return run

    # --- blows ---

    def strike(
        self, contestant: Contestant, server: Server, rate: float, blow: Callable[[], int]
    ) -> Blow:
        """Load on two workers, and in the middle of it what is to be survived.

        `blow` tells how many bytes a new worker must hold to be one, or 0 for no such wait.
        """
        model = "sentiment"  # the process that works most is the one that runs the model
        seconds = KILL_SECONDS if self.settings.seconds > 5 else QUICK_KILL_SECONDS
        before, ready = set(server.members()), None
        with self.storming(contestant, server, model, rate=rate, seconds=seconds) as running:
            began = time.perf_counter()
            struck = seconds / 4
            time.sleep(struck)
            least = blow()
            while least and ready is None and time.perf_counter() - began < seconds:
                fresh = set(server.members()) - before
                if any(resident_memory(pid) >= least for pid in fresh):
                    ready = time.perf_counter() - began - struck
                time.sleep(0.02)
            storm = running.result()
        good, windows = storm.within(self.settings.slo), storm.due // WINDOW
        usual = float(good[storm.due < struck].mean())
        count = int(seconds / WINDOW)
        poor = [
            number
            for number in range(int(struck / WINDOW), count)
            if (windows == number).any() and good[windows == number].mean() < FULL * usual
        ]
        end = (max(poor) + 1) * WINDOW if poor else struck
        lost = (storm.status == load.BROKEN) | (storm.status == load.NO_ANSWER)
        after = (storm.due >= struck) & storm.accepted
        return Blow(
            lost=int(lost.sum()),
            refused=int(storm.refused.sum()),
            late=int((storm.accepted & ~good).sum()),
            sent=len(storm.due),
            ready=ready,
            full=end - struck if end < count * WINDOW else None,
            p99_ms=_ms(storm.latency[after], 99),
        )

    def kill(self, server: Server) -> int:
        """kill -9 the worker that has worked most; the memory that its heir must hold."""
        used = {
            pid: cpu for pid in server.members() if pid != server.pid and (cpu := own_cpu(pid)) > 0
        }
        if not used:
            raise processes.CommandError("it has no process of a worker that could be killed")
        worst = max(used, key=used.__getitem__)
        held = resident_memory(worst)
        os.kill(worst, signal.SIGKILL)
        return round(HELD * held)

    def measure_blows(self, contestant: Contestant, capacity: float, run: Run) -> None:
        """A kill, then a restart, on servers of two workers, whatever becomes of the first."""
        rate, case = capacity / 2, self.cases["sentiment"][0]

        def restart(server: Server) -> int:
            assert contestant.restart is not None
            contestant.restart(server)
            return 0

        blows: dict[str, Callable[[Server], int]] = {"kill": self.kill, "restart": restart}
        for part, blow in blows.items():
            if part not in self.settings.parts or (part == "restart" and not contestant.restart):
                continue
            try:
                with self.serving(contestant, "sentiment", KILLED_WORKERS) as server:
                    server.wait_until_right(case)
                    seconds = self.settings.seconds / 2
                    self.fire(contestant, server, "sentiment", rate=rate, seconds=seconds)
                    self.settle(server, case)
                    found = self.strike(contestant, server, rate, partial(blow, server))
                if part == "kill":
                    run.killed = found
                else:
                    run.restarted = found
                log(f"  {contestant.name}, {part}: {found}")
            except (MlopsDeployError, OSError, subprocess.SubprocessError) as error:
                self.failures[f"{contestant.name}, {part}"] = str(error)
                log(f"  {contestant.name}, {part}: {error}")

    def measure_memory(self, contestant: Contestant, run: Run) -> None:
        """PSS of the tree after a few requests and after many."""
        count = self.settings.memory_requests
        with self.serving(contestant, "fraud") as server:
            server.wait_until_right(self.cases["fraud"][0])
            found: Json = {"requests": 0}
            for title, share in (("early_mb", 0.02), ("late_mb", 0.98)):
                part = {"count": max(round(share * count), 1), "seconds": share * MEMORY_SECONDS}
                done = self.fire(
                    contestant, server, "fraud", rate=0, **part, **closed(MEMORY_CONNECTIONS)
                )
                found["requests"] += sum(done.statuses.values())
                found[title] = server.memory()[1]
        run.memory = found
        log(f"  {contestant.name}, memory: {found}")

    # --- all of it ---

    def prepare(self) -> list[Contestant]:
        """The servers that work with every model: each is started once."""
        chosen: list[Contestant] = []
        for contestant in CONTESTANTS:
            if not self.settings.wants(contestant.name):
                continue
            environment = contestant.venv
            if environment and not self.program(environment, "python").exists():
                self.failures[contestant.name] = "no environment: run with --setup"
                continue
            try:
                for model in self.settings.models:
                    with self.serving(contestant, model) as server:
                        first = server.wait_until_right(self.cases[model][0])
                        server.check_answers(self.cases[model][: self.settings.checks])
                    log(f"{contestant.name}, {model}: right, the first after {first:.1f} s")
            except (MlopsDeployError, OSError) as error:
                self.failures[contestant.name] = str(error)
                log(f"{contestant.name} left out: {error}")
                continue
            chosen.append(contestant)
            if environment is None:
                python = self.settings.python
                names = [*OURS, "openvino", "tokenizers"]
            else:
                python = self.program(environment, "python")
                names = [re.split(r"[\[<=]", pin)[0] for pin in PINS[environment]]
            self.versions[contestant.name] = versions(python, names)
        return chosen

    def measure_bare(self, this: Round, chosen: Sequence[Contestant]) -> None:
        """In the environment of whichever rival there is: they all have the same packages."""
        rival = next((c.venv for c in chosen if c.venv), None)
        python = self.program(rival, "python") if rival else self.settings.python
        seconds = str(max(self.settings.seconds / 5, 0.5))
        for model in self.settings.models:
            command = (python, PEERS / "fire_bare.py", "--seconds", seconds)
            environment = self.environment(model, 0, python.parent, 1)
            done = check(
                pinned((self.settings.cores.server,), command),
                self.settings.work / "bare",
                serve.START_SECONDS,
                environment,
            )
            this.bare[model] = last_json(done.stdout)

    def run_round(self, number: int, chosen: Sequence[Contestant]) -> None:
        this = Round(os.getloadavg()[0])
        self.rounds.append(this)
        self.measure_bare(this, chosen)
        others = [contestant for contestant in chosen if contestant.name != MOSEC]
        random.Random(number).shuffle(others)
        order = [c for c in chosen if c.name == MOSEC] + others
        for contestant in order:
            runs = this.servers.setdefault(contestant.name, {})
            for model in self.settings.models:
                mosec = this.servers.get(MOSEC, {}).get(model)
                try:
                    run = runs[model] = self.measure(
                        contestant, model, mosec.capacity if mosec else None
                    )
                    log(
                        f"round {number}, {contestant.name}, {model}: "
                        f"{run.capacity:,.1f} requests/s"
                    )
                    if model == "sentiment":
                        self.measure_blows(contestant, run.capacity, run)
                    elif "memory" in self.settings.parts and number == 1:
                        self.measure_memory(contestant, run)
                except (MlopsDeployError, OSError, KeyError, ValueError) as error:
                    self.failures[f"{contestant.name}, {model}"] = f"round {number}: {error}"
                    log(f"{contestant.name}, {model}: {error}")
            self.save()

    def results(self) -> Json:
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": self.machine,
            "cores": asdict(self.settings.cores),
            "seconds": self.settings.seconds,
            "slo_ms": 1000 * self.settings.slo,
            "told_slo": self.has_slo,
            "hang_up": HANG_UP,
            "versions": self.versions,
            "servers": {c.name: {"title": c.title, "health": c.health} for c in CONTESTANTS},
            "rounds": [asdict(this) for this in self.rounds],
            "failures": self.failures,
        }

    def save(self) -> None:
        results = self.results()
        save(self.settings.results, "serve_under_fire", results, markdown(results))

    def run(self) -> None:
        os.sched_setaffinity(0, {self.settings.cores.load})  # out of the servers' way
        self.make_models()
        chosen = self.prepare()
        for number in range(1, self.settings.rounds + 1):
            self.run_round(number, chosen)
        self.save()


def closed(connections: int) -> Json:
    """How a closed loop asks: whoever waits for capacity has patience."""
    return {"connections": connections, "patience": load.PATIENCE, "health": None}


def own_cpu(pid: int) -> float:
    """Processor seconds of this process alone; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


# --- the report ---


def _cell(runs: Sequence[Json], *path: str, scale: float = 1.0) -> str:
    """`median [min–max]` of what stands at a path in each run, as far as it does."""
    values = []
    for found in runs:
        value: Any = found
        for part in path:
            value = value.get(part) if value is not None else None
        if value is not None:
            values.append(scale * value)
    middle = sorted(values)[len(values) // 2] if values else 0.0
    digits = 0 if middle >= 100 or scale == 100 else 1 if middle >= 10 else 2
    return spread(values, digits)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def _model_section(results: Json, model: str) -> list[str]:
    runs = {
        name: [this["servers"][name][model] for this in results["rounds"]
               if model in this["servers"].get(name, {})]
        for name in results["servers"]
    }  # fmt: skip
    runs = {name: found for name, found in runs.items() if found}
    title = {name: row["title"] for name, row in results["servers"].items()}
    bare = [this["bare"][model] for this in results["rounds"] if model in this["bare"]]
    lines = ["", f"## {model}", ""]
    if bare:
        sizes = ", ".join(f"{_cell(bare, size)} in calls of {size}" for size in bare[0])
        lines += [f"The bare call, rows/s: {sizes}.", ""]
    multiples = list(
        dict.fromkeys(m for found in runs.values() for run in found for m in run["fires"])
    )
    head = ["server", "capacity, requests/s", *(f"goodput at {m} ×" for m in multiples)]
    head += ["recovery, s"]
    lines += _table(
        head,
        [
            [title[name], _cell(found, "capacity"),
             *(_cell(found, "fires", m, "goodput") for m in multiples), _cell(found, "recovery")]
            for name, found in runs.items()
        ],
    )  # fmt: skip
    for multiple in (one for one in multiples if float(one) in SHOWN):
        lines += ["", f"At {multiple} times capacity:", ""]
        columns = (
            ("accepted p50, ms", "accepted_p50_ms", 1), ("accepted p99, ms", "accepted_p99_ms", 1),
            ("refused, %", "refused", 100), ("refusal p50, ms", "refused_p50_ms", 1),
            ("refusal p99, ms", "refused_p99_ms", 1), ("with Retry-After, %", "retry_after", 100),
            ("no answer, %", "no_answer", 100), ("broken, %", "broken", 100),
            ("health p50, ms", "health_p50_ms", 1), ("health p99, ms", "health_p99_ms", 1),
            ("health failed, %", "health_failed", 100),
        )  # fmt: skip
        lines += _table(
            ["server", *(column[0] for column in columns)],
            [
                [title[name],
                 *(_cell(found, "fires", multiple, key, scale=scale) for _, key, scale in columns)]
                for name, found in runs.items()
            ],
        )  # fmt: skip
    rates = list(dict.fromkeys(r for found in runs.values() for run in found for r in run["equal"]))
    if rates:
        lines += ["", "At equal rates:", ""]
        head = ["server"]
        for rate in rates:
            at = _cell(runs.get(MOSEC, []), "equal", rate, "rate")
            head += [f"p99 at {rate} {at}/s, ms", "in time, requests/s"]
        lines += _table(
            head,
            [
                [title[name],
                 *(_cell(found, "equal", rate, key)
                   for rate in rates for key in ("accepted_p99_ms", "goodput"))]
                for name, found in runs.items()
            ],
        )  # fmt: skip
    for key, what in (("killed", "One of two workers killed"), ("restarted", "A rolling restart")):
        struck = {name: [run for run in found if run[key]] for name, found in runs.items()}
        if any(struck.values()):
            lines += ["", f"{what}, at half of the capacity:", ""]
            lines += _table(
                ["server", "sent", "lost", "refused", "late", "new worker after, s",
                 "in time again after, s", "p99 since, ms"],
                [
                    [title[name],
                     *(_cell(found, key, part)
                       for part in ("sent", "lost", "refused", "late", "ready", "full", "p99_ms"))]
                    for name, found in struck.items() if found
                ],
            )  # fmt: skip
    held = {name: [run for run in found if run["memory"]] for name, found in runs.items()}
    if any(held.values()):
        lines += ["", "Memory (PSS) over many requests:", ""]
        lines += _table(
            ["server", "requests", "after 2 %, MB", "after all, MB"],
            [
                [title[name],
                 *(_cell(found, "memory", part) for part in ("requests", "early_mb", "late_mb"))]
                for name, found in held.items() if found
            ],
        )  # fmt: skip
    return lines


def _loads(results: Json) -> list[Json]:
    return [
        load
        for this in results["rounds"]
        for models in this["servers"].values()
        for run in models.values()
        for load in (*run["fires"].values(), *run["equal"].values())
    ]


def markdown(results: Json) -> str:
    """The result file as Markdown."""
    info, rounds, loads = results["machine"], results["rounds"], _loads(results)
    late = [one for one in loads if one["late_p99_ms"] > LATE * results["slo_ms"]]
    told = "is told so" if results["told_slo"] else "has no option to be told so"
    lines = [
        "# Serving under fire",
        "",
        f"{results['date']}, {len(rounds)} round{'s' * (len(rounds) != 1)}, loads of "
        f"{results['seconds']:g} s. {info['cpu']}, {info['cores']} cores, "
        f"{info['memory_gb']:.0f} GB, {info['system']}, Python {info['python']}. "
        f"Other processes took {spread([100 * one['others'] for one in loads], 0)} % of the cores "
        f"during the loads; the load itself was late by "
        f"{spread([one['late_p99_ms'] for one in loads], 2)} ms (p99) and used "
        f"{spread([100 * one['load_busy'] for one in loads], 0)} % of its core. {len(late)} of "
        f"{len(loads)} loads were late by more than a tenth of the budget: what they show is this "
        "machine's as well.",
        "",
        f"An answer is in time within {results['slo_ms']:g} ms of the moment its request was due; "
        f"mlopsdeploy {told}. Clients hang up after {results['hang_up']} times that. One worker on "
        "one core, the load from another one; median [min–max] of the rounds. Times capacity is "
        "times each server's own. What the columns mean is at the top of serve_under_fire.py.",
    ]
    for model in MODELS:
        if any(model in found for this in rounds for found in this["servers"].values()):
            lines += _model_section(results, model)
    if results["failures"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in results["failures"].items()]
    lines += ["", "## Versions", ""]
    lines += [
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
        for name, found in results["versions"].items()
    ]
    return "\n".join(lines) + "\n"


# --- the command ---


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, bool]:
    first = (__doc__ or "").splitlines()[0]
    command = argparse.ArgumentParser(description=first)
    names = [c.name for c in CONTESTANTS]
    command.add_argument("--rounds", type=int, help="default 3, quick 1")
    command.add_argument("--seconds", type=float, help="of each load; default 10, quick 2")
    command.add_argument("--slo", type=float, default=50.0, metavar="MS", help="default 50")
    command.add_argument("--memory-requests", type=int, help="default 500000, quick 5000")
    command.add_argument("--quick", action="store_true", help="short, to try it out")
    command.add_argument("--only", metavar="NAME,NAME", help=", ".join(names))
    command.add_argument("--models", metavar="NAME,NAME", help=", ".join(MODELS))
    command.add_argument("--parts", metavar="NAME,NAME", help=", ".join(PARTS))
    command.add_argument("--setup", action="store_true", help="create the environments")
    command.add_argument("--sentiment", type=Path, default=BUILTIN, help="a folder of a model.onnx")
    command.add_argument("--fraud", type=Path, default=BUILTIN.parent / "fraud")
    command.add_argument("--peers", type=Path, default=HERE / ".venvs" / "fire")
    command.add_argument("--work", type=Path, default=HERE / ".work" / "fire")
    command.add_argument("--results", type=Path, default=HERE / "results")
    command.add_argument("--python", type=Path, default=Path(sys.executable), help="the product's")
    given = command.parse_args(arguments)
    chosen: dict[str, frozenset[str]] = {}
    for option, known in (("only", names), ("models", MODELS), ("parts", PARTS)):
        text = getattr(given, option)
        chosen[option] = frozenset(text.split(",") if text else ())
        if unknown := chosen[option] - set(known):
            command.error(
                f"--{option} {', '.join(sorted(unknown))}: choose from {', '.join(known)}"
            )
    settings = Settings(
        rounds=given.rounds or (1 if given.quick else 3),
        seconds=given.seconds or (2.0 if given.quick else 10.0),
        slo=given.slo / 1000,
        multiples=MULTIPLES,
        memory_requests=given.memory_requests or (5_000 if given.quick else 500_000),
        only=chosen["only"],
        models=tuple(name for name in MODELS if name in (chosen["models"] or MODELS)),
        parts=chosen["parts"] or frozenset(PARTS),
        sentiment=given.sentiment.resolve(),
        fraud=given.fraud.resolve(),
        peers=given.peers.resolve(),
        work=given.work.resolve(),
        results=given.results.resolve(),
        python=given.python.absolute(),
        cores=choose_cores(),
    )
    return settings, given.setup


if __name__ == "__main__":
    chosen_settings, only_setup = parse()
    if only_setup:
        wanted = {c.venv for c in CONTESTANTS if c.venv and chosen_settings.wants(c.name)}
        serve.setup(chosen_settings.peers, {name: PINS[name] for name in wanted})
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so end the server as well
        Bench(chosen_settings).run()
