"""Run a command and tell its wall clock and the largest memory of its process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Finished:
    """What one command took. `others` is the share of all cores' time that went to other processes
    meanwhile. It and `peak_mb` are 0 where the system has no /proc. `cpu` is the tree's own
    processor time."""

    wall: float
    cpu: float
    peak_mb: float
    others: float
    stdout: str
    error: str | None


class CommandError(Exception):
    """A command ended badly; the message is the last thing it said."""


def tree(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            yield from tree(int(child))


def _high_water_mb(pid: int) -> float:
    """The largest resident set one process has had so far."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _watch(pid: int, stop: threading.Event, peak: list[float]) -> None:
    """Keep the largest sum over the tree. High-water marks, so that a spike between two samples
    counts as well."""
    while not stop.wait(SAMPLE_SECONDS):
        try:
            peak[0] = max(peak[0], sum(_high_water_mb(member) for member in tree(pid)))
        except OSError:  # a process ended between two reads
            continue


def busy_seconds() -> float:
    """Processor time that the whole machine has spent, lost to the host included."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, soft, steal = map(int, first[1:9])
    ticks = user + nice + system + interrupts + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def run(
    command: Sequence[str | Path],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `command` inside `folder`, its output kept there in files so that no pipe can fill."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / "stdout.log", folder / "stderr.log"
    peak, stop = [0.0], threading.Event()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        busy, own, start = busy_seconds(), own_seconds(), time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
            process_group=0,
        )
        watcher = threading.Thread(target=_watch, args=(process.pid, stop, peak))
        watcher.start()
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            wall = time.perf_counter() - start
            stop.set()
            watcher.join()
    ours = own_seconds() - own
    others = (busy_seconds() - busy - ours) / wall / (os.cpu_count() or 1)
    error = None
    if code is None:
        error = f"not done after {timeout:.0f} s"
    elif code != 0:
        error = _last_line(err.read_text(encoding="utf-8", errors="replace"))
    printed = out.read_text(encoding="utf-8", errors="replace")
    return Finished(wall, ours, peak[0], max(0.0, others), printed, error)


def check(
    command: Sequence[str | Path],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """`run`, raising `CommandError` on anything but success."""
    finished = run(command, folder, timeout, environment)
    if finished.error is not None:
        raise CommandError(finished.error)
    return finished
