"""What a run counts, how long each stage takes, and which of them sets the pace."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from mlopsdeploy.columns import AnswerColumns
from mlopsdeploy.core.answers import figure

ORDER = ("capture", "encode", "infer", "decode", "filters", "draw")  # and then the outputs
WINDOW = 4096  # latest values that percentiles are taken of: two minutes at 30 frames a second


class Values:
    """Durations or ages, in seconds: percentiles of the latest, the sum of all."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self.total = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._latest.append(seconds)
        self.total += seconds
        self.count += 1

    def percentiles(self) -> tuple[float, float]:
        """The median and the 99th percentile, in milliseconds (0 where there is nothing)."""
        latest = self._latest.copy()
        if not latest:
            return 0.0, 0.0
        middle, high = np.percentile(latest, (50, 99)) * 1000
        return float(middle), float(high)


class Spread:
    """Numbers that an answer has, other than probabilities: how many, their mean and range."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0
        self.low, self.high = float("inf"), float("-inf")

    def add(self, numbers: npt.NDArray[np.float64]) -> None:
        """Some more, at least one."""
        self.count += len(numbers)
        self.sum += float(numbers.sum())
        self.low = min(self.low, float(numbers.min()))
        self.high = max(self.high, float(numbers.max()))

    def as_dict(self) -> dict[str, float]:
        """The same for JSON, with nine digits, as many as a float32 has."""
        values = {"mean": self.sum / self.count, "min": self.low, "max": self.high}
        return {
            "count": self.count,
            **{key: float(f"{value:.9g}") for key, value in values.items()},
        }

    @property
    def words(self) -> str:
        """The same for people: `31.4 on average, 2.1 to 60.3`."""
        mean, low, high = (figure(one, 4) for one in (self.sum / self.count, self.low, self.high))
        return f"{mean} on average, {low} to {high}" if low != high else f"always {mean}"


class Stats:
    """What a run counts. Each stage and counter has one thread that writes it.

    Attributes:
        stages: by name: the time that each takes for one frame.
        ages: from the capture of a frame to what was found on it, of a line to its answer.
        frames: frames or lines that went through.
        labels: how often each was found.
        numbers: other numbers than probabilities, such as a regression's values, by their name.
        answered: lines that have an answer.
        empty: lines with nothing to score.
        unreadable: lines that could not be scored.
        dropped: lines that came too fast.
        unread: texts that the model doesn't read, by their language or another reason.
        models: of several models side by side, how many texts each has read.
    """

    def __init__(self) -> None:
        self.stages: dict[str, Values] = {}
        self.ages = Values()
        self.frames = self.empty = self.unreadable = self.dropped = self.answered = 0
        self.labels: Counter[str] = Counter()
        self.numbers: dict[str, Spread] = {}
        self.unread: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._latest: deque[tuple[float, int]] = deque(maxlen=64)
        self.started = self.first = self.last = time.monotonic()

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the time of the body for a stage."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Count a duration for a stage."""
        values = self.stages.get(stage)
        if values is None:
            with self._lock:
                values = self.stages.setdefault(stage, Values())
        values.add(seconds)

    def note(self, answer: AnswerColumns, labels: Iterable[str], numbers: ArrayLike) -> None:
        """What was answered: labels one by one, and numbers, which are kept of no probability."""
        self.labels.update(f"{answer.name} {label}" if answer.name else label for label in labels)
        known = np.asarray(numbers, np.float64)
        if len(known) and not answer.is_probability:
            self.numbers.setdefault(answer.name or answer.number, Spread()).add(known)

    def finish(
        self,
        captured: Sequence[float],
        *,
        empty: int = 0,
        unreadable: int = 0,
    ) -> None:
        """Frames or lines captured at these times are through the model."""
        now = time.monotonic()
        if not self.frames:
            self.first = now
        self.last = now
        self.frames += len(captured)
        self.empty += empty
        self.unreadable += unreadable
        for moment in captured:
            self.ages.add(now - moment)
        self._latest.append((now, self.frames))

    @property
    def scored(self) -> int:
        """Lines that have an answer; headers count."""
        return self.frames - self.empty - self.unreadable

    @property
    def fps(self) -> float:
        """Frames or lines per second, of late."""
        latest = self._latest.copy()
        if len(latest) < 2 or time.monotonic() - latest[-1][0] > 5:
            return 0.0
        return (latest[-1][1] - latest[0][1]) / max(latest[-1][0] - latest[0][0], 1e-9)

    @property
    def mean_fps(self) -> float:
        """Frames or lines per second from the first to the last."""
        return (self.frames - 1) / (self.last - self.first) if self.frames > 1 else 0.0

    def latencies(self) -> dict[str, dict[str, float]]:
        """By stage: `p50` and `p99` in milliseconds."""
        shown = {}
        for name in sorted(self.stages, key=lambda name: (*ORDER, name).index(name)):
            middle, high = self.stages[name].percentiles()
            shown[name] = {"p50": round(middle, 2), "p99": round(high, 2)}
        return shown

    def bottleneck(self) -> str:
        """The stage with the most time per frame: all run at once, so it sets the pace."""
        if not self.frames:
            return ""
        # A live camera is read more often than the model runs, so each stage by its own count.
        costs = {
            name: values.total / (values.count if name == "capture" else self.frames)
            for name, values in tuple(self.stages.items())
            if values.count
        }
        return max(costs, key=costs.__getitem__, default="")
