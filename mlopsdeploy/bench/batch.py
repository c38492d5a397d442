"""`mlopsdeploy bench batch`: how fast a model scores a file here, next to what is possible."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.console import Console

from mlopsdeploy.batch import dry_run, job, scoring
from mlopsdeploy.batch.job import WINDOW, Job
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.batch.statistics import Statistics
from mlopsdeploy.batch.unfinished import Piped
from mlopsdeploy.bench import speed
from mlopsdeploy.columns import Columns, rows_of, take
from mlopsdeploy.convert.quantize import MAX_FLIPS
from mlopsdeploy.core.console import facts, plain_table, print_line, progress_log
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.bad_rows import MaxErrors
from mlopsdeploy.data.inputs import Input
from mlopsdeploy.data.matching import match_columns
from mlopsdeploy.data.sinks import make_sink, output_format, passes_records
from mlopsdeploy.data.sources import chunks
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import BatchSettings

FIRST_ROWS = 500  # to learn how many rows the seconds are enough for
MOST_ROWS = 200_000
MOST_PICTURES = 200  # that bare calls of the model get, as tensors
NAIVE = 32  # rows per batch, in the file's order: what a plain loop computes
GOOD = 0.9  # of bare calls of the model: little around it costs time
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
    log = progress_log()

    work, load = _job(settings, log)
    bench = _Bench(work, settings.model, seconds, log)
    before = bench.bare(seconds / 3)
    ran = bench.run()
    bare = before + bench.bare(seconds / 3)  # before and after, as machines have moods
    others = []
    if precisions and len(work.model.runtime.precisions) > 1:
        others = dry_run.estimate(work, load)["precisions"]
    return bench.report(settings, ran, bare, others)


def _job(
    settings: BatchSettings, log: Callable[[str], None]
) -> tuple[Job, Callable[[str | None], Model]]:
    """The job that `mlopsdeploy batch` would run, to standard output."""
    if settings.input is None or settings.input == "-":
        raise ConfigError("bench batch: reads its input more than once; name a file")
    inputs = Input(settings, None, log)
    source = inputs.reopen()
    try:
        model = load_model(
            settings.model,
            runtime=settings.runtime,
            precision=settings.precision,
            threads=settings.threads,
            threshold=settings.threshold,
            features=settings.features,
            long_text=settings.long_text,
            trust_model=settings.trust_model,
            max_flips=settings.max_flips,
            log=log,
        )
        columns = match_columns(
            model, source, text_column=settings.text_column, image_column=settings.image_column
        )
        if model.task.data == "image":
            inputs.bring_pictures(*columns.values())
        format_ = output_format("-", source)
        raw = passes_records(format_, source)
    finally:
        source.close()
    work = Job(
        model=model,
        columns=columns,
        open_source=inputs.reopen,
        make_sink=lambda file, source: make_sink(format_, "-", file, source),
        raw=raw,
        shown="a temporary file",
        statistics=Statistics(model.task.labels),
        batch_size=settings.batch_size,
        limit=settings.limit,
        all_scores=settings.all_scores,
        prefix=settings.prefix,
        max_errors=MaxErrors(),
        log=log,
    )
    return work, dry_run.loader(settings)


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
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass
class _Bare:
    """Calls of the runtime alone, on all streams at once. `cost` is in units of the task's."""

    rows: float = 0.0
    cost: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: _Bare) -> _Bare:
        return _Bare(
            self.rows + other.rows,
            self.cost + other.cost,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.cpu + other.cpu,
        )


@dataclass(frozen=True)
class _Batch:
    """Tensors as the model gets them. `rows` are those of the file that they stand for."""

    tensors: Columns
    rows: float
    cost: int
    flops: float


