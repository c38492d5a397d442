"""Where compiled models are kept between runs: built once, used by many, deleted whole.

An entry is a folder CACHE/KIND/KEY. It is built next to its place and renamed into it, so that what
is there is whole. Who builds it holds `.KEY.lock`; who uses it, a shared lock on its `used.json`,
until its process ends. File systems without locks do without: then two may build the same thing,
and the first one's is used.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlopsdeploy.errors import ConfigError

if sys.platform != "win32":
    import fcntl

USED = "used.json"  # its age is the time since the last use
_used: dict[Path, int] = {}  # open files with the locks on what this process uses


def cache_folder() -> Path:
    """`$MLOPSDEPLOY_CACHE`, else `mlopsdeploy` in the user's cache folder."""
    if chosen := os.environ.get("MLOPSDEPLOY_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "mlopsdeploy"


# ---------------------------------------------------------------- entries


def cached(
    entry: Path, build: Callable[[Path], None], log: Callable[[str], None] = lambda _: None
) -> Path:
    """An entry, built by the first process that needs it; others wait for that one.

    Args:
        entry: its folder.
        build: fills a folder that becomes the entry; after an error nothing is kept.
        log: called with a line before a wait.

    Raises:
        ConfigError: the cache can't be written.
    """
    if use(entry):
        return entry
    with _only_one(entry, log):
        if not use(entry):
            try:
                with appearing(entry) as building:
                    _hold(entry, building)  # the file moves with its folder, so does the lock
                    build(building)
            except BaseException:
                _let_go(entry)
                raise
            use(entry)  # another one's, where there are no locks
    return entry


def use(entry: Path) -> bool:
    """Whether an entry is there; if so it stays there until this process ends."""
    try:
        return entry.is_dir() and _hold(entry, entry)
    except OSError:  # a folder above it may not be looked into
        return False


def delete(entry: Path) -> bool:
    """Delete an entry, whole; False where another process uses it or is building it."""
    _let_go(entry)
    try:
        with (entry / USED).open("ab") as mine:
            if not _lock(mine.fileno(), exclusive=True, wait=False):
                return False
            with _aside(entry) as old:
                entry.rename(old)
    except FileNotFoundError:  # somebody else was faster
        return True
    except OSError:
        return False
    return True


@contextmanager
def appearing(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to build in; it becomes `folder` when the block ends well, else it is gone.

    Args:
        folder: where; folders above it are made.
        replace: in place of a folder that is there, which is kept until the new one is whole;
            else that one stays and the new one is gone.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        apart = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        yield apart
        with _aside(folder) as old:
            if replace and folder.exists():
                folder.rename(old)
            try:
                apart.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                if replace or not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(apart, ignore_errors=True)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Where a folder may be moved to be deleted at the end of the block."""
    with tempfile.TemporaryDirectory(
        prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
    ) as apart:
        yield Path(apart) / "old"


@contextmanager
def _only_one(entry: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on the building of an entry."""
    file = entry.with_name(f".{entry.name}.lock")
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            opened = file.open("ab")
        except OSError as error:
            raise _unwritable(file.parent, error) from error
        with opened:
            lock = opened.fileno()
            if not _lock(lock, exclusive=True, wait=False):
                log(f"waiting for another process that makes {entry.parent.name}/{entry.name[:12]}")
                _lock(lock, exclusive=True, wait=True)
            if _is_at(lock, file):  # else the one before has deleted it
                try:
                    yield
                finally:
                    file.unlink(missing_ok=True)
                return


def _hold(entry: Path, place: Path) -> bool:
    """Lock an entry that lies at `place` as used; False where it was deleted meanwhile."""
    if entry in _used and _is_at(_used[entry], place / USED):
        return True
    _let_go(entry)
    for how in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            mine = os.open(place / USED, how, 0o644)
            break
    else:
        return place.is_dir()  # of a cache that is read only, which nobody deletes
    _lock(mine, exclusive=False, wait=True)
    if not _is_at(mine, place / USED):
        os.close(mine)
        return False
    _used[entry] = mine
    return True


def _let_go(entry: Path) -> None:
    if entry in _used:
        os.close(_used.pop(entry))


def _lock(file: int, *, exclusive: bool, wait: bool) -> bool:
    """Whether it was locked, or can't be on this file system; False if another has it."""
    if sys.platform == "win32":
        return True
    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    ours = folder.is_relative_to(cache_folder())
    hint = "set MLOPSDEPLOY_CACHE to a folder that can" if ours else "name another"
    return ConfigError(f"{folder}: can't be written ({error.strerror}); {hint}")


# ---------------------------------------------------------------- what was used


def note_use(file: Path, name: str, reference: str) -> None:
    """Note next to a file in the cache which model it was compiled from, and that it is used now.

    `reference` is what the model was loaded by; a path is noted in full.
    """
    cache = cache_folder()
    if not file.is_relative_to(cache):
        return
    place = Path(reference).expanduser()
    content = {"name": name, "reference": str(place.absolute()) if place.exists() else reference}
    note = cache.joinpath(*file.relative_to(cache).parts[:2], USED)  # KIND/KEY
    with suppress(OSError):  # a cache that is read only
        if note_of(note.parent) == content:
            note.touch()
        else:
            note.write_text(json.dumps(content), "utf-8")


def note_of(entry: Path) -> dict[str, str]:
    """What `note_use` wrote into a folder of the cache; empty where it did not, yet."""
    try:
        content = json.loads((entry / USED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
