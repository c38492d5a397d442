"""What all sources share: chunks as they are read, windows as they are parsed, and values."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.core.inputs import not_exact, number_words
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.sources.input_file import InputFile
from mlopsdeploy.data.sources.lists import lists_in
from mlopsdeploy.data.sources.spelling import is_plain
from mlopsdeploy.data.sources.values import as_text, is_bytes, is_utf8, numbers_in, values_of
from mlopsdeploy.errors import InputError

SAMPLE_ROWS = 200
LONGEST_SHOWN = 1 << 16  # bytes of a bad row that are kept
# Of a chunk, but for its last row: thousands of long documents would be gigabytes with all that is
# made of them. By the rows alone, so that a run which goes on has the same chunks.
MOST_BYTES = 32 << 20


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
        sheet: of a workbook its sheet, of a zip its file, of a JSON document the path of its list.
        numbers: how texts write them, by an example of `spelling.SPELLINGS`; "auto" is 1234.56.
    """

    delimiter: str = "auto"
    encoding: str = "auto"
    quote: str = "auto"
    escape: str = "auto"
    header: bool | None = None
    skip_lines: int | None = None
    sheet: str | None = None
    numbers: str = "auto"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source as they were read, in its order; `Source.parse` makes sense of them.

    `first` is the number of the first row, counted from 1, `line` its line (0 where there are
    none). `content` is bytes, a table, or parts that have an `add_to` and a `size`. `share` is how
    much of the whole input this is, from 0 to 1, and None where that can't be known.
    """

    first: int
    rows: int
    content: Any
    share: float | None
    line: int = 0

    @property
    def size(self) -> int:
        """Bytes of the rows as they were read."""
        if isinstance(self.content, bytes):
            return len(self.content)
        if isinstance(self.content, pa.Table):
            return int(self.content.nbytes)
        return sum(part.size for part in self.content)

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

    `columns` maps a column's name to "str" or a NumPy number type; of one that has a list in each
    row, `shapes` has its shape, with -1 for a size that varies. `raw` asks for `records`
    rather than a `table` (see `Window`). `new` are the columns that will be added: a row that
    already has one is a bad row. So is one with a list or an object in one of the columns `texts`.
    `kept` are the columns that go on to the output, by name or path; None is all of them.
    `delimiter` is what CSV goes on with between its fields; "" is the file's own.
    """

    columns: Mapping[str, str]
    raw: bool
    new: Collection[str] = ()
    texts: Collection[str] = ()
    kept: Collection[str] | None = None
    delimiter: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def cells(self) -> dict[str, str]:
        """As `columns`, for files whose cells are text: so are lists."""
        return {name: "str" if name in self.shapes else kind for name, kind in self.columns.items()}


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
    `table` all its columns; which of the two, `Wanted.raw` says. `kept` holds what of each record
    goes on to the output, where that is not the record. `pictures` holds the file of each
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
    kept: pa.Array | None = None

    @property
    def rows(self) -> int:
        """How many there are, without the bad ones."""
        return len(self.numbers)

    @property
    def passed(self) -> pa.Array | None:
        """What goes on to the output of each row, where that is text of its own."""
        return self.records if self.kept is None else self.kept

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
            kept=None if self.kept is None else self.kept.filter(mask),
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
        table = self.table.slice(place, 1)
        return {name: values_of(table.column(name))[0] for name in table.column_names}


class Source(Protocol):
    """An open input. `names` are its columns."""

    format: str
    path: str
    names: list[str]

    def sample(self) -> Mapping[str, list[Any]]:
        """The first values of each column (all of it text in CSV); it does not move on."""
        ...

    def read(self, rows: int) -> Chunk | None:
        """The next rows, up to `rows` of them and about `MOST_BYTES`; None at the end."""
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

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        self.path = file.path
        self.numbers = options.numbers
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
        within = {"file": self._file.member} if self._file.member else {}
        numbers = {} if is_plain(self.numbers) else {"numbers": self.numbers}
        return {"format": self.format, **within, **numbers, **self._file.left_out()}

    def close(self) -> None:
        """See `Source`."""
        self._file.close()


