"""Serving one network over HTTP: mlopsdeploy beside the article's app and beside its rivals.

    python benchmarks/serve.py --setup     once: the rivals' environments
    python benchmarks/serve.py             the figures, in benchmarks/results/

**What is compared.** Every server serves the same Keras network of 30-64-32-1 and answers the same
transactions, whether they are fraud. The article's app, gunicorn, and FastAPI with `model(x)` run
Keras; all the others make the same LiteRT call, so that the servers are compared and not the
frameworks. Two stand for what is possible: plain Flask with msgspec on Granian, and on the same
Granian a bare WSGI callable that does nothing but the work. Access logs are off but for the
article's app. Before and after its load, each server must answer every transaction right.

**What is timed.** One worker, its whole process tree pinned to one core; the load comes from
another core. Where the title says "all cores" the server has one worker per core and shares the
load's core as well.

- `requests/s`: at saturation, wrk with 16 kept-alive connections, after an uncounted warm-up.
- `p50`, `p99`: open loop (load.py) at half of that rate, from the moment each request was due.
  Where that is fewer than 100 requests, p99 is the slowest one.
- `cold start`: from the start of the process to the first right answer, asked for every few
  milliseconds. What a tool makes only once (a saved or compiled model) is made before.
- `memory`: proportional set sizes (PSS) after the load, summed over the process tree without its
  first process where that has others to do the work (`worker`), and over all of the tree.
- `over the bare call`: what a request costs at saturation more than the LiteRT call alone, which
  is measured in a loop on the same core in each round.

**How.** Machines are shared and noisy, so servers take turns over several rounds, in another order
each round, and each rate is set against the article's app, plain Flask on Granian, and the bare
WSGI callable of the same round. The share of the cores that other processes took meanwhile is kept
with every run: it should be near zero.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import load
from batch import check, last_json, log, machine
from load import pinned
from report import save, spread

from mlopsdeploy.bench import processes
from mlopsdeploy.core.machine import free_port, process_tree, processor_seconds, proportional_memory
from mlopsdeploy.errors import MlopsDeployError

HERE = Path(__file__).resolve().parent
PEERS = HERE / "serve_peers"

HOST = "127.0.0.1"
WARM_UP_SECONDS = 2.0
START_SECONDS = 180.0
STOP_SECONDS = 15.0
ASK_AGAIN_SECONDS = 0.005
ANSWER_SECONDS = 60.0
ARTICLE, FLASK, WSGI = "article", "flask_granian", "bare_wsgi"
OURS = ("mlopsdeploy", "flask", "granian", "msgspec", "ai-edge-litert", "numpy")

TENSORFLOW = ("tensorflow==2.21.0", "keras==3.15.1")
LITERT = ("ai-edge-litert==2.3.0", "numpy==2.4.6")
UVICORN = ("fastapi==0.165.0", "uvicorn[standard]==0.54.0")
# Each rival's environment, as pip's arguments.
PINS: dict[str, tuple[str, ...]] = {
    "keras": (*TENSORFLOW, *LITERT, *UVICORN, "flask==3.1.3", "gunicorn==27.0.1"),
    "litert": (*LITERT, *UVICORN, "flask==3.1.3", "granian==2.8.7", "msgspec==0.22.0"),
    "litserve": (*LITERT, "litserve==0.2.19"),
    "bentoml": (*LITERT, "bentoml==1.4.39"),
    "mlserver": (*LITERT, "mlserver==1.7.1"),
    "mosec": (*LITERT, "mosec==0.9.8", "msgspec==0.22.0"),
    "ray": (*LITERT, "ray[serve]==2.60.0"),
    "mlflow": (*TENSORFLOW, *LITERT, "mlflow==3.17.2"),
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How a server is asked for one row, and what of its answer tells whether it is right."""

    path: str
    body: Callable[[Any], Json]
    answer: Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """A row, and the right answer to it."""

    row: Any
    answer: Any


