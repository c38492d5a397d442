"""`mlopsdeploy bench batch`: how fast a model scores a file here, next to what is possible."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from mlopsdeploy.batch import dry_run, job, scoring
from mlopsdeploy.batch.command import job_for
from mlopsdeploy.batch.job import WINDOW, Job
from mlopsdeploy.batch.loading import load_for
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.batch.unfinished import Piped
from mlopsdeploy.bench import speed
from mlopsdeploy.columns import take
from mlopsdeploy.convert.quantize import MAX_FLIPS
from mlopsdeploy.core.console import facts, plain_table, progress_log
from mlopsdeploy.data.bad_rows import MaxErrors
from mlopsdeploy.data.inputs import Input
from mlopsdeploy.data.sources import chunks
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import BatchSettings

FIRST_ROWS = 500  # to learn how many rows the seconds are enough for
MOST_ROWS = 200_000
MOST_PICTURES = 200  # that bare calls of the model get, as tensors
NAIVE = 32  # rows per batch, in the file's order: what a plain loop computes
WORTHWHILE = 1.1  # times as fast
# The stages that share a thread; the model has one for each stream.
THREADS = {
    "reader": ("read", "parse", "encode"),
    "model": ("decode", "model"),  # only pictures are decoded
    "writer": ("write",),
}

HINTS = {
    "read": "a local disk, or a file that is not packed",
    "parse": "Parquet, or fewer columns",
    "encode": "shorter texts",
    "decode": "another core, or smaller pictures",
    "write": "fewer columns, or Parquet",
}


def bench_batch(
    settings: BatchSettings, *, seconds: float = 5.0, precisions: bool = True
) -> dict[str, Any]:
    """Measure the job, bare calls of the model on the same batches, and other precisions.

    Nothing is written but a temporary file.

    Args:
        settings: as of `mlopsdeploy batch`; `limit` bounds the rows.
        seconds: that the job runs; bare calls take two thirds of it.
        precisions: also measure the model's other precisions, see `dry_run`.

    Returns:
        `job`: rows, seconds, rows_per_second, cores_busy; `stages`: seconds of all threads;
        `cores_ours`: the share of the cores asked for that was there; `limit`: bare calls in
        rows_per_second, `gflops`, `peak_gflops`, `share_of_peak` (None
        where unknown); `ratio` of the two; `padding`: shares of padding in the work as planned
        and in batches of 32 in the file's order; `streams` and how many times one stream all of
        them are (`scaling`); `precisions`; `bottleneck`; `verdict`.

    Raises:
        ConfigError: the input is standard input.
        MlopsDeployError: see `open_source`, `load_model` and `job.run`.
    """
    work = _job(settings, progress_log())
    bench = _Bench(work, seconds)
    bare = bench.bare().run(seconds / 3)
    ran = bench.run()
    bare.run(seconds / 3)  # before and after, as the machine may have become busy
    others = []
    if precisions and len(work.model.runtime.precisions) > 1:
        load = partial(load_for, settings)
        others = dry_run.estimate(work, load, thorough=True)["precisions"]
    return bench.report(settings, ran, bare, others)


def _job(settings: BatchSettings, log: Callable[[str], None]) -> Job:
    """The job that `mlopsdeploy batch` would run, to standard output."""
    if settings.input is None or settings.input == "-":
        raise ConfigError("bench batch: reads its input more than once; name a file")
    inputs = Input(settings, None, log)
    try:
        work = job_for(settings, inputs, inputs.open(), log)
    finally:
        inputs.close()
    return replace(work, shown="a temporary file", max_errors=MaxErrors())


@dataclass
class _Ran:
    """The job, over and over where the input is short. `cpu`: seconds of processor time."""

    rows: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / (self.seconds or 1)


class _Bench:
    def __init__(self, work: Job, seconds: float) -> None:
        self._work = work
        self._model = work.model
        self._seconds = seconds
        first = self._run_once(_Ran(), min(FIRST_ROWS, work.limit or FIRST_ROWS))  # also to warm up
        first = self._run_once(_Ran(), first.rows)
        fits = math.ceil(first.rate * seconds)
        self._rows = max(min(fits, work.limit or MOST_ROWS, MOST_ROWS), min(first.rows, FIRST_ROWS))
        self._planned = self._plan()
        self._batches = self._collate()

    def run(self) -> _Ran:
        """The job until the seconds are over, at least once."""
        self._work.log(f"running the job on up to {self._rows:,} rows")
        total = self._run_once(_Ran(), self._rows)
        while not total.rows or total.seconds < self._seconds * 0.8:
            self._run_once(total, self._rows)
        return total

    def _run_once(self, total: _Ran, rows: int) -> _Ran:
        work = replace(self._work, limit=rows, statistics=Statistics(self._model.task.answers))
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            started, cpu = time.perf_counter(), time.process_time()
            summary, _, _ = job.run(work, Piped(output, errors))
            total.seconds += time.perf_counter() - started
            total.cpu += time.process_time() - cpu
        total.rows += summary.rows
        total.stages += summary.stages
        return total

    def bare(self, *, streams: int | None = None) -> speed.BareCalls:
        """The same batches through the runtime and nothing else."""
        runtime = self._model.runtime
        return speed.BareCalls(runtime.run, self._batches, streams or runtime.streams)

    def _plan(self) -> list[Planned]:
        """Windows as the job plans them."""
        work = self._work
        rows = min(self._rows, MOST_PICTURES) if self._model.task.data == "image" else self._rows
        source = work.open_source()
        try:
            return [
                scoring.prepare(work.model, source.parse(chunk, work.wanted), work.columns)
                for chunk in chunks(source, work.batch_size * WINDOW, limit=rows)
            ]
        finally:
            source.close()

    def _collate(self) -> list[speed.Batch]:
        task = self._model.task
        found = []
        for planned in self._planned:
            # Rows without work of their own, duplicates and empty ones, are borne by the others.
            weight = planned.window.rows / max(len(planned.cost), 1)
            for rows in planned.batches:
                if task.data == "image":
                    encoded, rows, _ = scoring.decoded(self._model, planned, rows)  # noqa: PLW2901
                    if not len(rows):
                        continue
                else:
                    encoded = take(planned.encoded, rows)
                cost = len(rows) * int(planned.cost[rows].max())
                found.append(speed.Batch(task.collate(encoded), len(rows) * weight, cost))
        draw = np.random.default_rng(0)  # long and short ones mixed, however far a round gets
        return [found[place] for place in draw.permutation(len(found)).tolist()]

    def report(
        self, settings: BatchSettings, ran: _Ran, bare: speed.BareCalls, others: list[Any]
    ) -> dict[str, Any]:
        """All of it, ready for JSON."""
        streams, scaling = bare.streams, None
        if streams > 1 and self._batches:
            alone = self.bare(streams=1).run(self._seconds / 4)
            scaling = round(self.bare().run(self._seconds / 4).cost_rate / alone.cost_rate, 2)
        pace = {
            name: sum(ran.stages[stage] for stage in stages)
            / (streams if name == "model" else 1)
            / (ran.seconds or 1)
            for name, stages in THREADS.items()
        }
        slowest = max(pace, key=pace.__getitem__)  # its largest part sets the pace
        report: dict[str, Any] = {
            "input": settings.input,
            **speed.about(self._model),
            "streams": streams,
            "job": {
                "rows": ran.rows,
                "seconds": round(ran.seconds, 3),
                "rows_per_second": round(ran.rate, 1),
                "cores_busy": round(ran.cpu / (ran.seconds or 1), 2),
            },
            "stages": {
                name: round(ran.stages[name], 4)
                for name in sum(THREADS.values(), ())
                if name != "decode" or self._model.task.data == "image"
            },
            "threads_busy": {name: round(share, 3) for name, share in pace.items()},
            "limit": {
                "rows_per_second": round(bare.rate, 1),
                **bare.limit(self._model, settings.model, streams),
            },
            "ratio": round(ran.rate / bare.rate, 3) if bare.rate else None,
            "scaling": scaling,
            "padding": self._padding(),
            "precisions": [dict(row) for row in others],
            "bottleneck": max(THREADS[slowest], key=lambda stage: ran.stages[stage]),
        }
        report["cores_ours"] = report["limit"].pop("cores_ours")
        report["verdict"] = verdict(report)
        return report

    def _padding(self) -> dict[str, float] | None:
        """Shares of the model's work that nobody asked for; None where rows cost the same."""
        costs = [planned.cost for planned in self._planned if len(planned.cost)]
        useful = sum(int(cost.sum()) for cost in costs)
        if not costs or all(len(np.unique(cost)) == 1 for cost in costs):
            return None
        cut = sum(
            len(rows) * int(planned.cost[rows].max())
            for planned in self._planned
            for rows in planned.batches
        )
        naive = sum(
            len(cost[start : start + NAIVE]) * int(cost[start : start + NAIVE].max())
            for cost in costs
            for start in range(0, len(cost), NAIVE)
        )
        return {"planned": round(1 - useful / cut, 4), "naive": round(1 - useful / naive, 4)}


