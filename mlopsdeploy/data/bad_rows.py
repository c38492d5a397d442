"""Rows that can't be scored: why each is set aside, and how many are too many."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mlopsdeploy.errors import ConfigError, InputError

# The share of a whole of unknown size is judged as if it had at least so many rows, so that a
# bad start does not end a run that is good on the whole.
FEWEST = 100_000


@dataclass(frozen=True)
class BadRow:
    """A row that is set aside.

    `number` counts from 1 within `path`, as `line` does where the format has lines. `record` is
    the row as it stands in the file, or its columns.
    """

    number: int
    reason: str
    record: str | dict[str, Any]
    path: str
    line: int | None = None

    def as_json(self) -> str:
        """One line of `OUTPUT.errors.jsonl`."""
        line = {} if self.line is None else {"line": self.line}
        row = {"file": self.path, "row": self.number, **line}
        row |= {"reason": self.reason, "record": self.record}
        return json.dumps(row, ensure_ascii=False, default=str)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"line {self.line}" if self.line is not None else f"row {self.number}"


class TooManyBadRows(InputError):  # noqa: N818  # what it says is an error
    """More rows were set aside than the user allows."""


@dataclass(frozen=True)
class MaxErrors:
    """How many bad rows a run may have: a number, a share of all rows, or any."""

    number: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> MaxErrors:
        """`100`, `0.1%` (but at least one row) or `none` (no bound).

        Raises:
            ConfigError: it is none of these.
        """
        limit = text.strip().lower()
        if limit == "none":
            return cls()
        try:
            if limit.endswith("%"):
                share = float(limit[:-1]) / 100
                if 0 <= share <= 1:
                    return cls(share=share)
            elif int(limit) >= 0:
                return cls(number=int(limit))
        except ValueError:
            pass
        raise ConfigError(f"--max-errors {text}: expected a number, a share such as 0.1%, or none")

    def exceeded(self, bad: int, rows: int, share: float | None) -> bool:
        """Whether `bad` of `rows` are too many.

        Args:
            bad: bad rows so far.
            rows: all rows so far, the bad ones included.
            share: how much of the whole input these are, from 0 to 1; None where nobody knows.
        """
        if self.number is not None:
            return bad > self.number
        if self.share is None:
            return False
        whole = rows / share if share else max(rows, FEWEST)
        return bad > max(self.share * max(whole, rows), 1 if self.share else 0)
