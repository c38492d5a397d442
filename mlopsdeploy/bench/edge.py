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
from mlopsdeploy.columns import Columns
from mlopsdeploy.core.console import plain_table, print_line, progress_log
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.machine import core_count, resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.camera import FrameSource, Requested, open_source
from mlopsdeploy.edge.draw import draw
from mlopsdeploy.edge.frames import Frame, Image
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.outputs import FrameEvents, Outlet, Result, Sink, VideoFile
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.stages import Stats, Values
from mlopsdeploy.edge.watch import check_task, load, share_cores
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
    seconds: float = 0.0
    cpu: float = 0.0
    dropped: int = 0
    ages: Values = field(default_factory=Values)

    @property
    def fps(self) -> float:
        """Frames per second, from a run's first result to its last."""
        return self.frames / self.seconds if self.seconds else 0.0


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
    share_cores()
    log = progress_log()

    check_settings(settings)
    model, threads = load(settings, log)
    check_task(model)
    bench = _Bench(model, settings, threads, seconds / 6, log)
    with tempfile.TemporaryDirectory() as folder:
        bench.measure_stages(Path(folder))
        bench.bare_calls()
        watched = bench.watch(outputs, seconds, Path(folder))
        bench.bare_calls()  # before and after, as machines have moods
    return bench.report(outputs, watched)


class _Bench:
    def __init__(
        self,
        model: Model,
        settings: EdgeSettings,
        threads: int,
        seconds: float,
        log: Callable[[str], None],
    ) -> None:
        self._model = model
        self._settings = settings
        self._threads = threads
        self._bare = speed.BareCalls()
        self._seconds = seconds
        self._log = log
        self._stages: dict[str, Values] = {}
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
        found = self._alone("decode", lambda pair: detections_of(task.decode(*pair)), pairs)
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

    def bare_calls(self) -> None:
        """Calls of the model and nothing else."""
        image = self._image[None]
        tensors = self._model.task.collate(self._model.task.encode({"image": image}))
        self._model.runtime.run(tensors)
        with ExitStack() as stack:
            native = stack.enter_context(self._model.runtime.native())
            call: Callable[[Columns], object] = (
                self._model.runtime.run if native is None else lambda _: native.invoke()
            )
            self._bare.run(call, [tensors], self._seconds)

    def watch(self, outputs: Sequence[str], seconds: float, folder: Path) -> Watched:
        """The pipeline, over and over where the source is a short file."""
        watched, end = Watched(), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            stats = Stats()
            source = self._open(lambda _: None)
            with ExitStack() as stack:
                outlets = [
                    Outlet(
                        _sink(name, folder, source, live=source.live),
                        stats,
                        keep=not source.live,
                        log=self._log,
                    )
                    for name in outputs
                ]
                for outlet in outlets:
                    stack.callback(outlet.close)
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

    def report(self, outputs: Sequence[str], watched: Watched) -> dict[str, Any]:
        """All of it, ready for JSON."""
        memory = round(resident_memory() / 1e6, 1)  # before the limit takes some
        source, possible = self._source, self._bare.rate
        costs = {name: values.percentiles()[0] for name, values in self._stages.items()}
        bottleneck = slowest(costs, outputs, live=source.live)
        shown = Values()
        for seconds in self._bare.times:
            shown.add(seconds)
        precision = self._model.runtime.precision
        found = self._bare.limit(self._settings.model, precision, self._threads)
        frames = max(watched.frames, 1)
        report = {
            "model": self._model.name,
            "runtime": type(self._model.runtime).__name__.lower(),
            "threads": self._threads,
            "precision": self._model.runtime.precision,
            "cores": core_count(),
            "camera": source.name,
            "live": source.live,
            "width": source.size[0],
            "height": source.size[1],
            "invoke": {"fps": round(possible, 1), **_rounded(shown)},
            "stages_ms": {name: _rounded(values) for name, values in self._stages.items()},
            "pipeline": {
                "outputs": list(outputs),
                "frames": watched.frames,
                "fps": round(watched.fps, 1),
                "cpu_ms": round(1000 * watched.cpu / frames, 2),
                "cores_busy": round(watched.cpu / (watched.seconds or 1), 2),
                "dropped": watched.dropped,
                "frame_age_ms": _rounded(watched.ages) if source.live else None,
            },
            "memory_mb": memory,
            "limit": {"fps": round(possible, 1), **found},
            "ratio": round(watched.fps / possible, 3),
            "bottleneck": bottleneck,
        }
        report["verdict"] = verdict(report)
        return report

    def _open(self, timing: Callable[[float], None]) -> FrameSource:
        settings = self._settings
        return open_source(
            settings.camera,
            requested=Requested(settings.width, settings.height, settings.fps),
            realtime=settings.realtime,
            stall_seconds=settings.stall_seconds,
            report=lambda _: None,
            timing=timing,
        )

    def _capture(self) -> list[Image]:
        """Read for a while; the first frames."""
        times = self._stages["capture"] = Values()
        self._source = source = self._open(times.add)
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
        self._image = images[0]
        return images

    def _alone(self, name: str, call: Callable[[T], Any], items: Sequence[T]) -> list[Any]:
        """Time a stage; what it makes of each item."""
        made = [call(item) for item in items]
        values = self._stages[name] = Values()
        for seconds in _times(call, items, self._seconds):
            values.add(seconds)
        return made


