"""What a run reads: a file, several, standard input, a database, an object store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mlopsdeploy.batch.addresses import is_database, is_remote, shown, split_table
from mlopsdeploy.batch.sources import SUFFIXES, ParquetSource, Source, files_of, open_source
from mlopsdeploy.batch.unfinished import MANIFEST, beside
from mlopsdeploy.config import BatchSettings
from mlopsdeploy.errors import ConfigError, InputError


class Input:
    """The input of a run, which may have to be read twice.

    The rows of a database are fetched first, into the run's own folder: no transaction stays open
    for hours, and a run that is interrupted goes on with the very same rows.

    Args:
        settings: which input, and how to read it.
        base: the file that the run's own files stand beside; None where there are none.
        say: told, in one line, what takes long.

    Attributes:
        shown: what messages call it.
    """

    def __init__(
        self, settings: BatchSettings, base: Path | None, say: Callable[[str], None]
    ) -> None:
        assert settings.input is not None
        self.path = settings.input
        self.shown = shown(settings.input)
        self._settings = settings
        self._base = base
        self._say = say
        self._waiting: Source | None = None
        self._opened = False
        if settings.query and not is_database(self.path):
            raise ConfigError(f"--query: is asked of a database; {self.shown} is none")

    def open(self) -> Source:
        """The source at its start, to look at it; `reopen` gives the same one."""
        self._waiting = self._open()
        return self._waiting

    def reopen(self) -> Source:
        """The source at its start.

        Raises:
            InputError: it is standard input, which has been read.
        """
        source, self._waiting = self._waiting, None
        return source or self._open()

    def elsewhere(self) -> Callable[[], Source]:
        """Opens the input in another process of this machine; not for standard input."""
        if is_database(self.path):
            return partial(_open_fetched, self._fetched().resolve(), self.shown)
        settings = self._settings
        return partial(
            open_source,
            self.path,
            delimiter=settings.delimiter,
            encoding=settings.encoding,
            output=str(self._base or ""),
        )

    def _open(self) -> Source:
        if self._opened and self.path == "-":
            raise InputError(
                "standard input: has other rows than the unfinished run began with; "
                "start over with --fresh"
            )
        settings = self._settings
        if is_database(self.path):
            rows = self._fetched()
            self._opened = True
            return _open_fetched(rows, self.shown)
        self._opened = True
        return open_source(
            self.path,
            delimiter=settings.delimiter,
            encoding=settings.encoding,
            output=str(self._base or ""),
        )

    def _fetched(self) -> Path:
        """The rows of the database, fetched now or by the run that is to be gone on with."""
        if self._base is None:
            raise ConfigError("--output -: the rows of a database need a file to go to; name one")
        settings = self._settings
        folder = beside(self._base, "unfinished")
        asked = json.dumps([self.path, settings.query, settings.limit])
        rows = folder / f"input-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.parquet"
        if rows.exists() and (
            self._opened or ((folder / MANIFEST).exists() and not settings.fresh)
        ):
            if not self._opened:
                then = datetime.fromtimestamp(rows.stat().st_mtime, UTC)
                self._say(f"going on with the rows fetched at {then:%Y-%m-%d %H:%M} UTC")
            return rows
        from mlopsdeploy.batch.warehouse import Query

        with Query(self.path, settings.query) as query:
            self._say(f"fetching rows of {self.shown}")
            folder.mkdir(exist_ok=True)
            try:
                if not query.to_parquet(rows, limit=settings.limit):
                    rows.unlink(missing_ok=True)
                    raise InputError(f"{self.shown}: the query gives no rows")
            finally:
                with suppress(OSError):  # there is something in it, as there should be
                    folder.rmdir()
        return rows

    def close(self) -> None:
        """Close what nobody has taken."""
        if self._waiting:
            self._waiting.close()


def _open_fetched(rows: Path, called: str) -> Source:
    return ParquetSource(rows.open("rb"), called)


def default_output(path: str) -> str:
    """Where the rows go if nobody says.

    `reviews.csv.gz` -> `reviews.predictions.csv.gz` beside it; standard input -> standard output;
    what is not on this machine -> a file in the folder that the command is given in.

    Raises:
        InputError: the input has no name of its own.
    """
    if path == "-":
        return "-"
    if is_database(path):
        table = split_table(path)[1]
        if table is None:
            raise ConfigError(f"{shown(path)}: name the --output; a query has no name of its own")
        return f"{table}.predictions.parquet"
    file = Path(path)
    if is_remote(path):
        file = Path(path.rpartition("/")[2])
    elif files := files_of(path):
        if not file.is_dir():
            raise InputError(f"{path}: is several files; name the one to write with --output")
        name = Path(files[0]).name.lower()
        suffix = next(suffix for suffix in SUFFIXES if name.removesuffix(".gz").endswith(suffix))
        return f"{str(file).rstrip('/')}.predictions{suffix}"
    suffixes = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    return str(file.with_name(f"{file.name.removesuffix(suffixes)}.predictions{suffixes}"))
