"""What all sources share: chunks as they are read, windows as they are parsed, and values."""

from __future__ import annotations

import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.core.inputs import NOT_A_NUMBER
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.errors import InputError

SAMPLE_ROWS = 200
BROKEN = (OSError, EOFError, zlib.error)  # what reading a cut off or damaged .gz raises


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source as they were read, in its order; `Source.parse` makes sense of them.

    `first` is the number of the first row, counted from 1, `line` its line (0 where there are
    none). `share` is how much of the whole input this is, from 0 to 1, and None where that can't
    be known.
    """

    first: int
    rows: int
    content: Any
    share: float | None
    line: int = 0

    def add_to(self, digest: Digest) -> None:
        """Feed a digest with all that the rows hold."""
        if isinstance(self.content, pa.Table):
            with pa.ipc.new_stream(pa.PythonFile(_Feed(digest), "w"), self.content.schema) as to:
                to.write_table(self.content)
        else:
            digest.update(self.content)


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        ...


class _Feed(io.RawIOBase):
    """A file whose content goes into a digest."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)


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

    def bad_row(self, place: int, reason: str, line: int | None = None) -> BadRow:
        """What to say about one of the rows."""
        number = int(self.numbers[place])
        origin = max((item for item in self.origins if item.first <= number), key=_first)
        return BadRow(number - origin.first + 1, reason, self.record(place), origin.path, line)

    def record(self, place: int) -> str | dict[str, Any]:
        """A row as it stands in the file, or its columns where that is not text."""
        if self.records is not None:
            return as_text(self.records[place].as_buffer().to_pybytes())
        assert self.table is not None
        row: dict[str, Any] = self.table.slice(place, 1).to_pylist()[0]
        return row


class NoRows(InputError):  # noqa: N818  # what it says is an error
    """A file holds nothing to score."""


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

    def close(self) -> None:
        """Close the file."""
        ...


def chunks(source: Source, rows: int, *, limit: int | None = None) -> Iterator[Chunk]:
    """All rows of a source, `rows` at a time, up to `limit` in all."""
    left = sys.maxsize if limit is None else limit
    while left and (chunk := source.read(min(rows, left))):
        yield chunk
        left -= chunk.rows


def table_window(chunk: Chunk, table: pa.Table, wanted: Wanted, path: str) -> Window:
    """A window of rows that are already columns."""
    columns, unreadable = to_columns(table, wanted.columns)
    numbers = np.arange(chunk.first, chunk.first + table.num_rows)
    whole = Window(numbers, columns, chunk.share, (Origin(path),), table=table)
    return whole.without(*not_numbers(whole, unreadable))


def _first(origin: Origin) -> int:
    return origin.first


def not_numbers(
    window: Window,
    unreadable: Mapping[str, Array],
    line: Callable[[int], int | None] = lambda _: None,
) -> tuple[list[BadRow], Array]:
    """The rows with something else than a number in a number's place, and where they are.

    Args:
        window: the rows.
        unreadable: by column, where that is so.
        line: gives the line of a row, by its place in the window.
    """
    dropped = np.zeros(window.rows, bool)
    bad = []
    for name, wrong in unreadable.items():
        for place in np.flatnonzero(wrong & ~dropped).tolist():
            reason = f"column {name!r} holds no number"
            bad.append(window.bad_row(place, reason, line(place)))
        dropped |= wrong
    return bad, dropped


def to_columns(table: pa.Table, wanted: Mapping[str, str]) -> tuple[Columns, dict[str, Array]]:
    """The columns asked for, and by column which rows hold something else than a number in it."""
    columns: Columns = {}
    unreadable: dict[str, Array] = {}
    for name, kind in wanted.items():
        column = table.column(name)
        if kind == "str":
            columns[name] = objects([_text(value) for value in column.to_pylist()])
        else:
            columns[name], bad = _numbers(column)
            if bad.any():
                unreadable[name] = bad
    return columns, unreadable


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


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def scalar(value: Any) -> str | None:
    """A JSON value as text; lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def named(path: str) -> str:
    """What to call an input in a message."""
    return "standard input" if path == "-" else path


def close(raw: IO[bytes]) -> None:
    """Close a file, but not standard input: it isn't ours, and its reader may sit in a read."""
    if raw is not sys.stdin.buffer:
        raw.close()


class Meter:
    """How much of a file some of its content is, also where the file is packed.

    Content read and bytes taken from the file are compared as they come, so no size of the
    unpacked content is needed.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._size = 0
        self._content = 0
        if raw.seekable():
            here = raw.tell()
            self._size = raw.seek(0, io.SEEK_END)
            raw.seek(here)

    def read(self, content: bytes) -> bytes:
        """Note what was read, and hand it on."""
        self._content += len(content)
        return content

    def check_end(self, path: str) -> None:
        """Whether this is the end that the file had when it was opened.

        Raises:
            InputError: somebody has cut it meanwhile.
        """
        try:
            size = os.fstat(self._raw.fileno()).st_size
        except (OSError, AttributeError):  # no file of the system's
            return
        if size < self._size:
            raise InputError(
                f"{named(path)}: was cut while it was read; run again when it is whole"
            )

    def share(self, count: int) -> float | None:
        """The part of the whole that `count` bytes of content are."""
        if not self._size or not self._content:
            return None
        return count / self._content * self._raw.tell() / self._size
