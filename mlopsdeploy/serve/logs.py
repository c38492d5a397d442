"""Logs: a line of text on a terminal, a JSON object per line elsewhere."""

from __future__ import annotations

import logging
import logging.config
import sys
import time
from typing import Any, Literal

import msgspec

_EXTRA = ("request_id", "method", "path", "status", "seconds", "remote", "model", "worker")


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
        if hasattr(record, "seconds"):
            line += f"  {record.seconds * 1000:.2f} ms"
        if hasattr(record, "request_id"):
            line += f"  {record.request_id}"
        return line


def configuration(log_format: Literal["auto", "text", "json"]) -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything to standard error, Granian's lines included."""
    if log_format == "auto":
        log_format = "text" if sys.stderr.isatty() else "json"
    formatter = {"json": JsonLines, "text": Text}[log_format]
    quiet = {"handlers": ["stderr"], "level": "WARNING", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "lines",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "mlopsdeploy": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            "_granian": quiet,
            "granian.access": quiet,
        },
    }
