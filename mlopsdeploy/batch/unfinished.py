"""A run that can be interrupted at any moment, and goes on where it was.

What is done so far is in a folder beside the output, `OUTPUT.unfinished/`:

    rows            what has been written of the output; only ever grows
    errors.jsonl    the rows set aside; only ever grows
    computed-*.npz  batches of windows that are not written yet: see `computed`
    manifest.json   how much of both is certain, and what it was made from
    lock            held while a run is on

A commit brings all of them to the disk, then renames a new manifest into place. What a crash left
behind the certain length is cut off by the next run, which reads the input from its start, checks
that the rows done are still the same ones, and computes the rest. When all is done, the files
are renamed to their final names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from filelock import FileLock, Timeout

from mlopsdeploy.batch.computed import NAME, OfWindow, SavedBatches
from mlopsdeploy.core.model import Predicted
from mlopsdeploy.data.destinations import Destination
from mlopsdeploy.data.files import (
    ERRORS,
    LOCK,
    MANIFEST,
    PUBLISHING,
    beside,
    copy_whole,
    lock_folder,
    note_of,
    whole_file,
)
from mlopsdeploy.errors import WRITTEN, ConfigError, MlopsDeployError

ROWS = "rows"
_OURS = re.compile(  # what a run, or its crash, leaves in its folder
    rf"{ROWS}|{ERRORS}|{MANIFEST}|{LOCK}|{PUBLISHING}|rows\.parquet|input-.*\.parquet|\..*"
    rf"|{NAME.pattern}"
)
Changed = Literal["refuse", "discard"]
_KEYS = {"rows", "input_digest", "rows_bytes", "errors_bytes", "identity", "state"}


class UnfinishedRun:
    """The folder of a run, open and locked.

    Args:
        base: the output, or the file of its name where it is no local file; `.unfinished` and
            the like are added to it.
        shown: what messages call the output.
        identity: what shapes the output: model, settings, versions, by name.
        every: seconds between commits.
        fresh: forget what an earlier run has done.
        changed: what becomes of an earlier run that was made with another model or other settings:
            "refuse", or "discard" to start over.

    Attributes:
        discarded: a line about the earlier run, if it was.

    Raises:
        ConfigError: the earlier run was made with another model or other settings.
        MlopsDeployError: another run is on, or the folder can't be written.
    """

    file: IO[bytes]
    errors: IO[bytes]

    def __init__(
        self,
        base: Path,
        shown: str,
        identity: Mapping[str, Any],
        *,
        every: float = 5.0,
        fresh: bool = False,
        changed: Changed = "refuse",
    ) -> None:
        self._base = base
        self.folder = folder = beside(base, "unfinished")
        self._shown = shown
        self._identity = json.loads(json.dumps(identity, default=str))
        self._every = every
        self._saved = SavedBatches(folder)
        self._without_folder = "nothing was written"
        self._lock = self._locked()
        try:
            self._check_ours()
            if fresh:
                self._forget()
            self.done = self._read()
            if self.done:
                self._saved.open()
            else:
                self._saved.drop()
            self.discarded = self._discard(changed)
            self._open()
        except BaseException:
            self._lock.release()
            raise
        self._last_commit = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self.file, self.errors):
            with contextlib.suppress(OSError):  # what is not committed may be lost
                file.close()
        if not self.kept_rows and not (self.folder / PUBLISHING).exists():  # nothing to go on with
            with contextlib.suppress(OSError):
                self._forget()  # the lock goes last: until then nobody else begins
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    @property
    def rows(self) -> int:
        """Rows of the input that are done for good."""
        return int(self.done.get("rows", 0))

    @property
    def kept_rows(self) -> int:
        """Rows that are done, or at least computed, for good."""
        return self.rows + self._saved.rows

    def due_in(self) -> float:
        """Seconds until the next commit."""
        return max(self._every - (time.monotonic() - self._last_commit), 0.0)

    def computed(self, first: int, key: str) -> dict[int, Predicted]:
        """What an earlier run has computed of a window; see `SavedBatches.of`."""
        return self._saved.of(first, key)

    def commit(
        self,
        rows: int,
        input_digest: str,
        state: Mapping[str, Any],
        computed: Sequence[OfWindow] = (),
    ) -> None:
        """Commit: fsync everything written so far.

        Args:
            rows: of the input, from its start, that this is.
            input_digest: of all these rows.
            state: what else a run needs to go on; JSON.
            computed: batches of windows behind these rows, which were not given before.

        Raises:
            MlopsDeployError: the disk is full, or gone.
        """
        try:
            for window in computed:
                with contextlib.suppress(OSError):  # a run that has room for its rows goes on
                    self._saved.save(window)
            for file in (self.file, self.errors):
                file.flush()
                os.fsync(file.fileno())
            done = {
                "rows": rows,
                "input_digest": input_digest,
                "rows_bytes": self.file.tell(),
                "errors_bytes": self.errors.tell(),
                "identity": self._identity,
                "state": state,
            }
            with whole_file(self.folder / MANIFEST) as file:
                file.write(json.dumps(done).encode())
            self._saved.drop(rows)
        except OSError as error:
            raise self._failed(error) from error
        self.done = done
        self._last_commit = time.monotonic()

    def start_over(self) -> None:
        """Drop what an earlier run has done: its input is no more."""
        self._close()
        self._forget()
        self.done = {}
        self._open()

    def finish(self, destination: Destination, manifest: Mapping[str, Any]) -> None:
        """Put the files where they belong and remove the folder.

        A crash in the middle leaves the folder as it was; the next run does all of it again.

        Args:
            destination: publishes the file of rows, without changing it.
            manifest: goes into `OUTPUT.manifest.json`, with how the outputs were left.

        Raises:
            MlopsDeployError: the disk is full, or `publish` fails.
        """
        self._close()
        try:
            (self.folder / PUBLISHING).touch()
            destination.publish(self.folder / ROWS)
            if self.done.get("errors_bytes"):
                copy_whole(self.folder / ERRORS, beside(self._base, ERRORS))
            else:
                beside(self._base, ERRORS).unlink(missing_ok=True)
            noted = {**manifest, "written": destination.written}
            text = json.dumps(noted, indent=1, ensure_ascii=False, default=str)
            with whole_file(note_of(self._base), self.folder) as file:
                file.write(text.encode())
            self._without_folder = WRITTEN
            self._forget()
            shutil.rmtree(self.folder, ignore_errors=True)
        except OSError as error:
            raise self._failed(error) from error

    def _locked(self) -> FileLock:
        try:
            return lock_folder(self.folder)
        except Timeout as error:
            raise MlopsDeployError(
                f"{self._shown}: another run is writing it; wait for its end, or name another "
                "--output"
            ) from error
        except OSError as error:
            raise self._failed(error) from error

    def _read(self) -> dict[str, Any]:
        """What the last commit says, if its files are still there."""
        try:
            done: dict[str, Any] = json.loads((self.folder / MANIFEST).read_bytes())
            sizes = [(self.folder / name).stat().st_size for name in (ROWS, ERRORS)]
            whole = sizes[0] >= done["rows_bytes"] and sizes[1] >= done["errors_bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return done if whole and done.keys() >= _KEYS else {}

    def _discard(self, changed: Changed) -> str:
        """Forget an earlier run that differs from this one, or refuse to; what is to be said."""
        before, now = self.done.get("identity", self._identity), self._identity
        differs = ", ".join(
            [
                f"{name} was {_brief(before.get(name))} and is now {_brief(now[name])}"
                for name in now
                if before.get(name) != now[name]
            ][:3]
        )
        if not differs:
            return ""
        holds = (
            f"{self.folder}: holds an unfinished run, {self.kept_rows:,} rows done, but {differs}"
        )
        if changed == "refuse":
            raise ConfigError(
                f"{holds}; go on with what it was, or start over with --fresh or --unfinished "
                "discard"
            )
        self._forget()
        self.done = {}
        return f"{holds}: starting over"

    def _open(self) -> None:
        try:
            self.file = _opened(self.folder / ROWS, self.done.get("rows_bytes", 0))
            self.errors = _opened(self.folder / ERRORS, self.done.get("errors_bytes", 0))
        except OSError as error:
            raise self._failed(error) from error

    def _close(self) -> None:
        self.file.close()
        self.errors.close()

    def _forget(self) -> None:
        for name in (MANIFEST, ROWS, ERRORS):  # in this order: no manifest without its rows
            (self.folder / name).unlink(missing_ok=True)
        self._saved.drop()

    def _check_ours(self) -> None:
        """Refuse a folder of that name that holds something else: it is removed at the end."""
        others = [path.name for path in self.folder.iterdir() if not _OURS.fullmatch(path.name)]
        if others:
            raise ConfigError(
                f"{self.folder}: holds {others[0]!r}, which no run has written; move it away"
            )

    def _failed(self, error: OSError) -> MlopsDeployError:
        where = "" if error.filename is None else f": {error.filename}"
        return MlopsDeployError(
            f"{self._shown}: can't be written ({error.strerror or error}{where})"
        )

    @property
    def kept(self) -> str:
        """What an interrupted run leaves, in words."""
        if not (self.folder / MANIFEST).exists():
            return self._without_folder
        return f"{self.kept_rows:,} rows are kept: the same command goes on with the rest"


class Piped:
    """The same for standard output, which can't be taken back: nothing is kept."""

    rows = kept_rows = 0
    done: Mapping[str, Any] = {}
    kept = "nothing is kept"

    def __init__(self, file: IO[bytes], errors: IO[bytes]) -> None:
        self.file = file
        self.errors = errors

    def due_in(self) -> float:
        """Never, as far as a thread can wait."""
        return threading.TIMEOUT_MAX

    def computed(self, *_: object) -> dict[int, Predicted]:
        """Nothing."""
        return {}

    def commit(self, *_: object) -> None:
        """Nothing to do."""

    def start_over(self) -> None:
        """Nothing to drop."""


def _opened(path: Path, length: int) -> IO[bytes]:
    """The file to append to, without what stands behind the certain length."""
    path.touch()
    if path.stat().st_nlink > 1:  # already published: that file must not change any more
        part = path.with_name(f".{path.name}.part")
        shutil.copyfile(path, part)
        part.replace(path)
    file = path.open("r+b")
    file.truncate(length)
    file.seek(length)
    return file


def _brief(value: Any) -> str:
    text = "not set" if value in (None, "", []) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
