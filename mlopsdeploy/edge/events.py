"""What happens to a source, for people and for `--events`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: connected, stalled, resumed, lost, reconnected, unreadable, or ended; of lines also
            dropped, rotated, truncated.
        text: the same for people, one line.
        facts: the same for programs.
        time: seconds since 1970.
    """

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"event": self.kind, "time": iso(self.time), **self.facts}


Tell = Callable[[Event], None]


def iso(seconds: float) -> str:
    """A time in UTC to the millisecond: 2026-11-22T18:50:12.345Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
