"""`mlopsdeploy bench edge --camera`: how fast pictures are watched here, and what is possible."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from mlopsdeploy.bench import speed
from mlopsdeploy.core.console import plain_table, print_line, progress_log
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.machine import resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.draw import draw
from mlopsdeploy.edge.frames import Frame, FrameSource, Image
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.outputs import Outlet, Sink
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.results import Result
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.edge.sinks.save import VideoFile
from mlopsdeploy.edge.stages import Stats, Values
from mlopsdeploy.edge.watch import load
from mlopsdeploy.errors import InputError
from mlopsdeploy.settings import EdgeSettings

T = TypeVar("T")

FRAMES = 32  # kept in memory, for the stages that run alone
GOOD = 0.95  # of bare calls of the model: nothing around it costs time

HINTS = {
    "capture": "a smaller picture, or a codec that is easier to read",
    "encode": "a smaller picture",
    "decode": "a higher --threshold, or a model with fewer boxes",
    "draw": "a smaller picture",
    "save": "a smaller picture, or no --save",
    "events": "no --events",
}


@dataclass
class Watched:
    """The pipeline end to end. `cpu`: seconds of processor time."""

    frames: int = 0
    seconds: float = 0.0  # from a run's first result to its last
    cpu: float = 0.0
    dropped: int = 0
    ages: Values = field(default_factory=Values)


def bench_edge(
    settings: EdgeSettings, *, outputs: Sequence[str] = (), seconds: float = 3.0
) -> dict[str, Any]:
    """Measure bare calls of the model, each stage alone, and the pipeline end to end.

    Args:
        settings: as of `mlopsdeploy edge`: model, camera, threads.
        outputs: part of the pipeline: events, save. They write to a temporary folder.
        seconds: that the pipeline runs; each stage alone takes a sixth of it.

    Raises:
        MlopsDeployError: see `open_source` and `load_model`.
    """
    log = progress_log()
    check_settings(settings)
    model, threads = load(settings, log)
    bench = _Bench(model, settings, seconds / 6)
    with tempfile.TemporaryDirectory() as folder:
        bench.measure_stages(Path(folder))
        bench.bare_calls()
        watched = bench.watch(outputs, seconds, Path(folder), log)
        bench.bare_calls()  # before and after, as the machine may have become busy
    return bench.report(outputs, watched, threads)


class _Bench:
    def __init__(self, model: Model, settings: EdgeSettings, seconds: float) -> None:
        self._model = model
        self._settings = settings
        self._bare = speed.BareCalls(model.runtime.run, [])
        self._seconds = seconds
        self._stages: dict[str, list[float]] = {}
        self._source: FrameSource

    def measure_stages(self, folder: Path) -> None:
        """Each stage alone, over frames in memory."""
        task, runtime = self._model.task, self._model.runtime
        images = self._capture()
        encoded = self._alone(
            "encode", lambda image: task.collate(task.encode({"image": image[None]})), images
        )
        answers = self._alone("infer", runtime.run, encoded)
        pairs = list(zip(answers, encoded, strict=True))
        found = self._alone("decode", lambda pair: detections_of(task, task.decode(*pair)), pairs)
        drawn = list(zip(images, found, strict=True))
        self._alone("draw", lambda pair: draw(*pair), drawn)
        results = [
            Result(Frame(number, image), detections, Stats())
            for number, (image, detections) in enumerate(drawn)
        ]
        for result in results:
            result.drawn()
        for name in ("events", "save"):
            sink = _sink(name, folder, self._source, live=False)
            self._alone(name, lambda result: sink.write(sink.pick(result)), results)  # noqa: B023
            sink.close()
        self._bare.batches = [speed.Batch(encoded[0], 1)]

    def bare_calls(self) -> None:
        """Calls of the model and nothing else."""
        runtime = self._model.runtime
        runtime.run(self._bare.batches[0].tensors)
        with runtime.native() as native:
            self._bare.call = runtime.run if native is None else lambda _: native.invoke()
            self._bare.run(self._seconds)

    def watch(
        self, outputs: Sequence[str], seconds: float, folder: Path, log: Callable[[str], None]
    ) -> Watched:
        """The pipeline, over and over where the source is a short file."""
        watched, end = Watched(), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            stats = Stats()
            source = self._open(lambda _: None)
            with ExitStack() as stack:
                outlets = []
                for name in outputs:
                    sink = _sink(name, folder, source, live=source.live)
                    outlets.append(Outlet(sink, stats, keep=not source.live, log=log))
                    stack.callback(outlets[-1].close)
                pipeline = FramePipeline(self._model, source, outlets, stats)
                timer = threading.Timer(left, pipeline.stop, ("enough",))
                timer.start()
                stack.callback(timer.cancel)
                before = time.process_time()
                pipeline.run()
                watched.cpu += time.process_time() - before
            watched.frames += max(stats.frames - 1, 0)
            watched.seconds += stats.last - stats.first
            watched.dropped += source.dropped
            watched.ages = stats.ages
        return watched

    def report(self, outputs: Sequence[str], watched: Watched, threads: int) -> dict[str, Any]:
        """All of it, ready for JSON."""
        memory = round(resident_memory() / 1e6, 1)  # before the limit takes some
        source, possible = self._source, self._bare.rate
        stages = {name: speed.percentiles(times) for name, times in self._stages.items()}
        costs = {name: shown["p50"] for name, shown in stages.items()}
        seconds = watched.seconds or 1
        age, oldest = watched.ages.percentiles()
        report = {
            **speed.about(self._model),
            "threads": threads,
            "camera": source.name,
            "live": source.live,
            "width": source.size[0],
            "height": source.size[1],
            "invoke": {"fps": round(possible, 1), **speed.percentiles(self._bare.times)},
            "stages_ms": stages,
            "pipeline": {
                "outputs": list(outputs),
                "frames": watched.frames,
                "fps": round(watched.frames / seconds, 1),
                "cpu_ms": round(1000 * watched.cpu / max(watched.frames, 1), 2),
                "cores_busy": round(watched.cpu / seconds, 2),
                "dropped": watched.dropped,
                "frame_age_ms": {"p50": round(age, 3), "p99": round(oldest, 3)}
                if source.live
                else None,
            },
            "memory_mb": memory,
            "limit": {
                "fps": round(possible, 1),
                **self._bare.limit(self._model, self._settings.model, threads),
            },
            "ratio": round(watched.frames / seconds / possible, 3),
            "bottleneck": slowest(costs, outputs, live=source.live),
        }
        report["verdict"] = verdict(report)
        return report

    def _open(self, timing: Callable[[float], None]) -> FrameSource:
        source = open_source(self._settings, report=lambda _: None, timing=timing)
        source.open()
        return source

    def _capture(self) -> list[Image]:
        """Read for a while; the first frames."""
        times = self._stages["capture"] = []
        self._source = source = self._open(times.append)
        images: list[Image] = []
        end = time.monotonic() + self._seconds
        for frame in source.frames():
            if len(images) < FRAMES:
                images.append(frame.image.copy())
            elif time.monotonic() > end:
                break
        source.stop()
        if len(images) < 2:
            raise InputError(
                f"{source.name}: a single picture; name a video, a folder of pictures or a camera"
            )
        return images

    def _alone(self, name: str, call: Callable[[T], Any], items: Sequence[T]) -> list[Any]:
        """Time a stage; what it makes of each item."""
        made = [call(item) for item in items]
        self._stages[name] = speed.seconds_of(call, items, self._seconds)
        return made


def slowest(costs: dict[str, float], outputs: Sequence[str], *, live: bool) -> str:
    """The stage that sets the pace, by time for a frame: the largest part of the busiest thread.

    `live` decides which thread makes the model's input, see `pipeline`.
    """
    first = [("capture",), ("encode", "infer")] if live else [("capture", "encode"), ("infer",)]
    last = [("draw", "save") if name == "save" else (name,) for name in outputs]
    busiest = max(
        [*first, ("decode",), *last], key=lambda thread: sum(costs[stage] for stage in thread)
    )
    return max(busiest, key=costs.__getitem__)


def verdict(report: dict[str, Any]) -> str:
    """What a report of `bench_edge` comes to, in one sentence."""
    stage, fps, ratio = report["bottleneck"], report["pipeline"]["fps"], report["ratio"]
    if stage == "capture" and report["live"] and ratio < GOOD:
        possible = report["invoke"]["fps"]
        return f"The camera sets the pace, {fps:.1f} fps; the model could do {possible:.1f}."
    return speed.verdict(
        "infer" if ratio >= GOOD else stage, f"{fps:.1f} fps", report, good=GOOD,
        cores_busy=report["pipeline"]["cores_busy"], hint=HINTS.get(stage),
        part=f" with {report['stages_ms'][stage]['p50']:.1f} ms a frame",
        faster=", so only a smaller model or other --threads would be faster",
        besides="the other stages or other programs take time from it",
    )  # fmt: skip


def show(report: dict[str, Any], console: Console) -> None:
    """A report for people."""
    right = ("p50", "p99, ms", "fps")
    table = plain_table("stage, alone", *right, right=right)

    def row(name: str, values: dict[str, float], fps: float, style: str = "") -> None:
        table.add_row(
            name, f"{values['p50']:.2f}", f"{values['p99']:.2f}", f"{fps:,.0f}", style=style
        )

    row("bare call", report["invoke"], report["invoke"]["fps"], "dim")
    for name, values in report["stages_ms"].items():
        style = "green" if name == report["bottleneck"] else ""
        row(name, values, 1000 / max(values["p50"], 0.001), style)
    console.print(table)
    end = report["pipeline"]
    line = f"end to end: {end['fps']:.1f} fps, {report['ratio']:.1%} of bare calls"
    line += f", {end['cpu_ms']:.1f} ms of processor time a frame"
    if end["frame_age_ms"]:
        age = end["frame_age_ms"]
        line += f", frames {age['p50']:.0f} ms old (p99 {age['p99']:.0f})"
    print_line(console, line)
    speed.show_verdict(report, report["limit"]["cores_ours"], console)


def _sink(name: str, folder: Path, source: FrameSource, *, live: bool) -> Sink:
    if name == "events":
        return Events(str(folder / "events.jsonl"), live=live)
    path = str(folder / "save.mp4")
    return VideoFile(path, fps=lambda: source.fps or 30.0, live=live)
