"""What `--lines` names: standard input, a file, a FIFO, a serial device; cut into lines.

Of a serial device raw mode and a speed are enough, which the standard library's termios sets on
Linux and macOS. Tried on pseudo-terminals, which are all of a serial device but the wire.
"""

from __future__ import annotations

import os
import re
import select
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlopsdeploy.edge.events import Report, Source
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings

try:
    import termios
    import tty
except ModuleNotFoundError:  # Windows, where nothing is serial to us
    termios = None  # type: ignore[assignment]

READ = 1 << 16  # bytes at a time
LOOK = 0.2  # seconds between two looks at whether to stop
HALF = 0.1  # seconds: what comes so soon after opening a device is the rest of a line
POLL = 0.05  # seconds between two looks at a file that is followed
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
    """Lines out of blocks of bytes, each numbered. A carriage return before the end is left out.

    Args:
        returns: a carriage return alone ends a line too, as some devices send it.
    """

    def __init__(self, *, returns: bool = False) -> None:
        self._rest = b""
        self._number = 0
        self._skipping = False  # the rest of a line that was too long
        self._returns = returns
        self._returned = False  # the last block ended with a carriage return
        self._half = ""

    def begin_within(self, problem: str) -> None:
        """The next line began before there was anybody to read it, and so is not scored."""
        self._half = problem

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in `data`."""
        captured, now = time.monotonic(), time.time()
        data = self._with_ends(data) if self._returns else data
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

    def _with_ends(self, data: bytes) -> bytes:
        """The same with each end of a line as one line feed, also where one is cut in two."""
        if self._returned:
            data = data.removeprefix(b"\n")
        self._returned = data.endswith(b"\r") or (self._returned and not data)
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _line(self, data: bytes, captured: float, now: float) -> Line:
        self._number += 1
        if self._half:
            problem, self._half = self._half, ""
            return Line(self._number, b"", captured, now, problem)
        if self._number == 1:
            data = data.removeprefix(_BOM)
        if len(data) > LONGEST:
            problem = f"is longer than {LONGEST:,} bytes"
            return Line(self._number, b"", captured, now, problem)
        return Line(self._number, data.removesuffix(b"\r"), captured, now)


class LineSource(Source, ABC):
    """Lines, one after the other.

    Attributes:
        there: it is open, or needs no opening; else it says so itself once it is.
    """

    there = True

    @abstractmethod
    def blocks(self) -> Iterator[list[Line]]:
        """The lines, as many at a time as came together; to be asked for once."""


def open_lines(settings: EdgeSettings, report: Report) -> LineSource:
    """The source that `settings.lines` names.

    Args:
        settings: of the device.
        report: gets what happens, in the thread that runs `blocks`.

    Raises:
        InputError: there is no such file or device, or it can't be read.
        ConfigError: what is asked does not fit the source.
    """
    lines, follow, realtime = str(settings.lines), settings.follow, settings.realtime
    kind = _kind(lines, follow=follow)
    name = "standard input" if lines == "-" else lines
    if settings.baud is not None and kind != "device":
        raise ConfigError(f"--baud is of a serial device; {name} is none")
    unfollowed = {"device": "is followed anyway", "stream": "has one end only"}
    if follow and kind in unfollowed:
        raise ConfigError(f"--follow is for files and FIFOs; {name} {unfollowed[kind]}")
    if kind == "device":
        return Device(lines, baud=settings.baud, report=report)
    if kind == "file" and follow:
        return Followed(lines, live=realtime, report=report)
    if kind == "file" and realtime:
        raise ConfigError(f"--realtime is for lines that come by themselves; {name} is a file")
    words = {"terminal": "type lines; Ctrl-D ends", "fifo": "a FIFO"}
    description = words.get(kind, "to its end")
    return Stream(name, lines, live=realtime, follow=follow, description=description, report=report)


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
        return _kind_to_come(lines, follow=follow)
    except OSError as error:
        name = "standard input" if lines == "-" else lines
        raise InputError(f"{name}: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode) or stat.S_ISSOCK(found.st_mode) or stat.S_ISBLK(found.st_mode):
        raise InputError(f"{lines}: is not a file, a FIFO or a serial device")
    serial = stat.S_ISCHR(found.st_mode) and lines.startswith("/dev/tty") and lines != "/dev/tty"
    if lines != "-" and not serial and not os.access(lines, os.R_OK):
        raise InputError(f"{lines}: no permission to read it{_group_hint(lines)}")
    if stat.S_ISCHR(found.st_mode) and _is_own_terminal(lines, found):
        return "terminal"
    if lines == "-":
        return "stream"
    if stat.S_ISFIFO(found.st_mode):
        return "fifo"
    if stat.S_ISCHR(found.st_mode):
        return "device" if _is_serial(lines) else "stream"
    return "file"


def _kind_to_come(lines: str, *, follow: bool) -> str:
    """What is not there yet: a device may be plugged in, a file that is followed may be written."""
    if lines.startswith(("/dev/tty", "/dev/serial/")):
        return "device"
    if follow and Path(lines).parent.is_dir() and not lines.startswith("/dev/"):
        return "file"
    raise InputError(f"{lines}: no such file or device{_others(lines)}")


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


def _read(fd: int, stopped: threading.Event) -> bytes:
    """What comes next; nothing at the end, or when stopped."""
    while not stopped.is_set():
        if select.select([fd], [], [], LOOK)[0]:
            with suppress(BlockingIOError):  # another took it, or there was none after all
                return os.read(fd, READ)
    return b""


class Stream(LineSource):
    """Standard input, a file or a FIFO, to the end; of a FIFO that is followed there is none."""

    def __init__(
        self, name: str, path: str, *, live: bool, follow: bool, description: str, report: Report
    ) -> None:
        super().__init__(name, report)
        self.live = live
        self.description = description
        self._path = path
        self._follow = follow

    def blocks(self) -> Iterator[list[Line]]:
        """All lines. The last needs no line end."""
        # Opening a FIFO waits for its first writer.
        fd = 0 if self._path == "-" else os.open(self._path, os.O_RDONLY | os.O_NOCTTY)
        splitter, alone = Splitter(), False
        try:
            while not self._stopped.is_set():
                data = _read(fd, self._stopped)
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
                        self.happened("lost", "the writer has left; waiting for the next")
                    self._stopped.wait(POLL)
            yield splitter.rest()
        finally:
            if fd:
                os.close(fd)


class Followed(LineSource):
    """A file that grows, as `tail -F` reads it from its first line on.

    When another file has taken its name, as after a log's rotation, that one is read as soon as
    there is something in it: until then writers may still be at the old one. A file that was made
    shorter is read from its start.
    """

    def __init__(self, path: str, *, live: bool, report: Report) -> None:
        super().__init__(path, report)
        self.live = live
        self.description = "followed" if Path(path).exists() else "is not there yet; waiting for it"
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
                    self.happened("rotated", "is another file now")
                elif fd is not None and os.lseek(fd, 0, os.SEEK_CUR) > os.fstat(fd).st_size:
                    os.lseek(fd, 0, os.SEEK_SET)
                    yield splitter.rest("was cut off when the file was made shorter")
                    self.happened("truncated", "was made shorter; read from its start")
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
                self.happened("lost", f"can't be opened ({reason}); trying again", reason=reason)
            return None
        if self._refused:
            self._refused = ""
            self.happened("reconnected", "can be read now")
        return fd

    def _is_another(self, fd: int) -> bool:
        try:
            there = os.stat(self.name)  # noqa: PTH116
        except OSError:  # between two files
            return False
        return there.st_size > 0 and not os.path.samestat(there, os.fstat(fd))


class Device(LineSource):
    """A serial device. When it is unplugged it is opened again, until it is back.

    One that is not there at the start, or may not be opened yet, is waited for likewise.

    Raises:
        ConfigError: there is no such speed.
    """

    live = True

    def __init__(self, path: str, *, baud: int | None, report: Report) -> None:
        super().__init__(path, report)
        _check_speed(baud)
        self._baud = baud
        self._splitter = Splitter(returns=True)
        self._fd: int | None = None
        self._why = ""
        try:
            self._open()
        except InputError as error:
            self._why = self._reason(error)
        self.there = not self._why

    def blocks(self) -> Iterator[list[Line]]:
        """Lines as they are sent."""
        if self._why and not self._wait_for_it():
            return
        self._is_back()
        try:
            while self._fd is not None:
                try:
                    data, reason = _read(self._fd, self._stopped), "the device is gone"
                except OSError as error:
                    data, reason = b"", str(error.strerror)
                if data:
                    yield self._splitter.feed(data)
                elif self._stopped.is_set():
                    return
                else:
                    self._close()
                    yield self._splitter.rest("was cut off when the device went away")
                    self.happened("lost", f"{reason}; opening it again", reason=reason)
                    if found := self._come_back(self._open, InputError):
                        seconds = found[1]["seconds"]
                        self.happened("reconnected", f"back after {seconds:.1f} s", **found[1])
        finally:
            self._close()

    def _wait_for_it(self) -> bool:
        self.happened("lost", f"{self._why}; trying until it is there", reason=self._why)
        if not self._come_back(self._open, InputError, known=self._why):
            return False
        self.happened("connected", self.description)
        return True

    def _open(self) -> None:
        """Open it. What comes at once is the rest of a line, and would read as another number."""
        self._fd = _open_serial(self.name, self._baud)
        code = termios.tcgetattr(self._fd)[4]
        speed = next((speed for speed, known in _speeds().items() if known == code), 0)
        self.description = f"a serial device at {speed} baud"
        if select.select([self._fd], [], [], HALF)[0]:
            self._splitter.begin_within("began before the device was opened")

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_serial(path: str) -> bool:
    """Whether a character device is a terminal line. Does not wait for a carrier."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return path.startswith("/dev/tty")  # one that is busy; opening it gives the reason
    try:
        return os.isatty(fd)
    finally:
        os.close(fd)


