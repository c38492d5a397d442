"""What the compilers share: a process of its own for the work, a folder that appears whole.

The framework that a model was trained in is needed to read it, never to run it. It is loaded in a
child, so that its half a gigabyte is gone before the first row is scored.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to build in; it becomes `folder` when the block ends well, else it is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        yield building
        if folder.exists():  # left by a run that was cut off, or made meanwhile by another
            shutil.rmtree(folder, ignore_errors=True)
        building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def run(script: str, *arguments: str | Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a script of this folder.

    Args:
        script: its file's name.
        arguments: what it is given.
        env: variables beside those of this process.

    Returns:
        Its exit code, negative where a signal ended it, and the last line it said, which is
        why it failed if it did.
    """
    # -P: else `import keras` would find the module of that name in this folder.
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name(script)), *map(str, arguments)],
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
    return done.returncode, lines[-1].strip()[:400]


def installed(package: str) -> bool:
    """Whether a package is there. Imports nothing."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # somebody blocks it on purpose
        return False
