"""Bytes as they come, cut into lines."""

from __future__ import annotations

import time
from typing import NamedTuple

LONGEST = 1 << 16  # bytes of a line: more than any model reads; what has no end takes no memory
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of a source.

    Attributes:
        number: its place, from 1; lines that were dropped leave gaps.
        data: without its end.
        captured: when it was read, seconds of `time.monotonic`.
        time: the same in seconds since 1970.
        problem: why it is not a line to be scored; empty if it is.
    """

    number: int
    data: bytes
    captured: float
    time: float
    problem: str = ""


class Splitter:
    """Lines out of blocks of bytes, each numbered. A carriage return before the end is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0
        self._skipping = False  # the rest of a line that was too long

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in `data`."""
        captured, now = time.monotonic(), time.time()
        parts = (self._rest + data).split(b"\n")
        self._rest = parts.pop()
        if self._skipping and parts:
            del parts[0]
            self._skipping = False
        lines = [self._line(part, captured, now) for part in parts]
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > LONGEST:
            lines.append(self._line(self._rest, captured, now))
            self._rest, self._skipping = b"", True
        return lines

    def rest(self, problem: str = "") -> list[Line]:
        """What came after the last line's end, as a line, if anything came.

        Args:
            problem: why it is not to be scored: what was cut off may read as another number.
        """
        rest, self._rest, self._skipping = self._rest, b"", False
        if not rest:
            return []
        line = self._line(rest, time.monotonic(), time.time())
        return [line._replace(problem=line.problem or problem)]

    def _line(self, data: bytes, captured: float, now: float) -> Line:
        self._number += 1
        if self._number == 1:
            data = data.removeprefix(_BOM)
        if len(data) > LONGEST:
            problem = f"is longer than {LONGEST:,} bytes"
            return Line(self._number, b"", captured, now, problem)
        return Line(self._number, data.removesuffix(b"\r"), captured, now)
