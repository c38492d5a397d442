"""Rows scored on earlier nights: `--incremental` computes only what is new or changed.

A SQLite file beside the output holds, for the digest of each row's values, what the model answered.
It is one model's, with one set of settings: another one's rows are dropped at the first commit.
A crash loses what came after the last commit, which is then computed again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.errors import MlopsDeployError

_AT_ONCE = 500  # keys in one question; SQLite took no more than 999 for long


class ScoreStore:
    """What one model answered for rows, by their digest.

    Reading and writing may go on in two threads, each on a connection of its own.

    Args:
        path: the SQLite file; made if it isn't there.
        identity: digest of the model and of all settings that shape a row's answer.

    Raises:
        MlopsDeployError: the file can't be written, or is no such file.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity
        with self._errors_named():
            self._writing = self._connect()
            self._writing.execute("PRAGMA journal_mode = WAL")
            self._writing.execute(
                "CREATE TABLE IF NOT EXISTS scored "
                "(identity TEXT, key BLOB, value TEXT, PRIMARY KEY (identity, key)) WITHOUT ROWID"
            )
            self._writing.execute(
                "CREATE TABLE IF NOT EXISTS added (key BLOB PRIMARY KEY) WITHOUT ROWID"
            )
            self._writing.execute(
                "CREATE TABLE IF NOT EXISTS types (identity TEXT PRIMARY KEY, value TEXT)"
            )
            self._writing.commit()
            self._reading = self._connect()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MlopsDeployError(
                f"{self._path}: can't be used ({error}){_advice(error)}"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode no crash breaks the file
        return connection

    def begin(self) -> None:
        """A run begins that goes on with no other: what was added until now is known to it."""
        with self._errors_named():
            self._writing.execute("DELETE FROM added")
            self._writing.commit()

    def find(self, keys: Sequence[bytes]) -> tuple[Array, Columns]:
        """Which of these keys are known, bool, and the predictions of those that are.

        What this run has added is not: else what it computes, and with what beside it, would depend
        on when it commits.
        """
        values: dict[bytes, str] = {}
        with self._errors_named():
            question = "SELECT value FROM types WHERE identity = ?"
            types = self._reading.execute(question, [self._identity]).fetchone()
            for start in range(0, len(keys) if types else 0, _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                question = (
                    "SELECT key, value FROM scored "  # noqa: S608  # nothing but question marks
                    f"WHERE identity = ? AND key IN ({marks}) "
                    "AND key NOT IN (SELECT key FROM added)"
                )
                values.update(self._reading.execute(question, [self._identity, *part]))
        known = np.fromiter((key in values for key in keys), bool, len(keys))
        if not values:
            return known, {}
        rows = [json.loads(values[key]) for key in keys if key in values]
        return known, _columns(rows, json.loads(types[0]))

    def add(self, keys: Sequence[bytes], predictions: Columns) -> None:
        """Note what was computed, row by row; `commit` makes it last."""
        names = list(predictions)
        if not len(keys):
            return
        types = {name: _type_of(predictions[name]) for name in names}
        with self._errors_named():
            typed = [self._identity, json.dumps(types)]
            self._writing.execute("INSERT OR IGNORE INTO types VALUES (?, ?)", typed)
            question = "SELECT types.value FROM types WHERE identity = ?"
            noted = json.loads(self._writing.execute(question, typed[:1]).fetchone()[0])
            lists = [_plain(predictions[name], noted.get(name)) for name in names]
            rows = [
                (self._identity, key, json.dumps(dict(zip(names, row, strict=True))))
                for key, row in zip(keys, zip(*lists, strict=True), strict=True)
            ]
            self._writing.executemany("INSERT OR REPLACE INTO scored VALUES (?, ?, ?)", rows)
            added = [(key,) for key in keys]
            self._writing.executemany("INSERT OR IGNORE INTO added VALUES (?)", added)

    def commit(self) -> None:
        """Make what was added last."""
        with self._errors_named():
            for table in ("scored", "types"):
                forget = f"DELETE FROM {table} WHERE identity <> ?"  # noqa: S608  # ours
                self._writing.execute(forget, [self._identity])
            self._writing.commit()

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self._reading.close()
        self._writing.close()


def _advice(error: sqlite3.Error) -> str:
    """What to do, in words. Deleting it costs all its scores: advised only where it is broken."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the details
    if code == sqlite3.SQLITE_FULL:
        return "; free some space, and run the same command again: what it holds is kept"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "; it is broken: delete it to start anew"
    return ""


def _type_of(values: Array) -> str:
    return "object" if values.dtype.kind in "OUS" else values.dtype.str


def _plain(values: Array, noted: str | None) -> list[Any]:
    """For JSON; where rows differ in shape, or from those before, each array says what it is."""
    if values.dtype == object:
        return [cell_of(value) for value in values]
    if noted == _type_of(values):
        listed: list[Any] = values.tolist()
        return listed
    return [cell_of(np.asarray(value)) for value in values]


def _columns(rows: list[dict[str, Any]], types: dict[str, str]) -> Columns:
    columns: Columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind = None if types[name] == "object" else types[name]
        nested = isinstance(values[0], list)
        alike = not nested or len({np.shape(value) for value in values}) == 1
        if kind and alike and not any(isinstance(value, dict) for value in values):
            columns[name] = np.array(values, kind)
        else:
            columns[name] = objects(
                [np.array(v, kind) if isinstance(v, list) else value_of(v) for v in values]
            )
    return columns


def cell_of(value: Any) -> Any:
    """A value of an object array: a text, None, or a detector's array of its own."""
    if isinstance(value, np.ndarray):
        dtype, shape = value.dtype, value.shape
        return {"dtype": dtype.str, "shape": shape, "values": value.reshape(-1).tolist()}
    return value


def value_of(cell: Any) -> Any:
    """What `cell_of` gave, perhaps by way of JSON."""
    if isinstance(cell, dict):
        return np.array(cell["values"], cell["dtype"]).reshape(cell["shape"])
    return cell
