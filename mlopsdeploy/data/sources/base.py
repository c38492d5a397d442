"""What all sources share: chunks as they are read, windows as they are parsed, and values."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.core.inputs import NOT_A_NUMBER
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.sources.input_file import InputFile
from mlopsdeploy.errors import InputError

SAMPLE_ROWS = 200
LONGEST_SHOWN = 1 << 16  # bytes of a bad row that are kept


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        ...


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file, where that can't be seen or is to be read otherwise.

    Attributes:
        delimiter: between the fields of a CSV file; "auto" finds it.
        encoding: of a CSV file; "auto" is UTF-8, or what a byte order mark says.
        quote: around fields that hold delimiters; "none", or "auto" for `"`.
        escape: before a quote within a quoted field; "none", or "auto" finds it.
        header: whether the first line names the columns; None asks where that is in doubt.
        skip_lines: lines above it.
    """

    delimiter: str = "auto"
    encoding: str = "auto"
    quote: str = "auto"
    escape: str = "auto"
    header: bool | None = None
    skip_lines: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source as they were read, in its order; `Source.parse` makes sense of them.

    `first` is the number of the first row, counted from 1, `line` its line (0 where there are
    none). `content` is bytes, a table, or parts that have an `add_to` of their own. `share` is how
    much of the whole input this is, from 0 to 1, and None where that can't be known.
    """

    first: int
    rows: int
    content: Any
    share: float | None
    line: int = 0

    def add_to(self, digest: Digest) -> None:
        """Feed a digest with all that the rows hold."""
        if isinstance(self.content, bytes):
            digest.update(self.content)
        elif isinstance(self.content, pa.Table):
            stream = pa.BufferOutputStream()
            with pa.ipc.new_stream(stream, self.content.schema) as to:
                to.write_table(self.content)
            digest.update(stream.getvalue())
        else:
            for part in self.content:
                part.add_to(digest)


def total_share(parts: Sequence[Chunk]) -> float | None:
    """The share of several chunks together."""
    shares = [part.share for part in parts if part.share is not None]
    return sum(shares) if len(shares) == len(parts) else None


@dataclass(frozen=True)
class Wanted:
    """What of a source's rows is asked for.

    `columns` maps a column's name to "str" or a NumPy number type. `raw` asks for `records`
    rather than a `table` (see `Window`). `new` are the columns that will be added: a row that
    already has one is a bad row.
    """

    columns: Mapping[str, str]
    raw: bool
    new: Collection[str] = ()


@dataclass(frozen=True)
class Origin:
    """A file that rows come from; `first` is the number of its first row in the whole input."""

    path: str
    first: int = 1


@dataclass(frozen=True)
class Window:
    """The rows of a chunk, parsed; those that can't be are in `bad`.

    `numbers` are the rows' numbers in the whole input, counted from 1; `origins` are its files.
    `columns` holds the columns asked for: text as str (None where missing), numbers as float64
    (NaN where missing). `records` holds each row as it stands in the file, without its line end,
    `table` all its columns; which of the two, `Wanted.raw` says. `pictures` holds the file of each
    row's picture as bytes, None where a row has none; see `WithPictures`.
    """

    numbers: Array
    columns: Columns
    share: float | None
    origins: tuple[Origin, ...]
    records: pa.Array | None = None
    table: pa.Table | None = None
    bad: tuple[BadRow, ...] = ()
    pictures: Array | None = None

    @property
    def rows(self) -> int:
        """How many there are, without the bad ones."""
        return len(self.numbers)

    def without(self, bad: Sequence[BadRow], dropped: Array) -> Window:
        """Less the rows where `dropped` is true; `bad` says why."""
        if not dropped.any():
            return self
        kept = ~dropped
        mask = pa.array(kept)
        return replace(
            self,
            numbers=self.numbers[kept],
            columns={name: array[kept] for name, array in self.columns.items()},
            records=None if self.records is None else self.records.filter(mask),
            table=None if self.table is None else self.table.filter(mask),
            bad=tuple(sorted([*self.bad, *bad], key=lambda row: (row.path, row.number))),
            pictures=None if self.pictures is None else self.pictures[kept],
        )

    def origin(self, number: int) -> Origin:
        """The file that a row comes from, by the row's number."""
        before = (item for item in self.origins if item.first <= number)
        return max(before, key=lambda item: item.first)

    def bad_row(self, place: int, reason: str, line: int | None = None) -> BadRow:
        """What to say about one of the rows."""
        number = int(self.numbers[place])
        origin = self.origin(number)
        return BadRow(number - origin.first + 1, reason, self.record(place), origin.path, line)

    def record(self, place: int) -> str | dict[str, Any]:
        """A row as it stands in the file, or its columns where that is not text."""
        if self.records is not None:
            return shortened(self.records[place].as_buffer().to_pybytes())
        assert self.table is not None
        row: dict[str, Any] = self.table.slice(place, 1).to_pylist()[0]
        return row


