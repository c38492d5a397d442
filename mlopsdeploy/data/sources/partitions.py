"""Folders that are called `date=2026-01-01`, as Hive does: their names are a column of the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import objects
from mlopsdeploy.data.addresses import shown
from mlopsdeploy.data.sources.base import (
    Chunk,
    Digest,
    ReadOptions,
    Source,
    SourceOver,
    Wanted,
    Window,
)
from mlopsdeploy.data.sources.values import numbers_in
from mlopsdeploy.errors import InputError

_NULL = "__HIVE_DEFAULT_PARTITION__"
_FOLDER = re.compile(r"([^=./_][^=/]*)=([^/]*)")

Values = Mapping[str, str | None]


def is_partition(folder: str) -> bool:
    """Whether a folder is called `column=value`."""
    return bool(_FOLDER.fullmatch(folder))


def partitions(path: str, files: Sequence[str]) -> dict[str, Values]:
    """What the folders below an input say of each of its files.

    Raises:
        InputError: they say other columns of one file than of another.
    """
    found = {file: _values(path, file) for file in files}
    first = next(iter(found), "")
    for file, values in found.items():
        if list(values) != list(found[first]):
            raise InputError(
                f"{shown(file)}: its folders give the columns {list(values)}, those of "
                f"{shown(first)} {list(found[first])}"
            )
    return found


def _values(path: str, file: str) -> Values:
    base = path.rstrip("/").split("/")
    parts = file.split("/")
    # What the input itself is called is no column: who names one folder wants what is in it.
    same = next((at for at, (a, b) in enumerate(zip(base, parts, strict=False)) if a != b), None)
    inside = parts[len(base) if same is None else same : -1]
    matches = (_FOLDER.fullmatch(folder) for folder in inside)
    return {
        unquote(match[1]): None if match[2] == _NULL else unquote(match[2])
        for match in matches
        if match
    }


@dataclass(frozen=True)
class _Placed:
    """Rows, and what their folders say of them."""

    chunk: Chunk
    values: Values

    @property
    def size(self) -> int:
        return self.chunk.size

    def add_to(self, digest: Digest) -> None:
        digest.update(json.dumps(self.values).encode())
        self.chunk.add_to(digest)


class Partitioned(SourceOver):
    """The rows of a file with columns of one value, which its folders say.

    A column that the file has itself stays its own. Rows have no bytes of their own: the output
    has a column more than they.
    """

    def __init__(self, rows: Source, values: Values, options: ReadOptions) -> None:
        super().__init__(rows)
        self._numbers = options.numbers
        self._values = {name: value for name, value in values.items() if name not in rows.names}
        self.names = [*rows.names, *self._values]

    def sample(self) -> Mapping[str, list[Any]]:
        """See `Source`."""
        sample = self.rows.sample()
        count = len(next(iter(sample.values()), []))
        return {**sample, **{name: [value] * count for name, value in self._values.items()}}

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        chunk = self.rows.read(rows)
        return chunk and replace(chunk, content=[_Placed(chunk, self._values)])

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        own = {name: kind for name, kind in wanted.columns.items() if name not in self._values}
        kept = wanted.kept and [name for name in wanted.kept if name not in self._values]
        (placed,) = chunk.content
        window = self.rows.parse(placed.chunk, replace(wanted, columns=own, kept=kept))
        columns, table = dict(window.columns), window.table
        for name, value in self._values.items():
            if name in wanted.columns:
                columns[name] = self._column(name, wanted.columns[name], window.rows)
            if table is not None:
                column = pa.repeat(pa.scalar(value, pa.large_string()), window.rows)
                table = table.append_column(name, column)
        return replace(window, columns=columns, table=table)

    def _column(self, name: str, kind: str, rows: int) -> Any:
        value = self._values[name]
        if kind == "str":
            return objects([value] * rows)
        number, wrong = numbers_in(pa.chunked_array([[value]], pa.large_string()), self._numbers)
        if wrong.any():
            raise InputError(f"{self.path}: column {name!r} holds no number")
        return np.full(rows, number)

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return {**self.rows.how_read(), "columns of folders": list(self._values)}
