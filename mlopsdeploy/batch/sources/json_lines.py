"""JSON Lines: one object a line."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa

from mlopsdeploy.batch.sources.base import (
    BROKEN,
    SAMPLE_ROWS,
    Meter,
    Window,
    close,
    named,
    scalar,
    to_columns,
)
from mlopsdeploy.errors import InputError


class JsonLinesSource:
    """One JSON object a line; columns are the keys of the first rows."""

    format = "jsonl"

    def __init__(self, stream: IO[bytes], raw: IO[bytes], path: str) -> None:
        self.path = path
        self._meter = Meter(raw)
        self._raw = raw
        self._stream = stream
        self._line = 0
        self._ahead = self._read_lines(SAMPLE_ROWS)
        if not self._ahead:
            raise InputError(f"{named(path)}: has no rows")
        self.names = list(dict.fromkeys(key for _, row in self._ahead for key in row))

    def _read_lines(self, count: int) -> list[tuple[bytes, dict[str, Any]]]:
        lines: list[tuple[bytes, dict[str, Any]]] = []
        while len(lines) < count:
            try:
                line = self._meter.read(self._stream.readline())
            except BROKEN as error:
                raise InputError(f"{named(self.path)}: can't be read ({error})") from error
            if not line:
                break
            self._line += 1
            if self._line == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                lines.append((line.strip(), self._parse(line)))
        return lines

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if b"\\ud" in line.lower():  # half an emoji, cut off by whoever wrote it: no character
                row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
        except ValueError as error:
            raise InputError(
                f"{named(self.path)}: line {self._line}: not JSON ({error})"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{named(self.path)}: line {self._line}: not a JSON object")
        return row

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows, without moving on."""
        return {name: [row.get(name) for _, row in self._ahead] for name in self.names}

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """See `Source`."""
        left = sys.maxsize if limit is None else limit
        first = 1
        while left:
            count = min(rows, left)
            self._ahead += self._read_lines(count - len(self._ahead))
            lines, self._ahead = self._ahead[:count], self._ahead[count:]
            if not lines:
                return
            values = {
                name: pa.array([scalar(row.get(name)) for _, row in lines], pa.large_string())
                for name in wanted
            }
            columns, unreadable = to_columns(pa.table(values), wanted)
            yield Window(
                first=first,
                columns=columns,
                unreadable=unreadable,
                share=self._meter.share(sum(len(line) + 1 for line, _ in lines)),
                records=pa.array([line.decode() for line, _ in lines], pa.large_string())
                if raw
                else None,
                table=None if raw else self._table([row for _, row in lines]),
            )
            first += len(lines)
            left -= len(lines)

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """All columns; nested values and mixed types as JSON text, so that windows agree."""
        return pa.table(
            {
                name: pa.array([scalar(row.get(name)) for row in rows], pa.large_string())
                for name in self.names
            }
        )

    def close(self) -> None:
        """See `Source`."""
        close(self._raw)
