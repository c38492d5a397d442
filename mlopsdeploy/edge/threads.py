"""How many threads a model runs fastest with on this machine: tried, not guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from mlopsdeploy.model import Model, core_count

BUDGET = 0.12  # seconds of calls for each number of threads; at least two calls
CLEARLY = 0.95  # more threads have to be this much faster, as they take cores from the other stages


def tuned(load: Callable[[int], Model], say: Callable[[str], None]) -> Model:
    """The model with the number of threads that answers soonest.

    Args:
        load: gives the model with so many threads.
        say: told what was measured, in one line.
    """
    counts = candidates(core_count())
    best, chosen, threads, measured = float("inf"), None, 0, []
    for count in counts:
        model = load(count)
        seconds = measure(model) if len(counts) > 1 else 0.0
        measured.append(f"{count}: {seconds * 1000:.1f} ms")
        if chosen is None or seconds < best * CLEARLY:
            best, chosen, threads = seconds, model, count
        elif seconds > best * 1.5:
            break  # past its best; more threads only get in each other's way
    assert chosen is not None
    if len(counts) > 1:
        say(f"threads: {threads} ({', '.join(measured)})")
    return chosen


def candidates(cores: int) -> list[int]:
    """All numbers up to four, then doubled, and all cores: 1, 2, 3, 4, 8, 12 of twelve."""
    counts = {count for count in (1, 2, 3, 4, 8, 16, 32, 64) if count < cores}
    return sorted(counts | {cores})


def measure(model: Model) -> float:
    """The median time of a call, in seconds."""
    picture = np.full((1, 480, 640, 3), 127, np.uint8)
    tensors = model.task.collate(model.task.encode({"image": picture}))
    model.runtime.run(tensors)  # the first call sets up
    times: list[float] = []
    while len(times) < 2 or (sum(times) < BUDGET and len(times) < 20):
        start = time.perf_counter()
        model.runtime.run(tensors)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
