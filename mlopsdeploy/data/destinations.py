"""Where a run's rows end up, once all of them are there: a file, a folder, a table, an object."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mlopsdeploy.data.addresses import is_database, is_remote, shown, split_table
from mlopsdeploy.data.files import ERRORS, PUBLISHING, beside, copy_whole, note_of, whole_file
from mlopsdeploy.data.overwriting import Protected, state_of, written
from mlopsdeploy.data.packing import split_packing
from mlopsdeploy.data.sinks import tables, write_parquet
from mlopsdeploy.data.sources import format_of
from mlopsdeploy.errors import ConfigError, InputError

IfExists = Literal["replace", "append", "upsert", "fail"]
_TO_OTHERS = "rows are added to a table of others"  # in the mark of a run that publishes


class Destination:
    """A file, and what all outputs have in common.

    Args:
        output: as the user names it.
        base: the local file that the run's own files stand next to; by default the output.
        format_: what the sink writes.

    Attributes:
        shown: what messages call it.
        path: its name, for a sink that goes by names.
    """

    def __init__(self, output: str, format_: str, base: Path | None = None) -> None:
        self.shown = shown(output)
        self.path = base.name if base else output
        self.base = base or Path(output)
        if self.base.is_symlink():  # it stays one
            self.base = self.base.resolve()
        self.format = format_
        self._name = self.base.name  # in the manifest

    def protect(self, protected: Protected) -> None:
        """Refuse early what may not be overwritten, and where nothing can be written.

        Raises:
            ConfigError: see `Protected.check`.
            InputError: the folder does not exist or can't be written to.
            MlopsDeployError: a server can't be reached.
        """
        self._protect(protected)
        errors, note = beside(self.base, ERRORS), note_of(self.base)
        protected.check(errors, str(errors), ours=self._is_ours(errors.name, state_of(errors)))
        protected.check(note, str(note), ours=bool(written(note)) or self._is_publishing)

    def _protect(self, protected: Protected) -> None:
        if not self.base.parent.is_dir():
            raise InputError(f"{self.shown}: the folder {self.base.parent} does not exist")
        protected.check(
            self.base,
            self.shown,
            ours=self._is_ours(self.base.name, state_of(self.base)),
            folder=isinstance(self, _Folder),
        )
        if not os.access(self.base.parent, os.W_OK):
            raise InputError(f"{self.shown}: no permission to write in {self.base.parent}")

    def _is_ours(self, name: str, state: str) -> bool:
        return self._is_publishing or written(note_of(self.base)).get(name) == state

    @property
    def _is_publishing(self) -> bool:
        """Whether a run was killed while it put its files where they belong."""
        return (beside(self.base, "unfinished") / PUBLISHING).exists()

    def check_columns(self, columns: Callable[[], pa.Schema]) -> None:
        """Refuse early what columns, those of the first rows, can't be written."""

    def publish(self, rows: Path) -> None:
        """Put a file of finished rows where the output belongs, whole or not at all."""
        if self.format == "parquet":
            _parquet(rows, self.base)
        else:
            copy_whole(rows, self.base)

    def state(self) -> str:
        """What changes when somebody writes there; "" where there is nothing."""
        return state_of(self.base)

    @property
    def written(self) -> dict[str, str]:
        """For the manifest: how the output and its bad rows were left."""
        errors = beside(self.base, ERRORS)
        return {self._name: self.state(), errors.name: state_of(errors)}


class _Folder(Destination):
    """Parquet files in a folder, all of them or none."""

    def __init__(self, output: str, partition_by: str | None) -> None:
        super().__init__(output, "parquet", Path(output))
        self._partition_by = partition_by

    def publish(self, rows: Path) -> None:
        from mlopsdeploy.data.parquet_folder import write_folder  # brings pyarrow.dataset, pandas

        write_folder(_tables(rows), self.base, partition_by=self._partition_by, inside=rows.parent)


class _Elsewhere(Destination):
    """What is on no disk of this machine. Its own files are in the folder of the run."""

    def __init__(self, output: str, name: str, format_: str) -> None:
        stem = Path(split_packing(name)[0]).stem
        mark = hashlib.sha256(shown(output).encode()).hexdigest()[:8]  # others have that name, too
        super().__init__(output, format_, Path(f"{stem}-{mark}{name.removeprefix(stem)}"))
        self._name = self.shown

    def _protect(self, protected: Protected) -> None:
        if any(self._is_input(path, protected.query) for path in protected.inputs):
            raise ConfigError(f"{self.shown}: is the input itself; give another --output")
        if not self._adds:
            state = self.state()
            protected.check_written(self.shown, not state or self._is_ours(self.shown, state))

    _adds = False  # to what is there

    def _is_input(self, path: str, query: str | None) -> bool:
        raise NotImplementedError


