"""How often something that went away is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 30.0


def pauses() -> Iterator[float]:
    """Seconds before each attempt, without end: doubled each time, up to half a minute.

    Jittered, so that many devices don't come back as one.
    """
    longest = FIRST_PAUSE
    while True:
        yield longest * random.uniform(0.5, 1)  # noqa: S311
        longest = min(2 * longest, LONGEST_PAUSE)
