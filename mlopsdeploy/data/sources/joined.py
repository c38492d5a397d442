"""Several files of one format as one input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.core.inputs import some
from mlopsdeploy.data.sources.base import (
    MOST_BYTES,
    Chunk,
    Digest,
    Source,
    Wanted,
    Window,
    total_share,
)
from mlopsdeploy.data.sources.partitions import Partitioned
from mlopsdeploy.errors import InputError

AT_ONCE = 8  # files far away that are looked at side by side


class JoinedSource:
    """Files one after the other; one is open at a time.

    All of them are looked at before the first row is read, as far as their headers or footers: one
    that doesn't fit is found then, and not after a night's work.

    Args:
        path: what they are called together: the folder or the pattern.
        files: their paths, in order, and their sizes in bytes.
        opened: opens one of them; None if it has no rows.
        far: they are not on this machine.

    Raises:
        InputError: none has rows, or one differs from the others.
    """

    def __init__(
        self,
        path: str,
        files: Mapping[str, int],
        opened: Callable[[str], Source | None],
        *,
        far: bool = False,
    ) -> None:
        self.path = path
        self._opened = opened
        self._left = list(files)
        total = max(sum(files.values()), 1)
        self._shares = {file: size / total for file, size in files.items()}
        self._rows_read = 0  # of all files
        self._before = 0  # of the files before the open one
        self._told: list[dict[str, Any]] = []  # of the files that are read
        self._share = 1.0  # of the open file
        self._source = self._next()
        if self._source is None:
            raise InputError(f"{path}: none of its {len(files)} files has rows")
        self.first = self._source  # its format, columns and dialect are those of all
        self.format = self.first.format
        self.names = self.first.names
        try:
            for problem in self._problems(list(self._left), far=far):
                if problem:
                    raise problem
        except BaseException:
            self.close()
            raise

    def _next(self) -> Source | None:
        while self._left:
            file = self._left.pop(0)
            if source := self._opened(file):
                self._share = self._shares[file]
                return source
        return None

    def _problems(self, files: list[str], *, far: bool) -> Iterator[InputError | None]:
        """What is wrong with each of these files, in their order."""
        if not far:
            yield from map(self._problem, files)
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                yield from pool.map(self._problem, files)
            finally:
                pool.shutdown(cancel_futures=True)

    def _problem(self, file: str) -> InputError | None:
        try:
            if source := self._opened(file):
                source.close()
                self._check(source)
        except InputError as error:
            return error
        return None

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows of the first file that has any."""
        return self.first.sample()

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        parts: list[_Part] = []
        count = size = 0
        while self._source and count < rows and size < MOST_BYTES:
            if chunk := self._source.read(rows - count):
                if chunk.share is not None:
                    chunk = replace(chunk, share=chunk.share * self._share)
                parts.append(_Part(self._source, chunk, self._before))
                count += chunk.rows
                size += chunk.size
                continue
            self._before = self._rows_read + count
            self._told.append(self._source.how_read())
            self._source.close()
            self._source = self._next()
            if self._source:
                self._check(self._source)
        if not parts:
            return None
        share = total_share([part.chunk for part in parts])
        joined = Chunk(self._rows_read + 1, count, parts, share)
        self._rows_read += count
        return joined

    def _check(self, source: Source) -> None:
        """Let a file be read as the first one.

        Raises:
            InputError: it is another kind of file.
        """
        first, rows, first_rows = self.first, _rows(source), _rows(self.first)
        if source.format != first.format:
            raise InputError(
                f"{source.path}: is {source.format}, {first.path} is {first.format}; "
                "name files of one format"
            )
        if rows.format == "jsonl" and not set(first_rows.names).isdisjoint(rows.names):
            # A key may be missing, and their order says nothing.
            rows.names, source.names = first_rows.names, first.names
        if source.names != first.names:
            raise InputError(
                f"{source.path}: its columns are {some(source.names)}, those of {first.path} "
                f"{some(first.names)}; files that are read as one need the same columns"
            )
        schemas = (getattr(item, "schema", ()) for item in (rows, first_rows))
        for field, wanted in zip(*schemas, strict=True):
            if field != wanted:
                raise InputError(
                    f"{source.path}: column {field.name!r} is {field.type}, that of {first.path} "
                    f"{wanted.type}"
                )
        delimiters = [getattr(item, "delimiter", "") for item in (rows, first_rows)]
        if len(set(delimiters)) > 1:
            raise InputError(
                f"{source.path}: its fields are separated by {delimiters[0]!r}, those of "
                f"{first.path} by {delimiters[1]!r}"
            )

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        windows = [
            _moved(part.source.parse(part.chunk, wanted), part.before) for part in chunk.content
        ]
        return together(windows, chunk.share)

    def how_read(self) -> dict[str, Any]:
        """Of all files so far: counts add up, and where they differ each way is told."""
        told = [*self._told, *([self._source.how_read()] if self._source else [])]
        names = dict.fromkeys(name for one in told for name in one)
        return {name: _joined([one.get(name) for one in told]) for name in names}

    def close(self) -> None:
        """See `Source`."""
        if self._source:
            self._source.close()


@dataclass(frozen=True)
class _Part:
    """Rows of one file; `before` them are so many of other files."""

    source: Source
    chunk: Chunk
    before: int

    def add_to(self, digest: Digest) -> None:
        self.chunk.add_to(digest)


def _moved(window: Window, rows: int) -> Window:
    """The window with its rows' numbers counted over all files."""
    if not rows:
        return window
    origins = tuple(replace(origin, first=origin.first + rows) for origin in window.origins)
    return replace(window, numbers=window.numbers + rows, origins=origins)


def together(windows: Sequence[Window], share: float | None) -> Window:
    """Windows that follow each other as one."""
    if len(windows) == 1:
        return windows[0]
    records = [window.records for window in windows if window.records is not None]
    tables = [window.table for window in windows if window.table is not None]
    pictures = [window.pictures for window in windows if window.pictures is not None]
    kept = [window.kept for window in windows if window.kept is not None]
    return Window(
        np.concatenate([window.numbers for window in windows]),
        {
            name: np.concatenate([window.columns[name] for window in windows])
            for name in windows[0].columns
        },
        share,
        tuple(dict.fromkeys(origin for window in windows for origin in window.origins)),
        records=pa.concat_arrays(records) if records else None,
        table=pa.concat_tables(tables) if tables else None,
        bad=tuple(row for window in windows for row in window.bad),
        pictures=np.concatenate(pictures) if pictures else None,
        kept=pa.concat_arrays(kept) if kept else None,
    )


def _joined(values: list[Any]) -> Any:
    """A count of all files, what is true of all of them, or of each."""
    if any(isinstance(value, int) for value in values):
        return sum(value or 0 for value in values)
    if all(value == values[0] for value in values):
        return values[0]
    return " / ".join(dict.fromkeys(str(value or "none") for value in values))


def _rows(source: Source) -> Source:
    """The file itself."""
    return source.rows if isinstance(source, Partitioned) else source
