"""Batch scoring, CSV to CSV: mlopsdeploy beside the article's loop and beside its rivals.

    python benchmarks/batch.py --setup-peers     once: the rivals' environments
    python benchmarks/batch.py                   the figures, in benchmarks/results/

**What is timed.** Every contestant is a process of its own with all cores and its own default
threads. `rows/s` counts from the opening of the input to the closing of the output, model loading
left out; each tool's own clock tells (the wall clock of the whole process is in the JSON too).
`cold start` is the wall clock of the whole command on a file of one row, process start to process
end, after its first run, so that what a tool makes only once (a quantised file) is not in it.
`peak memory` is the sum over the process tree of each process's high-water mark. The share of the
cores that other processes took meanwhile is kept with every run: it should be near zero.

**What is compared.** Machines are shared and noisy, so contestants run interleaved over several
rounds, in another order each round, and each figure is set against the article's loop of the same
round. Every contestant gets as many rows as take it about `--seconds`, from a first, uncounted
run. Files of different size compare because each is a whole number of blocks of 128 rows, and all
blocks hold the same token lengths (see inputs.py): no tool gets longer or shorter reviews.

**The limit.** The best matrix multiply that torch or OpenVINO reaches on this machine, measured in
every round. A contestant's share of its precision's peak is rows/s times the useful
floating-point operations of a row; padding does not count. A row of L tokens through N layers of
width d and inner width f, two labels, costs

    N * (L * (8 d^2 + 4 d f) + 4 L^2 d) + 2 d^2 + 4 d

operations: four d x d projections, two d x f ones, the attention's two products, the head.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import inputs
import numpy as np
import report

from mlopsdeploy.bench import processes
from mlopsdeploy.core.machine import core_count

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
BUILTIN = HERE.parent / "mlopsdeploy" / "builtin" / "sentiment"

ARTICLE = "article"
TIMEOUT = 1800.0
MAX_BLOCKS = 256
TABLE_ROWS, QUICK_TABLE_ROWS = 1_000_000, 100_000
MEMORY_ROWS, QUICK_MEMORY_ROWS = (10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000)
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
OUR_PACKAGES = ("mlopsdeploy", "openvino", "tokenizers", "pyarrow", "numpy")

# pip's arguments, one call each. torch exactly so: a looser pin takes gigabytes of CUDA packages.
# optimum-intel comes without its dependencies: it asks for torchvision, which needs them.
PEER_PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "transformers": (
        (
            "torch==2.13.0",
            "transformers==5.23.0",
            "pandas==3.1.1",
            "onnx==1.23.2",
            "onnxscript==0.7.2",
        ),
    ),
    "onnxruntime": (("onnxruntime==1.32.0", "onnx==1.23.2", "sympy", "tokenizers==0.23.3"),),
    "optimum": (
        (
            "torch==2.13.0",
            "transformers==5.5.4",
            "optimum==2.3.0",
            "huggingface-hub==1.21.0",
            "openvino==2026.4.1",
            "openvino-tokenizers==2026.4.1.0",
            "nncf==3.4.0",
            "datasets==5.0.1",
        ),
        ("--no-deps", "optimum-intel==2.2.0"),
    ),
    "infinity": (("torch==2.13.0", "infinity-emb[torch,optimum]==0.0.78"),),
}


@dataclass(frozen=True)
class Contestant:
    """One way to score a file. `venv` None is the product itself: then `command` is its options."""

    name: str
    title: str
    precision: str
    venv: str | None
    command: tuple[str, ...]
    builtin: bool = False


def _ours(precision: str) -> Contestant:
    options = ("--runtime", "openvino", "--precision", precision)
    return Contestant(f"ours_{precision}", "**mlopsdeploy batch**", precision, None, options)


CONTESTANTS = (
    Contestant(
        ARTICLE, "the article's loop: pipeline", "float32", "transformers", ("pipeline_loop.py",)
    ),
    Contestant(
        "pipeline_1",
        "pipeline, batch_size=1",
        "float32",
        "transformers",
        ("pipeline_loop.py", "--batch-size", "1"),
    ),
    Contestant(
        "pipeline_32",
        "pipeline, batch_size=32",
        "float32",
        "transformers",
        ("pipeline_loop.py", "--batch-size", "32"),
    ),
    Contestant(
        "ort_float32",
        "sorted loop by hand, ONNX Runtime",
        "float32",
        "onnxruntime",
        ("ort_loop.py",),
    ),
    Contestant(
        "ort_int8",
        "sorted loop by hand, ONNX Runtime dynamic",
        "int8",
        "onnxruntime",
        ("ort_loop.py", "--int8"),
    ),
    Contestant(
        "optimum_int8",
        "optimum-intel static, in a pipeline",
        "int8",
        "optimum",
        ("optimum_intel.py",),
    ),
    Contestant(
        "optimum_int8_sorted",
        "optimum-intel static, sorted loop by hand",
        "int8",
        "optimum",
        ("optimum_intel.py", "--sorted"),
    ),
    Contestant("infinity_torch", "infinity, torch", "float32", "infinity", ("infinity.py",)),
    Contestant(
        "infinity_onnx",
        "infinity, optimum (ONNX Runtime)",
        "float32",
        "infinity",
        ("infinity.py", "--engine", "optimum"),
    ),
    Contestant(
        "infinity_int8",
        "infinity, optimum, the dynamic int8 file of above",
        "int8",
        "infinity",
        ("infinity.py", "--engine", "optimum", "--int8"),
    ),
    _ours("float32"),
    _ours("bfloat16"),
    _ours("int8"),
    Contestant(
        "ours_builtin", "**mlopsdeploy batch**, its built-in model", "int8", None, (), builtin=True
    ),
)
SECTIONS = ("tabular", "memory")


@dataclass
class Run:
    """One contestant in one round."""

    rows: int
    seconds: float
    wall: float
    cpu: float
    cold_start: float
    peak_mb: float
    others: float
    precision: str
    rows_per_second: float
    ratio: float | None = None
    share_of_peak: float | None = None


@dataclass
class Round:
    load_average: float
    peaks: dict[str, float] = field(default_factory=dict)
    contestants: dict[str, Run] = field(default_factory=dict)
    tabular: dict[str, float] | None = None


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    rows: dict[str, int]
    only: frozenset[str]
    venvs: Path
    work: Path
    results: Path
    python: Path
    tokenizer: Path
    quick: bool
    memory: bool

    def wants(self, name: str) -> bool:
        return not self.only or name in self.only


def log(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def last_json(text: str) -> dict[str, Any]:
    """The JSON object a command closed with: its last line, or all it printed."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = json.loads(text[text.index("{") :])
    if not isinstance(found, dict):
        raise processes.CommandError("no JSON object on stdout")
    return found


def flop_per_row(config: dict[str, Any]) -> float:
    """Useful operations of the average row; the formula is in this module's docstring."""
    layers = config.get("n_layers") or config.get("num_hidden_layers", 6)
    width = config.get("dim") or config.get("hidden_size", 384)
    inner = config.get("hidden_dim") or config.get("intermediate_size", 1536)
    lengths = np.array(inputs.block_lengths(), float)
    block = layers * (lengths * (8 * width**2 + 4 * width * inner) + 4 * lengths**2 * width)
    return float(block.mean() + 2 * width**2 + 4 * width)


def read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


class Bench:
    """Everything that one run of the benchmark makes and knows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = settings.work / "models"
        self.words = inputs.vocabulary(settings.tokenizer)
        self.rounds: list[Round] = []
        self.failures: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.agreement: dict[str, float] = {}
        self.memory: list[dict[str, float]] = []
        self._article_labels: dict[str, str] = {}

    # --- what is made once ---

    def peer_python(self, name: str) -> Path:
        return self.settings.venvs / name / "bin" / "python"

    def make_models(self) -> None:
        if (self.models / "churn.onnx").exists():
            return
        log("making the models")
        check(
            (
                self.peer_python("transformers"),
                PEERS / "make_model.py",
                "--tokenizer",
                self.settings.tokenizer,
                "--reviews",
                self.input_file(inputs.BLOCK),
                "--output",
                self.models,
            ),
            self.settings.work / "make",
            TIMEOUT,
        )

    def input_file(self, rows: int) -> Path:
        path = self.settings.work / "inputs" / f"reviews_{rows}.csv"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            inputs.write_reviews(path, inputs.reviews(self.words, rows))
        return path

    # --- one command ---

    def product(self, source: Path, target: Path, model: Path | None, *more: str) -> list[str]:
        command = [str(self.settings.python), "-m", "mlopsdeploy", "batch", str(source)]
        if model is not None:
            command += ["--model", str(model)]
        return [*command, *more, "--output", str(target), "--json"]

    def score(self, contestant: Contestant, rows: int) -> tuple[processes.Finished, dict[str, Any]]:
        """Run one contestant on `rows` rows; its output is complete or it is an error."""
        folder = self.settings.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        source, target = self.input_file(rows), folder / "scored.csv"
        model = self.models / "distilbert"
        if contestant.venv is None:
            chosen = None if contestant.builtin else model
            command = self.product(source, target, chosen, *contestant.command)
        else:
            script, *options = contestant.command
            command = [str(self.peer_python(contestant.venv)), str(PEERS / script), *options]
            command += ["--model", str(model), "--cache", str(self.settings.work / "cache")]
            command += ["--input", str(source), "--output", str(target)]
        finished = check(command, folder, TIMEOUT)
        with target.open(encoding="utf-8", newline="") as file:
            labels = {row["review_id"]: row["label"] for row in csv.DictReader(file)}
        if len(labels) != rows or not all(labels.values()):
            raise processes.CommandError(f"{len(labels)} rows scored of {rows}")
        self.compare(contestant, labels)
        return finished, last_json(finished.stdout)

    def compare(self, contestant: Contestant, labels: dict[str, str]) -> None:
        """Keep the share of labels that agree with the article's loop, over the rows of both."""
        if contestant.builtin:
            return
        if contestant.name == ARTICLE and len(labels) > len(self._article_labels):
            self._article_labels = labels
        common = labels.keys() & self._article_labels.keys()
        if len(common) >= inputs.BLOCK:
            same = sum(labels[row] == self._article_labels[row] for row in common)
            self.agreement[contestant.name] = same / len(common)

    # --- the sections ---

    def choose_rows(self, contestant: Contestant) -> int:
        """How many rows take `--seconds`, from one uncounted run, two where the first is short."""
        if contestant.name in self.settings.rows:
            return self.settings.rows[contestant.name]
        blocks, seconds = 1, 0.0
        while True:
            _, summary = self.score(contestant, blocks * inputs.BLOCK)
            seconds = float(summary["seconds"])
            if seconds > self.settings.seconds / 8 or blocks > 1:
                break
            blocks = min(8, max(2, math.ceil(self.settings.seconds / 8 / max(seconds, 0.01))))
        return inputs.BLOCK * min(
            MAX_BLOCKS, max(1, math.ceil(self.settings.seconds * blocks / seconds))
        )

    def prepare(self) -> dict[Contestant, int]:
        """The contestants that work, each with its number of rows."""
        chosen: dict[Contestant, int] = {}
        for contestant in CONTESTANTS:
            if not self.settings.wants(contestant.name):
                continue
            if contestant.venv and not self.peer_python(contestant.venv).exists():
                self.failures[contestant.name] = "no environment: run with --setup-peers"
                continue
            try:
                chosen[contestant] = self.choose_rows(contestant)
                log(f"{contestant.name}: {chosen[contestant]} rows")
            except (processes.CommandError, ValueError, KeyError, OSError) as error:
                self.failures[contestant.name] = str(error) or type(error).__name__
                log(f"{contestant.name} left out: {self.failures[contestant.name]}")
        return chosen

    def measure_peaks(self) -> dict[str, float]:
        """The better of torch and OpenVINO, GFLOP/s by precision."""
        found: dict[str, float] = {}
        scripts = {
            "peak_torch.py": self.peer_python("transformers"),
            "peak_openvino.py": self.settings.python,
        }
        for script, python in scripts.items():
            finished = check((python, PEERS / script), self.settings.work / "run", TIMEOUT)
            for precision, value in last_json(finished.stdout).items():
                found[precision] = max(found.get(precision, 0.0), value)
        return found

    def measure(self, contestant: Contestant, rows: int) -> Run:
        cold, _ = self.score(contestant, 1)
        finished, summary = self.score(contestant, rows)
        if contestant.venv is not None:
            self.versions[contestant.venv] = summary["versions"]
        seconds = float(summary["seconds"])
        return Run(
            rows=rows,
            seconds=seconds,
            wall=finished.wall,
            cpu=finished.cpu,
            cold_start=cold.wall,
            peak_mb=finished.peak_memory / 2**20,
            others=finished.others,
            precision=str(summary.get("precision", contestant.precision)),
            rows_per_second=rows / seconds,
        )

    def measure_table(self) -> dict[str, float]:
        rows = QUICK_TABLE_ROWS if self.settings.quick else TABLE_ROWS
        source = self.settings.work / "inputs" / f"table_{rows}.csv"
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            inputs.write_table(source, rows)
        folder = self.settings.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        target = folder / "scored.csv"
        ours = check(self.product(source, target, self.models / "churn.onnx"), folder, TIMEOUT)
        summary = last_json(ours.stdout)
        shutil.rmtree(folder)
        floor = check(
            (
                self.settings.python,
                PEERS / "csv_floor.py",
                "--input",
                source,
                "--output",
                target,
            ),
            folder,
            TIMEOUT,
        )
        bare = last_json(floor.stdout)
        return {
            "rows": rows,
            "ours_wall": ours.wall,
            "ours_seconds": float(summary["seconds"]),
            "ours_peak_mb": ours.peak_memory / 2**20,
            "floor_wall": floor.wall,
            "floor_seconds": bare["seconds"],
            "floor_read": bare["read"],
            "floor_write": bare["write"],
            "floor_peak_mb": floor.peak_memory / 2**20,
        }

    def measure_memory(self) -> None:
        for rows in QUICK_MEMORY_ROWS if self.settings.quick else MEMORY_ROWS:
            source = self.settings.work / "inputs" / f"short_{rows}.csv"
            if not source.exists():
                source.parent.mkdir(parents=True, exist_ok=True)
                inputs.write_reviews(source, inputs.short_texts(self.words, rows))
            folder = self.settings.work / "run"
            shutil.rmtree(folder, ignore_errors=True)
            options = ("--runtime", "openvino", "--precision", "float32")
            command = self.product(source, folder / "scored.csv", self.models / "tiny", *options)
            finished = check(command, folder, TIMEOUT)
            peak = finished.peak_memory / 2**20
            log(f"memory, {rows:,} rows: {peak:,.0f} MB in {finished.wall:.1f} s")
            self.memory.append({"rows": rows, "peak_mb": peak, "wall": finished.wall})

    # --- all of it ---

    def run_round(self, number: int, chosen: dict[Contestant, int]) -> None:
        this = Round(os.getloadavg()[0])
        self.rounds.append(this)
        if chosen:
            this.peaks = self.measure_peaks()
        order = list(chosen)
        random.Random(number).shuffle(order)
        for contestant in order:
            try:
                run = this.contestants[contestant.name] = self.measure(
                    contestant, chosen[contestant]
                )
            except (processes.CommandError, ValueError, KeyError, OSError) as error:
                self.failures[contestant.name] = f"round {number}: {error}"
                log(f"{contestant.name}: {error}")
                continue
            log(
                f"round {number}, {contestant.name}: {run.rows_per_second:.1f} rows/s"
                f" ({run.others:.0%} of the cores went to other processes)"
            )
        article = this.contestants.get(ARTICLE)
        for contestant in order:
            if (found := this.contestants.get(contestant.name)) is None:
                continue
            if article is not None:
                found.ratio = found.rows_per_second / article.rows_per_second
            folder = BUILTIN if contestant.builtin else self.models / "distilbert"
            useful = found.rows_per_second * flop_per_row(read_config(folder)) / 1e9
            if found.precision in this.peaks:
                found.share_of_peak = useful / this.peaks[found.precision]
        if self.settings.wants("tabular") and "tabular" not in self.failures:
            try:
                this.tabular = self.measure_table()
                log(f"round {number}, table: {this.tabular['ours_wall']:.2f} s")
            except (processes.CommandError, ValueError, KeyError, OSError) as error:
                self.failures["tabular"] = str(error)
                log(f"table left out: {error}")

    def results(self) -> dict[str, Any]:
        return {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine(),
            "versions": self.versions,
            "flop_per_row": flop_per_row(read_config(self.models / "distilbert")),
            "builtin_flop_per_row": flop_per_row(read_config(BUILTIN)),
            "contestants": {
                c.name: {"title": c.title, "precision": c.precision} for c in CONTESTANTS
            },
            "rounds": [asdict(this) for this in self.rounds],
            "label_agreement_with_article": self.agreement,
            "failures": self.failures,
            "memory": self.memory,
        }

    def save(self) -> None:
        results = self.results()
        report.save(self.settings.results, "batch", results, report.markdown(results))

    def run(self) -> None:
        self.make_models()
        self.versions["product"] = product_versions(self.settings.python)
        chosen = self.prepare()
        for number in range(1, self.settings.rounds + 1):
            self.run_round(number, chosen)
            self.save()
        if self.settings.memory or "memory" in self.settings.only:
            try:
                self.measure_memory()
            except (processes.CommandError, OSError) as error:
                self.failures["memory"] = str(error)
                log(f"memory left out: {error}")
        self.save()


def check(
    command: Sequence[str | Path],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> processes.Finished:
    """Run a command inside a folder, where its output is kept too."""
    return processes.run(command, folder, cwd=folder, timeout=timeout, environment=environment)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    known: dict[str, str] = {}
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            known.setdefault(key.strip(), value.strip())
    flags = known.get("flags", "").split()
    name = known.get("model name", platform.processor())
    if "cpu family" in known:
        name += f" (family {known['cpu family']}, model {known.get('model', '?')})"
    return {
        "cpu": name,
        "cores": core_count(),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def product_versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json, sys\n"
    code += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run(
        [str(python), "-c", code, *OUR_PACKAGES], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def setup_peers(venvs: Path, only: frozenset[str]) -> None:
    """Create the environments that are missing; a complete one carries a mark."""
    wanted = {c.venv for c in CONTESTANTS if c.venv and (not only or c.name in only)}
    for name in sorted(wanted | {"transformers"}):
        mark = venvs / name / "complete"
        packages = PEER_PACKAGES[name]
        if mark.exists() and mark.read_text(encoding="utf-8") == repr(packages):
            continue
        log(f"environment {name}")
        venv.create(venvs / name, with_pip=True, clear=True)
        for arguments in packages:
            pip = (venvs / name / "bin" / "python", "-m", "pip", "install", "--quiet")
            subprocess.run([*map(str, pip), *arguments], check=True)
        mark.write_text(repr(packages), encoding="utf-8")


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, bool]:
    first = (__doc__ or "").splitlines()[0]
    command = argparse.ArgumentParser(description=first)
    names = [c.name for c in CONTESTANTS] + list(SECTIONS)
    command.add_argument("--rounds", type=int, help="default 3, quick 1")
    command.add_argument("--seconds", type=float, help="per contestant; default 20, quick 3")
    command.add_argument("--rows", action="append", default=[], metavar="NAME=N")
    command.add_argument("--only", action="append", default=[], choices=names, metavar="NAME")
    command.add_argument("--quick", action="store_true", help="small and short, to try it out")
    command.add_argument("--memory", action="store_true", help="add memory against rows")
    command.add_argument("--setup-peers", action="store_true", help="create the environments")
    command.add_argument("--venvs", type=Path, default=HERE / ".venvs")
    command.add_argument("--work", type=Path, default=HERE / ".work")
    command.add_argument("--results", type=Path, default=HERE / "results")
    command.add_argument("--python", type=Path, default=Path(sys.executable), help="the product's")
    command.add_argument("--tokenizer", type=Path, default=BUILTIN / "tokenizer.json")
    given = command.parse_args(arguments)
    rows: dict[str, int] = {}
    for pair in given.rows:
        name, _, count = pair.partition("=")
        if name not in names or not count.isdigit() or int(count) % inputs.BLOCK:
            command.error(f"--rows {pair}: give NAME=N, N a multiple of {inputs.BLOCK}")
        rows[name] = int(count)
    settings = Settings(
        rounds=given.rounds or (1 if given.quick else 3),
        seconds=given.seconds or (3.0 if given.quick else 20.0),
        rows=rows,
        only=frozenset(given.only),
        venvs=given.venvs.resolve(),
        work=given.work.resolve(),
        results=given.results.resolve(),
        python=given.python.absolute(),
        tokenizer=given.tokenizer.resolve(),
        quick=given.quick,
        memory=given.memory,
    )
    return settings, given.setup_peers


if __name__ == "__main__":
    chosen_settings, setup = parse()
    if setup:
        setup_peers(chosen_settings.venvs, chosen_settings.only)
    else:
        Bench(chosen_settings).run()
