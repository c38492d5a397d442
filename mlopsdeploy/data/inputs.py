"""What a run reads: a file, several, standard input, a database, an object store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlopsdeploy.core import plugins
from mlopsdeploy.data.addresses import file_part, is_database, is_remote, shown, split_table
from mlopsdeploy.data.files import LOCK, MANIFEST, beside, lock_folder
from mlopsdeploy.data.packing import compressor, split_packing
from mlopsdeploy.data.sources import (
    InputFile,
    ParquetSource,
    ReadOptions,
    Source,
    files_of,
    format_of,
    format_read,
    has_data_name,
    is_picture,
    open_source,
    pictures_of,
    with_content,
)
from mlopsdeploy.data.sources.base import SourceOver
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.settings import BatchSettings


class Input:
    """The input of a run, which may have to be read twice.

    The rows of a database are fetched first, into the run's own folder: no transaction stays open
    for hours, and a run that is interrupted goes on with the very same rows.

    Args:
        settings: which input, and how to read it.
        base: the file that the run's own files stand beside; None where there are none.
        log: called with a line about each slow step.

    Attributes:
        shown: what messages call it.
    """

    def __init__(
        self, settings: BatchSettings, base: Path | None, log: Callable[[str], None]
    ) -> None:
        assert settings.input is not None
        self.path, self.shown = settings.input, shown(settings.input)
        self._settings = settings
        self._base = base
        self._say = log
        self._waiting: Source | None = None
        self._names: list[str] = []
        self._opened = False
        self._goes_on = False  # with the rows that an earlier run has fetched
        self._columns: Mapping[str, str] = {}
        self._looked_at = False
        self._of_pictures = means_pictures(settings)
        if settings.query and not is_database(self.path):
            raise ConfigError(f"--query: is asked of a database; {self.shown} is none")

    def open(self) -> Source:
        """The source at its start, to look at it; `reopen` gives the same one."""
        self._waiting = self._open()
        self._names = self._waiting.names
        return self._waiting

    def bring(self, columns: Mapping[str, str], *, pictures: bool) -> None:
        """From now on what a model's columns stand for is part of the rows; see `with_content`."""
        self._columns, self._looked_at = columns, pictures

    def reopen(self) -> Source:
        """The source at its start.

        Raises:
            InputError: it is standard input, which has been read.
        """
        source, self._waiting = self._waiting, None
        return with_content(source or self._open(), self._columns, pictures=self._looked_at)

    def elsewhere(self) -> Callable[[], Source]:
        """Opens the input in another process of this machine; not for standard input."""
        return partial(
            _opened_with_content, self._opener(), self._columns, pictures=self._looked_at
        )

    def _opener(self) -> Callable[[], Source]:
        if is_database(self.path):
            options = read_options(self._settings)
            return partial(_Fetched, self._fetched().resolve(), self.shown, options)
        return partial(
            open_source,
            self.path,
            read_options(self._settings),
            output=str(self._base or ""),
            pictures=self._of_pictures,
        )

    def _open(self) -> Source:
        if self._opened and self.path == "-":
            raise InputError(
                "standard input: has other rows than the unfinished run began with; "
                "start over with --fresh"
            )
        opener = self._opener()
        self._opened = True
        return opener()

    def _fetched(self) -> Path:
        """The rows of the database, fetched now or by the run that is to be gone on with."""
        if self._base is None:
            raise ConfigError("--output -: the rows of a database need a file to go to; name one")
        settings = self._settings
        folder = beside(self._base, "unfinished")
        asked = json.dumps([self.path, settings.query, settings.limit])
        rows = folder / f"input-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.parquet"
        unfinished = (folder / MANIFEST).exists() and not settings.fresh
        if rows.exists() and (self._opened or unfinished):
            if not self._opened:
                self._goes_on = True
                self._say(
                    f"going on with the rows fetched at {_time_of(rows)}; --fresh fetches them anew"
                )
            return rows
        from mlopsdeploy.data.databases import Query

        with Query(self.path, settings.query) as query, self._alone(folder):
            self._say(f"fetching rows of {self.shown}")
            query.to_parquet(rows, limit=settings.limit)
        return rows

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """No other run is on, whose rows would be replaced; an empty folder goes at the end."""
        from filelock import Timeout

        if self._opened:  # the lock is held already, by this run
            yield
            return
        try:
            lock = lock_folder(folder)
        except Timeout as error:
            raise MlopsDeployError(
                f"{folder}: another run is on; wait for its end, or name another --output"
            ) from error
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
            lock.release()

    def fetch_anew(self) -> None:
        """Ask a database again, if its rows are those that a run fetched which is discarded.

        Raises:
            InputError: it gives other columns now.
        """
        if not self._goes_on:
            return
        self.close()
        self._fetched().unlink()
        before = self._names
        if self.open().names != before:
            raise InputError(f"{self.shown}: gives other columns now; run the same command again")

    def close(self) -> None:
        """Close what nobody has taken."""
        if self._waiting:
            self._waiting.close()
            self._waiting = None


