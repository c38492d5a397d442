"""What all sources share: the window they give, and values as columns."""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array, Columns, objects

SAMPLE_ROWS = 200
BROKEN = (OSError, EOFError, zlib.error)  # what reading a cut off or damaged .gz raises
NOT_A_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]


@dataclass(frozen=True)
class Window:
    """Some rows of a source, in its order.

    `columns` holds those asked for: text as str (None where missing), numbers as float64 (NaN
    where missing). `unreadable` marks rows with something else than a number in a number's
    place. `records` holds each row as it stands in the file, without its line end, `table` all
    its columns; which of the two, the call of `windows` says. `share` is how much of the whole
    input this is, from 0 to 1, and None where that can't be known.
    """

    first: int
    columns: Columns
    unreadable: Array
    share: float | None
    records: pa.Array | None = None
    table: pa.Table | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.unreadable)


class Source(Protocol):
    """An open input. `names` are its columns, `sample` some of its first rows."""

    format: str
    path: str
    names: list[str]

    def sample(self) -> Mapping[str, list[Any]]:
        """The first values of each column (all of it text in CSV)."""
        ...

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """The rows, `rows` at a time.

        Args:
            rows: of one window.
            wanted: column name -> "str" or a NumPy number type.
            raw: give `records` rather than `table`.
            limit: stop after so many rows.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def to_columns(table: pa.Table, wanted: Mapping[str, str]) -> tuple[Columns, Array]:
    """The columns asked for, and which rows hold something else than a number in its place."""
    columns: Columns = {}
    unreadable = np.zeros(table.num_rows, bool)
    for name, kind in wanted.items():
        column = table.column(name)
        if kind == "str":
            columns[name] = objects([_text(value) for value in column.to_pylist()])
        else:
            columns[name], bad = _numbers(column)
            unreadable |= bad
            if not kind.startswith("float"):  # a whole number has no way to say "missing"
                unreadable |= np.isnan(columns[name])
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

    def share(self, count: int) -> float | None:
        """The part of the whole that `count` bytes of content are."""
        if not self._size or not self._content:
            return None
        return count / self._content * self._raw.tell() / self._size
