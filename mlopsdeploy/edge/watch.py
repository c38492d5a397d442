"""A run over frames: camera and model, window and outputs."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import cv2
import numpy as np

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.camera import open_source
from mlopsdeploy.edge.events import Log, Reporter
from mlopsdeploy.edge.filters.building import stage
from mlopsdeploy.edge.loading import check_outputs, load_edge, load_first
from mlopsdeploy.edge.outputs import READER_LEFT, About, Outlet, outcomes, rows_of
from mlopsdeploy.edge.pipeline import FramePipeline
from mlopsdeploy.edge.sinks import open_sinks
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.terminal import FrameView, temperature
from mlopsdeploy.edge.window import Window, display_named
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings


class FrameRun:
    """A run over the frames of `settings.camera`, ready to begin.

    Attributes:
        title: names its source and model.
        pipeline: to be run in the thread that loaded the model.
        view: its numbers, for people.
        reporter: of events.
        quiet: the terminal already shows its answers.
        finished: what holds although it was stopped; empty if nothing was to be finished.
        written: files that it writes.

    Raises:
        MlopsDeployError: see `open_source`, `load_model` and the sinks.
    """

    quiet = False

    def __init__(
        self, settings: EdgeSettings, inference: ThreadPoolExecutor, stack: ExitStack, log: Log
    ) -> None:
        self._log, self._stack, self._settings = log, stack, settings
        self._stats = Stats()
        self._outlets: list[Outlet] = []
        self.reporter = Reporter(log)
        cv2.setNumThreads(max(1, core_count() // 2))  # else OpenCV resizes on all cores
        loading = inference.submit(load_first, settings, plain_picture, log)
        timing = partial(self._stats.add, "capture")
        try:
            source = open_source(settings, report=self.reporter.report, timing=timing)
            if "camera" not in settings.given:
                source.open()
        except InputError:
            if "camera" not in settings.given:
                loading.result()  # nobody asked for a camera, and the model may need none
            raise
        self._source = source
        stack.callback(source.stop)
        filters = stage(settings, loading.result(), self.reporter.report)
        self.model, self._counting = filters.model, filters.counting
        self.title = f"{source.name} · {self.model.name}"
        check_outputs(settings, appends=source.live)
        self.view = FrameView(
            self._stats, source, self._counting, counts=bool(self.model.task.answers),
            sent=lambda: rows_of(self._outlets),
        )  # fmt: skip
        self._window = self._shown() if settings.window is not False else None
        self._write()
        if self._window is None and not self._outlets:
            log("nothing is shown or written: --preview 8081, --save or --events would")
        self.finished = "all files are finished" if self._outlets else ""
        self.written = [
            one
            for one in (settings.save, settings.events, settings.snapshots)
            if one not in (None, "-")
        ]
        self.reporter.connect([outlet.report for outlet in self._outlets])
        shown: list[Outlet | Window] = [*self._outlets, *([self._window] if self._window else [])]
        self.pipeline = FramePipeline(
            self.model, source, shown, self._stats, settings.limit, self.reporter.report,
            filters.filters,
        )  # fmt: skip
        # A single picture, shown and nothing else, stays until somebody has seen it.
        self._lingers = not self._outlets and source.total == 1 and not source.live

    def begin(self) -> None:
        """Run to the end, in the thread that loaded the model.

        How many threads are best is measured when the camera is there: reading it takes some.
        """
        if self._source.wait():
            self._source.is_there()
            self.model, _ = load_edge(self._settings, plain_picture, self._log, self.model)
            self.pipeline.use(self.model)
            self.pipeline.run()

    @property
    def live(self) -> bool:
        """Whether its source goes by, and does not end."""
        return self._source.live

    @staticmethod
    def try_model(settings: EdgeSettings, log: Log) -> None:
        """See that the model of other settings is there, and takes pictures."""
        load_first(settings, plain_picture, log)

    def turn(self, done: threading.Event, seconds: float) -> None:
        """What the main thread does for so long, or until `done`: show the newest frame."""
        if self._window is not None and self._window.usable() is False:
            self._log("no window: the display can't be opened")
            self._window.close()
            self._window = None
        if self._window is None or not self._window.usable():
            done.wait(seconds)
        elif not self._window.show(seconds):
            self.pipeline.stop("quit")
            done.wait()

    def linger(self) -> None:
        """Leave a single picture in the window until it is closed, or a signal comes."""
        window = self._window if self._lingers else None
        while window and self.pipeline.ended in ("end", "limit") and window.usable() is not False:
            if not window.usable():
                time.sleep(0.05)
            elif not window.show(0.05):
                return

    def outcome(self) -> dict[str, Any]:
        """What came of outputs, and how many results those left out that were too slow."""
        left_out = {one.sink.name: one.dropped for one in self._outlets if one.dropped}
        return {"left_out": left_out, **outcomes(self._outlets)}

    def _shown(self) -> Window | None:
        if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
            self._log("no window: this OpenCV is built without (opencv-python-headless)")
        elif not display_named():
            self._log("no window: no display")
        else:
            window = Window()
            self._stack.callback(window.close)
            return window
        return None

    def _write(self) -> None:
        source, report = self._source, self.reporter.report
        about = About(
            self._settings, source.name, source.live, self.model, self._log, self._state,
            lambda: source.fps, self._counting.as_dict if self._counting else dict,
        )  # fmt: skip
        for sink in open_sinks(about, report):
            outlet = Outlet(
                sink, self._stats, keep=not (source.live or sink.always_newest), log=self._log,
                happened=report, left=self._reader_left,
            )  # fmt: skip
            self._outlets.append(outlet)
            self._stack.callback(outlet.close)

    def _reader_left(self) -> None:
        self.pipeline.stop(READER_LEFT)

    def _state(self) -> dict[str, Any]:
        """What the preview shows next to the picture."""
        stats, source = self._stats, self._source
        middle, high = stats.ages.percentiles()
        return {
            "camera": source.name,
            "model": f"{self.model.name} {self.model.version}".strip(),
            "live": source.live,
            "fps": stats.fps,
            "frames": stats.frames,
            "dropped": source.dropped,
            "age": {"p50": middle, "p99": high},
            "temperature": temperature(),
            "labels": dict(stats.labels.most_common(8)),
            "numbers": {name: spread.words for name, spread in tuple(stats.numbers.items())},
            "counted": self._counting.rows() if self._counting else [],
            "sent": rows_of(self._outlets),
            "stages": stats.latencies(),
            "bottleneck": stats.bottleneck(),
        }


def load(settings: EdgeSettings, log: Log) -> tuple[Model, int]:
    """The model of the settings, and on how many threads it runs.

    Raises:
        ConfigError: the model does not take pictures.
    """
    cv2.setNumThreads(max(1, core_count() // 2))  # else OpenCV resizes on all cores
    return load_edge(settings, plain_picture, log)


def plain_picture(model: Model) -> Columns:
    """A picture to try a model with.

    Raises:
        ConfigError: it does not take pictures.
    """
    if [field.name for field in model.task.inputs] != ["image"]:
        takes = ", ".join(field.name for field in model.task.inputs[:3])
        raise ConfigError(
            f"--model {model.name}: takes {takes}, not pictures: name --lines (a file, a device, - "
            "for standard input), or another model, such as 'detector'"
        )
    return {"image": np.full((1, 480, 640, 3), 127, np.uint8)}