class Source(Protocol):
    """An open input. `names` are its columns."""

    format: str
    path: str
    names: list[str]

    def sample(self) -> Mapping[str, list[Any]]:
        """The first values of each column (all of it text in CSV); it does not move on."""
        ...

    def read(self, rows: int) -> Chunk | None:
        """The next rows, `rows` of them or what is left; None at the end."""
        ...

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """The rows of one of its chunks."""
        ...

    def how_read(self) -> dict[str, Any]:
        """What was found or decided about how to read it, and what was left out; for the summary.

        By the names that a person has for it: `format`, `delimiter`, `encoding`. What is left out
        is complete when all rows are read.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class FileSource:
    """What the sources of one file have in common: its name, its columns, the count of its rows.

    That of another format is a subclass with `format`, `sample`, `read` and `parse`, whose
    constructor raises `NoRows` where the file has none. `sources.open_source` chooses among them.
    """

    format: str

    def __init__(self, file: InputFile) -> None:
        self.path = file.path
        self.names: list[str] = []
        self._file = file
        self._rows_read = 0

    def _name_columns(self, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{self._file.name}: column {name!r} is named twice")
        self.names = names

    def _chunk(self, rows: int, content: Any, share: float | None, line: int = 0) -> Chunk:
        """The next rows, which from now on count as read."""
        chunk = Chunk(self._rows_read + 1, rows, content, share, line)
        self._rows_read += rows
        return chunk

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return {"format": self.format, **self._file.left_out()}

    def close(self) -> None:
        """See `Source`."""
        self._file.close()


def chunks(source: Source, rows: int, *, limit: int | None = None) -> Iterator[Chunk]:
    """All rows of a source, `rows` at a time, up to `limit` in all."""
    left = sys.maxsize if limit is None else limit
    while left and (chunk := source.read(min(rows, left))):
        yield chunk
        left -= chunk.rows


def with_columns(
    rows: Window,
    table: pa.Table,
    wanted: Wanted,
    line: Callable[[int], int | None] = lambda _: None,
) -> Window:
    """The rows with the columns asked for, less those with no number where one should be.

    Args:
        rows: without columns yet.
        table: their values.
        wanted: says which columns.
        line: the line of a row, by its place among `rows`.
    """
    columns: Columns = {}
    bad: list[BadRow] = []
    dropped = np.zeros(rows.rows, bool)
    for name, kind in wanted.columns.items():
        column = table.column(name)
        if kind == "str":
            columns[name] = objects([_text(value) for value in column.to_pylist()])
            continue
        columns[name], wrong = _numbers(column)
        bad += [
            rows.bad_row(place, f"column {name!r} holds no number", line(place))
            for place in np.flatnonzero(wrong & ~dropped).tolist()
        ]
        dropped |= wrong
    return replace(rows, columns=columns).without(bad, dropped)


def _numbers(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Values as float64, NaN where there is none; and where there was something else."""
    try:
        values = column.cast(pa.float64()).to_numpy()
        return values, np.zeros(len(values), bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    values = np.full(len(column), np.nan)
    bad = np.zeros(len(column), bool)
    for row, value in enumerate(column.to_pylist()):
        if value is None or str(value).strip() in NOT_A_NUMBER:
            continue
        try:
            values[row] = float(value)
        except (TypeError, ValueError):
            bad[row] = True
    return values, bad


def as_text(record: bytes) -> str:
    r"""A row as it stands in the file; bytes that are no UTF-8 as `\xe9`."""
    return record.decode("utf-8", "backslashreplace")


def shortened(record: bytes) -> str:
    """A row for a message or the list of bad rows, which need not hold all of 50 MB."""
    if len(record) <= LONGEST_SHOWN:
        return as_text(record)
    return f"{as_text(record[:LONGEST_SHOWN])}… ({len(record):,} bytes)"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def scalar(value: Any) -> str | None:
    """A JSON value as text; lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
