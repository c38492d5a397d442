"""Parquet: columns with types of their own, which are kept."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from mlopsdeploy.batch.sources.base import SAMPLE_ROWS, Window, close, named, to_columns
from mlopsdeploy.errors import InputError


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
        self.names = self._file.schema_arrow.names
        if not self._file.metadata.num_rows:
            raise InputError(f"{named(path)}: has no rows")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"{named(path)}: column {name!r} is there twice")

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows."""
        batch = next(self._file.iter_batches(batch_size=SAMPLE_ROWS))
        sample: dict[str, list[Any]] = batch.to_pydict()
        return sample

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """See `Source`."""
        left = sys.maxsize if limit is None else limit
        del raw  # there is nothing rawer than a table
        first = 1
        for batch in self._file.iter_batches(batch_size=rows):
            table = pa.Table.from_batches([batch[:left]])
            columns, unreadable = to_columns(table, wanted)
            share = table.num_rows / self._file.metadata.num_rows
            yield Window(first, columns, unreadable, share, table=table)
            first += table.num_rows
            left -= table.num_rows
            if not left:
                return

    def close(self) -> None:
        """See `Source`."""
        close(self._raw)