class _Table(_Elsewhere):
    """A table of a database, loaded in one transaction."""

    def __init__(self, output: str, if_exists: IfExists, key: Sequence[str]) -> None:
        self._url, table = split_table(output)
        if table is None:
            raise ConfigError(
                f"{shown(output)}: name a table behind a '#', as in {shown(output)}#scored"
            )
        from mlopsdeploy.data import databases

        self._databases = databases
        self._table = table
        self._how: dict[str, Any] = {"if_exists": if_exists, "key": key}
        self._of_others = False
        self._adds = if_exists != "replace"
        super().__init__(output, table.replace('"', "").replace("/", "_"), "parquet")

    def _is_input(self, path: str, query: str | None) -> bool:
        return self._databases.is_read_by(self._url, self._table, path, query)

    def check_columns(self, columns: Callable[[], pa.Schema]) -> None:
        self._databases.check_table(self._url, self._table, schema=columns(), **self._how)

    def publish(self, rows: Path) -> None:
        there = self._adds and self.state()
        self._of_others = bool(there) and written(note_of(self.base)).get(self.shown) != there
        if self._of_others:
            rows.with_name(PUBLISHING).write_text(_TO_OTHERS, "utf-8")
        parts = _tables(rows)
        first = next(parts)
        batches = (batch for part in chain([first], parts) for batch in part.to_batches())
        self._databases.load_table(
            self._url, self._table, batches, schema=first.schema, **self._how
        )

    def _is_ours(self, name: str, state: str) -> bool:
        mark = beside(self.base, "unfinished") / PUBLISHING
        if name == self.shown and mark.exists() and mark.read_text("utf-8") == _TO_OTHERS:
            return False
        return super()._is_ours(name, state)

    @property
    def written(self) -> dict[str, str]:
        """As of all; a table of others that was added to does not become ours."""
        left = super().written
        return {**left, self.shown: ""} if self._of_others else left

    def state(self) -> str:
        return self._databases.columns_of(self._url, self._table)


class _Object(_Elsewhere):
    """An object of a store, uploaded when it is whole."""

    def __init__(self, output: str, format_: str) -> None:
        from mlopsdeploy.data import object_stores

        self._stores = object_stores
        self._url = output
        super().__init__(output, output.rpartition("/")[2], format_)

    def _is_input(self, path: str, _: str | None) -> bool:
        return is_remote(path) and self._stores.stands_for(path, self._url)

    def _protect(self, protected: Protected) -> None:
        self._stores.check_upload(self._url)
        super()._protect(protected)

    def publish(self, rows: Path) -> None:
        if self.format == "parquet":
            whole = rows.with_name("rows.parquet")
            _parquet(rows, whole)
            rows = whole
        self._stores.upload(rows, self._url)

    def state(self) -> str:
        return self._stores.signature(self._url)


def destination(
    output: str,
    *,
    if_exists: IfExists = "replace",
    key: Sequence[str] = (),
    partition_by: str | None = None,
) -> Destination:
    """Where `--output` says: a file, a folder of Parquet (`scored/`), a table, an object.

    Raises:
        InputError: the name of a file says no format.
        ConfigError: a database without a table, or a web server.
    """
    folder = output.endswith("/") and not is_remote(output) and not is_database(output)
    if partition_by and not folder:
        raise ConfigError(
            f"--partition-by: is for a folder of Parquet files: --output {Path(output).stem}/"
        )
    if folder:
        return _Folder(output, partition_by)
    if is_database(output):
        return _Table(output, if_exists, key)
    format_ = format_of(output)
    return _Object(output, format_) if is_remote(output) else Destination(output, format_)


def check_key(output: str, if_exists: IfExists, key: Sequence[str]) -> None:
    """Refuse a key without what it is for, and the other way round.

    Raises:
        ConfigError: `--key` and `--if-exists upsert` do not go with each other or the output.
    """
    if bool(key) != (if_exists == "upsert"):
        raise ConfigError("--if-exists upsert and --key COLUMNS go together; give both, or neither")
    if key and not is_database(output):
        raise ConfigError(f"--key: is for a database's table; {shown(output)} is none")


def _parquet(rows: Path, target: Path) -> None:
    with whole_file(target, rows.parent) as file:
        write_parquet(_tables(rows), file)


def _tables(rows: Path) -> Iterator[pa.Table]:
    with rows.open("rb") as streams:
        yield from tables(streams)