class _Bench:
    def __init__(
        self, work: Job, reference: str, seconds: float, log: Callable[[str], None]
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._log = log
        self._shape = speed.flops_by_length(reference)
        first = self._run_once(min(FIRST_ROWS, work.limit or FIRST_ROWS))  # also to warm up
        first = self._run_once(first.rows)
        fits = math.ceil(first.rate * seconds)
        self.rows = max(min(fits, work.limit or MOST_ROWS, MOST_ROWS), min(first.rows, FIRST_ROWS))
        self._planned = self._plan()
        self._batches = self._collate()

    def run(self) -> _Ran:
        """The job until the seconds are over, at least once."""
        self._log(f"running the job on up to {self.rows:,} rows")
        total = _Ran()
        while not total.rows or total.seconds < self._seconds * 0.8:
            ran = self._run_once(self.rows)
            total.rows += ran.rows
            total.seconds += ran.seconds
            total.cpu += ran.cpu
            total.stages += ran.stages
        return total

    def _run_once(self, rows: int) -> _Ran:
        work = replace(self._work, limit=rows, statistics=Statistics(self._model.task.labels))
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            started, cpu = time.perf_counter(), time.process_time()
            summary, _, _ = job.run(work, Piped(output, errors))
            seconds = time.perf_counter() - started
            return _Ran(summary.rows, seconds, time.process_time() - cpu, summary.stages)

    def bare(self, seconds: float, *, streams: int | None = None) -> _Bare:
        """The same batches through the runtime and nothing else."""
        streams = streams or self._model.runtime.streams
        done: list[_Batch] = []
        turn = itertools.cycle(self._batches)
        end = time.perf_counter() + seconds

        def work() -> None:
            while True:
                batch = next(turn)
                self._model.runtime.run(batch.tensors)
                done.append(batch)
                if time.perf_counter() > end:
                    return

        if not self._batches:
            return _Bare()
        started, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(streams) as pool:
            for future in [pool.submit(work) for _ in range(streams)]:
                future.result()
        return _Bare(
            sum(batch.rows for batch in done),
            sum(batch.cost for batch in done),
            sum(batch.flops for batch in done),
            time.perf_counter() - started,
            time.process_time() - cpu,
        )

    @property
    def _model(self) -> Model:
        return self._work.model

    def _plan(self) -> list[Planned]:
        """Windows as the job plans them."""
        work = self._work
        rows = min(self.rows, MOST_PICTURES) if self._model.task.data == "image" else self.rows
        source = work.open_source()
        try:
            return [
                scoring.prepare(work.model, source.parse(chunk, work.wanted), work.columns)
                for chunk in chunks(source, work.batch_size * WINDOW, limit=rows)
            ]
        finally:
            source.close()

    def _collate(self) -> list[_Batch]:
        task = self._model.task
        pictures = task.data == "image"
        found = []
        for planned in self._planned:
            # Rows without work of their own, duplicates and empty ones, are borne by the others.
            weight = planned.window.rows / max(len(planned.cost), 1)
            for batch in planned.batches:
                rows = batch
                if pictures:
                    encoded, rows, _ = scoring.decoded(self._model, planned, rows)
                    if not len(rows):
                        continue
                    tensors = task.collate(encoded)
                else:
                    tensors = task.collate(take(planned.encoded, rows))
                cost = len(rows) * int(planned.cost[rows].max())
                found.append(_Batch(tensors, len(rows) * weight, cost, self._flops(tensors)))
        draw = np.random.default_rng(0)  # long and short ones mixed, however far a round gets
        return [found[place] for place in draw.permutation(len(found)).tolist()]

    def _flops(self, tensors: Columns) -> float:
        if self._shape is None:
            return 0.0
        a, b, c = self._shape
        length = next(iter(tensors.values())).shape[-1] if b else 0
        return rows_of(tensors) * (a + b * length + c * length**2)

    def report(
        self,
        settings: BatchSettings,
        ran: _Ran,
        bare: _Bare,
        others: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """All of it, ready for JSON."""
        model, streams = self._model, self._model.runtime.streams
        scaling = None
        if streams > 1 and self._batches:
            alone = self.bare(self._seconds / 4, streams=1)
            together = self.bare(self._seconds / 4)
            scaling = (together.cost / together.seconds) / (alone.cost / alone.seconds)
        possible = bare.rows / bare.seconds if bare.seconds else 0.0
        pace = {
            name: sum(ran.stages[stage] for stage in stages)
            / (streams if name == "model" else 1)
            / (ran.seconds or 1)
            for name, stages in THREADS.items()
        }
        report: dict[str, Any] = {
            "input": settings.input,
            "model": model.name,
            "runtime": type(model.runtime).__name__.lower(),
            "precision": model.runtime.precision,
            "streams": streams,
            "cores": core_count(),
            "job": {
                "rows": ran.rows,
                "seconds": round(ran.seconds, 3),
                "rows_per_second": round(ran.rate, 1),
                "cores_busy": round(ran.cpu / (ran.seconds or 1), 2),
            },
            "stages": {
                name: round(ran.stages[name], 4)
                for name in sum(THREADS.values(), ())
                if name != "decode" or model.task.data == "image"
            },
            "threads_busy": {name: round(share, 3) for name, share in pace.items()},
            "limit": {
                "rows_per_second": round(possible, 1),
                **speed.share_of_peak(bare.flops, bare.cpu, model.runtime.precision, streams),
            },
            # Less than 1 where other programs had a part of the cores that bare calls asked for.
            "cores_ours": round(min(bare.cpu / (bare.seconds or 1) / streams, 1.0), 2),
            "ratio": round(ran.rate / possible, 3) if possible else None,
            "scaling": scaling and round(scaling, 2),
            "padding": self._padding(),
            "precisions": [dict(row) for row in others],
            "bottleneck": _slowest(ran.stages, pace),
        }
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


def _slowest(stages: Mapping[str, float], pace: Mapping[str, float]) -> str:
    """The stage that sets the pace: the largest part of the busiest thread."""
    thread = max(pace, key=pace.__getitem__)
    return max(THREADS[thread], key=lambda stage: stages[stage])


def verdict(report: Mapping[str, Any]) -> str:
    """What a report of `bench_batch` comes to, in one sentence."""
    stage, ratio = report["bottleneck"], report["ratio"]
    speed = f"{report['job']['rows_per_second']:,.0f} rows/s"
    if ratio is None:
        return f"{speed}; no row had anything to compute."
    share = f"{ratio:.0%} of bare calls of the model"
    if stage == "model" and ratio >= GOOD:
        return f"The model sets the pace: {speed} are {share}; {_what_helps(report)}."
    if stage == "model":
        busy = f"{report['job']['cores_busy']:.1f} of {report['cores']} cores busy"
        return (
            f"The model is the slowest stage, but {speed} are only {share}: with {busy}, rechecks "
            f"of close calls, the other stages or other programs take the rest; "
            f"{_what_helps(report)}."
        )
    total = sum(report["stages"].values()) or 1
    part = report["stages"][stage] / total
    return (
        f"{stage} sets the pace, with {part:.0%} of all work: {speed} are {share}; what helps is "
        f"{HINTS[stage]}."
    )


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
    limit, ran = report["limit"], report["job"]
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
    lines = [
        (
            "job",
            f"{ran['rows_per_second']:,.0f} rows/s, {ran['cores_busy']:.1f} of {report['cores']} "
            "cores busy",
        ),
        (
            "limit",
            f"{limit['rows_per_second']:,.0f} rows/s: bare calls of the model on the same batches",
        ),
    ]
    if limit["share_of_peak"]:
        peak = f"{limit['gflops']:,.0f} of {limit['peak_gflops']:,.0f} GFLOP/s, "
        peak += f"{limit['share_of_peak']:.0%} of large {report['precision']} matrix products here"
        lines.append(("", peak))
    if report["padding"]:
        padding = report["padding"]
        planned = f"{padding['planned']:.1%} of the work; {padding['naive']:.1%} in batches of "
        lines.append(("padding", f"{planned}{NAIVE} as the rows come"))
    lines += [(row["precision"], _precision_line(row)) for row in report["precisions"]]
    runs = f"{report['model']}, {report['runtime']} {report['precision']}"
    lines.append(("model", f"{runs}, {report['streams']} streams"))
    console.print(facts(lines))
    print_line(console, report["verdict"])
    speed.show_others(report["cores_ours"], console)


def _precision_line(row: Mapping[str, Any]) -> str:
    if "skipped" in row:
        return str(row["skipped"])
    line = f"{row['rows_per_second']:,.0f} rows/s, {row['memory'] / 1e6:,.0f} MB"
    if "labels_differ" in row:
        line += f", {row['labels_differ']} of {row['labels_compared']:,} labels unlike float32's"
    return line
