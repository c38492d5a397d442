"""A bad night: 1,000,000 reviews, one in a thousand poisonous, killed -9 ten times, resumed.

    python benchmarks/nights.py
    python benchmarks/nights.py --model sentiment --rows 100000       with the built-in model

**The input.** English-like reviews (see inputs.py: words by rank, log-normal lengths, median 35
tokens) from a fixed seed. Every 1,000th row, on average, is bad, of all kinds in turn: a field too
few, a field too many, a byte that is not UTF-8, a carriage return outside of quotes, and a text
that the model can't take. One row opens a quote that nobody closes.

**The model.** By default one made here: the mean of one random vector of 64 numbers per token, a
matrix, two labels, with the built-in model's own tokenizer.json. It is quick, so that what is
shown is the engine, not a transformer's arithmetic. Its table of vectors ends before the
tokenizer's last words: a text with one of these makes ONNX Runtime raise, as a real model does
over an input it was not made for. Another --model takes such a text like any other.

**What is done.** A clean run; the same run killed with SIGKILL ten times at random moments and
started again; both outputs and both error files compared by SHA-256. Twice a second the resident
memory of the process tree is noted. Then, on the first --overhead-rows rows, the cost of commits: a
commit every 5 seconds against one at the end, in turn; of each the least wall clock and processor
time, as others on the machine can only add to them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import inputs
import numpy as np

from mlopsdeploy.core.machine import core_count, process_tree, resident_memory

HERE = Path(__file__).resolve().parent
BUILTIN = HERE.parent / "mlopsdeploy" / "builtin" / "sentiment"
SEED = 3
POISONOUS = 0.001
WIDTH = 64
SAMPLE_SECONDS = 0.5
NEVER = 1e9  # seconds between commits: only the one at the end

Json = dict[str, Any]


# ---------------------------------------------------------------- what goes in


def make_model(folder: Path) -> str:
    """The quick model described above; a word that it can't take."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(BUILTIN / name, folder / name)
    said: Json = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary: dict[str, int] = said["model"]["vocab"]
    words = [word for word in vocabulary if word.isascii() and word.isalpha()]
    poison = max(words, key=vocabulary.__getitem__)
    generator = np.random.default_rng(SEED)
    weights = {
        "table": generator.normal(size=(vocabulary[poison], WIDTH)),
        "head": generator.normal(size=(WIDTH, 2)),
    }

    def value(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["each"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "first"], ["row"]),
            helper.make_node("MatMul", ["row", "each"], ["sums"]),
            helper.make_node("Squeeze", ["sums", "first"], ["sum"]),
            helper.make_node("ReduceSum", ["mask", "first"], ["count"], keepdims=1),
            helper.make_node("Div", ["sum", "count"], ["mean"]),
            helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        ],
        "bag of tokens",
        [
            value("input_ids", TensorProto.INT64, ["rows", "tokens"]),
            value("attention_mask", TensorProto.INT64, ["rows", "tokens"]),
        ],
        [value("logits", TensorProto.FLOAT, ["rows", 2])],
        [
            numpy_helper.from_array(np.array([1]), "first"),
            *(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "onnx" / "model.onnx"))
    return poison


def texts(words: Sequence[str], rows: int) -> Iterator[str]:
    """Reviews of realistic lengths."""
    generator = np.random.default_rng(SEED)
    weights = 1 / (np.arange(len(words)) + 2.7)
    cumulative = np.cumsum(weights / weights.sum())
    table = np.array(words)
    lengths = np.array(inputs.block_lengths()) - inputs.SPECIAL_TOKENS
    for start in range(0, rows, 10_000):
        sizes = generator.choice(lengths, min(10_000, rows - start))
        ranks = np.searchsorted(cumulative, generator.random(int(sizes.sum())))
        drawn = table[np.minimum(ranks, len(words) - 1)].tolist()
        end = 0
        for size in sizes.tolist():
            yield " ".join(drawn[end : end + size]) + "."
            end += size


