"""Rows as a folder of Parquet files, which appears whole or not at all.

scored/part-00000.parquet, part-00001.parquet, …        in the order of the rows
scored/country=DE/part-00000.parquet, …                 partitioned by a column, as Hive does it
scored/_SUCCESS                                          the sign that schedulers wait for
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset

from mlopsdeploy.data.files import sync_folder
from mlopsdeploy.data.sinks import ROW_GROUP
from mlopsdeploy.errors import InputError

FILE_ROWS = 1 << 20  # per file: tens to hundreds of megabytes, as readers like them
SUCCESS = "_SUCCESS"
MOST_PARTITIONS = 1024  # each is a file that is open; more of them are hardly meant


def write_folder(
    tables: Iterator[pa.Table],
    target: Path,
    *,
    partition_by: str | None = None,
    rows: int = FILE_ROWS,
    inside: Path | None = None,
) -> None:
    """Write tables as files of a folder, in their order, and replace the folder that was there.

    Whether it may be replaced, `overwriting.Protected.check` says.

    Args:
        tables: with one schema.
        target: the folder.
        partition_by: a column: the rows of each of its values go to a folder of their own.
        rows: the most per file.
        inside: a folder on the same disk that the new one is built in.

    Raises:
        InputError: there is no such column, or it has too many values.
    """
    part = (inside or target.parent) / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a crash
    part.mkdir()
    try:
        _write(tables, part, partition_by, rows)
        (part / SUCCESS).touch()
        _sync(part)
        _exchange(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(tables: Iterator[pa.Table], folder: Path, partition_by: str | None, rows: int) -> None:
    first = next(tables, None)
    if first is None:
        return
    if partition_by is not None and partition_by not in first.column_names:
        raise InputError(
            f"no column {partition_by!r} to partition by; there are {', '.join(first.column_names)}"
        )
    tables = chain([first], tables)
    if partition_by is not None:
        tables = _of_few_partitions(tables, partition_by)
    pyarrow.dataset.write_dataset(
        (batch for table in tables for batch in table.to_batches()),
        folder,
        schema=first.schema,
        format="parquet",
        partitioning=[partition_by] if partition_by else None,
        partitioning_flavor="hive" if partition_by else None,
        max_partitions=MOST_PARTITIONS,
        max_open_files=MOST_PARTITIONS,
        max_rows_per_file=rows,
        max_rows_per_group=min(ROW_GROUP, rows),
        preserve_order=True,
    )
    for file in folder.rglob("part-*.parquet"):  # so that names sort as rows do
        number = int(file.stem.removeprefix("part-"))
        file.rename(file.with_name(f"part-{number:05}.parquet"))


def _of_few_partitions(tables: Iterator[pa.Table], column: str) -> Iterator[pa.Table]:
    values: set[str] = set()
    for table in tables:
        values.update(map(str, table[column].unique().to_pylist()))
        if len(values) > MOST_PARTITIONS:
            raise InputError(
                f"column {column!r} has more than {MOST_PARTITIONS:,} values; partition by one "
                "with fewer"
            )
        yield table


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as content:
                os.fsync(content.fileno())
        else:
            sync_folder(file)
    sync_folder(folder)


def _exchange(part: Path, target: Path) -> None:
    """The new folder in the place of the old one; for a moment there is none, never half of one."""
    old = part.with_suffix(".old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a crash
        target.rename(old)
    part.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