def _open_serial(path: str, baud: int | None) -> int:
    """The device, ready to be read: bytes as they come, no echo, no modem signals."""
    speeds = _speeds()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise InputError(f"{path}: no such device{_others(path)}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}{_group_hint(path)}") from error
    try:
        tty.setraw(fd, termios.TCSANOW)
        settings = termios.tcgetattr(fd)
        settings[2] |= termios.CLOCAL | termios.CREAD
        if baud is not None:
            settings[4] = settings[5] = speeds[baud]
        termios.tcsetattr(fd, termios.TCSANOW, settings)
    except termios.error as error:
        os.close(fd)
        raise InputError(
            f"{path}: can't be set up as a serial device ({error.args[-1]})"
        ) from error
    return fd


def _check_speed(baud: int | None) -> None:
    speeds = _speeds()
    if baud is not None and baud not in speeds:
        known = ", ".join(map(str, sorted(speeds)))
        raise ConfigError(f"--baud {baud}: there are {known}")


def _group_hint(path: str) -> str:
    """How a user gets the right to open a serial device."""
    if not path.startswith("/dev/") or os.access(path, os.R_OK) or not os.path.exists(path):  # noqa: PTH110
        return ""
    return "; 'sudo usermod -aG dialout $USER' and a new login give it"


def _speeds() -> dict[int, int]:
    """By bits per second, what the system calls them."""
    names = (re.fullmatch(r"B([1-9]\d*)", name) for name in dir(termios))
    return {int(name[1]): getattr(termios, name[0]) for name in names if name}
