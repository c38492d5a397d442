"""What the compilers share: a process of its own for the work.

A framework is loaded in a child, so that its half a gigabyte is gone before any row is scored. The
child is this file, run with PARENT SCRIPT ARGUMENTS; on Linux it ends when its parent does, even by
`kill -9`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mlopsdeploy.errors import shortened

_PR_SET_PDEATHSIG = 1


def run(script: str, *arguments: str | Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a script of this folder.

    Args:
        script: its file's name.
        arguments: what it is given.
        env: variables beside those of this process.

    Returns:
        Its exit code, negative where a signal ended it, and the last line it wrote, which is
        why it failed if it did.
    """
    # -P: no module of this folder is taken for a package.
    place = Path(__file__).parent / script
    done = subprocess.run(
        [sys.executable, "-P", __file__, str(os.getpid()), str(place), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **env},
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0 or not lines:
        return done.returncode, f"its process ended with code {done.returncode}"
    return done.returncode, shortened(lines[-1].strip(), 400)


def installed(package: str) -> bool:
    """Whether a package is there. Imports nothing."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # somebody blocks it on purpose
        return False


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """End this process, by the signal `number`, when `parent` ends. On Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it has ended already
            sys.exit("its parent has ended")


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