def verdict(report: Mapping[str, Any]) -> str:
    """What a report of `bench_batch` comes to, in one sentence."""
    stage, ran = report["bottleneck"], report["job"]
    rate = f"{ran['rows_per_second']:,.0f} rows/s"
    if report["ratio"] is None:
        return f"{rate}; no row had anything to compute."
    part = report["stages"][stage] / (sum(report["stages"].values()) or 1)
    helps = _what_helps(report)
    return speed.verdict(
        stage, rate, report, cores_busy=ran["cores_busy"], part=f", with {part:.0%} of all work",
        hint=HINTS.get(stage), faster=f"; {helps}", besides="rechecks of close calls, the other "
        f"stages or other programs take the rest; {helps}",
    )  # fmt: skip


def _what_helps(report: Mapping[str, Any]) -> str:
    """The fastest other precision that keeps the labels; another core, if these two scale."""
    rows = [row for row in report["precisions"] if "skipped" not in row]
    chosen = next((row["rows_per_second"] for row in rows if row["chosen"]), 0.0)
    others = [
        (row["rows_per_second"] / chosen, str(row["precision"]))
        for row in rows
        if chosen
        and not row["chosen"]
        and row.get("labels_differ", 0) <= MAX_FLIPS * max(row.get("labels_compared", 0), 1)
    ]
    times, best = max(others, default=(0.0, ""))
    hints = []
    if times >= WORTHWHILE:
        hints.append(f"{best} would be {times:.1f} times as fast")
    elif rows:
        hints.append("no other precision measured is clearly faster")
    if report["scaling"] and report["cores_ours"] >= speed.ALONE:
        streams, scaling = report["streams"], report["scaling"]
        core = "another core should help" if scaling > 0.8 * streams else "more cores may not help"
        hints.append(f"{streams} streams are {scaling:.1f} times one, so {core}")
    return "; ".join(hints) or "only a smaller model or another core is faster"