DETECT_FRAUD = Protocol(
    "/detect_fraud",
    lambda transaction: {"transaction_data": transaction},
    lambda answer: bool(answer["is_fraud"]),
)
OPEN_INFERENCE = Protocol(
    "/v2/models/fraud/infer",
    lambda transaction: {
        "inputs": [
            {
                "name": "transaction_data",
                "shape": [1, len(transaction)],
                "datatype": "FP32",
                "data": transaction,
            }
        ]
    },
    lambda answer: bool(answer["outputs"][0]["data"][0]),
)
MLFLOW = Protocol(
    "/invocations",
    lambda transaction: {"inputs": [transaction]},
    lambda answer: bool(answer["predictions"][0]["is_fraud"]),
)
MLFLOW_SCORES = Protocol(
    MLFLOW.path, MLFLOW.body, lambda answer: bool(answer["predictions"][0][0] > 0.5)
)


@dataclass(frozen=True)
class Contestant:
    """One server. `command` starts with a program of the environment `venv`; with `venv` None it
    is the product's options."""

    name: str
    title: str
    venv: str | None
    command: tuple[str, ...]
    protocol: Protocol = DETECT_FRAUD
    all_cores: bool = False
    variables: tuple[tuple[str, str], ...] = ()


def _script(name: str, title: str, environment: str, *command: str) -> Contestant:
    return Contestant(name, title, environment, ("python", str(PEERS / command[0]), *command[1:]))


def _granian(name: str, title: str, app: str) -> Contestant:
    options = ("--interface", "wsgi", "--workers", "1", "--blocking-threads", "1")
    command = ("granian", *options, "--host", "{host}", "--port", "{port}", app)
    return Contestant(name, title, "litert", command)


def _uvicorn(name: str, title: str, environment: str, app: str) -> Contestant:
    options = ("--host", "{host}", "--port", "{port}")
    return Contestant(name, title, environment, ("uvicorn", *options, app))


