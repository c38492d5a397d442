"""What every peer script shares: the command line, the clock, the CSV files, the closing JSON line.

A peer script scores one CSV with one tool and prints one JSON line on stdout:

    {"load": s, "seconds": s, "rows": n, "peak_mb": MB, "versions": {...}}

`load` runs from the script's first line to a model that is ready (imports included), `seconds`
from the opening of the input to the closing of the output. What a tool needs only once (a
quantised file) is made under `--cache` before the clocks start, on the first run.

Each script runs in the environment of its own tool, so nothing here imports more than the
standard library.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

MAX_TOKENS = 512
LABELS = ("NEGATIVE", "POSITIVE")

Scored = tuple[str, float]
Scorer = Callable[[list[str]], Sequence[Scored]]
FileScorer = Callable[[Path, Path], int]


def module(name: str) -> Any:
    """Import a package that only this peer's environment has."""
    return importlib.import_module(name)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options every peer takes."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    options.add_argument("--input", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--cache", type=Path, required=True, help="for what is made only once")
    return options


def peak_mb() -> float:
    """This process's largest resident set, in MB; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next(int(x.split()[1]) / 1024 for x in status.splitlines() if x.startswith("VmHWM"))


def read_reviews(path: Path) -> tuple[list[str], list[str]]:
    """Identifiers and texts of a review file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["review_id"], row["review_text"]) for row in csv.DictReader(file)]
    return [row[0] for row in rows], [row[1] for row in rows]


def write_scores(path: Path, ids: Iterable[str], scored: Iterable[Scored]) -> None:
    """One line a row: review_id, label, score."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("review_id", "label", "score"))
        writer.writerows(
            (i, label, f"{score:.6f}") for i, (label, score) in zip(ids, scored, strict=True)
        )


def whole_file(score: Scorer) -> FileScorer:
    """Read the whole file, score it in one call, write it."""

    def run(source: Path, target: Path) -> int:
        ids, texts = read_reviews(source)
        write_scores(target, ids, score(texts))
        return len(ids)

    return run


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers sorted by length, longest first, cut into batches of at most `budget` tokens,
    padding counted."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def main(
    args: argparse.Namespace,
    load: Callable[[], FileScorer],
    packages: Sequence[str],
    clock: float | None = None,
) -> None:
    """Load, score `args.input` into `args.output`, print the figures."""
    start = time.perf_counter() if clock is None else clock
    run = load()
    ready = time.perf_counter()
    rows = run(args.input, args.output)
    end = time.perf_counter()
    figures = {
        "load": ready - start,
        "seconds": end - ready,
        "rows": rows,
        "peak_mb": peak_mb(),
        "versions": {name: metadata.version(name) for name in packages},
    }
    sys.stdout.write(json.dumps(figures) + "\n")