def slowest(costs: dict[str, float], outputs: Sequence[str], *, live: bool) -> str:
    """The stage that sets the pace: the largest part of the busiest thread.

    Args:
        costs: time for a frame, by stage.
        outputs: that are part of the pipeline.
        live: see `pipeline`: it decides which thread makes the model's input.
    """
    first = [("capture",), ("encode", "infer")] if live else [("capture", "encode"), ("infer",)]
    last = [("draw", "save") if name == "save" else (name,) for name in outputs]
    busiest = max(
        [*first, ("decode",), *last], key=lambda thread: sum(costs[stage] for stage in thread)
    )
    return max(busiest, key=costs.__getitem__)


def verdict(report: dict[str, Any]) -> str:
    """What a report of `bench_edge` comes to, in one sentence."""
    stage, fps, possible = report["bottleneck"], report["pipeline"]["fps"], report["invoke"]["fps"]
    share = f"{report['ratio']:.0%} of bare calls of the model"
    if report["ratio"] >= GOOD:
        return (
            f"The model sets the pace: {fps:.1f} fps are {share}, so only a smaller model or "
            "other --threads would be faster."
        )
    if stage == "capture" and report["live"]:
        return f"The camera sets the pace, {fps:.1f} fps; the model could do {possible:.1f}."
    if stage == "infer":
        busy = f"{report['pipeline']['cores_busy']:.1f} of {report['cores']} cores busy"
        return (
            f"The model is the slowest stage, but {fps:.1f} fps are only {share}: with {busy}, "
            "the other stages or other programs take time from it."
        )
    cost = report["stages_ms"][stage]["p50"]
    return (
        f"{stage} sets the pace with {cost:.1f} ms a frame: {fps:.1f} fps are {share}; what helps "
        f"is {HINTS[stage]}."
    )


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
    speed.show_share_of_peak(report["limit"], report["precision"], console)
    print_line(console, report["verdict"])
    speed.show_others(report["limit"]["cores_ours"], console)


def _sink(name: str, folder: Path, source: FrameSource, *, live: bool) -> Sink:
    if name == "events":
        return FrameEvents(str(folder / "events.jsonl"), live=live)
    path = str(folder / "save.mp4")
    return VideoFile(path, size=source.size, fps=source.fps or 30.0, live=live)


def _times(call: Callable[[T], object], items: Sequence[T], seconds: float) -> list[float]:
    """How long each of many calls takes."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        item = items[len(times) % len(items)]
        start = time.perf_counter()
        call(item)
        times.append(time.perf_counter() - start)
    return times


def _rounded(values: Values) -> dict[str, float]:
    middle, high = values.percentiles()
    return {"p50": round(middle, 3), "p99": round(high, 3)}
