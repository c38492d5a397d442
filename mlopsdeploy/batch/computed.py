"""Batches that are computed, of windows that are not written yet: kept in the folder of a run.

A window is planned and written as a whole, and a large model takes minutes for one. So each commit
also saves what is computed of the windows on their way. A run that goes on plans them again, and
takes a batch from here if the window has the same rows in the same batches: its output does not
depend on when the last commit was.

Each file holds some batches of one window as NumPy stores arrays. There is no pickle in it, which
would run what others put there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.batch.incremental import cell_of, value_of
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.core.model import Predicted
from mlopsdeploy.data.files import whole_file

NAME = re.compile(r"computed-(\d+)-\d+\.npz")

Batches = Mapping[int, Predicted]
"""By their place among the planned ones."""


class OfWindow(NamedTuple):
    """Batches of one window: the number of its first row, what it is known by, the batches."""

    first: int
    key: str
    batches: Batches


def key_of(planned: Planned, digest: str) -> str:
    """What a window is known by: the rows up to its end, and how they are planned."""
    plan = b"".join(batch.tobytes() + b"|" for batch in planned.batches)
    return sha256(digest.encode() + planned.known.tobytes() + b"|" + plan).hexdigest()


class SavedBatches:
    """The files of a run's folder.

    Attributes:
        rows: how many rows they hold.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[Path, OfWindow] = {}
        self._counts: dict[Path, int] = {}

    @property
    def rows(self) -> int:
        """How many rows are saved."""
        return sum(self._counts.values())

    def open(self) -> None:
        """Read what an earlier run has left; a file that can't be read is none."""
        for path in self._paths():
            try:
                found = _read(path)
            except Exception:  # noqa: BLE001  # zipfile, zlib, NumPy and JSON have many kinds
                path.unlink(missing_ok=True)
                continue
            self._found[path] = found
            self._counts[path] = _count(found.batches)

    def of(self, first: int, key: str) -> dict[int, Predicted]:
        """The batches of a window, if it is still the same one. Asked for once."""
        batches: dict[int, Predicted] = {}
        for path, one in list(self._found.items()):  # commits drop some in another thread
            if one.first == first:
                self._found.pop(path, None)
                if one.key == key:
                    batches |= one.batches
                else:
                    self._remove(path)
        return batches

    def save(self, window: OfWindow) -> None:
        """Add batches of a window that were not saved before.

        Raises:
            OSError: the disk is full, or gone.
        """
        path = self._folder / f"computed-{window.first}-{min(window.batches)}.npz"
        with whole_file(path) as file:
            np.savez(file, **_arrays(window))
        self._counts[path] = _count(window.batches)

    def drop(self, rows: int | None = None) -> None:
        """Remove those of windows that begin within the first rows; by default all."""
        for path in self._paths():
            if rows is None or _first(path) <= rows:
                self._found.pop(path, None)
                self._remove(path)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._counts.pop(path, None)

    def _paths(self) -> list[Path]:
        there = self._folder.iterdir()
        return [path for path in there if NAME.fullmatch(path.name) and path.is_file()]


def _first(path: Path) -> int:
    return int(path.name.split("-")[1])


def _count(batches: Batches) -> int:
    return sum(len(part.rows) for part in batches.values())


def _arrays(window: OfWindow) -> dict[str, Any]:
    """What NumPy can store of itself as it is, all else as JSON."""
    arrays: dict[str, Array] = {}
    said: dict[str, Any] = {}
    for place, part in window.batches.items():
        columns = {"": part.rows, **part.predictions}
        plain = {name: array for name, array in columns.items() if array.dtype != object}
        arrays |= {f"{place}.{name}": array for name, array in plain.items()}
        cells = {
            name: [cell_of(value) for value in array]
            for name, array in columns.items()
            if name not in plain
        }
        said[str(place)] = {"names": list(plain), "cells": cells, "failed": dict(part.failed)}
    text = json.dumps({"first": window.first, "key": window.key, "batches": said})
    return {**arrays, "json": np.frombuffer(text.encode(), np.uint8)}


def _read(path: Path) -> OfWindow:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        said = json.loads(arrays["json"].tobytes())
        batches = {int(place): _part(arrays, place, one) for place, one in said["batches"].items()}
    return OfWindow(int(said["first"]), str(said["key"]), batches)


def _part(arrays: Mapping[str, Array], place: str, said: Mapping[str, Any]) -> Predicted:
    columns: Columns = {name: arrays[f"{place}.{name}"] for name in said["names"]}
    columns |= {name: objects([*map(value_of, cells)]) for name, cells in said["cells"].items()}
    failed = {int(row): str(reason) for row, reason in said["failed"].items()}
    rows = columns.pop("")
    if any(len(array) != len(rows) for array in columns.values()):
        raise ValueError("columns of different lengths")
    return Predicted(rows, columns, failed)
