"""`mlopsdeploy edge --check`: how a device is, a line for each of its parts."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.bench.speed import seconds_of
from mlopsdeploy.core.console import plain_table
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.loading import check_outputs, check_settings, load_first
from mlopsdeploy.edge.outbox import Standing, look_into
from mlopsdeploy.edge.sending import Destination
from mlopsdeploy.edge.sinks import check_sinks, named
from mlopsdeploy.edge.terminal import temperature
from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.settings import EdgeSettings

LEAST_FREE = 256 << 20  # bytes of a disk that is written to
LONGEST_WAIT = 3600.0  # seconds that an event may wait; longer, and a destination is away
HOTTEST = 85.0  # °C, from which on small computers slow down
BRIEF = 0.2  # seconds of calls of the model


@dataclass(frozen=True)
class Finding:
    """How a part is: `good` or not, and what there is to say."""

    part: str
    good: bool
    text: str


def check_device(settings: EdgeSettings) -> tuple[dict[str, Any], int]:
    """Look at each part, and show it on standard error; all of it for JSON, and the exit code.

    Raises:
        ConfigError: settings are for the other kind of source.
    """
    check_settings(settings)
    findings = [
        _found("model", lambda: _model(settings)),
        _found("camera" if settings.lines is None else "lines", lambda: _source(settings)),
        _found("outputs", lambda: _outputs(settings)),
        *_outboxes(settings),
        *_disks(settings),
        _temperature(),
    ]
    table = plain_table("", "", "")
    for one in findings:
        word, style = ("good", "green") if one.good else ("bad", "red")
        table.add_row(one.part, f"[{style}]{word}[/]", one.text.replace("[", r"\["))
    width = None if Console(stderr=True).is_terminal else 400  # a line each, for grep
    Console(stderr=True, highlight=False, width=width).print(table)
    healthy = all(one.good for one in findings)
    parts = {one.part: {"good": one.good, "text": one.text} for one in findings}
    return {"healthy": healthy, **parts}, 0 if healthy else 1


def _found(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, good=True, text=look())
    except (MlopsDeployError, OSError) as error:
        return Finding(part, good=False, text=str(error))


def _model(settings: EdgeSettings) -> str:
    sample: Callable[[Model], Any]
    if settings.lines is None:
        from mlopsdeploy.edge.watch import plain_picture as sample
    else:
        from mlopsdeploy.edge.lines.run import plain_row as sample
    model = load_first(settings, sample, lambda _: None)
    tensors = model.task.collate(model.task.encode(sample(model)))
    model.runtime.run(tensors)
    seconds = statistics.median(seconds_of(model.runtime.run, [tensors], BRIEF))
    return f"{model.name} {model.version}".strip() + f", {seconds * 1000:.1f} ms a call"


def _source(settings: EdgeSettings) -> str:
    told: list[Event] = []
    if settings.lines is not None:
        from mlopsdeploy.edge.lines.sources import open_lines

        lines = open_lines(settings, told.append)
        if not lines.there:
            raise MlopsDeployError(f"{lines.name}: is not there, or can't be opened")
        return f"{lines.name}: {lines.description}"
    from mlopsdeploy.edge.camera import open_source

    source = open_source(settings, report=told.append, timing=lambda _: None)
    try:
        source.open()
    finally:
        source.stop()
    return f"{source.name}: {source.description}"


def _outputs(settings: EdgeSettings) -> str:
    check_outputs(settings, appends=True)
    for path in _written(settings):
        place = path if path.exists() else path.parent
        while not place.exists() and settings.snapshots is not None and path != place:
            place = place.parent
        if not place.exists():
            raise MlopsDeployError(f"{path}: the folder {path.parent} does not exist")
        if not os.access(place, os.W_OK):
            raise MlopsDeployError(f"{path}: no permission to write there")
    return ", ".join(map(str, _written(settings))) or "none"


def _written(settings: EdgeSettings) -> list[Path]:
    files = [settings.save, settings.events, settings.snapshots]
    files += [settings.outbox] if check_sinks(settings) else []
    return [Path(one) for one in files if one not in (None, "-")]


def _outboxes(settings: EdgeSettings) -> Iterator[Finding]:
    """How it stands with each destination."""
    if not check_sinks(settings):
        return
    names = [kind.name for kind, _ in named(settings) if issubclass(kind, Destination)]
    try:
        found = look_into(settings.outbox)
    except MlopsDeployError as error:
        yield Finding("outbox", good=False, text=str(error))
        return
    for name in names:
        one = found.get(name, Standing())
        waits = 0.0 if one.since is None else time.time() - one.since
        yield Finding(name, waits < LONGEST_WAIT, one.words())


def _disks(settings: EdgeSettings) -> Iterator[Finding]:
    """The disk that outputs lie on or, of several, the fullest."""
    places = [path if path.is_dir() else path.parent for path in _written(settings)] or [Path()]
    there = [place for place in places if place.is_dir()]
    if there:
        place = min(there, key=lambda one: shutil.disk_usage(one).free)
        usage = shutil.disk_usage(place)
        text = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free in {place.resolve()}"
        yield Finding("disk", usage.free >= LEAST_FREE, text)


def _temperature() -> Finding:
    degrees = temperature()
    if degrees is None:
        return Finding("temperature", good=True, text="this machine shows none")
    return Finding("temperature", degrees < HOTTEST, f"{degrees:.0f} °C")