class SourceOver:
    """What sources have in common that change the rows of another one; by itself it changes none.

    Attributes:
        rows: the other source.
    """

    def __init__(self, rows: Source) -> None:
        self.rows = rows
        self.format, self.path, self.names = rows.format, rows.path, rows.names

    def sample(self) -> Mapping[str, list[Any]]:
        """See `Source`."""
        return self.rows.sample()

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        return self.rows.read(rows)

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        return self.rows.parse(chunk, wanted)

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return self.rows.how_read()

    def close(self) -> None:
        """See `Source`."""
        self.rows.close()


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
    numbers: str = "auto",
    line: Callable[[int], int | None] = lambda _: None,
) -> Window:
    """The rows with the columns asked for, less those with no number where one should be.

    Args:
        rows: without columns yet.
        table: their values.
        wanted: says which columns.
        numbers: how texts write them; see `ReadOptions`.
        line: the line of a row, by its place among `rows`.
    """
    columns: Columns = {}
    bad: list[BadRow] = []
    dropped = np.zeros(rows.rows, bool)
    for name, kind in wanted.columns.items():
        column = column_at(table, name)
        reasons: Mapping[int, str] = {}
        if name in wanted.shapes:
            columns[name], reasons = lists_in(column, kind, wanted.shapes[name], numbers)
        elif kind == "str":
            values = values_of(column)
            columns[name] = objects([_text(value) for value in values])
            if name in wanted.texts:
                wrong = np.flatnonzero(_no_texts(column)).tolist()
                reasons = dict.fromkeys(wrong, "holds no text")
        else:
            columns[name], reasons = _numbers(column, kind, numbers)
        for place, reason in reasons.items():
            if not dropped[place]:
                bad.append(rows.bad_row(place, f"column {name!r} {reason}", line(place)))
                dropped[place] = True
    return replace(rows, columns=columns).without(bad, dropped)


def _numbers(column: pa.ChunkedArray, kind: str, spelled: str) -> tuple[Array, dict[int, str]]:
    """Numbers of a type, float64, and why some rows have none."""
    values, wrong = numbers_in(column, spelled)
    reasons = dict.fromkeys(np.flatnonzero(wrong).tolist(), "holds no number")
    inexact = np.flatnonzero(not_exact(values, kind) & ~wrong).tolist()
    return values, {**reasons, **dict.fromkeys(inexact, f"does not hold {number_words(kind)}")}


def _no_texts(column: pa.ChunkedArray) -> Array:
    """Where there is a value that is no text: a list, a struct, bytes that are not UTF-8."""
    if pa.types.is_nested(column.type):
        return np.asarray(pc.is_valid(column))
    wrong = np.zeros(len(column), bool)
    if is_bytes(column.type):
        wrong[:] = [value is not None and not is_utf8(value) for value in column.to_pylist()]
    return wrong


def told_apart(cells: Sequence[str]) -> list[str]:
    """Names for columns: `column 3` for one without, `date.2` for the second `date`."""
    names: list[str] = []
    for place, cell in enumerate(cells, 1):
        name, number = cell or f"column {place}", 1
        base = name
        while name in names or (number > 1 and name in cells):
            number += 1
            name = f"{base}.{number}"
        names.append(name)
    return names


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


def with_paths(sample: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The first values of each column, and behind one of objects those of each key in them.

    What is within is called by its path: `review.text`.
    """
    found: dict[str, list[Any]] = {}
    for name, values in sample.items():
        found[name] = values
        filled = [value for value in values if isinstance(value, dict)]
        keys = dict.fromkeys(str(key) for value in filled for key in value)
        within = {
            f"{name}.{key}": [
                value.get(key) if isinstance(value, dict) else None for value in values
            ]
            for key in keys
        }
        found |= {path: inner for path, inner in with_paths(within).items() if path not in sample}
    return found


def at_path(row: Mapping[str, Any], path: str) -> Any:
    """A row's value by its name, or within objects by its path; None where it has none."""
    if path in row or "." not in path:
        return row.get(path)
    before, _, last = path.rpartition(".")
    within = at_path(row, before)
    return within.get(last) if isinstance(within, dict) else None


def column_at(table: pa.Table, path: str) -> pa.ChunkedArray:
    """A column by its name, or within structs by its path.

    Raises:
        KeyError: there is none.
    """
    if path in table.column_names or "." not in path:
        return table.column(path)
    before, _, last = path.rpartition(".")
    return pc.struct_field(column_at(table, before), last)
