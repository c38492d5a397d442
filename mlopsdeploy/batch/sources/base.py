"""What all sources share: the window they give, and values as columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array, Columns, objects

SAMPLE_ROWS = 200
NOT_A_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]


@dataclass(frozen=True)
class Window:
    """Some rows of a source, in its order.

    `columns` holds those asked for: text as str (None where missing), numbers as float64 (NaN
    where missing). `unreadable` marks rows with something else than a number in a number's
    place. `records` holds each row as it stands in the file, without its line end, `table` all
    its columns; which of the two, the source's `columns` call says.
    """

    first: int
    columns: Columns
    unreadable: Array
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
    size: int | None

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

    def position(self) -> int:
        """Bytes of the file read so far; with `size` it tells how much is left."""
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


def size_of(raw: IO[bytes]) -> int | None:
    """Bytes of the file; None for a pipe."""
    if not raw.seekable():
        return None
    here = raw.tell()
    end = raw.seek(0, io.SEEK_END)
    raw.seek(here)
    return end or None


def tell(raw: IO[bytes]) -> int:
    """Bytes read; 0 for a pipe."""
    try:
        return raw.tell()
    except (OSError, ValueError):  # a pipe, or closed already
        return 0
