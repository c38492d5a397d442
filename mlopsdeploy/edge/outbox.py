"""Events on their way to where a network leads: kept in a file of SQLite until they are accepted.

An event is written once for all destinations, in the order of happening; each of them has a mark of
how far it is. What all are past is deleted. A network that is away for a day only moves no mark.

On disk: new events are committed with an fsync (a write-ahead log, `synchronous=FULL`); who adds
them does so once a second at most, for the sake of SD cards. Marks are committed without one: the
last of them may be lost with the power, and then some events are sent again, under the same id.

The file is one process's: beside it lies `PATH-lock`. A damaged one is put aside and begun anew.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mlopsdeploy.edge.events import Log, iso
from mlopsdeploy.errors import ConfigError

if sys.platform != "win32":
    import fcntl

APPLICATION = 0x6D6C6F62  # in the head of the file; by it we know our own
BUSY = 10.0  # seconds that one thread's commit may keep another's waiting
RESERVE = 4 << 20  # bytes of disk left free, so that what is delivered can be marked and deleted
KEPT = 1000  # refused events that are kept to be looked at; of more the oldest go
SUFFIXES = ("", "-wal", "-shm")  # of the files that belong together
TABLES = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, kind TEXT NOT NULL,
    time REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS destinations (
    name TEXT PRIMARY KEY, mark INTEGER NOT NULL, last INTEGER, at REAL,
    delivered INTEGER NOT NULL DEFAULT 0, discarded INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS refused (
    destination TEXT NOT NULL, id TEXT NOT NULL, time REAL NOT NULL, reason TEXT NOT NULL,
    body BLOB NOT NULL
);
"""
_LEAVE = "DELETE FROM destinations WHERE last <= mark"


class Message(NamedTuple):
    """An event that waits, as CloudEvents have it.

    Attributes:
        seq: its place among all.
        id: its own, by which a receiver knows one that comes twice.
        kind: what happened, such as `crossed`.
        body: the envelope in JSON.
    """

    seq: int
    id: str
    kind: str
    body: bytes


@dataclass(frozen=True)
class Envelopes:
    """Puts events into envelopes of CloudEvents 1.0, in structured JSON.

    Attributes:
        device: where they come from.
    """

    device: str

    def __call__(self, id_: str, document: Mapping[str, Any]) -> tuple[str, str, bytes]:
        """An event's id, kind and envelope."""
        kind = str(document["event"])
        envelope = {
            "specversion": "1.0",
            "id": id_,
            "source": f"/mlopsdeploy/edge/{self.device}",
            "type": f"mlopsdeploy.edge.{kind}",
            "time": document["time"],
            "datacontenttype": "application/json",
            "data": document,
        }
        text = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
        return id_, kind, text.encode("utf-8", "replace")


