"""Logs: a line of text on a terminal, a JSON object per line elsewhere.

`configure` is called once in each process. Lines are written by a thread: where nobody reads
standard error, they are dropped and counted, and no request waits. What native libraries write to
standard error themselves would stand between the lines, and stop who writes it when the pipe is
full: of workers it goes through a pipe (`divert`) to the parent, which logs it (`collect`). The
parent lives on when a worker is aborted, so its last words are logged, too.
"""

from __future__ import annotations

import faulthandler
import logging
import logging.config
import multiprocessing
import os
import queue
import re
import threading
import time
from multiprocessing.util import Finalize
from typing import Any, Literal

import msgspec

_EXTRA = (
    "request_id", "method", "path", "status", "seconds", "remote", "model", "models", "url",
    "worker", "workers",
)  # fmt: skip
WAITING = 10_000
"""So many lines may wait to be written."""
log = logging.getLogger("mlopsdeploy.serve")
native = logging.getLogger("native")
_LEVEL = re.compile(r"^\[?\s*(INFO|WARN|ERROR|FATAL)|^([IWEF])\d{4} |\[([IWEF]):")
_LEVELS = {
    "I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL,
}  # fmt: skip


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and what else the record brings."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: getattr(record, key) for key in _EXTRA if hasattr(record, key)})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Text(logging.Formatter):
    """`12:30:01 message  0.4 ms  id`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(record)
        if record.levelno >= logging.WARNING:
            line = line.replace(" ", f" {record.levelname.lower()}: ", 1)
        if hasattr(record, "seconds"):
            line += f"  {record.seconds * 1000:.2f} ms"
        if hasattr(record, "request_id"):
            line += f"  {record.request_id}"
        return line


class Writer:
    """Writes lines to standard error from a thread of its own.

    Attributes:
        descriptor: of the real standard error, see `divert`.
    """

    descriptor = 2

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # Each is counted by one thread alone, so that none is lost.
        self._taken = self._written = self._dropped = self._told = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        Finalize(self, self.flush, exitpriority=0)  # at the end of a worker, too

    def write(self, line: bytes) -> None:
        """Write a line soon, or drop it where too many wait; called by one thread at a time."""
        # Not that of how many are missing: others may have taken the room that was just made.
        full = self._taken - self._written >= WAITING
        if full and threading.current_thread() is not self._thread:
            self._dropped += 1
            return
        self._taken += 1
        self._lines.put(line)

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until all is written; not for long, as nobody may read it."""
        end = time.monotonic() + seconds
        while self._written < self._taken and time.monotonic() < end:
            time.sleep(0.002)

    def _run(self) -> None:
        while True:
            _write(self._lines.get())
            self._written += 1
            dropped = self._dropped - self._told
            if dropped and self._taken - self._written <= WAITING // 2:
                self._told += dropped
                log.warning("%d lines of the log were dropped, as nobody read them", dropped)


def _write(line: bytes) -> None:
    while line:
        try:
            line = line[os.write(Writer.descriptor, line) :]
        except BlockingIOError:  # somebody made it so
            time.sleep(0.01)
        except OSError:  # who read it is gone
            return


class Lines(logging.Handler):
    """Gives a process's lines to its one `Writer`."""

    _writer: Writer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001  (as all handlers do)
            self.handleError(record)
            return
        if Lines._writer is None:
            Lines._writer = Writer()
        Lines._writer.write(line)

    def flush(self) -> None:
        """See `flush`."""
        flush()


def flush() -> None:
    """Wait a little until all is written."""
    if Lines._writer is not None:
        Lines._writer.flush()


def _forget() -> None:
    """A child has no threads: its first line starts one."""
    Lines._writer = None


os.register_at_fork(after_in_child=_forget)


def configure(log_format: LogFormat) -> None:
    """Set up this process's log."""
    logging.config.dictConfig(configuration(log_format))


def collect() -> int | None:
    """Log what native libraries write; gives the end of a pipe that workers `divert` to.

    None where workers are not forked: they would not have it.
    """
    if multiprocessing.get_start_method() != "fork":
        return None
    read, write = os.pipe()
    threading.Thread(target=_log_native, args=(read,), name="native log", daemon=True).start()
    return write


def divert(native: int | None) -> None:
    """Send what this process writes to its standard error, but for its log, to `collect`.

    Where it crashes, faulthandler writes to the real one.
    """
    if native is not None:
        Writer.descriptor = os.dup(2)
        os.dup2(native, 2)
    faulthandler.enable(Writer.descriptor)


def _log_native(read: int) -> None:
    with os.fdopen(read, "rb") as lines:
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                native.log(native_level(text), "%s", text)


def native_level(line: str) -> int:
    """As a line says itself: `INFO: …`, `W0000 00:00 …`, `[ERROR:0@…`, `… [W:onnxruntime:…`."""
    found = _LEVEL.search(line)
    return _LEVELS[found[found.lastindex or 0][0]] if found else logging.INFO


LogFormat = Literal["auto", "text", "json"]


def as_text(log_format: LogFormat) -> bool:
    """Whether a person reads along."""
    return log_format == "text" or (log_format == "auto" and os.isatty(Writer.descriptor))


def configuration(log_format: LogFormat) -> dict[str, Any]:
    """For `logging.config.dictConfig`: all to standard error, the server's lines too."""
    ours = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    quiet = {**ours, "level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": Text if as_text(log_format) else JsonLines}},
        "handlers": {"stderr": {"()": Lines, "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            **dict.fromkeys(("mlopsdeploy", "native"), ours),
            **dict.fromkeys(("gunicorn.error", "gunicorn.access"), quiet),
        },
    }
