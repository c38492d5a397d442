"""The model of a device, on as many threads as it runs fastest with: tried, not guessed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from mlopsdeploy.bench.speed import seconds_of
from mlopsdeploy.columns import Columns
from mlopsdeploy.core.loading import load_as_set
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.edge.events import Log
from mlopsdeploy.edge.outbox import check_ours
from mlopsdeploy.edge.sinks import check_sinks
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import EdgeSettings

BUDGET = 0.12  # seconds of calls for each number of threads; at least three calls
BRIEF = 1e-4  # seconds of a call that is over before a second thread is awake
CLEARLY = 0.95  # more threads have to be this much faster, as they take cores from the other stages
FOR_LINES = ("follow", "baud", "echo", "features", "long_text")
FOR_CAMERAS = (
    "camera", "width", "height", "fps", "window", "save", "segment",
    "save_limit", "snapshots", "snapshot_seconds", "preview", "preview_host",
    "labels", "thresholds", "min_area", "track", "gates", "zones",
)  # fmt: skip


def check_settings(settings: EdgeSettings) -> None:
    """Refuse settings that are for the other kind of source.

    Raises:
        ConfigError: there is one.
    """
    lines = settings.lines is not None
    for name in FOR_CAMERAS if lines else FOR_LINES:
        allowed = (None, False) if name == "window" else (EdgeSettings.declared()[name].default,)
        if getattr(settings, name) not in allowed:
            other = "a camera, not for --lines" if lines else "--lines, not for a camera"
            raise ConfigError(f"--{name.replace('_', '-')} is for {other}")
    check_sinks(settings)
    if settings.segment and not settings.save:
        raise ConfigError("--segment is of a video; name it with --save")
    if settings.save_limit and not settings.segment:
        raise ConfigError("--save-limit is of segments; say how long they are with --segment")


def check_outputs(settings: EdgeSettings, *, appends: bool) -> None:
    """Refuse outputs that may not be overwritten, before any of them is opened.

    Args:
        settings: of the device.
        appends: lines are added to the events that are there, as they come but once.

    Raises:
        ConfigError: see `Protected.check`.
    """
    source = settings.camera if settings.lines is None else settings.lines
    protected = Protected((source,), (settings.model,), settings.overwrite)
    if settings.save is not None:
        protected.check(settings.save, f"--save {settings.save}")
    if settings.snapshots is not None:
        shown = f"--snapshots {settings.snapshots}"
        protected.check(settings.snapshots, shown, appends=True, folder=True)
    if settings.events not in (None, "-"):
        path = str(settings.events)
        appends |= not Path(path).is_file()  # a pipe or a device keeps nothing
        protected.check(path, f"--events {path}", appends=appends)
    if check_sinks(settings):
        protected.check(settings.outbox, f"--outbox {settings.outbox}", ours=True, appends=True)
        check_ours(settings.outbox)


def load_edge(
    settings: EdgeSettings,
    sample: Callable[[Model], Columns],
    log: Log,
    first: Model | None = None,
) -> tuple[Model, int]:
    """The model of the settings, with as many threads as they say or as run fastest; how many.

    Args:
        settings: of the device.
        sample: makes a row for the model, to measure with; raises ConfigError where the model
            takes other data.
        log: called with a line about each slow step.
        first: of `load_first`, so that it is not loaded again.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    counts = _counts(settings)
    best, chosen, threads, measured = float("inf"), None, 0, []
    for count in counts:
        model = first if first and count == counts[0] else _load(settings, count, log)
        row = sample(model)
        seconds = _seconds_of_a_call(model, row) if len(counts) > 1 else 0.0
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


def load_first(settings: EdgeSettings, sample: Callable[[Model], Columns], log: Log) -> Model:
    """The model on the fewest threads that `load_edge` tries: it is there, and takes such data."""
    model = _load(settings, _counts(settings)[0], log)
    sample(model)
    return model


def _counts(settings: EdgeSettings) -> list[int]:
    """All numbers of threads up to four, then doubled, and all cores: 1, 2, 3, 4, 8, 12 of 12."""
    cores = core_count()
    tried = sorted({count for count in (1, 2, 3, 4, 8, 16, 32, 64) if count < cores} | {cores})
    return [settings.threads] if settings.threads else tried


def _load(settings: EdgeSettings, threads: int, log: Log) -> Model:
    named = settings.lines is None or "model" in settings.given
    reference = settings.model if named else None
    return load_as_set(settings, reference, threads=threads, streams=1, log=log)


def _seconds_of_a_call(model: Model, row: Columns) -> float:
    """The median."""
    tensors = model.task.collate(model.task.encode(row))
    model.runtime.run(tensors)  # the first call sets up
    return statistics.median(seconds_of(model.runtime.run, [tensors], BUDGET))