def new_id() -> str:
    """An id that no other event has."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Standing:
    """How it stands with a destination.

    Attributes:
        waiting: events that it has yet to get.
        since: when the oldest of them happened, seconds since 1970; None where none waits.
        delivered: events that it accepted, ever, and `at` when the last; None: it never did.
        discarded: that were too many or too old before it could get them.
        refused: that it will never accept; the latest are kept.
    """

    waiting: int = 0
    since: float | None = None
    delivered: int = 0
    at: float | None = None
    discarded: int = 0
    refused: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        times = {"since": self.since, "at": self.at}
        return {**vars(self), **{name: at and iso(at) for name, at in times.items()}}

    def words(self) -> str:
        """The same for people."""
        now = time.time()
        waits = f"{self.waiting:,} wait"
        if self.since is not None:
            waits += f", the oldest for {_span(now - self.since)}"
        last = "none delivered yet"
        if self.at is not None:
            last = f"{self.delivered:,} delivered, the last {_span(now - self.at)} ago"
        lost = f", {self.discarded:,} discarded" if self.discarded else ""
        return f"{waits}; {last}{lost}" + (f", {self.refused:,} refused" if self.refused else "")


@dataclass
class _Unwritten:
    """How far a destination is, and what of that is not in the file yet."""

    past: int = 0
    delivered: int = 0
    refused: list[tuple[Message, str]] = field(default_factory=list)


class Outbox:
    """The file.

    Args:
        path: of it; made if it isn't there.
        names: of the destinations. One that it doesn't know gets what comes from now on. What waits
            for one that is not named this time is kept, as long as `limit` and `age` allow.
        limit: bytes of envelopes that may wait; of more the oldest are discarded.
        age: seconds that one may wait, by the clock of this device.
        log: takes a line about what waits for others, or a damaged file.

    Raises:
        ConfigError: another process has it, it can't be opened, or it is something else.
    """

    def __init__(
        self, path: str, names: Sequence[str], *, limit: int, age: float, log: Log
    ) -> None:
        self.path = path
        self._names, self._limit, self._age, self._log = names, limit, age, log
        self._mutex = threading.RLock()
        self._bytes = 0
        self._unwritten = {name: _Unwritten() for name in names}
        self._closed = True
        self._lock = _locked(path)
        try:
            check_ours(path)
            self._open()
        except (OSError, ConfigError) as error:
            os.close(self._lock)
            raise ConfigError(str(error)) from error

    def add(self, events: Iterable[tuple[str, str, bytes]]) -> int:
        """Write events, as `Envelopes` makes them, durably and all or none.

        Returns:
            How many others were discarded for them.

        Raises:
            OSError: it can't.
        """
        now = time.time()
        rows = [(id_, kind, now, body) for id_, kind, body in events]
        if shutil.disk_usage(Path(self.path).parent).free < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self._writing(self._store):
            self._store.executemany(
                "INSERT INTO events (id, kind, time, body) VALUES (?, ?, ?, ?)", rows
            )
            added = sum(len(body) for *_, body in rows)
            discarded, freed = self._discard(self._store, self._bytes + added, now)
            self._committed = added - freed
        return discarded

    def waiting(self, name: str, most: int) -> list[Message]:
        """The next events for a destination, in order.

        Raises:
            OSError: the file can't be read.
        """
        with self._reading():
            found = self._marks.execute(
                "SELECT seq, id, kind, body, time FROM events WHERE seq > "
                "(SELECT max(mark, ?) FROM destinations WHERE name = ?) ORDER BY seq LIMIT ?",
                (self._unwritten[name].past, name, most),
            ).fetchall()
        if found and found[0][4] < time.time() - self._age:
            with self._writing(self._marks):
                _, freed = self._discard(self._marks, self._bytes, time.time())
                self._committed = -freed
            return self.waiting(name, most)
        return [Message(*row[:4]) for row in found]

    def mark(
        self, name: str, seq: int, delivered: int, refused: Sequence[tuple[Message, str]] = ()
    ) -> None:
        """A destination is past `seq`: so many it accepted, and others not, for a reason.

        What can't be written now, as on a full disk, is kept in memory and written the next time.
        """
        with self._mutex:
            one = self._unwritten[name]
            one.past = seq
            one.delivered += delivered
            one.refused = [*one.refused, *refused][-KEPT:]
            with suppress(OSError):
                self._write_mark(name, one)
                self._unwritten[name] = _Unwritten(seq)

    def _write_mark(self, name: str, one: _Unwritten) -> None:
        now = time.time()
        with self._writing(self._marks):
            self._marks.execute(
                "UPDATE destinations SET mark = max(mark, ?), delivered = delivered + ?, "
                "refused = refused + ?, at = CASE WHEN ? THEN ? ELSE at END WHERE name = ?",
                (one.past, one.delivered, len(one.refused), one.delivered, now, name),
            )
            self._marks.executemany(
                "INSERT INTO refused VALUES (?, ?, ?, ?, ?)",
                [(name, message.id, now, why, message.body) for message, why in one.refused],
            )
            if one.refused:
                self._marks.execute(
                    "DELETE FROM refused WHERE rowid <= (SELECT max(rowid) FROM refused) - ?",
                    (KEPT,),
                )
            self._committed = -self._delete(self._marks)

    def standing(self) -> dict[str, Standing]:
        """How it stands with each destination."""
        with self._reading():
            return _standing(self._marks)

    def reopen(self) -> None:
        """Open it again after a failure: its disk may have been mounted anew.

        Raises:
            OSError: it can't be opened.
        """
        with self._mutex:
            self._close()
            self._open()

    def close(self) -> None:
        """Close the file; from then on all else raises OSError."""
        with self._mutex:
            self._close()
            os.close(self._lock)

    # ------------------------------------------------------------ opening

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.OperationalError as error:
            self._close()
            raise OSError(f"--outbox {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._close()
            aside = f"{self.path}.damaged-{iso(time.time()).replace(':', '')}"
            for suffix in SUFFIXES:
                with suppress(FileNotFoundError):
                    Path(self.path + suffix).rename(aside + suffix)
            self._log(f"--outbox {self.path}: is damaged ({error}); put aside as {aside}")
            try:
                self._connect()
            except sqlite3.Error as failure:
                raise OSError(f"--outbox {self.path}: {failure}") from failure

    def _connect(self) -> None:
        new = not Path(self.path).exists() or not Path(self.path).stat().st_size
        self._store = _connection(self.path, "FULL", new=new)
        self._marks = _connection(self.path, "NORMAL")
        if (
            not new
            and (found := self._store.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok"
        ):
            raise sqlite3.DatabaseError(str(found).splitlines()[0])
        self._store.executescript(TABLES)
        self._closed = False
        with self._writing(self._store):
            self._name_destinations()
        (self._bytes,) = self._store.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM events"
        ).fetchone()

    def _name_destinations(self) -> None:
        """Of those that are named there is a row each, and of others as long as old events wait.

        Old are those up to `last`; else who never comes back would be waited for for ever.
        """
        store = self._store
        (last,) = store.execute(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
        ).fetchone()
        for name, one in _standing(store).items():
            if name in self._names:
                store.execute("UPDATE destinations SET last = NULL WHERE name = ?", (name,))
                continue
            store.execute(
                "UPDATE destinations SET last = coalesce(last, ?) WHERE name = ?", (last, name)
            )
            if one.waiting:
                self._log(
                    f"--outbox {self.path}: {one.waiting:,} events wait for {name}; "
                    f"a run with --{name} sends them, unless they get too old"
                )
        store.execute(_LEAVE)
        for name in self._names:
            store.execute(
                "INSERT OR IGNORE INTO destinations (name, mark) VALUES (?, ?)", (name, last)
            )
        self._delete(store)

    def _close(self) -> None:
        self._closed = True
        for one in ("_marks", "_store"):
            if hasattr(self, one):
                with suppress(sqlite3.Error):
                    getattr(self, one).close()

    # ------------------------------------------------------------ discarding

    def _discard(self, store: sqlite3.Connection, size: int, now: float) -> tuple[int, int]:
        """Delete the oldest until age and size are what they may be; how many events and bytes."""
        (old,) = store.execute(
            "SELECT coalesce(max(seq), 0) FROM events WHERE time < ?", (now - self._age,)
        ).fetchone()
        last = 0
        for seq, length in store.execute("SELECT seq, length(body) FROM events ORDER BY seq"):
            if size <= self._limit and seq > old:
                break
            last, size = seq, size - length
        if not last:
            return 0, 0
        counted = dict(
            store.execute(
                "SELECT name, (SELECT count(*) FROM events WHERE seq <= ? AND seq > mark) "
                "FROM destinations",
                (last,),
            ).fetchall()
        )
        store.executemany(
            "UPDATE destinations SET discarded = discarded + ?, mark = max(mark, ?) WHERE name = ?",
            [(count, last, name) for name, count in counted.items()],
        )
        store.execute(_LEAVE)
        return max(counted.values(), default=0), self._delete(store, last)

    @staticmethod
    def _delete(store: sqlite3.Connection, last: int | None = None) -> int:
        """Delete events up to `last`, or that all destinations have; how many bytes they had."""
        if last is None:
            (last,) = store.execute("SELECT min(mark) FROM destinations").fetchone()
        (freed,) = store.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM events WHERE seq <= ?", (last,)
        ).fetchone()
        if freed:
            store.execute("DELETE FROM events WHERE seq <= ?", (last,))
        return int(freed)

    # ------------------------------------------------------------ connections

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._mutex:
            if self._closed:
                raise OSError(f"--outbox {self.path}: is closed")
            try:
                yield
            except sqlite3.Error as error:
                raise OSError(f"--outbox {self.path}: {error}") from error

    @contextmanager
    def _writing(self, store: sqlite3.Connection) -> Iterator[None]:
        """One commit, or none; `_committed` is what it makes of the size."""
        with self._reading():
            self._committed = 0
            store.execute("BEGIN IMMEDIATE")
            try:
                yield
                store.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    store.execute("ROLLBACK")
                raise
            self._bytes += self._committed


def look_into(path: str) -> dict[str, Standing]:
    """How it stands with each destination of an outbox, also while a run has it.

    Raises:
        ConfigError: it is none, or can't be read.
    """
    if not Path(path).exists():
        return {}
    check_ours(path)
    try:
        store = _connection(path, "NORMAL")
        try:
            return _standing(store)
        finally:
            store.close()
    except sqlite3.Error as error:
        raise ConfigError(f"--outbox {path}: {error}") from error


def check_ours(path: str) -> None:
    """Refuse a file that is there and is no outbox.

    Raises:
        ConfigError: it is not, or it can't be read.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"--outbox {path}: {error.strerror}") from error
    if head and not (head.startswith(b"SQLite format 3\0") and head[68:72] == _HEAD):
        raise ConfigError(f"--outbox {path}: is there already, and is no outbox; name another")


