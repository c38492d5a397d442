"""Capture, inference and output at the same time: the pace is that of the slowest, not the sum.

    capture thread          the caller's thread       finish thread          a thread per output
    ──────────────          ───────────────────       ─────────────          ───────────────────
    read a frame ──────►    run the model ──────►     boxes, filters ─────►  draw, encode, write
    encode it (a file's)    (encode, if live)

A file's frames wait in short queues and none is lost. A live source hands over its newest frame at
the moment when the model is free, so a slow model means fewer frames, never older ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.answers import each_label
from mlopsdeploy.core.detections import detections_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.channel import Channel, feed
from mlopsdeploy.edge.events import Event, Report
from mlopsdeploy.edge.filters import Filter
from mlopsdeploy.edge.frames import Frame, FrameSource
from mlopsdeploy.edge.outputs import Outlet
from mlopsdeploy.edge.results import Result
from mlopsdeploy.edge.stages import Stats
from mlopsdeploy.edge.window import Window
from mlopsdeploy.errors import RowError


class FramePipeline:
    """A model on a source, and its results to outputs.

    Args:
        model: takes a column `image`, uint8 (rows, height, width, 3), BGR.
        source: of the frames.
        outlets: each gets every result.
        stats: counts.
        limit: stop after so many frames.
        report: called with an event for each frame that the model can't take.
        filters: each gets every result, one after the other, and hands on what it leaves of it;
            what is left is counted.
    """

    def __init__(
        self,
        model: Model,
        source: FrameSource,
        outlets: Sequence[Outlet | Window],
        stats: Stats,
        limit: int | None = None,
        report: Report = lambda _: None,
        filters: Sequence[Filter] = (),
    ) -> None:
        self._model = model
        self._source = source
        self._outlets = outlets
        self._stats = stats
        self._limit = limit
        self._report = report
        self._filters = filters
        self._ahead: Channel[tuple[Frame, Columns]] | None = None
        self._stopped = threading.Event()
        self.working_since: float | None = None
        """When the model began with the frame that it has now; None: it has none."""
        self.ended = "end"
        """Why it ended: end, limit, or what was given to `stop`."""

    def use(self, model: Model) -> None:
        """Take this model in place of the first; before `run`."""
        self._model = model

    def run(self) -> None:
        """Until the source ends, the limit is reached, or `stop` is called.

        To be called in the thread that loaded the model: a runtime may keep an interpreter for
        each thread.

        Raises:
            MlopsDeployError: the source or the model fails.
        """
        infer = self._model.runtime.run
        finishing: Channel[tuple[Frame, Columns, Columns]] = Channel(1, keep=True)
        results: Channel[None] = Channel(1, keep=True)  # carries only an error, or the end
        feed(self._finish(finishing), results, "finish")
        frames = 0
        try:
            for frame, encoded in self._encoded():
                self.working_since = time.monotonic()
                start = time.perf_counter()
                try:
                    tensors = infer(encoded)
                except RowError as error:
                    text = f"frame {frame.number}: {error}"
                    facts = {"frame": frame.number, "reason": str(error)}
                    self._report(Event("unreadable", text, facts))
                else:
                    self._stats.add("infer", time.perf_counter() - start)
                    if not finishing.put((frame, encoded, tensors)):
                        break
                    del tensors
                del frame, encoded
                self.working_since = None
                frames += 1
                if self._limit and frames >= self._limit:
                    self.ended = "limit"
                    break
        finally:
            self._source.stop()
            if self._ahead is not None:
                self._ahead.cancel()
            finishing.close()
            for _ in results:
                pass

    def stop(self, reason: str) -> None:
        """Let `run` end soon, with all its results handed on. Callable from any thread."""
        if not self._stopped.is_set():
            self._stopped.set()
            self.ended = reason
        self._source.stop()
        if self._ahead is not None:
            self._ahead.cancel()

    def _encoded(self) -> Iterator[tuple[Frame, Columns]]:
        """Frames and the model's input, made ahead where no frame may be lost anyway."""
        items = self._encode()
        if self._source.live:
            return items
        self._ahead = Channel(1, keep=True)
        feed(items, self._ahead, "capture")
        return iter(self._ahead)

    def _encode(self) -> Iterator[tuple[Frame, Columns]]:
        task, stats = self._model.task, self._stats
        for frame in self._source.frames():
            if self._stopped.is_set():
                return
            start = time.perf_counter()
            encoded = task.collate(task.encode({"image": frame.image[None]}))
            stats.add("encode", time.perf_counter() - start)
            yield frame, encoded
            del frame, encoded  # while it waits for the next frame, their memory is free

    def _finish(self, channel: Channel[tuple[Frame, Columns, Columns]]) -> Iterator[None]:
        task, stats = self._model.task, self._stats
        try:
            for frame, encoded, tensors in channel:
                start = time.perf_counter()
                detections = detections_of(task, task.decode(tensors, encoded))
                stats.add("decode", time.perf_counter() - start)
                result = self._filtered(Result(frame, detections, stats))
                for found in result.detections:
                    scores = () if found.score is None else (found.score,)
                    stats.note(found.answer, each_label(task, (found.label,)), scores)
                stats.finish((frame.captured,))
                for outlet in self._outlets:
                    outlet.put(result)
                del frame, encoded, tensors, result
            for one in self._filters:
                one.end()
            yield from ()
        finally:
            channel.cancel()

    def _filtered(self, result: Result) -> Result:
        if self._filters:
            with self._stats.timing("filters"):
                for one in self._filters:
                    result = one(result)
        return result
