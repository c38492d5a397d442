"""Commands as processes of their own: started, waited for, measured, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlopsdeploy.core import machine
from mlopsdeploy.errors import MlopsDeployError

POLL = 0.05  # seconds between two looks at a process
STOP = 10.0  # seconds that it gets to end by itself
OURS = (sys.executable, "-m", "mlopsdeploy")


class CommandError(MlopsDeployError):
    """A command ended with a message, which this one is."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = code if code in (1, 2) else 1


@dataclass(frozen=True)
class Finished:
    """What a command took.

    Attributes:
        stdout: what it printed.
        wall: seconds.
        cpu: processor seconds of it and all that it started.
        peak_memory: bytes, the largest sum over its process tree; 0 without /proc.
        others: the share of the machine's processor time that other programs had meanwhile.
    """

    stdout: str
    wall: float
    cpu: float
    peak_memory: int
    others: float


class Process:
    """A command that runs; its output goes to the files `stdout` and `stderr` of a folder."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.pid = process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return (self._folder / "stdout").read_text("utf-8", "replace")

    @property
    def last_line(self) -> str:
        """Its latest message, of standard output where there is none on standard error."""
        messages = (self._folder / "stderr").read_text("utf-8", "replace")
        lines = (messages.strip() or self.stdout.strip() or "no message").splitlines()
        return lines[-1].removeprefix("mlopsdeploy: ")[:500]

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait for something that this process makes true; the seconds that it took.

        Raises:
            MlopsDeployError: the process ended, or the time is over.
        """
        started = time.monotonic()
        while not condition():
            if not self.runs:
                raise MlopsDeployError(f"{what} ended at once: {self.last_line}")
            if time.monotonic() - started > seconds:
                raise MlopsDeployError(f"{what} was not ready after {seconds:.0f} s")
            time.sleep(POLL)
        return time.monotonic() - started

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Raises:
            CommandError: it did not end well, or not in time.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(f"not done after {timeout:.0f} s") from None
        if code:
            raise CommandError(self.last_line, code)


@contextlib.contextmanager
def start(
    command: Sequence[str | Path],
    folder: Path,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A process that ends with the block, and all that it started with it.

    Args:
        command: `[*OURS, "serve", …]` is one of ours.
        folder: for its output; made where need be. In files, so that no pipe can fill.
        cwd: where it runs; by default here.
        environment: added to that of this process, without settings of ours: these are of the
            command that measures, not of those that it measures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MLOPSDEPLOY_") or name == "MLOPSDEPLOY_CACHE"
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as messages:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=messages,
            start_new_session=True,
        )
    try:
        yield Process(process, folder)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                process.terminate()
            process.wait(STOP)
        with contextlib.suppress(ProcessLookupError):  # none is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(
    command: Sequence[str | Path],
    folder: Path,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Finished:
    """Run a command to its end; see `start`.

    Raises:
        CommandError: it did not end well; the message is its own.
    """
    busy, own, began = busy_seconds(), own_seconds(), time.perf_counter()
    with start(command, folder, cwd=cwd, environment=environment) as process:
        peak, stop = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, stop, peak))
        watcher.start()
        try:
            process.wait(timeout)
        finally:
            wall = time.perf_counter() - began
            stop.set()
            watcher.join()
    ours = own_seconds() - own
    others = (busy_seconds() - busy - ours) / wall / (os.cpu_count() or 1)
    return Finished(process.stdout, wall, ours, peak[0], min(max(others, 0.0), 1.0))


def _watch(pid: int, stop: threading.Event, peak: list[int]) -> None:
    """Keep the largest sum over the tree, of peaks: one between two looks counts as well."""
    while True:
        peak[0] = max(peak[0], sum(map(machine.peak_memory, machine.process_tree(pid))))
        if stop.wait(POLL):
            return


def answers(url: str) -> bool:
    """Whether a server answers a GET with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # ours
            return bool(answer.status == 200)
    except OSError:
        return False


def busy_seconds() -> float:
    """Processor time that the whole machine has spent, lost to its host included; 0 unknown."""
    try:
        first = Path("/proc/stat").read_text("ascii").splitlines()[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, soft, steal = map(int, first[1:9])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