def write_input(path: Path, rows: int, poison: str) -> int:
    """The reviews, the bad ones among them; how many of these there are."""
    generator = random.Random(SEED)
    words = inputs.vocabulary(BUILTIN / "tokenizer.json")
    opened = rows * 6 // 10
    bad = 0
    with path.open("wb") as file:
        file.write(b"review_id,stars,review_text\n")
        for number, text in enumerate(texts(words, rows), 1):
            start = f"{number},{generator.randint(1, 5)},"
            good = f"{start}{text}\n".encode()
            kinds = (
                f"{number},{text}\n".encode(),
                f"{start}{text},{text[:20]}\n".encode(),
                f"{start}caf".encode() + b"\xe9 " + text.encode() + b"\n",
                f"{start}{text[:10]}\r{text[10:]}\n".encode(),
                f"{start}{text} {poison}\n".encode(),
            )
            if number == opened:
                file.write(f'{start}"{text}\n'.encode())
                bad += 1
            elif generator.random() < POISONOUS:
                file.write(kinds[bad % len(kinds)])
                bad += 1
            else:
                file.write(good)
    return bad


# ---------------------------------------------------------------- runs


@dataclass
class Attempt:
    """One process: how it ended, what it took, and its tree's memory (seconds, MB)."""

    code: int
    seconds: float
    cpu: float
    rows: int
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        return max((mb for _, mb in self.memory), default=0.0)


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all that it started."""
    return sum(map(resident_memory, process_tree(pid))) / 2**20


def rows_done(output: Path) -> int:
    """What the last commit of an unfinished run says."""
    try:
        manifest = (output.parent / f"{output.name}.unfinished" / "manifest.json").read_bytes()
        return int(json.loads(manifest)["rows"])
    except (OSError, ValueError, KeyError):
        return 0


def watch(pid: int, ended: threading.Event, memory: list[tuple[float, float]]) -> None:
    """Note the tree's memory until its end."""
    started = time.monotonic()
    while not ended.wait(SAMPLE_SECONDS):
        with suppress(OSError):
            size = resident_mb(pid)
            if size:  # none is left of a process that has just died
                memory.append((time.monotonic() - started, size))


def kill(pid: int, ended: threading.Event, output: Path, rows: int, delay: float) -> None:
    """Kill it, so many seconds after so many rows are certain."""
    while rows_done(output) < rows:
        if ended.wait(0.05):
            return
    if not ended.wait(delay):
        os.kill(pid, signal.SIGKILL)


def attempt(
    command: Sequence[str], output: Path, kill_after: tuple[int, float] | None = None
) -> Attempt:
    """Run a command; kill it a while after so many rows are certain."""
    log = output.with_suffix(".log")
    memory: list[tuple[float, float]] = []
    ended = threading.Event()
    with log.open("ab") as file:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=file, stderr=file)
        threads = [threading.Thread(target=watch, args=(child.pid, ended, memory))]
        if kill_after:
            arguments = (child.pid, ended, output, *kill_after)
            threads.append(threading.Thread(target=kill, args=arguments))
        for thread in threads:
            thread.start()
        _, status, usage = os.wait4(child.pid, 0)
        ended.set()
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        for thread in threads:
            thread.join()
    if child.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"exit code {child.returncode}: {log.read_text('utf-8')[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Attempt(child.returncode, seconds, cpu, rows_done(output), memory)


def digests(output: Path) -> Json:
    """SHA-256 of the output and of the rows set aside."""
    found = {}
    for path in (output, output.with_name(f"{output.name}.errors.jsonl")):
        with path.open("rb") as file:
            found[path.name.removeprefix(output.stem)] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