_HEAD = APPLICATION.to_bytes(4, "big")


def _connection(path: str, synchronous: str, *, new: bool = False) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time."""
    store = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    if new:
        store.execute(f"PRAGMA application_id = {APPLICATION}")  # before there is a log
        store.execute("PRAGMA journal_mode = WAL")
    store.execute(f"PRAGMA synchronous = {synchronous}")
    store.execute("PRAGMA wal_autocheckpoint = 256")  # pages: the log stays near a megabyte
    store.execute("PRAGMA journal_size_limit = 1048576")
    return store


def _standing(store: sqlite3.Connection) -> dict[str, Standing]:
    rows = store.execute(
        "SELECT name, (SELECT count(*) FROM events WHERE seq > mark), "
        "(SELECT min(time) FROM events WHERE seq = "
        "(SELECT min(seq) FROM events WHERE seq > mark)), "
        "delivered, at, discarded, refused FROM destinations"
    )
    return {name: Standing(*row) for name, *row in rows}


def _locked(path: str) -> int:
    """An open file whose lock is ours until it is closed, or the process ends."""
    place = Path(f"{path}-lock")
    if not place.parent.is_dir():
        raise ConfigError(f"--outbox {path}: the folder {place.parent} does not exist")
    try:
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError(f"--outbox {path}: {error.strerror}") from error
    if sys.platform != "win32":
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ConfigError(
                f"--outbox {path}: another process uses it; give each its own"
            ) from error
        except OSError:  # a file system without locks does without
            return lock
    return lock


def _span(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `2 days`."""
    for size, unit in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