def show(report: Mapping[str, Any], console: Console) -> None:
    """A report for people."""
    ran = report["job"]
    right = ("seconds", "share", "thread busy")
    table = plain_table("stage", *right, right=right)
    total = sum(report["stages"].values()) or 1
    for thread, stages in THREADS.items():
        for place, stage in enumerate(stage for stage in stages if stage in report["stages"]):
            spent = report["stages"][stage]
            busy = f"{thread} {report['threads_busy'][thread]:.0%}" if not place else ""
            style = "green" if stage == report["bottleneck"] else ""
            table.add_row(stage, f"{spent:.2f}", f"{spent / total:.1%}", busy, style=style)
    console.print(table)
    busy = f"{ran['cores_busy']:.1f} of {report['cores']} cores busy"
    bare = "bare calls of the model on the same batches"
    lines = [
        ("job", f"{ran['rows_per_second']:,.0f} rows/s, {busy}"),
        ("limit", f"{report['limit']['rows_per_second']:,.0f} rows/s: {bare}"),
    ]
    if report["padding"]:
        padding = report["padding"]
        planned = f"{padding['planned']:.1%} of the work; {padding['naive']:.1%} in batches of "
        lines.append(("padding", f"{planned}{NAIVE} as the rows come"))
    lines += [(row["precision"], _precision_line(row)) for row in report["precisions"]]
    runs = f"{report['model']}, {report['runtime']} {report['precision']}"
    lines.append(("model", f"{runs}, {report['streams']} streams"))
    console.print(facts(lines))
    speed.show_verdict(report, report["cores_ours"], console)


def _precision_line(row: Mapping[str, Any]) -> str:
    if "skipped" in row:
        return str(row["skipped"])
    line = f"{row['rows_per_second']:,.0f} rows/s, {row['memory'] / 1e6:,.0f} MB"
    if "labels_differ" in row:
        line += f", {row['labels_differ']} of {row['labels_compared']:,} labels unlike float32's"
    return line
