"""Pictures: a folder of them as a table of their names, and any table with the pictures it names.

A picture is read once, when its row is: what is in it is then among what a resumed run compares,
what tells a duplicate, and what the model sees. So a picture that was replaced is noticed, and one
that was only copied or touched is not. It costs the time to read and hash it, 1 to 2 ms a
megabyte, where decoding takes 20 and more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import objects
from mlopsdeploy.core.images import SUFFIXES
from mlopsdeploy.data.addresses import is_database, is_remote
from mlopsdeploy.data.sources.base import (
    SAMPLE_ROWS,
    Chunk,
    Digest,
    Origin,
    Source,
    SourceOver,
    Wanted,
    Window,
    total_share,
)
from mlopsdeploy.data.sources.joined import together
from mlopsdeploy.data.sources.json_lines import members
from mlopsdeploy.errors import InputError

FILE = "file"
AT_ONCE = 8  # pictures that are read side by side, for disks and stores far away
MOST_ROWS = 64  # of a window; it is full before where its pictures are large
MOST_BYTES = 16 << 20
LARGEST = 128 << 20  # bytes of a picture; no more than that is ever read


def is_picture(path: str) -> bool:
    """Whether a file or an object is a picture by its name."""
    name = path.lower().rpartition("/")[2]
    if is_remote(path):  # a signature may follow
        name = name.partition("?")[0]
    return name.endswith(SUFFIXES)


class PictureFiles:
    """The names of pictures as a table with one column, `file`.

    Args:
        path: what they are called together: the folder or the pattern.
        files: their paths.
    """

    format = "jsonl"

    def __init__(self, path: str, files: list[str]) -> None:
        self.path = path
        self.names = [FILE]
        self.several = files != [path]
        self._files = files
        self._at = 0

    def sample(self) -> Mapping[str, list[Any]]:
        """The first names."""
        return {FILE: [_text(file) for file in self._files[:SAMPLE_ROWS]]}

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        files = self._files[self._at : self._at + rows]
        if not files:
            return None
        share = len(files) / len(self._files)
        chunk = Chunk(self._at + 1, len(files), "\0".join(map(_text, files)).encode(), share)
        self._at += len(files)
        return chunk

    def paths(self, chunk: Chunk) -> dict[int, str]:
        """By the number of its row, where each picture is: names may be no text."""
        return {number: self._files[number - 1] for number in _numbers(chunk)}

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`; each picture is a file of one row."""
        files = [_text(file) for file in self.paths(chunk).values()]
        records = [json.dumps({FILE: file}, ensure_ascii=False) for file in files]
        kept = wanted.kept if wanted.raw else None
        return Window(
            np.array(_numbers(chunk)),
            {name: objects(files) for name in wanted.columns},
            chunk.share,
            tuple(map(Origin, files, _numbers(chunk))),
            records=pa.array(records, pa.large_string()) if wanted.raw else None,
            table=None if wanted.raw else pa.table({FILE: pa.array(files, pa.large_string())}),
            kept=None if kept is None else members(records, kept),
        )

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return {"format": "pictures"}

    def close(self) -> None:
        """There is nothing to close."""


def _numbers(chunk: Chunk) -> range:
    return range(chunk.first, chunk.first + chunk.rows)


def _text(file: str) -> str:
    r"""A name; its bytes that are no UTF-8 as `\udce9`."""
    return file.encode("utf-8", "backslashreplace").decode()


class WithPictures(SourceOver):
    """Rows of another source, with the pictures that one of its columns names.

    A row whose picture is not there, or can't be read, is a bad row; one that names none has none.
    Windows are small, because they hold the files of their pictures.

    Args:
        rows: the other source.
        column: of paths and URLs; a path is relative to the folder of the table it stands in.
    """

    def __init__(self, rows: Source, column: str) -> None:
        super().__init__(rows)
        self._column = column

    def read(self, rows: int) -> Chunk | None:
        """The next rows, up to so many, and not more than a small window holds."""
        parts: list[_Part] = []
        count = size = 0
        while count < min(rows, MOST_ROWS) and size < MOST_BYTES:
            if not (chunk := self.rows.read(min(AT_ONCE, rows - count))):
                break
            parts.append(_Part(chunk, self._pictures(chunk)))
            count += chunk.rows
            size += sum(
                len(found) for found in parts[-1].found.values() if isinstance(found, bytes)
            )
        if not parts:
            return None
        first = parts[0].chunk
        share = total_share([part.chunk for part in parts])
        return Chunk(first.first, count, parts, share, first.line)

    def _pictures(self, chunk: Chunk) -> dict[int, bytes | str]:
        """By the number of its row: the content of each picture, or why there is none."""
        if isinstance(self.rows, PictureFiles):
            named = self.rows.paths(chunk)
        else:
            window = self.rows.parse(chunk, Wanted({self._column: "str"}, raw=True))
            paths = zip(window.numbers.tolist(), window.columns[self._column], strict=True)
            named = {
                number: _place(path.strip(), window.origin(number).path)
                for number, path in paths
                if path is not None and path.strip()
            }
        if len(named) < 2:
            return {number: _content(path) for number, path in named.items()}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pictures") as pool:
            return dict(zip(named, pool.map(_content, named.values()), strict=True))

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`; the contents of the pictures are in `Window.pictures`."""
        windows = []
        for part in chunk.content:
            window = self.rows.parse(part.chunk, wanted)
            found = [part.found.get(number) for number in window.numbers.tolist()]
            lost = {row: reason for row, reason in enumerate(found) if isinstance(reason, str)}
            window = replace(window, pictures=objects(found))
            dropped = np.array([row in lost for row in range(window.rows)], bool)
            bad = [window.bad_row(row, reason) for row, reason in lost.items()]
            windows.append(window.without(bad, dropped))
        return together(windows, chunk.share)


@dataclass(frozen=True)
class _Part:
    """A chunk of the other source, and what was found of its pictures."""

    chunk: Chunk
    found: Mapping[int, bytes | str]

    def add_to(self, digest: Digest) -> None:
        self.chunk.add_to(digest)
        for found in self.found.values():
            content = found if isinstance(found, bytes) else found.encode()
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)


def _place(path: str, table: str) -> str:
    """Where a picture is that a table names."""
    if is_remote(path) or is_database(table):
        return path
    if is_remote(table):
        return f"{table.rpartition('/')[0]}/{path}"
    return str(Path(table).parent / Path(path).expanduser())


def _content(path: str) -> bytes | str:
    """The whole file, or why it can't be had."""
    try:
        if is_remote(path):
            from mlopsdeploy.data import object_stores

            with object_stores.open_remote(path) as file:
                content = file.read(LARGEST + 1)
        elif Path(path).exists() and not Path(path).is_file():
            return "the picture is no file"
        else:
            with Path(path).open("rb") as file:
                content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return "there is no such picture"
    except (OSError, ValueError) as error:
        return f"the picture can't be read ({getattr(error, 'strerror', None) or error})"
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    if len(content) > LARGEST:
        return f"the picture's file has more than {LARGEST >> 20} MB"
    return content
