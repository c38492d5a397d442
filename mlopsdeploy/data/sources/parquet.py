"""Parquet: columns with types of their own, which are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from mlopsdeploy.data.sources.base import (
    MOST_BYTES,
    SAMPLE_ROWS,
    Chunk,
    FileSource,
    Origin,
    ReadOptions,
    Wanted,
    Window,
    with_columns,
    with_paths,
)
from mlopsdeploy.data.sources.input_file import InputFile, NoRows
from mlopsdeploy.data.sources.values import values_of
from mlopsdeploy.errors import InputError

BATCH_ROWS = 8192
STEP = 64  # rows, by which a chunk of large ones is cut


class ParquetSource(FileSource):
    """Columns with types of their own, which are kept."""

    format = "parquet"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        super().__init__(file, options)
        stored = file.seekable()  # its index is at the end
        try:
            self._parquet = pyarrow.parquet.ParquetFile(stored)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file.name}: not a Parquet file ({_reason(error)})") from error
        self.schema: pa.Schema = self._parquet.schema_arrow
        if not self._parquet.metadata.num_rows:
            raise NoRows(f"{file.name}: has no rows")
        self._name_columns(self.schema.names)
        self._batches = self._parquet.iter_batches(batch_size=BATCH_ROWS)
        self._ahead: list[pa.RecordBatch] = []

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows."""
        batch = self._next(self._parquet.iter_batches(batch_size=SAMPLE_ROWS), 0)
        table = pa.Table.from_batches([batch])
        return with_paths({name: values_of(table.column(name)) for name in self.names})

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        waiting = sum(batch.num_rows for batch in self._ahead)
        while waiting < rows and (batch := self._next(self._batches, self._rows_read + waiting)):
            self._ahead.append(batch)
            waiting += batch.num_rows
        if not waiting:
            return None
        table = pa.Table.from_batches(self._ahead)
        rows = _within(table[:rows])
        self._ahead = table[rows:].to_batches()
        table = table[:rows]
        return self._chunk(table.num_rows, table, table.num_rows / self._parquet.metadata.num_rows)

    def _next(self, batches: Iterator[pa.RecordBatch], row: int) -> pa.RecordBatch | None:
        """The next batch, `row` rows being before it."""
        try:
            return next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self._file.name}: after row {row}: can't be read ({_reason(error)})"
            ) from error

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`; there is nothing rawer than a table."""
        table = chunk.content
        numbers = np.arange(chunk.first, chunk.first + table.num_rows)
        window = Window(numbers, {}, chunk.share, (Origin(self.path),), table=table)
        return with_columns(window, table, wanted, self.numbers)


def _within(table: pa.Table) -> int:
    """How many of its first rows are a chunk."""
    if table.nbytes <= MOST_BYTES:
        return int(table.num_rows)
    ends = range(STEP, table.num_rows, STEP)
    return next((end for end in ends if table[:end].nbytes > MOST_BYTES), table.num_rows)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:120]
