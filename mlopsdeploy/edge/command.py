"""`mlopsdeploy edge`, from settings to summary: one loop, over pictures of a camera or over lines.

The model is loaded and called in one thread, `inference`; source and outputs have theirs. The main
thread shows how it goes and waits for the end, or for a signal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mlopsdeploy.core.console import progress_log
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.terminal import Screen, show_summary
from mlopsdeploy.settings import EdgeSettings

if TYPE_CHECKING:
    from mlopsdeploy.edge.lines.run import LineRun
    from mlopsdeploy.edge.watch import FrameRun

TICK = 0.05  # seconds between two looks at window, terminal and signals
TWICE = 0.5  # seconds in which two signals are one: `timeout` sends its to process and group
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
READER_LEFT = "reader left"
EXIT_CODES = {"interrupted": 130, "terminated": 143, READER_LEFT: 141}


def run_class(settings: EdgeSettings) -> type[FrameRun] | type[LineRun]:
    """What runs these settings. Lines are read without OpenCV, which a device then need not have.

    Raises:
        ModuleNotFoundError: a package of the extra is missing.
    """
    if settings.lines is not None:
        from mlopsdeploy.edge.lines.run import LineRun

        return LineRun
    from mlopsdeploy.edge.watch import FrameRun

    return FrameRun


def run_edge(settings: EdgeSettings) -> tuple[dict[str, Any], int]:
    """Do what the settings ask; returns the summary, shown on standard error, and the exit code.

    The code is 141 where the reader of standard output went away, as `head` does.

    Raises:
        MlopsDeployError: see `watch.FrameRun` and `lines.run.LineRun`.
    """
    check_settings(settings)
    console = Console(stderr=True, highlight=False)
    log = progress_log(console)
    with ExitStack() as stack:
        inference = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="inference"))
        run = run_class(settings)(settings, inference, stack, log)
        pipeline, view = run.pipeline, run.view
        screen = Screen(console, run.title, view, quiet=run.quiet)
        with stopping(pipeline.stop), screen.shown():
            running, done = inference.submit(run.begin), threading.Event()
            running.add_done_callback(lambda _: done.set())
            while not done.is_set():
                run.turn(done, TICK)
                screen.tick()
            running.result()
            run.linger()
        seconds = time.monotonic() - view.stats.started
        run.reporter.report(Event("ended", pipeline.ended, {"reason": pipeline.ended}))
    ended, model = pipeline.ended, run.model
    summary = view.summary(ended=ended, seconds=seconds)
    summary["model"] = {"name": model.name, "version": model.version, "digest": model.digest}
    summary.update(run.outcome())
    if ended in SIGNALS.values():
        log(f"{ended}; {run.finished}" if run.finished else ended)
    if ended != READER_LEFT:
        show_summary(console, view, summary, run.written)
    return summary, EXIT_CODES.get(ended, 1 if summary["failed"] else 0)


@contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in good order; a second one ends it at once."""
    first: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            # In a thread, as the main one may hold a lock that stopping needs.
            word = SIGNALS[signal.Signals(number)]
            threading.Thread(target=stop, args=(word,), daemon=True).start()
        elif time.monotonic() - first[0] > TWICE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        if not first:  # else the process is about to end, and so that it says how, none interrupts
            for number, handler in before.items():
                signal.signal(number, handler)