class Night:
    """Everything that one run of the benchmark makes and knows."""

    def __init__(self, settings: argparse.Namespace, work: Path) -> None:
        self.settings = settings
        self.work = work
        self.model = settings.model
        self.poison = "poison"
        if not self.model:
            self.poison = make_model(work / "bag")
            self.model = str(work / "bag")
        self.input = work / "reviews.csv"
        started = time.monotonic()
        self.poisonous = write_input(self.input, settings.rows, self.poison)
        log(f"input made in {time.monotonic() - started:.0f} s")

    def command(self, output: Path, commit: float, rows: int | None = None) -> list[str]:
        chosen = [] if self.settings.model else ["--runtime", "onnxruntime"]
        limit = ["--limit", str(rows)] if rows else []
        return [
            self.settings.python, "-m", "mlopsdeploy", "batch", str(self.input), "--output",
            str(output), "--model", self.model, *chosen, "--text-column", "review_text",
            "--commit-seconds", str(commit), *limit,
        ]  # fmt: skip

    def clean(self) -> Attempt:
        done = attempt(self.command(self.work / "clean.csv", 5), self.work / "clean.csv")
        log(f"clean run: {done.seconds:.0f} s, {done.peak:.0f} MB")
        return done

    def killed(self) -> list[Attempt]:
        """Kill, resume, and so on; then to the end."""
        generator = random.Random(SEED)
        output = self.work / "killed.csv"
        targets = sorted(
            generator.randrange(int(self.settings.rows * 0.9)) for _ in range(self.settings.kills)
        )
        attempts = []
        for target in targets:
            kill = (max(target, 1), generator.uniform(0, 5))
            attempts.append(attempt(self.command(output, 5), output, kill))
            if attempts[-1].code == 0:
                return attempts
            log(f"killed after {attempts[-1].seconds:.1f} s: {attempts[-1].rows:,} rows certain")
        attempts.append(attempt(self.command(output, 5), output))
        return attempts

    def overhead(self) -> list[Json]:
        """The same rows with a commit every five seconds, and with one at the end."""
        rounds = []
        for number in range(self.settings.rounds):
            pair = {}
            order = [("every 5 s", 5.0), ("one at the end", NEVER)]
            for name, commit in order if number % 2 else order[::-1]:
                output = self.work / "overhead.csv"
                done = attempt(self.command(output, commit, self.settings.overhead_rows), output)
                pair[name] = {"seconds": done.seconds, "cpu": done.cpu}
            rounds.append(pair)
            log(f"commits: {pair}")
        return rounds


# ---------------------------------------------------------------- what comes out


