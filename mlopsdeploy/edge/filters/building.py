"""The filters of some settings, and a model that leaves them enough to filter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlopsdeploy.core.answers import each_label
from mlopsdeploy.core.model import Model
from mlopsdeploy.edge.events import Report
from mlopsdeploy.edge.filters import Filter
from mlopsdeploy.edge.filters.counting import Counting
from mlopsdeploy.edge.filters.picking import Picking, labelled, large, sure
from mlopsdeploy.edge.filters.tracking import UNSURE, Tracking
from mlopsdeploy.errors import ConfigError, did_you_mean
from mlopsdeploy.settings import EdgeSettings


@dataclass(frozen=True)
class Stage:
    """What stands between decoding and the outputs.

    Attributes:
        model: finds what the filters want to see, perhaps more than it would on its own.
        filters: in their order.
        counting: the one that counts, if there is one.
    """

    model: Model
    filters: tuple[Filter, ...]
    counting: Counting | None


def stage(settings: EdgeSettings, model: Model, report: Report) -> Stage:
    """The filters that the settings ask for.

    Labels are looked at behind the tracker: what it calls an object by vote decides.

    Args:
        settings: of the device.
        model: of which labels and threshold are taken.
        report: of crossings, and of what enters and leaves zones.

    Raises:
        ConfigError: a label is none of the model's, or objects are asked for of a model that
            finds none.
    """
    gates, zones = settings.gates or {}, settings.zones or {}
    tracks = settings.track or bool(gates) or bool(zones)
    _check(settings, model, tracks=tracks)
    threshold = _thresholds(settings, model)
    wanted = _wanted(settings, model)
    filters: list[Filter] = []
    counting: Counting | None = None
    if settings.min_area:
        filters.append(Picking(large(settings.min_area)))
    if tracks:
        tracking = Tracking(threshold)
        filters.append(tracking)
    elif settings.thresholds:
        filters.append(Picking(sure(threshold)))
    if settings.labels:
        filters.append(Picking(labelled(wanted)))
    if gates or zones:
        counting = Counting(tracking.tracker, gates, zones, wanted, report)
        filters.append(counting)
    least = min([UNSURE] * tracks + [*(settings.thresholds or {}).values()], default=1.0)
    return Stage(_down_to(least, model), tuple(filters), counting)


def _check(settings: EdgeSettings, model: Model, *, tracks: bool) -> None:
    known = model.task.labels
    for name in ("labels", "thresholds"):
        for label in getattr(settings, name) or ():
            if known and label not in known:
                hint = did_you_mean(label, known)
                raise ConfigError(f"--{name}: {model.name} has no label {label!r}; {hint}")
    if (tracks or settings.min_area) and not model.task.finds_objects:
        name = next(
            one for one in ("gates", "zones", "track", "min_area") if getattr(settings, one)
        )
        flag = name.replace("_", "-")
        raise ConfigError(f"--{flag} is about objects, and --model {model.name} finds none")


def _thresholds(settings: EdgeSettings, model: Model) -> Callable[[str], float]:
    """The least score of each label: its own, else the model's."""
    own, task = settings.thresholds or {}, model.task
    others = (task.threshold or 0.0) if task.finds_objects else 0.0
    return lambda label: own.get(label, others)


def _wanted(settings: EdgeSettings, model: Model) -> Callable[[str], bool]:
    names, task = frozenset(settings.labels), model.task
    return lambda label: not names or not names.isdisjoint(each_label(task, (label,)))


def _down_to(least: float, model: Model) -> Model:
    """The same model that finds objects from this score on, if it would find fewer."""
    threshold = model.task.threshold
    if not model.task.finds_objects or threshold is None or threshold <= least:
        return model
    task = copy.copy(model.task)
    task.threshold = least
    return replace(model, task=task)
