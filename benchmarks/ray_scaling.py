"""What `--engine ray` costs over the local engine, and what one driver can feed.

    python benchmarks/ray_scaling.py      the figures, in benchmarks/results/ray.{json,md}

One machine can't show that ten are faster. It shows what Ray adds, and what bounds it:

* **Start**: seconds until a Ray of our own is there, and until its actors have the model.
* **Same cores**: rows/s of the local engine with N threads and of Ray with N actors of one core,
  the same rows, interleaved over several rounds. Processor time per row, of all processes, tells
  what Ray's way of computing costs; rows/s suffer from whatever else the machine does.
* **What one driver feeds**: what a row costs beside the actors, in the reading task (read, parse,
  pack) and in the driver (unpack, write), each measured alone. The slower of the two is the most
  that any number of actors gets through.

A table model, for which a row costs next to nothing, shows where Ray does not pay.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlopsdeploy.core.machine import core_count, processor_seconds

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WORDS = [
    *("the", "a", "this", "that", "it", "was", "is", "not", "very", "really", "quite", "good"),
    *("great", "awful", "terrible", "fine", "poor", "nice", "battery", "screen", "cable", "food"),
    *("service", "waiter", "hotel", "room", "shirt", "colour", "size", "price", "delivery"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=12_000)
    parser.add_argument("--transactions", type=int, default=400_000)
    parser.add_argument("--work", type=Path, default=Path("/tmp/mlopsdeploy-ray"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(json.loads(options.one))))
        return
    options.work.mkdir(exist_ok=True)
    inputs = {
        "sentiment": _texts(options.work / "texts.csv", options.texts),
        "fraud": _transactions(options.work / "transactions.csv", options.transactions),
    }
    runs: list[dict[str, Any]] = []
    for number in range(options.rounds):
        contestants = [
            {"model": model, "input": str(path), "engine": engine, "cores": cores}
            for model, path in inputs.items()
            for engine in ("local", "ray")
            for cores in (1, 2)
        ]
        random.Random(number).shuffle(contestants)
        for contestant in contestants:
            done = _apart(contestant)
            del contestant["input"]  # a place on this machine
            runs.append({"round": number, **contestant, **done})
            print(json.dumps(runs[-1]), file=sys.stderr)
    result = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "cores": core_count(),
        "runs": runs,
    }
    (RESULTS / "ray.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (RESULTS / "ray.md").write_text(_table(result), "utf-8")


def _texts(path: Path, rows: int) -> Path:
    """Different reviews of natural lengths."""
    generator = random.Random(1)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        for number in range(rows):
            length = min(max(int(generator.lognormvariate(3.2, 0.7)), 3), 200)
            writer.writerow((number, " ".join(generator.choices(WORDS, k=length))))
    return path


def _transactions(path: Path, rows: int) -> Path:
    """What the built-in fraud model takes, from the example's rows with noise."""
    with (HERE.parent / "examples" / "transactions.csv").open(encoding="utf-8") as file:
        header, *known = csv.reader(file)
    generator = random.Random(2)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(generator.choice(known) for _ in range(rows))
    return path


