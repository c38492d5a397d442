"""What stands in for answers and measurements that nobody gave, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlopsdeploy.choose.measurements import (
    BatchSpeed,
    EdgeSpeed,
    Load,
    Measurements,
    ServeSpeed,
)
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.choose.units import duration, money, number

# Why each default is what it is; said wherever it went into a figure.
WHY = {
    "peak": "ten times the mean: busy hours are two or three times it, and busy seconds more",
    "price_per_hour": "AWS t3.medium, 2 vCPU and 4 GiB, on demand in us-east-1, 2026",
    "network": "a guess at a round trip over the internet; ping says yours",
    "hourly_rate": "a guess; use what an hour of yours costs",
    "batch_upkeep": "a guess: read the reports, start a failed night once more",
    "serve_upkeep": "a guess: updates, alarms, certificates, capacity, whatever the hour",
    "edge_upkeep": "a guess: build and roll out updates, watch that devices report",
    "device_upkeep": "a guess: each is visited, replaced or reset for an hour or so a year",
    "device_price": "a guess: a small single-board computer with its power supply",
    "device_years": "a guess at how long it lasts",
    "device_factor": "as fast as this machine; most devices are not: measure on one, with "
    "'mlopsdeploy bench edge'",
}  # fmt: skip
_OF_EDGE = {"edge_upkeep", "device_upkeep", "device_price", "device_years", "device_factor"}


def with_unit(name: str, value: float, currency: str) -> str:
    """One of these defaults as people read it."""
    if name == "network":
        return duration(value)
    if name == "peak":
        return f"{number(value)}/s"
    if name.endswith("_upkeep"):
        return f"{number(value)} h a month"
    if name in ("device_years", "device_factor"):
        return number(value)
    return money(value, currency)


NOT_COUNTED = (
    "network traffic and storage",
    "electricity of a device",
    "building it in the first place",
    "what a wrong or late answer costs",
)


def assumed(answers: ChooseSettings) -> dict[str, tuple[Any, str]]:
    """The defaults that went into the figures: value and why, by setting."""
    return {
        name: (answers.peak_rate if name == "peak" else getattr(answers, name), why)
        for name, why in WHY.items()
        if (name not in answers.model_fields_set or getattr(answers, name) is None)
        and (answers.device_count or name not in _OF_EDGE)
    }


MODELS = {"table": "fraud", "text": "sentiment", "pictures": "detector"}
_SAMPLES = {"table": "transactions.csv", "text": "reviews.csv", "pictures": "street.mp4"}


def measurements(data: str) -> Measurements:
    """Those of a built-in model, for one that nobody named.

    Args:
        data: table, text or pictures.
    """
    model = MODELS[data]
    command = f"mlopsdeploy choose --model {model} --sample examples/{_SAMPLES[data]}"
    how = f"assumed: {command} on {_MACHINE}, 2026-11-22"
    task, size, batch, serve, edge = _BUILT_IN[data]
    pictures = ("batch: assumed as fast as edge over the same pictures",)
    return Measurements(
        model=f"a model like {model!r}",
        task=task,
        machine=_MACHINE,
        cores=2,
        row_bytes=size,
        batch=replace(batch, how=how),
        serve=replace(serve, how=how),
        edge=replace(edge, how=how),
        notes=(
            f"speeds: {command}, on {_MACHINE}, 2026-11-22",
            *(pictures if data == "pictures" else ()),
            "to measure yours: mlopsdeploy choose --model MODEL --sample FILE",
        ),
        assumed=f"no model was named: speeds are those of the built-in {model!r}",
    )


_MACHINE = "two busy cores of an AMD EPYC"
# As `choose` measured them, rounded: task, bytes a row, and the three.
_BUILT_IN = {
    "table": (
        "tabular_classification",
        471.0,
        BatchSpeed(155_000.0, 1.9, 209.0, ""),
        ServeSpeed(
            22_300.0,
            (Load(2230.0, 0.00034, 0.0127, 6631), Load(11_200.0, 0.00051, 0.0072, 33_488)),
            1.6,
            135.0,
            "",
        ),
        EdgeSpeed(19_000.0, 0.000017, 0.000053, 57.0, ""),
    ),
    "text": (
        "text_classification",
        157.0,
        BatchSpeed(136.0, 2.5, 591.0, ""),
        ServeSpeed(
            122.0, (Load(12.2, 0.013, 0.052, 216), Load(61.2, 0.0115, 0.222, 216)), 3.4, 546.0, ""
        ),
        EdgeSpeed(72.5, 0.0085, 0.05, 288.0, ""),
    ),
    "pictures": (
        "object_detection",
        11_200.0,
        BatchSpeed(201.0, 2.0, 192.0, ""),
        ServeSpeed(
            40.2, (Load(4.0, 0.0516, 0.2, 78), Load(20.1, 0.102, 1.256, 216)), 1.2, 447.0, ""
        ),
        EdgeSpeed(201.0, 0.005, 0.0173, 192.0, ""),
    ),
}
