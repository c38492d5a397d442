"""Parquet: columns with types of their own, which are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from mlopsdeploy.data.sources.base import (
    SAMPLE_ROWS,
    Chunk,
    NoRows,
    Wanted,
    Window,
    close,
    named,
    table_window,
)
from mlopsdeploy.errors import InputError

BATCH_ROWS = 8192


class ParquetSource:
    """Columns with types of their own, which are kept."""

    format = "parquet"

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self.path = path
        self._raw = raw
        if path == "-":  # its index is at the end: a pipe has to be kept first
            kept = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
            kept.write(raw.read())
            raw = self._raw = kept
        try:
            self._file = pyarrow.parquet.ParquetFile(raw)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise InputError(f"{named(path)}: not a Parquet file ({reason})") from error
        self.schema: pa.Schema = self._file.schema_arrow
        self.names = self.schema.names
        if not self._file.metadata.num_rows:
            raise NoRows(f"{named(path)}: has no rows")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"{named(path)}: column {name!r} is there twice")
        self._batches = self._file.iter_batches(batch_size=BATCH_ROWS)
        self._ahead: list[pa.RecordBatch] = []
        self._rows_read = 0

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows."""
        batch = next(self._file.iter_batches(batch_size=SAMPLE_ROWS))
        sample: dict[str, list[Any]] = batch.to_pydict()
        return sample

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        waiting = sum(batch.num_rows for batch in self._ahead)
        try:
            while waiting < rows and (batch := next(self._batches, None)):
                self._ahead.append(batch)
                waiting += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            where = f"{named(self.path)}: after row {self._rows_read + waiting}"
            raise InputError(f"{where}: can't be read ({reason})") from error
        if not waiting:
            return None
        table = pa.Table.from_batches(self._ahead)
        self._ahead = table[rows:].to_batches()
        table = table[:rows]
        share = table.num_rows / self._file.metadata.num_rows
        chunk = Chunk(self._rows_read + 1, table.num_rows, table, share)
        self._rows_read += table.num_rows
        return chunk

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`; there is nothing rawer than a table."""
        return table_window(chunk, chunk.content, wanted, self.path)

    def close(self) -> None:
        """See `Source`."""
        close(self._raw)
