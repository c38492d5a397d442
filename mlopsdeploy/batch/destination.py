"""Where a run's rows end up, once all of them are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mlopsdeploy.batch.unfinished import appearing, copy_whole
from mlopsdeploy.data.addresses import is_database, is_remote, shown, split_table
from mlopsdeploy.data.parquet_folder import check_folder, write_folder
from mlopsdeploy.data.sinks import check_output, tables, write_parquet
from mlopsdeploy.data.sources import Source, format_of
from mlopsdeploy.errors import ConfigError, InputError

IfExists = Literal["replace", "append", "fail"]


@dataclass(frozen=True)
class Destination:
    """An output.

    Attributes:
        shown: what messages call it.
        base: the local file that the run's other files stand beside.
        path: its name, for a sink that goes by names.
        format: what the sink writes.
        check: refuses early what would fail late; given the source and, as a table without rows,
            the columns to come.
        publish: puts a file of finished rows where the output belongs, whole or not at all.
    """

    shown: str
    base: Path
    path: str
    format: str
    check: Callable[[Source, Callable[[], pa.Schema]], None]
    publish: Callable[[Path], None]


def destination(
    output: str, *, if_exists: IfExists = "replace", partition_by: str | None = None
) -> Destination:
    """Where `--output` says: a file, a folder of Parquet (`scored/`), a table, an object.

    Raises:
        InputError: the name of a file says no format.
        ConfigError: a database without a table.
    """
    folder = output.endswith("/") and not is_remote(output) and not is_database(output)
    if partition_by and not folder:
        raise ConfigError(
            f"--partition-by: is for a folder of Parquet files: --output {Path(output).stem}/"
        )
    if folder:
        return _folder(output, partition_by)
    if is_database(output):
        return _table(output, if_exists)
    format_ = format_of(output)
    if is_remote(output):
        return _object(output, format_)
    target = Path(output)
    if target.is_symlink():  # it stays one
        target = target.resolve()

    def publish(rows: Path) -> None:
        if format_ == "parquet":
            _parquet(rows, target)
        else:
            copy_whole(rows, target)

    return Destination(
        output, target, output, format_, lambda source, _: check_output(output, source), publish
    )


def _folder(output: str, partition_by: str | None) -> Destination:
    """Parquet files in a folder, all of them or none."""
    target = Path(output)

    def publish(rows: Path) -> None:
        with rows.open("rb") as streams:
            write_folder(tables(streams), target, partition_by=partition_by, inside=rows.parent)

    def check(source: Source, _: Callable[[], pa.Schema]) -> None:
        if not target.parent.is_dir():
            raise InputError(f"{output}: the folder {target.parent} does not exist")
        if partition_by and partition_by not in source.names:
            raise InputError(f"--partition-by: the input has no column {partition_by!r}")
        check_folder(target)

    return Destination(output, target, target.name, "parquet", check, publish)


def _table(output: str, if_exists: IfExists) -> Destination:
    """A table of a database, loaded in one transaction."""
    url, table = split_table(output)
    if table is None:
        raise ConfigError(
            f"{shown(output)}: name a table behind a '#', as in {shown(output)}#scored"
        )
    from mlopsdeploy.data import databases

    def check(_: Source, schema: Callable[[], pa.Schema]) -> None:
        databases.check_table(url, table, schema=schema(), if_exists=if_exists)

    def publish(rows: Path) -> None:
        with rows.open("rb") as streams:
            schema = next(tables(streams)).schema
        with rows.open("rb") as streams:
            batches = (batch for part in tables(streams) for batch in part.to_batches())
            databases.load_table(url, table, batches, schema=schema, if_exists=if_exists)

    name = table.replace('"', "").replace("/", "_")
    return Destination(shown(output), Path(name), name, "parquet", check, publish)


def _object(output: str, format_: str) -> Destination:
    """An object of a store, uploaded when it is whole."""
    from mlopsdeploy.data import object_stores

    name = output.rpartition("/")[2]

    def publish(rows: Path) -> None:
        if format_ == "parquet":
            whole = rows.with_name("rows.parquet")
            _parquet(rows, whole)
            rows = whole
        object_stores.upload(rows, output)

    return Destination(
        shown(output),
        Path(name),
        name,
        format_,
        lambda *_: object_stores.check_upload(output),
        publish,
    )


def _parquet(rows: Path, target: Path) -> None:
    with rows.open("rb") as streams, appearing(target, rows.parent) as file:
        write_parquet(tables(streams), file)
