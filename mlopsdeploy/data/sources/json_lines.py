"""JSON Lines: one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.sources.base import (
    MOST_BYTES,
    SAMPLE_ROWS,
    Chunk,
    FileSource,
    Origin,
    ReadOptions,
    Wanted,
    Window,
    at_path,
    scalar,
    shortened,
    with_columns,
    with_paths,
)
from mlopsdeploy.data.sources.input_file import InputFile, NoRows
from mlopsdeploy.data.sources.spelling import respelled
from mlopsdeploy.errors import InputError

_STRING = r'"(?:[^"\\]++|\\.)*+"'
_MEMBER = re.compile(rf"[{{,\s]*+({_STRING})\s*+:\s*+({_STRING}|[^\s,}}\[{{]++)?+")
_decode = json.JSONDecoder().raw_decode
AT_ONCE = 1000  # lines read before their size is looked at


class JsonLinesSource(FileSource):
    """One JSON object a line; columns are the keys of the first rows.

    What is within an object in a row is asked for by its path, `review.text`.
    """

    format = "jsonl"
    has_lines = True  # of its own, which a bad row may be named by

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        super().__init__(file, options)
        self._line = 1
        self._ahead = self._read_lines(SAMPLE_ROWS)
        if not self._ahead:
            raise NoRows(f"{file.name}: has no rows")
        self._sample = [row for line in self._ahead if isinstance(row := _parse(line), dict)]
        if not self._sample:
            first = "line 1" if self.has_lines else "row 1"
            raise InputError(f"{file.name}: {first}: {_parse(self._ahead[0])}")
        self.names = list(dict.fromkeys(key for row in self._sample for key in row))

    def _read_lines(self, count: int) -> list[bytes]:
        """Up to `count` rows, each with the blank lines before it."""
        lines: list[bytes] = []
        blank = b""
        while len(lines) < count and (line := self._file.read_line()):
            if line.strip():
                lines.append(blank + line)
                blank = b""
            else:
                blank += line
        return lines

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows, without moving on."""
        return with_paths({name: [row.get(name) for row in self._sample] for name in self.names})

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        while sum(map(len, self._ahead)) < MOST_BYTES and len(self._ahead) < rows:
            if not (more := self._read_lines(min(rows - len(self._ahead), AT_ONCE))):
                break
            self._ahead += more
        if not self._ahead:
            return None
        sizes = np.cumsum([len(line) for line in self._ahead[:rows]])
        count = int(np.searchsorted(sizes, MOST_BYTES)) + 1
        lines, self._ahead = self._ahead[: min(count, rows)], self._ahead[min(count, rows) :]
        content = b"".join(lines)
        chunk = self._chunk(len(lines), content, self._share(content), self._line)
        self._line += content.count(b"\n")
        return chunk

    def _share(self, content: bytes) -> float | None:
        return self._file.share(len(content))

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        numbers: list[int] = []
        places: list[int | None] = []
        lines, rows, bad = [], [], []
        number = chunk.first
        for at, line in enumerate(chunk.content.split(b"\n"), chunk.line):
            if not line.strip():
                continue
            place = at if self.has_lines else None
            row = self._checked(_parse(line), wanted)
            if isinstance(row, str):
                bad.append(BadRow(number, row, shortened(line.strip()), self.path, place))
            else:
                numbers.append(number)
                places.append(place)
                lines.append(line.strip().decode())
                rows.append(row)
            number += 1
        kept = wanted.kept
        window = Window(
            np.array(numbers, np.int64),
            {},
            chunk.share,
            (Origin(self.path),),
            records=pa.array(lines, pa.large_string()) if wanted.raw else None,
            table=None
            if wanted.raw
            else _table(rows, dict.fromkeys([*self.names, *(kept or ())], "str")),
            bad=tuple(bad),
            kept=None if kept is None or not wanted.raw else members(lines, kept),
        )
        table = _table(rows, wanted.columns, self.numbers)
        return with_columns(window, table, wanted, self.numbers, places.__getitem__)

    def _checked(self, row: dict[str, Any] | str, wanted: Wanted) -> dict[str, Any] | str:
        """The row, or why it can't go on to the output."""
        if isinstance(row, str):
            return row
        if taken := next((name for name in wanted.new if name in row), None):
            return f"already has a key {taken!r}; --prefix gives the new ones other names"
        for name in wanted.texts:
            if isinstance(at_path(row, name), list | dict):
                return f"column {name!r} holds no text"
        if wanted.raw or wanted.kept is not None:
            return row
        if unknown := next((name for name in row if name not in self.names), None):
            return f"has a key {unknown!r}, which none of the first rows has"
        return row


def _table(rows: list[dict[str, Any]], kinds: Mapping[str, str], numbers: str = "auto") -> pa.Table:
    """Some columns; nested values and mixed types as JSON text, so that windows agree.

    In a column of numbers, those that are no text are written as `numbers` says that texts are.
    """

    def cell(row: dict[str, Any], name: str, kind: str) -> str | None:
        value = at_path(row, name)
        if isinstance(value, float) and kind != "str":
            return respelled(json.dumps(value), numbers)
        return scalar(value)

    return pa.table(
        {
            name: pa.array([cell(row, name, kind) for row in rows], pa.large_string())
            for name, kind in kinds.items()
        }
    )


def members(objects: Iterable[str], paths: Collection[str]) -> pa.Array:
    """Objects of some values of others, each as it is spelled there; null where there is none."""
    keys = {path: json.dumps(path, ensure_ascii=False) for path in paths}
    texts = []
    for text in objects:
        found = _spelled(text)
        texts.append(", ".join(f"{key}: {_spelled_at(found, path)}" for path, key in keys.items()))
    return pa.array([f"{{{text}}}" for text in texts], pa.large_string())


def _spelled(text: str) -> dict[str, str]:
    """The values of an object by their keys, as they are spelled."""
    found: dict[str, str] = {}
    place = 0
    while member := _MEMBER.match(text, place):
        key, value = member.groups()
        place = member.end()
        if value is None:  # a list or an object
            start, place = place, _decode(text, place)[1]
            value = text[start:place]
        found[json.loads(key) if "\\" in key else key[1:-1]] = value
    return found


def _spelled_at(found: Mapping[str, str], path: str) -> str:
    """As `at_path`."""
    if path in found or "." not in path:
        return found.get(path, "null")
    before, _, last = path.rpartition(".")
    within = _spelled_at(found, before)
    return _spelled(within).get(last, "null") if within.startswith("{") else "null"


def _parse(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or what is wrong with it."""
    try:
        row = json.loads(line.decode())
        if b"\\ud" in line.lower():  # half an emoji, cut off by whoever wrote it: no character
            row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    except UnicodeDecodeError as error:
        return f"not JSON (byte 0x{line[error.start]:02x} is not UTF-8)"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return row if isinstance(row, dict) else "not a JSON object"
