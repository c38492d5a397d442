"""How many rows there are, and windows of them, spread over the input."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlopsdeploy.batch import scoring
from mlopsdeploy.batch.job import AHEAD, WINDOW, Job
from mlopsdeploy.batch.scoring import Planned
from mlopsdeploy.columns import Array
from mlopsdeploy.core.planner import Rows
from mlopsdeploy.data.sources import Chunk, Source, chunks

READ_SECONDS = 5.0  # to count rows; beyond that their number follows from the share read
ENCODE_SECONDS = 3.0  # to parse, encode and plan the sample
SAMPLE_ROWS = 200_000
MOST_WINDOWS = 512
PICTURE_WINDOWS = 16  # they hold the pictures' files
IN_FLIGHT = 2 * AHEAD + 2  # windows that a run holds at most: read ahead, computed, written
WARM_UP_SECONDS = 0.5
WINDOW_ROWS = 32_000  # of the sample; sorting more rows than that together saves nothing


class Clock:
    """Seconds since it was made, and those of all cores that this process took."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()
        self._stopped: tuple[float, float] | None = None

    @property
    def both(self) -> tuple[float, float]:
        """Seconds on the wall and of all cores."""
        if self._stopped:
            return self._stopped
        return time.perf_counter() - self._started[0], time.process_time() - self._started[1]

    @property
    def seconds(self) -> float:
        """On the wall."""
        return self.both[0]

    def stop(self) -> None:
        """Stay as it is."""
        self._stopped = self.both


@dataclass
class Survey:
    """The input as far as it was read."""

    chunks: list[Chunk]
    rows: int = 0
    windows: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    share: float | None = 1.0  # of the input
    counted: bool = True
    limit: int | None = None

    @property
    def total(self) -> int:
        """Rows that a run would score."""
        if self.counted or not self.share:
            return self.rows
        whole = round(self.rows / self.share)
        return min(whole, self.limit) if self.limit else whole


def take_survey(work: Job, source: Source) -> Survey:
    """Read, without parsing, for some seconds; keep windows at equal distances."""
    rows = min(work.batch_size * WINDOW, WINDOW_ROWS)
    room = min(max(SAMPLE_ROWS // rows, IN_FLIGHT), MOST_WINDOWS)
    if work.model.task.data == "image":
        room = PICTURE_WINDOWS
    survey = Survey([], limit=work.limit)
    share: float | None = 0.0
    every = 1
    clock = Clock()
    for chunk in chunks(source, rows, limit=work.limit):
        share = None if share is None or chunk.share is None else share + chunk.share
        if survey.windows % every == 0:
            survey.chunks.append(chunk)
            if len(survey.chunks) > room:
                survey.chunks = survey.chunks[::2]
                every *= 2
        survey.rows += chunk.rows
        survey.windows += 1
        if clock.seconds > READ_SECONDS:
            survey.counted = survey.rows == work.limit
            break
    survey.seconds, survey.cpu = clock.both
    if not survey.counted:
        survey.share = share
    return survey


@dataclass
class Sample:
    """The windows that were planned, what they hold and what they took."""

    planned: list[Planned] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0  # in the reader's thread, reading excepted
    cpu: float = 0.0
    present: int = 0
    duplicates: int = 0
    known: int = 0
    empty: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_failed: str = ""
    texts: int = 0  # encoded ones: distinct and not known
    tokens: int = 0
    truncated: int = 0
    lost_tokens: int = 0

    def add(self, planned: Planned, rows: int) -> None:
        """Count a window."""
        window = planned.window
        self.planned.append(planned)
        self.rows += rows
        self.present += int(planned.present.sum())
        self.duplicates += int(planned.present.sum()) - planned.distinct
        self.known += int(planned.known[planned.inverse].sum())
        self.empty += int((~planned.present).sum())
        self.failed += len(window.bad)
        self.reasons.update(row.reason for row in window.bad)
        if window.bad and not self.first_failed:
            first = window.bad[0]
            self.first_failed = f"{first.path}: {first.place}: {first.reason}"
        if "tokens" in planned.encoded:
            # Every row counts, not every distinct text, as in the summary of a run.
            times = np.bincount(planned.inverse, minlength=planned.distinct)[~planned.known]
            lost = planned.encoded["lost_tokens"]
            self.texts += int(times.sum())
            self.tokens += int((planned.encoded["tokens"] * times).sum())
            self.lost_tokens += int((lost * times).sum())
            self.truncated += int(times[lost > 0].sum())

    @property
    def costs(self) -> Array:
        """Padded cost of each batch, window by window."""
        return np.array([cost_of(item, batch) for item in self.planned for batch in item.batches])

    @property
    def spread(self) -> float:
        """How uncertain the cost of a row is, as a share of it, for windows differ."""
        sums = np.array(
            [sum(cost_of(item, rows) for rows in item.batches) for item in self.planned]
        )
        if len(sums) < 2 or not sums.sum():
            return 0.0
        rows = np.array([item.window.rows + len(item.window.bad) for item in self.planned])
        error = sums - rows * (sums.sum() / rows.sum())
        count = len(sums)
        return float(math.sqrt((error**2).sum() / (count * (count - 1))) / sums.mean())

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "rows": self.rows,
            "windows": len(self.planned),
            "duplicates": self.duplicates,
            "known": self.known,
            "empty": self.empty,
            "failed": self.failed,
            "reasons": dict(self.reasons.most_common()),
            "first_failed": self.first_failed,
            "texts": self.texts,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "lost_tokens": self.lost_tokens,
        }


def cost_of(planned: Planned, batch: Rows) -> int:
    """The padded work of a batch."""
    return len(batch) * max(int(planned.cost[batch].max()), 1)


def take_sample(work: Job, source: Source, survey: Survey) -> Sample:
    """Parse, encode and plan the windows that were kept, as many as time allows."""

    def prepare(chunk: Chunk) -> Planned:
        chunk.add_to(hashlib.sha256())
        window = source.parse(chunk, work.wanted)
        return scoring.prepare(work.model, window, work.columns, work.store)

    sample = Sample()
    clock = Clock()
    for number, place in enumerate(spread_out(len(survey.chunks))):
        chunk = survey.chunks[place]
        planned = prepare(chunk)
        if not number and clock.seconds < WARM_UP_SECONDS:  # what is slow only once counts for much
            clock = Clock()
            planned = prepare(chunk)
        sample.add(planned, chunk.rows)
        if clock.seconds > ENCODE_SECONDS:
            break
    sample.seconds, sample.cpu = clock.both
    return sample


def spread_out(count: int) -> Iterator[int]:
    """Each of `count` places once; wherever one stops, those so far lie evenly (van der Corput)."""
    bits = max(count - 1, 0).bit_length()
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2) if bits else 0
        if place < count:
            yield place
