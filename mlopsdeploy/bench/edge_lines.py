"""`mlopsdeploy bench edge --lines`: how fast lines are answered here, and what is possible."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.bench import speed
from mlopsdeploy.columns import take
from mlopsdeploy.core.console import plain_table, print_line, progress_log
from mlopsdeploy.core.machine import resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.lines.answering import MOST, Answer, Answers, Form, LinePipeline
from mlopsdeploy.edge.lines.parsing import parser_for
from mlopsdeploy.edge.lines.run import WAITING, load
from mlopsdeploy.edge.lines.sources import Line, LineSource, open_lines
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.outputs import Outlet
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings

SAMPLE = 2000  # lines that are read, and then come again and again
HINTS = {"parse": "fewer columns", "events": "a local disk"}


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
    bench = _Bench(model, settings, sample)
    with tempfile.TemporaryDirectory() as folder:
        events = str(Path(folder) / "events.jsonl")
        alone = bench.one_at_a_time(events, seconds / 3)
        bench.bare.run(seconds / 3)
        together = bench.all_at_once(events, seconds)
        bench.bare.run(seconds / 3)  # before and after, as the machine may have become busy
    return bench.report(alone, together, threads)


def _sample(settings: EdgeSettings) -> list[Line]:
    if not Path(str(settings.lines)).is_file():
        raise ConfigError(f"bench edge: {settings.lines}: reads lines more than once; name a file")
    source = open_lines(EdgeSettings(lines=settings.lines), lambda _: None)
    lines: list[Line] = []
    for block in source.blocks():
        lines += block
        if len(lines) >= SAMPLE:
            break
    return lines[:SAMPLE]


class _Again(LineSource):
    """Lines in memory, again and again until the time is over."""

    def __init__(self, lines: list[Line], seconds: float) -> None:
        super().__init__("memory", lambda _: None)
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
    def __init__(self, model: Model, settings: EdgeSettings, sample: list[Line]) -> None:
        self._model = model
        self._settings = settings
        self._sample = sample
        self._parser = parser_for(model)
        self._form = Form(model.task, echo=False)
        parsed = self._parser([line.data.decode(errors="replace") for line in sample])
        if not parsed.rows:
            raise InputError(f"{settings.lines}: no line of it can be scored")
        # Of the lines as they are, those with nothing to score included.
        weight = len(sample) / len(parsed.rows)
        batches = []
        for columns, _ in parsed.batches():
            encoded = model.task.encode(columns)
            batches += [
                speed.Batch(model.task.collate(take(encoded, rows)), len(rows) * weight)
                for rows in model.plan(encoded)
            ]
        self.bare = speed.BareCalls(model.runtime.run, batches)

    def one_at_a_time(self, path: str, seconds: float) -> dict[str, Any]:
        """From a line to its answer in a file, with nothing else going on."""
        events = Events(path, live=False)
        pipeline = self._pipeline(_Again(self._sample, 0), lambda _: None, Stats())
        times = speed.seconds_of(
            lambda line: events.write(self._found(pipeline.answer([line])).documents()),
            self._sample, seconds,
        )  # fmt: skip
        events.close()
        return {"lines_per_second": round(len(times) / sum(times), 1), **speed.percentiles(times)}

    def all_at_once(self, path: str, seconds: float) -> dict[str, Any]:
        """As many lines as it takes, through the whole pipeline into a file."""
        stats, log = Stats(), progress_log()
        outlet = Outlet(Events(path, live=False), stats, keep=True, log=log, waiting=WAITING)
        pipeline = self._pipeline(
            _Again(self._sample, seconds), lambda answers: outlet.put(self._found(answers)), stats
        )
        started, cpu = time.perf_counter(), time.process_time()
        pipeline.run()
        outlet.close()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        return {
            "lines": stats.frames,
            "lines_per_second": round(stats.frames / wall, 1),
            "cores_busy": round(cpu / wall, 2),
            "stages_s": {
                name: round(values.total, 4) for name, values in sorted(stats.stages.items())
            },
        }

    def report(
        self, alone: dict[str, Any], together: dict[str, Any], threads: int
    ) -> dict[str, Any]:
        """All of it, ready for JSON."""
        possible, stages = self.bare.rate, together["stages_s"]
        report = {
            "lines": self._settings.lines,
            **speed.about(self._model),
            "threads": threads,
            "one_at_a_time": alone,
            "all_at_once": together,
            "memory_mb": round(resident_memory() / 1e6, 1),
            "limit": {
                "lines_per_second": round(possible, 1),
                **self.bare.limit(self._model, self._settings.model, threads),
            },
            "ratio": round(together["lines_per_second"] / possible, 3),
            "bottleneck": max(stages, key=stages.__getitem__),
        }
        report["verdict"] = verdict(report)
        return report

    def _found(self, answers: Sequence[Answer]) -> Answers:
        return Answers(answers, self._form)

    def _pipeline(
        self, source: _Again, write: Callable[[Sequence[Answer]], None], stats: Stats
    ) -> LinePipeline:
        return LinePipeline(self._model, self._parser, source, write, stats, report=lambda _: None)


def verdict(report: dict[str, Any]) -> str:
    """What a report of `bench_lines` comes to, in one sentence."""
    stage, together = report["bottleneck"], report["all_at_once"]
    part = together["stages_s"][stage] / (sum(together["stages_s"].values()) or 1)
    return speed.verdict(
        stage, f"{together['lines_per_second']:,.0f} lines/s", report, hint=HINTS.get(stage),
        cores_busy=together["cores_busy"], part=f", with {part:.0%} of all work",
        faster=", so only a smaller model, another precision or more threads would be faster",
        besides="encoding, rechecks of close calls or other programs take the rest",
    )  # fmt: skip


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
    speed.show_verdict(report, report["limit"]["cores_ours"], console)
