"""Logs: a line of text on a terminal, a JSON object per line elsewhere."""

from __future__ import annotations

import logging
import logging.config
import sys
import time
from typing import Any, Literal

import msgspec

_EXTRA = (
    "request_id", "method", "path", "status", "seconds", "remote", "model", "models", "url",
    "worker", "workers",
)  # fmt: skip


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


LogFormat = Literal["auto", "text", "json"]


def as_text(log_format: LogFormat) -> bool:
    """Whether a person reads along."""
    return log_format == "text" or (log_format == "auto" and sys.stderr.isatty())


def configuration(log_format: LogFormat) -> dict[str, Any]:
    """For `logging.config.dictConfig`: all to standard error, the server's lines too."""
    ours = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    quiet = {**ours, "level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": Text if as_text(log_format) else JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "mlopsdeploy": ours,
            **dict.fromkeys(("gunicorn.error", "gunicorn.access"), quiet),
        },
    }
