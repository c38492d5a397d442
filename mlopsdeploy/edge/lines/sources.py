"""What `--lines` names: standard input, a file, a FIFO, a serial device."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mlopsdeploy.edge.events import Event, Tell
from mlopsdeploy.edge.lines import serial
from mlopsdeploy.edge.lines.splitter import Line, Splitter
from mlopsdeploy.edge.retry import pauses
from mlopsdeploy.errors import ConfigError, InputError

READ = 1 << 16  # bytes at a time
LOOK = 0.2  # seconds between two looks at whether to stop
POLL = 0.05  # seconds between two looks at a file that is followed


class Source(Protocol):
    """Lines, one after the other.

    Attributes:
        name: what it is called in messages.
        said: what there is to say of it.
        live: lines go by whether somebody looks or not.
    """

    name: str
    said: str
    live: bool

    def blocks(self) -> Iterator[list[Line]]:
        """The lines, as many at a time as came together; to be asked for once."""
        ...

    def stop(self) -> None:
        """Let `blocks` end soon. Callable from any thread."""
        ...


def open_lines(lines: str, *, follow: bool, baud: int | None, realtime: bool, tell: Tell) -> Source:
    """The source that `lines` names.

    Args:
        lines: `-` for standard input, or the path of a file, a FIFO or a serial device.
        follow: at the end of a file or a FIFO wait for more.
        baud: of a serial device, in bits per second; as it is set by default.
        realtime: who is slow misses lines, as with a serial device.
        tell: told what happens, in the thread that runs `blocks`.

    Raises:
        InputError: there is no such file or device, or it can't be read.
        ConfigError: what is asked does not fit the source.
    """
    kind = _kind(lines, follow=follow)
    name = "standard input" if lines == "-" else lines
    if baud is not None and kind != "device":
        raise ConfigError(f"--baud is of a serial device; {name} is none")
    if kind == "device":
        if follow:
            raise ConfigError(f"--follow is for files and FIFOs; {name} is followed anyway")
        return Device(lines, baud=baud, tell=tell)
    if follow and kind == "stream":
        raise ConfigError(f"--follow is for files and FIFOs; {name} has one end only")
    if kind == "file":
        if realtime and not follow:
            raise ConfigError(f"--realtime is for lines that come by themselves; {name} is a file")
        if follow:
            return Followed(lines, live=realtime, tell=tell)
    return Stream(
        name, lines, live=realtime, tell=tell, follow=follow, said=_SAID.get(kind, "to its end")
    )


_SAID = {"terminal": "type lines; Ctrl-D ends", "fifo": "a FIFO"}


def comes_again(lines: str) -> bool:
    """Whether the next run reads the same lines: those of a file, and not of a pipe or a device."""
    try:
        found = os.fstat(0) if lines == "-" else os.stat(lines)  # noqa: PTH116
    except OSError:  # a file that is followed, and is not there yet
        return True
    return stat.S_ISREG(found.st_mode)


def _kind(lines: str, *, follow: bool) -> str:
    """file, fifo, device, terminal (the user's own), or stream: all that has just an end."""
    try:
        found = os.fstat(0) if lines == "-" else os.stat(lines)  # noqa: PTH116
    except FileNotFoundError:
        if follow and Path(lines).parent.is_dir() and not lines.startswith("/dev/"):
            return "file"  # it may come
        raise InputError(f"{lines}: no such file or device{_others(lines)}") from None
    except OSError as error:
        name = "standard input" if lines == "-" else lines
        raise InputError(f"{name}: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode) or stat.S_ISSOCK(found.st_mode) or stat.S_ISBLK(found.st_mode):
        raise InputError(f"{lines}: is not a file, a FIFO or a serial device")
    if lines != "-" and not os.access(lines, os.R_OK):
        raise InputError(f"{lines}: no permission to read it{serial.group_hint(lines)}")
    if stat.S_ISCHR(found.st_mode) and _is_own_terminal(lines, found):
        return "terminal"
    if lines == "-":
        return "stream"
    if stat.S_ISFIFO(found.st_mode):
        return "fifo"
    if stat.S_ISCHR(found.st_mode):
        return "device" if serial.is_serial(lines) else "stream"
    return "file"


def _is_own_terminal(lines: str, found: os.stat_result) -> bool:
    """Whether it is what the user types at; a serial device's settings would ruin it."""
    if lines == "/dev/tty" or (lines == "-" and os.isatty(0)):
        return True
    return any(os.isatty(fd) and os.fstat(fd).st_rdev == found.st_rdev for fd in (0, 1, 2))


def _others(path: str) -> str:
    if not path.startswith("/dev/"):
        return ""
    found = sorted(
        str(device) for name in ("ttyUSB*", "ttyACM*") for device in Path("/dev").glob(name)
    )
    return f"; there are: {', '.join(found)}" if found else "; this machine shows no serial device"


class _Stoppable:
    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End soon."""
        self._stopped.set()

    def _read(self, fd: int) -> bytes:
        """What comes next; nothing at the end, or when stopped."""
        while not self._stopped.is_set():
            if select.select([fd], [], [], LOOK)[0]:
                with suppress(BlockingIOError):  # another took it, or there was none after all
                    return os.read(fd, READ)
        return b""


class Stream(_Stoppable):
    """Standard input, a file or a FIFO, to the end; of a FIFO that is followed there is none."""

    def __init__(
        self, name: str, path: str, *, live: bool, follow: bool, said: str, tell: Tell
    ) -> None:
        super().__init__()
        self.name = name
        self.live = live
        self.said = said
        self._path = path
        self._follow = follow
        self._tell = tell

    def blocks(self) -> Iterator[list[Line]]:
        """All lines. The last needs no line end."""
        # Opening a FIFO waits for its first writer.
        fd = 0 if self._path == "-" else os.open(self._path, os.O_RDONLY | os.O_NOCTTY)
        splitter, alone = Splitter(), False
        try:
            while not self._stopped.is_set():
                data = self._read(fd)
                if data:
                    alone = False
                    yield splitter.feed(data)
                elif self._stopped.is_set():
                    return
                elif not self._follow:
                    break
                else:
                    # The FIFO stays open, so that nothing of a next writer's is lost.
                    yield splitter.rest()
                    if not alone:
                        alone = True
                        text = f"{self.name}: the writer has left; waiting for the next"
                        self._tell(Event("lost", text, {"source": self.name}))
                    self._stopped.wait(POLL)
            yield splitter.rest()
        finally:
            if fd:
                os.close(fd)


class Followed(_Stoppable):
    """A file that grows, as `tail -F` reads it from its first line on.

    When another file has taken its name, as after a log's rotation, that one is read as soon as
    there is something in it: until then writers may still be at the old one. A file that was made
    shorter is read from its start.
    """

    def __init__(self, path: str, *, live: bool, tell: Tell) -> None:
        super().__init__()
        self.name = path
        self.live = live
        self.said = "followed" if Path(path).exists() else "is not there yet; waiting for it"
        self._tell = tell
        self._refused = ""

    def blocks(self) -> Iterator[list[Line]]:
        """Lines as they are written."""
        splitter, fd = Splitter(), None
        try:
            while not self._stopped.is_set():
                if fd is None:
                    fd = self._open()
                data = os.read(fd, READ) if fd is not None else b""
                if data:
                    yield splitter.feed(data)
                elif fd is not None and self._is_another(fd):
                    while data := os.read(fd, READ):  # what was written meanwhile
                        yield splitter.feed(data)
                    yield splitter.rest()
                    os.close(fd)
                    fd = None
                    self._say("rotated", "is another file now")
                elif fd is not None and os.lseek(fd, 0, os.SEEK_CUR) > os.fstat(fd).st_size:
                    os.lseek(fd, 0, os.SEEK_SET)
                    yield splitter.rest("was cut off when the file was made shorter")
                    self._say("truncated", "was made shorter; read from its start")
                else:
                    self._stopped.wait(POLL)
        finally:
            if fd is not None:
                os.close(fd)

    def _open(self) -> int | None:
        """The file; None while it is not there or, which is an event, can't be opened."""
        try:
            fd = os.open(self.name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = str(error.strerror)
            if reason != self._refused:
                self._refused = reason
                self._say("lost", f"can't be opened ({reason}); trying again", reason=reason)
            return None
        if self._refused:
            self._refused = ""
            self._say("reconnected", "can be read now")
        return fd

    def _is_another(self, fd: int) -> bool:
        try:
            there = os.stat(self.name)  # noqa: PTH116
        except OSError:  # between two files
            return False
        return there.st_size > 0 and not os.path.samestat(there, os.fstat(fd))

    def _say(self, kind: str, text: str, **facts: object) -> None:
        self._tell(Event(kind, f"{self.name}: {text}", {"source": self.name, **facts}))


class Device(_Stoppable):
    """A serial device. When it is unplugged it is opened again, until it is back.

    Raises:
        InputError: it can't be opened.
    """

    live = True

    def __init__(self, path: str, *, baud: int | None, tell: Tell) -> None:
        super().__init__()
        self.name = path
        self._baud = baud
        self._tell = tell
        self._fd = serial.open_serial(path, baud)
        self.said = f"a serial device at {serial.speed_of(self._fd)} baud"

    def blocks(self) -> Iterator[list[Line]]:
        """Lines as they are sent."""
        splitter = Splitter()
        try:
            while True:
                reason = yield from self._until_lost(splitter)
                os.close(self._fd)
                self._fd = -1
                if self._stopped.is_set():
                    return
                yield splitter.rest("was cut off when the device went away")
                self._say("lost", f"{reason}; opening it again", reason=reason)
                if not self._reopen():
                    return
        finally:
            if self._fd >= 0:
                os.close(self._fd)

    def _until_lost(self, splitter: Splitter) -> Generator[list[Line], None, str]:
        while not self._stopped.is_set():
            try:
                data = self._read(self._fd)
            except OSError as error:
                return str(error.strerror)
            if not data:
                return "the device is gone"
            yield splitter.feed(data)
        return "stopped"

    def _reopen(self) -> bool:
        """Try until it is there; False if stopped before."""
        began = time.monotonic()
        for attempt, pause in enumerate(pauses(), 1):
            if self._stopped.wait(pause):
                return False
            try:
                self._fd = serial.open_serial(self.name, self._baud)
            except InputError:
                continue
            away = time.monotonic() - began
            text = f"back after {away:.1f} s"
            self._say("reconnected", text, seconds=round(away, 2), attempts=attempt)
            return True
        raise AssertionError("pauses have no end")

    def _say(self, kind: str, text: str, **facts: object) -> None:
        self._tell(Event(kind, f"{self.name}: {text}", {"source": self.name, **facts}))
