"""Commands of ours as processes, as a user would start them: their answer, their memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlopsdeploy.errors import MlopsDeployError

POLL = 0.02  # seconds


@dataclass(frozen=True)
class Done:
    """What a command left behind; `memory_mb` is its most, None where there is no /proc."""

    out: str
    seconds: float
    memory_mb: float | None


class CommandError(MlopsDeployError):
    """A command of ours ended with a message, which this one is."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if code in (1, 2) else 1


def run(arguments: list[str], folder: Path) -> Done:
    """Run `python -m mlopsdeploy ARGUMENTS` to its end.

    Args:
        arguments: of the command.
        folder: where its output is kept meanwhile.

    Raises:
        CommandError: it did not end well; the message is its own.
    """
    with start(arguments, folder) as (process, err):
        started, most = time.perf_counter(), None
        while process.poll() is None:
            most = memory_mb(process.pid) or most
            time.sleep(POLL)
        seconds = time.perf_counter() - started
    if process.returncode:
        raise CommandError(last_line(err), process.returncode)
    return Done((folder / "stdout").read_text("utf-8"), seconds, most)


@contextlib.contextmanager
def start(arguments: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that ends with the block, and the file that its messages go to."""
    err = folder / "stderr"
    with (folder / "stdout").open("wb") as out, err.open("wb") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlopsdeploy", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=messages, env=_environment(os.environ),
        )  # fmt: skip
    try:
        yield process, err
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Settings in the environment are of this command, not of those it measures."""
    return {
        name: value
        for name, value in ours.items()
        if not name.startswith("MLOPSDEPLOY_") or name == "MLOPSDEPLOY_CACHE"
    }


def last_line(messages: Path) -> str:
    """The message that a command of ours ends with."""
    lines = messages.read_text("utf-8", errors="replace").strip().splitlines() or ["no message"]
    return lines[-1].removeprefix("mlopsdeploy: ")


def memory_mb(process: int | str = "self") -> float | None:
    """The most memory that a process has held so far, in MB."""
    return _kilobytes(Path(f"/proc/{process}/status"), "VmHWM:")


def tree_memory_mb(process: int) -> float | None:
    """What a process and those it started hold now; pages that they share count once."""
    found = [
        memory
        for member in _tree(process)
        if (memory := _kilobytes(Path(f"/proc/{member}/smaps_rollup"), "Pss:")) is not None
    ]
    return sum(found) if found else None


def _kilobytes(path: Path, name: str) -> float | None:
    try:
        text = path.read_text("ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def _tree(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree = [root]
    for member in tree:
        tree += [child for child, parent in parents.items() if parent == member]
    return tree