def draw(results: Json, path: Path) -> None:
    """Memory over time: the clean run, and the killed one's attempts end to end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, color) in enumerate((("killed", "#d1495b"), ("clean", "#00798c"))):
        runs = results["attempts"][name]
        label = "undisturbed" if name == "clean" else f"killed {results['kills']} times (dots)"
        start = 0.0
        for number, run in enumerate(runs):
            times = [start + seconds for seconds, _ in run["memory"]]
            sizes = [mb for _, mb in run["memory"]]
            axes.plot(
                times, sizes, color=color, linewidth=1.4, zorder=place + 2,
                label=None if number else label,
            )  # fmt: skip
            if run["code"] and sizes:
                axes.plot(times[-1], sizes[-1], "o", color=color, markersize=4)
            start += run["seconds"]
    axes.set_xlabel("seconds")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(0)
    axes.set_xlim(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(f"{results['rows']:,} reviews, {results['bad_rows']:,} bad rows", loc="left")
    figure.savefig(path, metadata={"Date": None})


def as_markdown(results: Json) -> str:
    clean, killed = results["attempts"]["clean"][0], results["attempts"]["killed"]
    same = "the same" if results["identical"] else "**NOT the same**"
    wall = sum(run["seconds"] for run in killed)
    lost = ", ".join(f"{run['rows']:,}" for run in killed[:-1])
    lines = [
        "# A bad night",
        "",
        f"{results['rows']:,} reviews ({results['input_mb']:,.0f} MB), {results['poisonous']:,} of "
        f"them poisonous; {results['model']}; {results['cores']} cores.",
        "",
        "| | undisturbed | killed and resumed |",
        "| --- | ---: | ---: |",
        f"| kill -9 | 0 | {results['kills']} |",
        f"| wall clock, s | {clean['seconds']:.0f} | {wall:.0f} |",
        f"| processor time, s | {clean['cpu']:.0f} | {sum(run['cpu'] for run in killed):.0f} |",
        f"| peak memory, MB | {clean['peak']:.0f} | {max(run['peak'] for run in killed):.0f} |",
        f"| bad rows | {results['bad_rows']:,} | {results['bad_rows_killed']:,} |",
        "",
        f"Output and errors file, by SHA-256: {same}. Rows certain at each kill: {lost}.",
        "",
        "Bad rows by reason:",
        "",
        *(f"- {count:,} × {reason}" for reason, count in results["reasons"].items()),
        "",
    ]
    if results["overhead"]:
        lines += [
            f"Commits, {results['overhead_rows']:,} rows, least of {len(results['overhead'])} "
            "rounds:",
            "",
            "| commit | wall clock, s | processor time, s |",
            "| --- | ---: | ---: |",
        ]
        for name in results["overhead"][0]:
            taken = [
                min(pair[name][kind] for pair in results["overhead"]) for kind in ("seconds", "cpu")
            ]
            lines.append(f"| {name} | {taken[0]:.1f} | {taken[1]:.1f} |")
        lines.append("")
    lines += [
        "The open quote is where memory rises: the reader looks 64 MB ahead for its end.",
        "",
        "![Memory over time](nights.svg)",
    ]
    return "\n".join(lines) + "\n"


def log(text: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


def measure(settings: argparse.Namespace, work: Path) -> Json:
    night = Night(settings, work)
    clean, killed = night.clean(), night.killed()
    manifests = [
        json.loads((work / f"{name}.csv.manifest.json").read_text("utf-8"))
        for name in ("clean", "killed")
    ]
    with (work / "clean.csv").open(encoding="utf-8", newline="") as file:
        written = sum(1 for _ in csv.reader(file)) - 1
    summary = manifests[0]["summary"]
    if written + summary["failed"] != summary["rows"]:
        raise SystemExit(f"{written} rows written, {summary['failed']} set aside: not all of them")
    first, second = digests(work / "clean.csv"), digests(work / "killed.csv")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": core_count(),
        "rows": settings.rows,
        "rows_read": summary["rows"],
        "poisonous": night.poisonous,
        "input_mb": night.input.stat().st_size / 1e6,
        "model": settings.model or f"a bag of tokens, {WIDTH} wide, on ONNX Runtime",
        "kills": sum(run.code != 0 for run in killed),
        "bad_rows": summary["failed"],
        "bad_rows_killed": manifests[1]["summary"]["failed"],
        "reasons": manifests[0]["errors"],
        "sha256": {"clean": first, "killed": second},
        "identical": list(first.values()) == list(second.values()),
        "rows_per_second": summary["rows_per_second"],
        "overhead_rows": settings.overhead_rows,
        "overhead": night.overhead(),
        "attempts": {
            name: [{**asdict(run), "peak": run.peak} for run in runs]
            for name, runs in (("clean", [clean]), ("killed", killed))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="", help="another model; by default one made here")
    parser.add_argument("--rounds", type=int, default=3, help="of the cost of commits")
    parser.add_argument("--overhead-rows", type=int, default=200_000)
    parser.add_argument("--work", type=Path, help="scratch files; a temporary folder by default")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--python", default=sys.executable, help="the product's interpreter")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work: Path = settings.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        results = measure(settings, work)
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / "nights.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (settings.results / "nights.md").write_text(as_markdown(results), "utf-8")
    draw(results, settings.results / "nights.svg")
    log(f"outputs are {'identical' if results['identical'] else 'DIFFERENT'}")
    sys.exit(not results["identical"])


if __name__ == "__main__":
    main()
