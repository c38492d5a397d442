"""`mlopsdeploy edge --camera`, from settings to summary."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge import terminal
from mlopsdeploy.edge.camera import Wish
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.loading import load_edge
from mlopsdeploy.edge.outputs import Events, Outlet, Sink, Snapshots, VideoFile
from mlopsdeploy.edge.pipeline import Pipeline, Taker
from mlopsdeploy.edge.preview import Preview
from mlopsdeploy.edge.signals import STOPS, stopping
from mlopsdeploy.edge.sources import Source, open_source
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.window import Window, display_named
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings

TICK = 0.05  # seconds between two looks at window, terminal and signals
OF_LINES = ("follow", "baud", "echo", "features", "long_text")


def watch_camera(settings: EdgeSettings) -> tuple[dict[str, Any], int]:
    """Watch `settings.camera`; returns the summary, shown on standard error, and the exit code.

    Raises:
        MlopsDeployError: see `open_source`, `load_model`, the sinks and `Pipeline.run`.
    """
    check_settings(settings)
    settle()
    console = Console(stderr=True, highlight=False)

    def log(line: str) -> None:
        console.print(line, style="dim", soft_wrap=True, markup=False)

    stats = Stats()
    teller = _Teller(log)
    with ExitStack() as stack:
        inference = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="inference"))
        loading = inference.submit(load, settings, log)
        try:
            source = open_source(
                settings.camera,
                wish=Wish(settings.width, settings.height, settings.fps),
                realtime=settings.realtime,
                stall_seconds=settings.stall_seconds,
                tell=teller.tell,
                timing=lambda seconds: stats.add("capture", seconds),
            )
        except InputError:
            if "camera" not in settings.model_fields_set:
                check_task(loading.result()[0])  # nobody asked for a camera, and it may need none
            raise
        stack.callback(source.stop)
        model, _ = loading.result()
        check_task(model)
        window = _window(settings, stack, log)
        outlets = _outlets(settings, source, model, stats, stack, log)
        if window is None and not outlets:
            log("nothing is shown or written: --preview 8081, --save or --events would")
        teller.begin(source, outlets)
        takers: list[Taker] = [*outlets, window] if window else [*outlets]
        pipeline = Pipeline(model, source, takers, stats, settings.limit, teller.tell)
        screen = terminal.Screen(console, f"{source.name} · {model.name}", stats, source)
        with stopping(pipeline.stop), screen.shown():
            _watch(inference.submit(pipeline.run), pipeline, window, screen, log)
            if window is not None and not outlets and source.total == 1 and not source.live:
                _hold(window, pipeline)
        seconds = time.monotonic() - stats.started
        teller.tell(Event("ended", pipeline.ended, {"reason": pipeline.ended}))
        for outlet in outlets:
            outlet.close()
    summary = terminal.summarise(stats, source, ended=pipeline.ended, seconds=seconds)
    summary["model"] = {"name": model.name, "version": model.version, "digest": model.digest}
    summary["left_out"] = {outlet.sink.name: outlet.dropped for outlet in outlets if outlet.dropped}
    failed = [outlet.failed for outlet in outlets if outlet.failed]
    summary["failed"] = failed
    if pipeline.ended in STOPS:
        log(f"{pipeline.ended}; all files are finished" if outlets else pipeline.ended)
    terminal.show_summary(console, summary, stats, _written(settings))
    return summary, STOPS.get(pipeline.ended, 1 if failed else 0)


def settle() -> None:
    """Leave half of the cores to the model: OpenCV would take them all for resizing."""
    cv2.setNumThreads(max(1, core_count() // 2))


def check_settings(settings: EdgeSettings) -> None:
    """Refuse what is said of lines only.

    Raises:
        ConfigError: something is.
    """
    for name in OF_LINES:
        if getattr(settings, name) != EdgeSettings.model_fields[name].default:
            raise ConfigError(f"--{name.replace('_', '-')} is for --lines, not for a camera")


def load(settings: EdgeSettings, log: Callable[[str], None]) -> tuple[Model, int]:
    """The model of the settings, and on how many threads it runs."""
    return load_edge(settings, picture, log)


def picture(model: Model) -> Columns:
    """A plain one, to measure with.

    Raises:
        ConfigError: the model takes none.
    """
    check_task(model)
    return {"image": np.full((1, 480, 640, 3), 127, np.uint8)}


def check_task(model: Model) -> None:
    """Refuse a model that does not take pictures.

    Raises:
        ConfigError: it takes something else.
    """
    if [field.name for field in model.task.inputs] != ["image"]:
        takes = ", ".join(field.name for field in model.task.inputs[:3])
        raise ConfigError(
            f"--model {model.name}: takes {takes}, not pictures: name --lines (a file, a device, - "
            "for standard input), or another model, such as 'detector'"
        )


class _Teller:
    """Events to the terminal and to outputs; those from before there were outputs as well."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._say = log
        self._early: list[Event] | None = []
        self._outlets: list[Outlet] = []
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        with self._lock:
            if event.kind != "ended":
                self._say(event.text)
            if self._early is not None:
                self._early.append(event)
            for outlet in self._outlets:
                outlet.tell(event)

    def begin(self, source: Source, outlets: list[Outlet]) -> None:
        width, height = source.size
        facts = {"source": source.name, "width": width, "height": height, "fps": source.fps}
        self.tell(Event("connected", f"{source.name}: {source.said}", facts))
        with self._lock:
            early, self._early, self._outlets = self._early or [], None, outlets
            for event in sorted(early, key=lambda event: event.time):
                for outlet in outlets:
                    outlet.tell(event)


