"""`mlopsdeploy bench edge --lines`: how fast lines are answered here, and what is possible."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.bench import speed
from mlopsdeploy.columns import Columns, take
from mlopsdeploy.core.console import plain_table, print_line, progress_log
from mlopsdeploy.core.machine import core_count, resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.lines.answering import MOST, LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.run import load, warm_up
from mlopsdeploy.edge.lines.sources import Line, open_lines
from mlopsdeploy.edge.lines.writing import LineEvents
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings

SAMPLE = 2000  # lines that are read, and then come again and again
GOOD = 0.9  # of bare calls of the model: little around it costs time

HINTS = {
    "parse": "fewer columns",
    "write": "a local disk",
}


def bench_lines(settings: EdgeSettings, *, seconds: float = 3.0) -> dict[str, Any]:
    """Measure lines that come one at a time, lines that come all at once, and bare calls.

    Args:
        settings: as of `mlopsdeploy edge`; `lines` is a file.
        seconds: that lines come all at once; what else is measured takes a third of it each.

    Raises:
        MlopsDeployError: see `open_lines` and `load_model`.
    """
    check_settings(settings)
    log = progress_log()

    sample = _sample(settings)
    model, threads = load(settings, log)
    warm_up(model)
    bench = _Bench(model, settings, threads, sample)
    with tempfile.TemporaryDirectory() as folder:
        alone = bench.one_at_a_time(Path(folder), seconds / 3)
        bench.bare_calls(seconds / 3)
        together = bench.all_at_once(Path(folder), seconds)
        bench.bare_calls(seconds / 3)  # before and after, as machines have moods
    return bench.report(alone, together)


def _sample(settings: EdgeSettings) -> list[Line]:
    if not Path(str(settings.lines)).is_file():
        raise ConfigError(f"bench edge: {settings.lines}: reads lines more than once; name a file")
    source = open_lines(
        str(settings.lines), follow=False, baud=None, realtime=False, report=lambda _: None
    )
    lines: list[Line] = []
    for block in source.blocks():
        lines += block
        if len(lines) >= SAMPLE:
            break
    return lines[:SAMPLE]


class _Again:
    """Lines in memory, again and again until the time is over."""

    name, description, live = "memory", "", False

    def __init__(self, lines: list[Line], seconds: float) -> None:
        self._lines = lines
        self._end = time.monotonic() + seconds

    def blocks(self) -> Iterator[list[Line]]:
        """The lines, numbered on; a quarter of a queue at a time."""
        number, step = 0, MOST // 4
        while time.monotonic() < self._end:
            for start in range(0, len(self._lines), step):
                block, now = self._lines[start : start + step], time.monotonic()
                yield [
                    line._replace(number=number + place, captured=now)
                    for place, line in enumerate(block, 1)
                ]
                number += len(block)
                if time.monotonic() > self._end:
                    return

    def stop(self) -> None:
        """End now."""
        self._end = 0.0


class _Bench:
    def __init__(
        self, model: Model, settings: EdgeSettings, threads: int, sample: list[Line]
    ) -> None:
        self._model = model
        self._settings = settings
        self._threads = threads
        self._sample = sample
        self._bare = speed.BareCalls()
        self._parser = parser_for(model)
        parsed = self._parser([line.data.decode(errors="replace") for line in sample])
        if not parsed.rows:
            raise InputError(f"{settings.lines}: no line of it can be scored")
        self._scored = len(parsed.rows)
        self._tensors = self._collate(parsed.columns)

    def _collate(self, columns: Columns) -> list[Columns]:
        encoded = self._model.task.encode(columns)
        plan = self._model.plan(encoded)
        return [self._model.task.collate(take(encoded, rows)) for rows in plan]

    def one_at_a_time(self, folder: Path, seconds: float) -> dict[str, Any]:
        """From a line to its answer in a file, with nothing else going on."""
        stats, writer = Stats(), LineEvents(str(folder / "events.jsonl"), echo=False)
        pipeline = self._pipeline(_Again(self._sample, 0), [], stats)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            line = self._sample[len(times) % len(self._sample)]
            started = time.perf_counter()
            writer.write(pipeline.answer([line]))
            times.append(time.perf_counter() - started)
        writer.close()
        return {"lines_per_second": round(len(times) / sum(times), 1), **speed.percentiles(times)}

    def all_at_once(self, folder: Path, seconds: float) -> dict[str, Any]:
        """As many lines as it takes, through the whole pipeline into a file."""
        stats, writer = Stats(), LineEvents(str(folder / "events.jsonl"), echo=False)
        pipeline = self._pipeline(_Again(self._sample, seconds), [writer], stats)
        started, cpu = time.perf_counter(), time.process_time()
        pipeline.run()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        writer.close()
        return {
            "lines": stats.frames,
            "lines_per_second": round(stats.frames / wall, 1),
            "cores_busy": round(cpu / wall, 2),
            "stages_s": {
                name: round(values.total, 4) for name, values in sorted(stats.stages.items())
            },
        }

    def bare_calls(self, seconds: float) -> None:
        """The same lines as tensors through the runtime and nothing else."""
        self._bare.run(self._model.runtime.run, self._tensors, seconds)

    def report(self, alone: dict[str, Any], together: dict[str, Any]) -> dict[str, Any]:
        """All of it, ready for JSON."""
        precision = self._model.runtime.precision
        # Of the lines as they are, those with nothing to score included.
        possible = self._bare.rate * len(self._sample) / self._scored
        stages = together["stages_s"]
        report = {
            "lines": self._settings.lines,
            "model": self._model.name,
            "runtime": type(self._model.runtime).__name__.lower(),
            "threads": self._threads,
            "precision": precision,
            "cores": core_count(),
            "one_at_a_time": alone,
            "all_at_once": together,
            "memory_mb": round(resident_memory() / 1e6, 1),
            "limit": {
                "lines_per_second": round(possible, 1),
                **self._bare.limit(self._settings.model, precision, self._threads),
            },
            "ratio": round(together["lines_per_second"] / possible, 3),
            "bottleneck": max(stages, key=stages.__getitem__),
        }
        report["verdict"] = verdict(report)
        return report

    def _pipeline(self, source: _Again, outputs: list[LineEvents], stats: Stats) -> LinePipeline:
        return LinePipeline(
            self._model, self._parser, source, outputs, stats, report=lambda _: None
        )


def verdict(report: dict[str, Any]) -> str:
    """What a report of `bench_lines` comes to, in one sentence."""
    stage, stages = report["bottleneck"], report["all_at_once"]["stages_s"]
    speed = f"{report['all_at_once']['lines_per_second']:,.0f} lines/s"
    share = f"{report['ratio']:.0%} of bare calls of the model"
    if stage == "model" and report["ratio"] >= GOOD:
        return (
            f"The model sets the pace: {speed} are {share}, so only a smaller model, another "
            "precision or more threads would be faster."
        )
    if stage == "model":
        busy = f"{report['all_at_once']['cores_busy']:.1f} of {report['cores']} cores busy"
        return (
            f"The model is the slowest stage, but {speed} are only {share}: with {busy}, encoding, "
            "rechecks of close calls or other programs take the rest."
        )
    part = stages[stage] / (sum(stages.values()) or 1)
    return (
        f"{stage} sets the pace, with {part:.0%} of all work: {speed} are {share}; what helps is "
        f"{HINTS[stage]}."
    )


def show(report: dict[str, Any], console: Console) -> None:
    """A report for people."""
    alone, together = report["one_at_a_time"], report["all_at_once"]
    right = ("lines/s", "p50", "p99, ms")
    table = plain_table("lines come", *right, right=right)
    rate = f"{alone['lines_per_second']:,.0f}"
    table.add_row("one at a time", rate, f"{alone['p50']:.2f}", f"{alone['p99']:.2f}")
    table.add_row("all at once", f"{together['lines_per_second']:,.0f}", "", "")
    possible = f"{report['limit']['lines_per_second']:,.0f}"
    table.add_row("bare calls", possible, "", "", style="dim")
    console.print(table)
    stages = together["stages_s"]
    total = sum(stages.values()) or 1
    shares = ", ".join(f"{name} {spent / total:.0%}" for name, spent in stages.items())
    print_line(
        console,
        f"all at once: {report['ratio']:.1%} of bare calls, {together['cores_busy']:.1f} of "
        f"{report['cores']} cores busy; {shares}; {report['memory_mb']:.0f} MB",
    )
    speed.show_share_of_peak(report["limit"], report["precision"], console)
    print_line(console, report["verdict"])
    speed.show_others(report["limit"]["cores_ours"], console)
