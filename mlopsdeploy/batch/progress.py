"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from mlopsdeploy.batch import job

PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal


@contextmanager
def progress_of(console: Console, limit: int | None) -> Iterator[job.Progress]:
    """A bar on a terminal, a line now and then elsewhere."""
    meter = Meter(limit)
    if not console.is_terminal:
        yield meter.tell
        return
    bar = Progress(
        SpinnerColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,.0f} rows"),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None, rows=0, rate=0, left="")

    def draw(rows: float, share: float | None) -> None:
        meter.add(rows, share)
        bar.update(
            task,
            total=1 if meter.share else None,
            completed=meter.share or 0,
            rows=meter.rows,
            rate=meter.rate,
            left=meter.left,
        )

    with bar:
        yield draw


class Meter:
    """Rows and share done so far, the rate and the time left. Fed by several threads."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._started = self._said = time.monotonic()
        self.rows = 0.0
        self.share: float | None = None

    @property
    def rate(self) -> float:
        """Rows per second since the start."""
        return self.rows / max(time.monotonic() - self._started, 1e-9)

    @property
    def left(self) -> str:
        """The time left, as people say it."""
        if not self.share:
            return ""
        elapsed = time.monotonic() - self._started
        seconds = round(elapsed * max(1 / self.share - 1, 0))
        if seconds < 120:
            return f"{seconds} s left"
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"

    def add(self, rows: float, share: float | None) -> None:
        """Count what a batch came to."""
        with self._lock:
            self.rows += rows
            if share is not None:
                self.share = min((self.share or 0) + share, 1.0)
            if self._limit:
                self.share = max(min(self.rows / self._limit, 1.0), self.share or 0)

    def tell(self, rows: float, share: float | None) -> None:
        """Count, and print a line if the last one is some time ago."""
        self.add(rows, share)
        now = time.monotonic()
        with self._lock:
            if now - self._said < PLAIN_SECONDS:
                return
            self._said = now
        done = f", {self.share:.0%}, {self.left}" if self.share else ""
        print(f"{self.rows:,.0f} rows, {self.rate:,.0f} rows/s{done}", file=sys.stderr)
