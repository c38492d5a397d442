"""Local files that appear whole, survive a power cut, and stand next to a run's output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

ERRORS, MANIFEST = "errors.jsonl", "manifest.json"
LOCK = "lock"  # in the folder of a run: held while it is on
PUBLISHING = "publishing"  # in the folder of a run: its files are being put where they belong
RACES = 20  # tries to lock a folder that others remove at the same time


def beside(base: Path, name: str) -> Path:
    """`scored.csv` -> `scored.csv.errors.jsonl`."""
    return base.with_name(f"{base.name}.{name}")


def note_of(output: Path) -> Path:
    """`scored.csv` -> `scored.csv.manifest.json`, which says who wrote it."""
    return beside(output, MANIFEST)


def lock_folder(folder: Path, races: int = RACES) -> FileLock:
    """The lock of a run's folder, taken; the folder is made if it isn't there.

    Raises:
        filelock.Timeout: another run has it.
        OSError: the folder can't be made.
    """
    from filelock import FileLock  # of batch alone

    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except (FileExistsError, FileNotFoundError):
        if not races or folder.is_file():
            raise
        return lock_folder(folder, races - 1)  # it was just taken away, by a run at its end
    return lock


@contextmanager
def whole_file(path: Path, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """A file that is there whole at the end of the block, or as it was, whatever happens.

    It grows in `folder`, on the same disk, so that a crash leaves nothing elsewhere.
    """
    part = (folder or path.parent) / f".{path.name}.{os.getpid()}.part"
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def copy_whole(source: Path, target: Path) -> None:
    """The same with the content of a file; where the disk can, no byte is copied."""
    part = source.with_name(f".{source.name}.link")
    part.unlink(missing_ok=True)  # of a crash
    try:
        os.link(source, part)
    except OSError:  # a disk without links
        with source.open("rb") as old, whole_file(target, source.parent) as new:
            shutil.copyfileobj(old, new, 1 << 20)
        return
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Let a rename survive a power cut, where the system lets folders be synced."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
