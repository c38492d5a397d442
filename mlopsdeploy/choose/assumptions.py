"""What stands in for answers and measurements that nobody gave, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlopsdeploy.choose.measurements import BatchSpeed, EdgeSpeed, Load, Measurements, ServeSpeed
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.choose.units import duration, money, number
from mlopsdeploy.columns import DataKind

# Why each default is what it is; shown wherever it went into a figure.
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


_TIMES = ("response_time", "network")
_PRICES = ("price_per_hour", "device_price", "hourly_rate")


def shown(name: str, answers: ChooseSettings) -> str:
    """An answer, or the default that holds, as people read it."""
    value = getattr(answers, {"devices": "device_count", "peak": "peak_rate"}.get(name, name))
    if value is None:
        return "none" if name in ("model", "sample") else "any"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _TIMES:
        return duration(value)
    if name in _PRICES:
        return money(value, answers.currency)
    unit = " h a month" if name.endswith("_upkeep") else "/s" if name == "peak" else ""
    return f"{number(value)}{unit}" if isinstance(value, int | float) else str(value)


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
        if (name not in answers.given or getattr(answers, name) is None)
        and (answers.device_count or name not in _OF_EDGE)
    }


def shown_defaults(answers: ChooseSettings) -> list[tuple[str, str, str]]:
    """The same as people read them: name, value, why."""
    return [(name, shown(name, answers), why) for name, (_, why) in assumed(answers).items()]


MODELS = {"table": "fraud", "text": "sentiment", "pictures": "detector"}
_SAMPLES = {"table": "transactions.csv", "text": "reviews.csv", "pictures": "street.mp4"}


def measurements(data: str) -> Measurements:
    """Those of a built-in model, for one that nobody named.

    Args:
        data: table, text or pictures.
    """
    model = MODELS[data]
    command = f"mlopsdeploy choose --model {model} --sample examples/{_SAMPLES[data]}"
    how = f"assumed: {command} on {_MACHINE}, 2026-11-23"
    kind, size, batch, serve, edge = _BUILT_IN[data]
    return Measurements(
        f"a model like {model!r}", kind, _MACHINE, 2, size,
        replace(batch, how=how), replace(serve, how=how), replace(edge, how=how),
        notes=(
            f"speeds: {command}, on {_MACHINE}, 2026-11-23",
            "to measure yours: mlopsdeploy choose --model MODEL --sample FILE",
        ),
        assumed=f"no model was named: speeds are those of the built-in {model!r}",
    )  # fmt: skip


# `python benchmarks/choose.py` prints these anew: as `choose` measured them, rounded; data, bytes a
# row, and the three.
_MACHINE = "2 cores of AMD EPYC, Linux"
_BUILT_IN: dict[str, tuple[DataKind, float, BatchSpeed, ServeSpeed, EdgeSpeed]] = {
    "table": (
        "table", 471.0, BatchSpeed(531_000.0, 0.84, 239.0, ""),
        ServeSpeed(34_100.0, (Load(3410.0, 0.000275, 0.000752, 17_140),
                              Load(17_100.0, 0.000397, 0.00322, 85_057)), 0.6, 143.0, ""),
        EdgeSpeed(45_100.0, 0.0000353, 0.0000627, 82.0, ""),
    ),
    "text": (
        "text", 157.0, BatchSpeed(854.0, 1.45, 586.0, ""),
        ServeSpeed(385.0, (Load(38.5, 0.00601, 0.0212, 216),
                           Load(193.0, 0.00925, 0.0719, 982)), 1.1, 607.0, ""),
        EdgeSpeed(586.0, 0.00276, 0.0159, 450.0, ""),
    ),
    "pictures": (
        "image", 17_100.0, BatchSpeed(369.0, 0.97, 244.0, ""),
        ServeSpeed(402.0, (Load(40.2, 0.00591, 0.0133, 216),
                           Load(201.0, 0.0077, 0.054, 1017)), 0.7, 247.0, ""),
        EdgeSpeed(418.0, 0.00196, 0.00338, 187.0, ""),
    ),
}  # fmt: skip