def _outlets(
    settings: EdgeSettings,
    source: Source,
    model: Model,
    stats: Stats,
    stack: ExitStack,
    log: Callable[[str], None],
) -> list[Outlet]:
    outlets: list[Outlet] = []

    def add(sink: Sink, *, keep: bool) -> None:
        outlets.append(Outlet(sink, stats, keep=keep, log=log))
        stack.callback(outlets[-1].close)

    if settings.preview is not None:
        name = f"{model.name} {model.version}".strip()
        preview = Preview(settings.preview, lambda: _state(source, stats, name))
        add(preview, keep=False)
        log(f"preview: {preview.url}")
        if preview.exposed:
            log("preview: whoever reaches this machine can see the picture; it has no password")
    if settings.events is not None:
        add(Events(settings.events, live=source.live), keep=not source.live)
    if settings.snapshots is not None:
        sink = Snapshots(settings.snapshots, seconds=settings.snapshot_seconds)
        add(sink, keep=not source.live)
    if settings.save is not None:
        # Pictures have no speed: one a second.
        fps = source.fps or (30.0 if source.live else 1.0)
        video = VideoFile(settings.save, size=source.size, fps=fps, live=source.live)
        add(video, keep=not source.live)
    return outlets


def _state(source: Source, stats: Stats, model: str) -> dict[str, Any]:
    """What the preview shows beside the picture."""
    middle, high = stats.ages.percentiles()
    return {
        "camera": source.name,
        "model": model,
        "live": source.live,
        "fps": stats.fps,
        "frames": stats.frames,
        "dropped": source.dropped,
        "age": {"p50": middle, "p99": high},
        "temperature": terminal.temperature(),
        "labels": dict(stats.labels.most_common(8)),
        "stages": stats.latencies(),
        "bottleneck": stats.bottleneck(),
    }


def _window(settings: EdgeSettings, stack: ExitStack, log: Callable[[str], None]) -> Window | None:
    if settings.window is False:
        return None
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        log("no window: this OpenCV is built without (opencv-python-headless)")
    elif not display_named():
        log("no window: no display")
    else:
        window = Window()
        stack.callback(window.close)
        return window
    return None


def _watch(
    running: Future[None],
    pipeline: Pipeline,
    window: Window | None,
    screen: terminal.Screen,
    log: Callable[[str], None],
) -> None:
    """What the main thread does while the others work."""
    done = threading.Event()
    running.add_done_callback(lambda _: done.set())
    while not done.is_set():
        if window is not None and window.usable() is False:
            log("no window: the display can't be opened")
            window.close()
            window = None
        if window is None or not window.usable():
            done.wait(TICK)
        elif not window.show(TICK):
            pipeline.stop("quit")
            done.wait()
        screen.tick()
    running.result()


def _hold(window: Window, pipeline: Pipeline) -> None:
    """A single picture, shown and nothing else, stays until somebody has seen it."""
    while pipeline.ended not in STOPS and window.usable() is not False:
        if not window.usable():
            time.sleep(TICK)
        elif not window.show(TICK):
            return


def _written(settings: EdgeSettings) -> list[str]:
    return [path for path in (settings.save, settings.events, settings.snapshots) if path]