def _apart(contestant: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(contestant)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    known: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return known


def _one(contestant: dict[str, Any]) -> dict[str, Any]:
    """One run of one engine."""
    from dataclasses import replace
    from functools import partial

    from mlopsdeploy.batch import command, job, ray_engine
    from mlopsdeploy.batch.job import Job, Run
    from mlopsdeploy.core.loading import load_model
    from mlopsdeploy.data.sources import open_source
    from mlopsdeploy.settings import BatchSettings

    cores = contestant["cores"]
    path = contestant["input"]
    # Smaller windows than the default, so that even this short run has some for every actor.
    batch_size = 100 if contestant["model"] == "sentiment" else 1000
    settings = BatchSettings(
        model=contestant["model"],
        input=path,
        output=f"{path}.{contestant['engine']}.{cores}.csv",
        threads=cores,
        batch_size=batch_size,
        fresh=True,
    )
    local = job.run
    clock: dict[str, float] = {}
    seen: list[tuple[float, float, float]] = []  # time, processor time, rows

    def progress(rows: float, share: float | None) -> None:
        before = seen[-1][2] if seen else 0.0
        if share is None or share:
            seen.append((time.perf_counter(), processor_seconds(os.getpid()), before + rows))

    def by_ray(work: Job, target: Run) -> Any:
        started = time.perf_counter()
        ray_engine._connect(ray_engine.LOCAL)
        clock["start"] = time.perf_counter() - started
        started = time.perf_counter()
        done = ray_engine.run(
            replace(work, progress=progress),
            target,
            opened=partial(open_source, path),
            load=partial(
                load_model,
                work.model.name,
                runtime=type(work.model.runtime).__name__.lower(),
                precision=work.model.runtime.precision,
                threads=1,
            ),
            cluster=ray_engine.Cluster(actors=(cores, cores)),
        )
        clock["first"] = seen[0][0] - started
        reader = ray_engine._Reader(
            partial(open_source, path), "/", batch_size, None, 0, work.wanted
        )
        started = time.process_time()
        blocks = list(reader())
        clock["reader_us"] = 1e6 * (time.process_time() - started) / done[0].rows
        started = time.process_time()
        for block in blocks:
            ray_engine._unpacked(block)
        unpacking = 1e6 * (time.process_time() - started) / done[0].rows
        clock["driver_us"] = unpacking + 1e6 * done[0].stages["write"] / done[0].rows
        return done

    def by_hand(work: Job, target: Run) -> Any:
        return local(replace(work, progress=progress), target)

    engines: dict[str, Any] = {"ray": by_ray, "local": by_hand}
    job.run = engines[contestant["engine"]]
    summary = command.run_batch(settings)
    # From the first rows on to the last, so that no loading is in it.
    wall, processor, rows = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    return {
        "rows": summary["rows"],
        "seconds": summary["seconds"],
        "rows_per_second": rows / wall,
        "processor_us": 1e6 * processor / rows,
        "stages": summary["stages"],
        **clock,
    }


def _middle(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def _table(result: dict[str, Any]) -> str:
    def median(model: str, engine: str, cores: int, name: str) -> float:
        return _middle(
            run[name]
            for run in result["runs"]
            if (run["model"], run["engine"], run["cores"]) == (model, engine, cores)
        )

    lines = [
        f"# Ray beside the local engine ({result['made'][:10]}, {result['cores']} cores)",
        "",
        "| model | cores | local, rows/s | Ray, rows/s | local, CPU µs/row | Ray, CPU µs/row | "
        "first rows after |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for model in ("sentiment", "fraud"):
        for cores in (1, 2):
            local = median(model, "local", cores, "rows_per_second")
            ray = median(model, "ray", cores, "rows_per_second")
            waited = median(model, "ray", cores, "start") + median(model, "ray", cores, "first")
            lines.append(
                f"| {model} | {cores} | {local:,.0f} | {ray:,.0f} | "
                f"{median(model, 'local', cores, 'processor_us'):,.1f} | "
                f"{median(model, 'ray', cores, 'processor_us'):,.1f} | {waited:.1f} s |"
            )
    lines += [
        "",
        "A Ray of one's own is there after "
        f"{_middle(r['start'] for r in result['runs'] if 'start' in r):.1f} s.",
        "",
        "| model | reading task, µs/row | driver, µs/row | at most, rows/s | cores that feeds |",
        "| --- | --: | --: | --: | --: |",
    ]
    for model in ("sentiment", "fraud"):
        reading, driver = (
            _middle(run[name] for run in result["runs"] if name in run and run["model"] == model)
            for name in ("reader_us", "driver_us")
        )
        most = 1e6 / max(reading, driver)
        each = 1e6 / median(model, "ray", 1, "processor_us")
        lines.append(
            f"| {model} | {reading:.1f} | {driver:.1f} | {most:,.0f} | {most / each:,.0f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
