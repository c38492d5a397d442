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
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from mlopsdeploy.core.console import progress_log
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.loading import check_outputs, check_settings
from mlopsdeploy.edge.outputs import READER_LEFT
from mlopsdeploy.edge.supervised import Watchdog, notify, reloading
from mlopsdeploy.edge.terminal import Screen, show_summary
from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.settings import EdgeSettings

if TYPE_CHECKING:
    from mlopsdeploy.edge.lines.run import LineRun
    from mlopsdeploy.edge.watch import FrameRun

TICK = 0.05  # seconds between two looks at window, terminal and signals
TWICE = 0.5  # seconds in which two signals are one: `timeout` sends its to process and group
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
RELOADED = "reloaded"
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


def run_edge(
    settings: EdgeSettings, again: Callable[[], EdgeSettings] | None = None
) -> tuple[dict[str, Any], int]:
    """Do what the settings ask; returns the summary, shown on standard error, and the exit code.

    The code is 141 where the reader of standard output went away, as `head` does.

    Args:
        settings: of the device.
        again: reads them anew, at SIGHUP; what it refuses leaves the old ones in place.

    Raises:
        MlopsDeployError: see `watch.FrameRun` and `lines.run.LineRun`.
    """
    check_settings(settings)
    console = Console(stderr=True, highlight=False)
    with _Hangup(again) as hangup, ThreadPoolExecutor(1, "inference") as inference:
        while True:
            try:
                found = _run_once(settings, inference, console, hangup)
            except MlopsDeployError as error:
                if hangup.before is None:
                    raise
                progress_log(console)(f"the new settings fail ({error}); the old ones are back")
                settings, hangup.before = hangup.before, None
                continue
            if hangup.wanted is None:
                return found
            settings, hangup.before, hangup.wanted = hangup.wanted, settings, None


def _run_once(
    settings: EdgeSettings, inference: ThreadPoolExecutor, console: Console, hangup: _Hangup
) -> tuple[dict[str, Any], int]:
    """A run, until it ends or other settings are wanted."""
    log = progress_log(console)
    with ExitStack() as stack:
        run = run_class(settings)(settings, inference, stack, log)
        hangup.before = None  # it is open, so there is no way back to other settings
        pipeline, view = run.pipeline, run.view
        screen = Screen(console, run.title, view, quiet=run.quiet)
        beat = [time.monotonic()]

        def silent() -> float:
            return time.monotonic() - min(beat[0], pipeline.working_since or beat[0])

        def status() -> str:
            return f"{run.title}: {', '.join(view.line())}"

        dog = Watchdog(silent, status, limit=settings.watchdog, ends=partial(_hung, log))
        stack.callback(dog.stop)
        with stopping(pipeline.stop), screen.shown():
            running, done = inference.submit(run.begin), threading.Event()
            running.add_done_callback(lambda _: done.set())
            notify("READY=1", f"STATUS={run.title}")
            while not done.is_set():
                run.turn(done, TICK)
                screen.tick()
                beat[0] = time.monotonic()
                hangup.look(run, log)
            running.result()
            run.linger()
        if hangup.wanted is None:
            notify("STOPPING=1")
        seconds = time.monotonic() - view.stats.started
        run.reporter.report(Event("ended", pipeline.ended, {"reason": pipeline.ended}))
    ended, model = pipeline.ended, run.model
    summary = view.summary(ended=ended, seconds=seconds)
    summary["model"] = {"name": model.name, "version": model.version, "digest": model.digest}
    summary.update(run.outcome())
    if ended in SIGNALS.values():
        log(f"{ended}; {run.finished}" if run.finished else ended)
    if ended not in (READER_LEFT, RELOADED):
        show_summary(console, view, summary, run.written)
    return summary, EXIT_CODES.get(ended, 1 if summary["failed"] or summary.get("cut_off") else 0)


def _hung(log: Callable[[str], None], seconds: float) -> None:
    """End at once: what hangs can't be ended in good order."""
    log(f"nothing went on for {seconds:.0f} s, so this ends; a supervisor starts it anew")
    os._exit(1)


class _Hangup:
    """SIGHUP: settings are read again, tried, and taken if they are good.

    On a terminal that closes it ends the process, as it always does.

    Attributes:
        wanted: the settings that the next run has.
        before: those of the run before, which come back if the new ones fail.
    """

    def __init__(self, again: Callable[[], EdgeSettings] | None) -> None:
        self.wanted: EdgeSettings | None = None
        self.before: EdgeSettings | None = None
        self._again = again
        self._asked = threading.Event()
        self._handler: Any = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if self._again is not None and main and hasattr(signal, "SIGHUP") and not _has_terminal():
            self._handler = signal.signal(signal.SIGHUP, lambda *_: self._asked.set())
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the process is about to end

    def look(self, run: FrameRun | LineRun, log: Callable[[str], None]) -> None:
        """Whether there was one; then the settings are tried beside the run."""
        if self._asked.is_set():
            self._asked.clear()
            if run.live:
                reloading()
                threading.Thread(target=self._reload, args=(run, log), daemon=True).start()
            else:
                log("SIGHUP: a file is read to its end with the settings that it began with")

    def _reload(self, run: FrameRun | LineRun, log: Callable[[str], None]) -> None:
        assert self._again is not None
        try:
            wanted = self._again()
            check_settings(wanted)
            check_outputs(wanted, appends=True)
            run_class(wanted).try_model(wanted, log)
        except (MlopsDeployError, ModuleNotFoundError) as error:
            text = f"the new settings are refused, the old ones stay: {error}"
            run.reporter.report(Event("refused", text, {"reason": str(error)}))
            notify("READY=1")
            return
        run.reporter.report(Event("reloaded", "settings read again"))
        self.wanted = wanted
        run.pipeline.stop(RELOADED)


def _has_terminal() -> bool:
    """Whether there is one that a SIGHUP could be about."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


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