def read_options(settings: BatchSettings) -> ReadOptions:
    """How the settings say that a file is to be read: those that are named as its fields."""
    return ReadOptions(
        **{field.name: getattr(settings, field.name) for field in fields(ReadOptions)}
    )


class _Fetched(SourceOver):
    """The rows of a database, as they were at some time."""

    def __init__(self, rows: Path, called: str, options: ReadOptions) -> None:
        super().__init__(ParquetSource(InputFile(rows.open("rb"), called), options))
        self._time = _time_of(rows)

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return {**self.rows.how_read(), "format": "database", "fetched": self._time}


def _time_of(rows: Path) -> str:
    return f"{datetime.fromtimestamp(rows.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"


def _opened_with_content(
    opened: Callable[[], Source], columns: Mapping[str, str], *, pictures: bool
) -> Source:
    return with_content(opened(), columns, pictures=pictures)


def means_pictures(settings: BatchSettings) -> bool:
    """Whether a folder with tables and pictures stands for its pictures, which the model says.

    Raises:
        ModelError: there is no such model.
    """
    path = settings.input
    if path is None or path == "-" or is_database(path) or is_remote(path):
        return False
    pictures = pictures_of(path, among_tables=True)
    if not pictures or pictures_of(path):
        return False
    task = find_model(settings.model).task
    if not task:
        return len(pictures) > len(files_of(path))
    return bool(plugins.load("tasks", task).data == "image")


# What the output of another format is called.
_WRITTEN = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet", "excel": ".csv"}


def default_output(path: str, *, pictures: bool = False, sheet: str | None = None) -> str:
    """Where the rows go if nobody says.

    `reviews.csv.gz` -> `reviews.predictions.csv.gz` beside it; `reviews.json` ->
    `reviews.predictions.jsonl`; `reviews.xlsx` -> `reviews.predictions.csv`; `photos/` or
    `photo.jpg` -> `photos.predictions.jsonl`; standard input -> standard output; what is not on
    this machine -> a file in the folder that the command is given in.

    Args:
        path: the input.
        pictures: see `means_pictures`.
        sheet: see `ReadOptions`.

    Raises:
        InputError: the input can't be read or has no name of its own.
    """
    if path == "-":
        return "-"
    if is_database(path):
        table = split_table(path)[1]
        if table is None:
            raise ConfigError(f"{shown(path)}: name the --output; a query has no name of its own")
        return f"{table}.predictions.parquet"
    file = Path(path)
    several = InputError(f"{path}: is several files; name the one to write with --output")
    known = is_remote(path) and has_data_name(file_part(path))
    images = [] if known else pictures_of(path, among_tables=pictures)
    if images or is_picture(path):
        if images not in ([], [path]) and not file.is_dir() and path[-1] != "/":
            raise several
        file = Path(file.name) if is_remote(path) else file
        return str(file.with_name(f"{file.name if file.is_dir() else file.stem}.predictions.jsonl"))
    if not (is_remote(path) or file.suffix or file.exists()):
        raise InputError(f"{path}: no such file or folder")
    if files := [] if known else files_of(path):
        if not file.is_dir() and path[-1] != "/":
            raise several
        name = Path(path).name if is_remote(path) else str(file).rstrip("/")
        return f"{name}.predictions{''.join(_suffixes(files[0], None)[:1]).lower()}"
    name = file_part(path).rpartition("/")[2] if is_remote(path) else file.name
    output = f"{Path(split_packing(name)[0]).stem}.predictions{''.join(_suffixes(path, sheet))}"
    return output if is_remote(path) else str(file.with_name(output))


def _suffixes(path: str, sheet: str | None) -> tuple[str, str]:
    """What the name of a file's output ends in: its format, and how it is packed.

    As the input's, where these can be written; JSON goes to JSON Lines, a workbook to CSV.
    """
    stem, packed = split_packing(file_part(path))
    try:
        format_, suffix = format_of(stem), Path(stem).suffix
    except InputError:
        format_ = format_read(path, sheet)
        suffix = _WRITTEN[format_]
    return suffix, packed if compressor(packed) and format_ != "parquet" else ""
