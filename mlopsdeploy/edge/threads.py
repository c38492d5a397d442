"""How many threads a model runs fastest with on this machine: tried, not guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from mlopsdeploy.columns import Columns
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model

BUDGET = 0.12  # seconds of calls for each number of threads; at least two calls
BRIEF = 1e-4  # seconds of a call that is over before a second thread is awake
CLEARLY = 0.95  # more threads have to be this much faster, as they take cores from the other stages


def tuned(
    load: Callable[[int], Model], sample: Callable[[Model], Columns], log: Callable[[str], None]
) -> tuple[Model, int]:
    """The model with the number of threads that answers soonest, and that number.

    Args:
        load: gives the model with so many threads.
        sample: gives a row for it.
        log: called with a line about what was measured.
    """
    counts = candidates(core_count())
    best, chosen, threads, measured = float("inf"), None, 0, []
    for count in counts:
        model = load(count)
        seconds = measure(model, sample(model)) if len(counts) > 1 else 0.0
        measured.append(f"{count}: {seconds * 1000:.1f} ms")
        if chosen is None or seconds < best * CLEARLY:
            best, chosen, threads = seconds, model, count
        elif seconds > best * 1.5:
            break  # past its best; more threads only get in each other's way
        if seconds < BRIEF:
            break
    assert chosen is not None
    if len(measured) > 1:
        log(f"threads: {threads} ({', '.join(measured)})")
    return chosen, threads


def candidates(cores: int) -> list[int]:
    """All numbers up to four, then doubled, and all cores: 1, 2, 3, 4, 8, 12 of twelve."""
    counts = {count for count in (1, 2, 3, 4, 8, 16, 32, 64) if count < cores}
    return sorted(counts | {cores})


def measure(model: Model, row: Columns) -> float:
    """The median time of a call, in seconds."""
    tensors = model.task.collate(model.task.encode(row))
    model.runtime.run(tensors)  # the first call sets up
    times: list[float] = []
    while len(times) < 2 or (sum(times) < BUDGET and len(times) < 20):
        start = time.perf_counter()
        model.runtime.run(tensors)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
