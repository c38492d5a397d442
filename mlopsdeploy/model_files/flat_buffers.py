"""FlatBuffers (https://flatbuffers.dev/internals): the few fields that matter, read in place."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array


class Table:
    """A table: fields by number, each of which may be missing."""

    def __init__(self, data: Any, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - self._unpack("<i", at)
        self._size = self._unpack("<H", self._vtable)

    def _unpack(self, kind: str, at: int) -> Any:
        return struct.unpack_from(kind, self._data, at)[0]

    def _where(self, field: int) -> int:
        """Where a field stands, 0 if it is missing."""
        slot = 4 + 2 * field
        offset = self._unpack("<H", self._vtable + slot) if slot < self._size else 0
        return self._at + offset if offset else 0

    def _follow(self, at: int) -> int:
        return at + int(self._unpack("<I", at))

    def number(self, field: int, kind: str = "<i") -> Any:
        """0 if it is missing."""
        at = self._where(field)
        return self._unpack(kind, at) if at else 0

    def table(self, field: int) -> Table:
        """One without fields if it is missing."""
        at = self._where(field)
        return Table(self._data, self._follow(at)) if at else NO_FIELDS

    def union(self, kind: int) -> Table:
        """Field 1, if field 0 says that it is of this kind."""
        return self.table(1) if self.number(0, "<B") == kind else NO_FIELDS

    def array(self, field: int, dtype: str) -> Array:
        """A vector of numbers; empty if it is missing."""
        at = self._where(field)
        if not at:
            return np.empty(0, dtype)
        at = self._follow(at)
        count = self._unpack("<I", at) * np.dtype(dtype).itemsize
        return np.frombuffer(self._data[at + 4 : at + 4 + count], dtype)

    def text(self, field: int) -> str:
        """A string; empty if it is missing."""
        return self.array(field, "u1").tobytes().decode("utf-8", "replace")

    def tables(self, field: int) -> Iterator[Table]:
        """Those of a vector; none if it is missing."""
        if at := self._where(field):
            at = self._follow(at)
            for place in range(at + 4, at + 4 + 4 * self._unpack("<I", at), 4):
                yield Table(self._data, self._follow(place))


NO_FIELDS = Table(struct.pack("<HHi", 4, 8, 4), 4)


def root(data: Any) -> Table:
    """The table that a buffer is of; `struct.error` or the like where it is damaged."""
    return Table(data, struct.unpack_from("<I", data, 0)[0])