CONTESTANTS = (
    _script(ARTICLE, "the article's app: Flask's own server, `predict`", "keras", "article.py"),
    Contestant(
        "gunicorn",
        "the article's app on gunicorn",
        "keras",
        ("gunicorn", "--workers", "1", "--bind", "{host}:{port}", "article:app"),
    ),
    _uvicorn("fastapi_keras", "FastAPI on uvicorn, `model(x)`", "keras", "fastapi_keras:app"),
    Contestant(
        "mlflow_keras",
        "MLflow, TensorFlow flavour",
        "mlflow",
        ("python", str(PEERS / "mlflow_app.py"), "--keras"),
        MLFLOW_SCORES,
    ),
    Contestant(
        "mlflow",
        "MLflow, pyfunc, LiteRT",
        "mlflow",
        ("python", str(PEERS / "mlflow_app.py")),
        MLFLOW,
    ),
    _script("ray", "Ray Serve, LiteRT", "ray", "ray_app.py"),
    Contestant(
        "ray_haproxy",
        "Ray Serve, set for throughput, LiteRT",
        "ray",
        ("python", str(PEERS / "ray_app.py")),
        variables=(("RAY_SERVE_ENABLE_HA_PROXY", "1"), ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")),
    ),
    Contestant(
        "bentoml",
        "BentoML, LiteRT",
        "bentoml",
        ("bentoml", "serve", "bentoml_app:Fraud", "--host", "{host}", "--port", "{port}"),
    ),
    _script("litserve", "LitServe, LiteRT", "litserve", "litserve_app.py"),
    Contestant(
        "mlserver",
        "MLServer, LiteRT",
        "mlserver",
        ("python", str(PEERS / "mlserver_app.py")),
        OPEN_INFERENCE,
    ),
    _uvicorn("fastapi", "FastAPI on uvicorn, LiteRT", "litert", "fastapi_litert:app"),
    _script("mosec", "mosec, LiteRT", "mosec", "mosec_app.py"),
    _script("mosec_msgspec", "mosec with msgspec, LiteRT", "mosec", "mosec_app.py", "--msgspec"),
    _granian(FLASK, "plain Flask with msgspec on Granian, LiteRT", "flask_msgspec:app"),
    _granian(WSGI, "bare WSGI callable on Granian, LiteRT: the limit", "bare_wsgi:app"),
    Contestant("ours", "**mlopsdeploy serve**", None, ("--workers", "1")),
    Contestant(
        "ours_all",
        "**mlopsdeploy serve**, all cores",
        None,
        ("--workers", "{cores}"),
        all_cores=True,
    ),
)

OUR_CONFIG = """\
models:
  - model: {model}
    route: /detect_fraud
    input: transaction_data
    answer: {{is_fraud: "label == 1", score: scores.1}}
"""


@dataclass
class Run:
    """One server in one round. Times in the units their names say, memory in MB; `open_loop` is
    load.py's answer, `saturation` wrk's."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cold_start: float
    worker_mb: float
    tree_mb: float
    processes: int
    others: float
    saturation: Json
    open_loop: Json
    to_article: float | None = None
    to_flask: float | None = None
    to_wsgi: float | None = None
    over_bare_call_us: float | None = None


@dataclass
class Round:
    load_average: float
    bare_calls_per_second: float = 0.0
    servers: dict[str, Run] = field(default_factory=dict)

    def ratio(self, run: Run, reference: str) -> float | None:
        other = self.servers.get(reference)
        return run.requests_per_second / other.requests_per_second if other else None


@dataclass(frozen=True)
class Cores:
    """Which core serves, which one loads, and all that there are."""

    server: int
    load: int
    all: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    only: frozenset[str]
    peers: Path
    work: Path
    results: Path
    python: Path
    cores: Cores

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only


def peer_environment(models: Path, port: int, programs: Path, work: Path) -> dict[str, str]:
    """What a peer script is told; see serve_peers/network.py."""
    return {
        "NETWORK": str(models),
        "HOST": HOST,
        "PORT": str(port),
        "PATH": os.pathsep.join((str(programs), os.environ["PATH"])),
        "PYTHONPATH": str(PEERS),
        "UVICORN_ACCESS_LOG": "false",
        "BENTOML_HOME": str(work / "bentoml"),
        # No reports to the tools' makers: a benchmark should not call out.
        "BENTOML_DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def choose_cores() -> Cores:
    """Not two threads of one core, if it can be."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("this needs two cores: one for the server, one for the load")
    siblings = Path(f"/sys/devices/system/cpu/cpu{allowed[0]}/topology/thread_siblings_list")
    shared = siblings.read_text(encoding="ascii").strip() if siblings.exists() else ""
    apart = [core for core in allowed[1:] if str(core) not in shared.replace("-", ",").split(",")]
    return Cores(allowed[0], (apart or allowed)[-1], tuple(allowed))


# --- one server ---


def ask(port: int, protocol: Protocol, row: Any) -> Any:
    """One request on a connection of its own. Raises on anything but a well-formed 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        body = json.dumps(protocol.body(row))
        connection.request("POST", protocol.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise processes.CommandError(f"answered {answer.status}: {text[:200]!r}")
        return protocol.answer(json.loads(text))
    except (http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise processes.CommandError(f"no answer to understand: {error!r}") from error
    finally:
        connection.close()


class Server:
    """A running server with all its children."""

    def __init__(
        self,
        protocol: Protocol,
        command: Sequence[str],
        folder: Path,
        port: int,
        environment: dict[str, str],
    ) -> None:
        self.protocol = protocol
        self.port = port
        self.url = f"http://{HOST}:{port}{protocol.path}"
        self._log = folder / "server.log"
        self._started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Of the first process."""
        return self._process.pid

    def wait_until_right(self, case: Case) -> float:
        """Ask until the first right answer; tell the seconds since the start."""
        said = "nothing"
        while (waited := time.perf_counter() - self._started) < START_SECONDS:
            if self._process.poll() is not None:
                raise processes.CommandError(f"ended at once: {self.last_words()}")
            try:
                if ask(self.port, self.protocol, case.row) == case.answer:
                    return time.perf_counter() - self._started
                said = "a wrong answer"
            except (MlopsDeployError, OSError) as error:
                said = str(error)
            time.sleep(ASK_AGAIN_SECONDS)
        raise processes.CommandError(f"no right answer within {waited:.0f} s; last: {said}")

    def check_answers(self, cases: Sequence[Case]) -> None:
        for case in cases:
            if ask(self.port, self.protocol, case.row) != case.answer:
                raise processes.CommandError("answered a row wrong")

    def members(self) -> list[int]:
        return list(process_tree(self._process.pid))

    def cpu_seconds(self) -> float:
        return processor_seconds(self._process.pid)

    def memory(self) -> tuple[float, float, int]:
        """MB of the processes that do the work, MB of all of them, and how many they are."""
        each = [proportional_memory(pid) / 2**20 for pid in self.members()]
        return sum(each[1:] or each), sum(each), len(each)

    def last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no message"

    def stop(self) -> None:
        """Ask it to end; after a while end what is left of it. Handles instead of numbers, so that
        no other process can be hit that got the number meanwhile."""
        handles: list[int] = []
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                handles.append(os.pidfd_open(pid))
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._process.wait()


# --- the benchmark ---


class Bench:
    """Everything that one run of the benchmark makes and knows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.network = settings.work / "network"
        self.cases: list[Case] = []
        self.rounds: list[Round] = []
        self.failures: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.machine = machine()

    def program(self, environment: str, name: str) -> Path:
        return self.settings.peers / environment / "bin" / name

    def environment(self, port: int, programs: Path) -> dict[str, str]:
        return peer_environment(self.network, port, programs, self.settings.work)

    def run_script(
        self, environment: str, name: str, *options: str, cores: Sequence[int]
    ) -> processes.Finished:
        python = self.program(environment, "python")
        return check(
            pinned(cores, (python, PEERS / name, *options)),
            self.settings.work / "script",
            START_SECONDS,
            self.environment(0, python.parent),
        )

    def make_network(self) -> None:
        file = self.network / "requests.json"
        if not file.exists():
            log("making the network")
            self.run_script("keras", "make_network.py", cores=self.settings.cores.all)
        requests = json.loads(file.read_text(encoding="utf-8"))
        self.cases = [
            Case(request["transaction_data"], request["is_fraud"]) for request in requests
        ]

    @contextlib.contextmanager
    def serving(self, contestant: Contestant) -> Iterator[Server]:
        port, cores = free_port(), self.settings.cores
        folder = self.settings.work / "run" / contestant.name
        folder.mkdir(parents=True, exist_ok=True)
        known = {"host": HOST, "port": port, "cores": len(cores.all)}
        command = [part.format(**known) for part in contestant.command]
        environment: dict[str, str] = {}
        if contestant.venv is None:
            config = folder / "serve.yaml"
            text = OUR_CONFIG.format(model=json.dumps(str(self.network / "network.keras")))
            config.write_text(text, encoding="utf-8")
            product = [str(self.settings.python), "-m", "mlopsdeploy", "serve"]
            command = [*product, "--config", str(config), "--port", str(port), *command]
        else:
            program = self.program(contestant.venv, command[0])
            command[0] = str(program)
            environment = self.environment(port, program.parent) | dict(contestant.variables)
        where = cores.all if contestant.all_cores else (cores.server,)
        server = Server(contestant.protocol, pinned(where, command), folder, port, environment)
        try:
            yield server
        finally:
            server.stop()

    # --- the load ---

    def bodies(self, contestant: Contestant) -> list[str]:
        return [json.dumps(contestant.protocol.body(case.row)) for case in self.cases]

    def measure(self, contestant: Contestant) -> Run:
        bodies, core = self.bodies(contestant), self.settings.cores.load
        seconds, folder = self.settings.seconds, self.settings.work / "load"
        with self.serving(contestant) as server:
            cold_start = server.wait_until_right(self.cases[0])
            server.check_answers(self.cases)
            load.saturate(server.url, bodies, WARM_UP_SECONDS, core, folder)
            busy, own = processes.busy_seconds(), processes.own_seconds()
            used, start = server.cpu_seconds(), time.perf_counter()
            saturation = load.saturate(server.url, bodies, seconds, core, folder)
            rate = saturation["requests"] / saturation["seconds"]
            open_loop = load.open_loop(server.url, bodies, rate / 2, seconds, core)
            wall = time.perf_counter() - start
            ours = processes.own_seconds() - own + server.cpu_seconds() - used
            others = (processes.busy_seconds() - busy - ours) / wall / (os.cpu_count() or 1)
            worker, tree, members = server.memory()
            server.check_answers(self.cases)
        return Run(
            requests_per_second=rate,
            p50_ms=open_loop["p50_ms"],
            p99_ms=open_loop["p99_ms"],
            cold_start=cold_start,
            worker_mb=worker,
            tree_mb=tree,
            processes=members,
            others=max(0.0, others),
            saturation=saturation,
            open_loop=open_loop,
        )

    # --- all of it ---

    def prepare(self) -> list[Contestant]:
        """The servers that work: each is started once, and makes what it makes only once."""
        chosen: list[Contestant] = []
        for contestant in CONTESTANTS:
            if not self.settings.wants(contestant.name):
                continue
            environment = contestant.venv
            if environment and not self.program(environment, "python").exists():
                self.failures[contestant.name] = "no environment: run with --setup"
                continue
            try:
                with self.serving(contestant) as server:
                    first = server.wait_until_right(self.cases[0])
                    server.check_answers(self.cases)
            except (MlopsDeployError, OSError) as error:
                self.failures[contestant.name] = str(error)
                log(f"{contestant.name} left out: {error}")
                continue
            log(f"{contestant.name}: right answers, the first one after {first:.1f} s")
            chosen.append(contestant)
            if environment is None:
                self.versions["mlopsdeploy"] = versions(self.settings.python, OURS)
            else:
                names = [pin.partition("==")[0].partition("[")[0] for pin in PINS[environment]]
                python = self.program(environment, "python")
                self.versions[environment] = versions(python, names)
        return chosen

    def run_round(self, number: int, chosen: Sequence[Contestant]) -> None:
        this = Round(os.getloadavg()[0])
        self.rounds.append(this)
        seconds = ("--seconds", str(self.settings.seconds))
        server_core = (self.settings.cores.server,)
        bare = self.run_script("litert", "bare_call.py", *seconds, cores=server_core)
        this.bare_calls_per_second = last_json(bare.stdout)["calls_per_second"]
        order = list(chosen)
        random.Random(number).shuffle(order)
        for contestant in order:
            try:
                run = this.servers[contestant.name] = self.measure(contestant)
            except (MlopsDeployError, OSError, KeyError, ValueError) as error:
                self.failures[contestant.name] = f"round {number}: {error}"
                log(f"{contestant.name}: {error}")
                continue
            log(
                f"round {number}, {contestant.name}: {run.requests_per_second:,.1f} requests/s,"
                f" p99 {run.p99_ms:.2f} ms"
                f" ({run.others:.0%} of the cores went to other processes)"
            )
        for contestant in order:
            if (found := this.servers.get(contestant.name)) is None:
                continue
            found.to_article = this.ratio(found, ARTICLE)
            found.to_flask = this.ratio(found, FLASK)
            found.to_wsgi = this.ratio(found, WSGI)
            if not contestant.all_cores:
                each = 1 / found.requests_per_second - 1 / this.bare_calls_per_second
                found.over_bare_call_us = 1e6 * each

    def results(self) -> Json:
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": self.machine,
            "cores": asdict(self.settings.cores),
            "seconds": self.settings.seconds,
            "versions": self.versions,
            "servers": {c.name: {"title": c.title} for c in CONTESTANTS},
            "rounds": [asdict(this) for this in self.rounds],
            "failures": self.failures,
        }

    def save(self) -> None:
        results = self.results()
        save(self.settings.results, "serve", results, markdown(results))

    def run(self) -> None:
        os.sched_setaffinity(0, {self.settings.cores.load})  # out of the servers' way
        self.make_network()
        chosen = self.prepare()
        for number in range(1, self.settings.rounds + 1):
            self.run_round(number, chosen)
            self.save()


# --- the report ---


def _figures(values: Sequence[float]) -> str:
    """`median [min–max]` with three figures or so."""
    middle = median(values) if values else 0.0
    digits = next((d for d, least in enumerate((100, 10, 1, 0.1)) if middle >= least), 4)
    return spread(values, digits)


def markdown(results: Json) -> str:
    """The result file as Markdown."""
    info, rounds = results["machine"], results["rounds"]
    runs = [run for this in rounds for run in this["servers"].values()]
    others = [100 * run["others"] for run in runs]
    calls = [1e6 / this["bare_calls_per_second"] for this in rounds]
    lines = [
        "# Serving benchmark",
        "",
        f"{results['date']}, {len(rounds)} round{'s' * (len(rounds) != 1)} of "
        f"{results['seconds']:g} s. {info['cpu']}, {info['cores']} cores, "
        f"{info['memory_gb']:.0f} GB, {info['system']}, Python {info['python']}. "
        f"Other processes took {spread(others, 0)} % of the cores during the runs.",
        "",
        "A Keras network of 30-64-32-1. One worker on one core, the load from another one; median "
        "[min–max] of the rounds; ratios of requests/s within a round. Latencies: open loop at "
        "half of each server's own saturation. Memory: PSS. The bare LiteRT call takes "
        f"{spread(calls, 1)} µs.",
        "",
        "| server | requests/s | × the article's app | × Flask on Granian | × bare WSGI "
        "| over the bare call, µs | p50, ms | p99, ms | cold start, s | worker, MB | in all, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rates = ("requests_per_second", "to_article", "to_flask", "to_wsgi", "over_bare_call_us")
    columns = (*rates, "p50_ms", "p99_ms", "cold_start", "worker_mb", "tree_mb")
    for name, row in results["servers"].items():
        found = [this["servers"][name] for this in rounds if name in this["servers"]]
        if found:
            cells = [_figures([r[c] for r in found if r[c] is not None]) for c in columns]
            lines.append(f"| {row['title']} | {' | '.join(cells)} |")
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


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of those packages that this interpreter has."""
    code = "import importlib.metadata as m, json, sys\n"
    code += "have = {d.name.lower(): d.version for d in m.distributions()}\n"
    code += "print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))"
    command = [str(python), "-c", code, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def wanted_pins(only: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """The environments that the chosen contestants need."""
    wanted = {c.venv for c in CONTESTANTS if c.venv and (not only or c.name in only)}
    return {name: PINS[name] for name in wanted | {"keras", "litert"}}


def setup(peers: Path, environments: Mapping[str, Sequence[str]]) -> None:
    """Create the environments that are missing; a complete one carries a mark."""
    for name, pins in sorted(environments.items()):
        mark = peers / name / "complete"
        if mark.exists() and mark.read_text(encoding="utf-8") == repr(pins):
            continue
        log(f"environment {name}")
        venv.create(peers / name, with_pip=True, clear=True)
        pip = (str(peers / name / "bin" / "python"), "-m", "pip", "install", "--quiet")
        subprocess.run([*pip, *pins], check=True)
        mark.write_text(repr(pins), encoding="utf-8")


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, bool]:
    first = (__doc__ or "").splitlines()[0]
    command = argparse.ArgumentParser(description=first)
    names = [c.name for c in CONTESTANTS]
    command.add_argument("--rounds", type=int, default=3, help="default 3")
    command.add_argument("--seconds", type=float, default=10.0, help="of each load; default 10")
    command.add_argument("--only", metavar="NAME,NAME", help=", ".join(names))
    command.add_argument("--setup", action="store_true", help="create the environments")
    command.add_argument("--peers", type=Path, default=HERE / ".venvs" / "serve")
    command.add_argument("--work", type=Path, default=HERE / ".work" / "serve")
    command.add_argument("--results", type=Path, default=HERE / "results")
    command.add_argument("--python", type=Path, default=Path(sys.executable), help="the product's")
    given = command.parse_args(arguments)
    only = frozenset(given.only.split(",") if given.only else ())
    if unknown := only - set(names):
        command.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    settings = Settings(
        rounds=given.rounds,
        seconds=given.seconds,
        only=only,
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
        setup(chosen_settings.peers, wanted_pins(chosen_settings.only))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so end the server as well
        Bench(chosen_settings).run()
