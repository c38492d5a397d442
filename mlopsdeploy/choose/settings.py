"""What is asked: the answers that decide, each with a default."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from mlopsdeploy.settings import Strict

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*(ms|s|sec|min|m|h|d|day|days)?")
PEAK = 10.0  # times the mean, where nobody says

Strategy = Literal["batch", "serve", "edge"]
STRATEGIES: tuple[Strategy, ...] = ("batch", "serve", "edge")


def _seconds(value: object) -> object:
    """`100ms`, `2 s`, `15 min`, `1 h` and `1 d` in seconds; a bare number is seconds."""
    if not isinstance(value, str):
        return value
    found = _AMOUNT.fullmatch(value.strip().lower())
    if not found:
        raise ValueError("a time is a number and ms, s, min, h or d, such as 200ms")
    unit = {"sec": "s", "m": "min", "day": "d", "days": "d"}.get(found[2] or "s", found[2] or "s")
    return float(found[1]) * _UNITS[unit]


def _number(value: object) -> object:
    """`1,000,000` and `1_000_000` too; and `2M`, `10k`."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace(",", "").replace("_", "")
    for letter, size in (("k", 1e3), ("m", 1e6)):
        if text.lower().endswith(letter):
            return float(text[:-1]) * size
    return text


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=366 * 86400)]
Amount = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1e12)]
Price = Annotated[float, Field(ge=0, le=1e9)]
Hours = Annotated[float, Field(ge=0, le=10_000)]
Megabytes = Annotated[float, Field(gt=0)]


class ChooseSettings(Strict):
    """`mlopsdeploy choose`.

    `response_time` is in seconds, from when the data exist to when the answer is there.
    `upkeep_hours` and those of each strategy are hours of a person's work a month.
    """

    # What is measured.
    model: str | None = None
    sample: str | None = None
    data: Literal["table", "text", "pictures"] = "table"
    text_column: str | None = None
    features: tuple[str, ...] = ()
    seconds: Annotated[float, Field(ge=0.1, le=600)] = 3.0
    trust_model: bool = False

    # What is needed.
    response_time: Seconds = 1.0
    requests_per_day: Amount = 10_000.0
    peak: Amount | None = None
    user_facing: bool = True
    offline: bool = False

    # Where data are, and what there is to compute on.
    data_at: Literal["server", "device"] = "server"
    may_leave: bool = True
    server: Literal["cloud", "own", "none"] = "cloud"
    devices: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    device_factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    device_memory: Megabytes | None = None
    machine_memory: Megabytes | None = None
    network: Seconds = 0.05

    # What it costs. A t3.medium of AWS (2 vCPU, 4 GiB) is 0.0416 USD an hour in us-east-1 (2026).
    currency: Annotated[str, Field(min_length=1, max_length=12)] = "USD"
    price_per_hour: Price = 0.0416
    device_price: Price = 100.0
    device_years: Annotated[float, Field(gt=0, le=50)] = 3.0
    hourly_rate: Price = 60.0

    # Who keeps it up. Guesses of ours, to be replaced by yours; see `decide.UPKEEP`.
    upkeep_hours: Hours | None = None
    batch_upkeep: Hours = 1.0
    serve_upkeep: Hours = 4.0
    edge_upkeep: Hours = 2.0
    device_upkeep: Hours = 0.1

    # What is written.
    report: str | None = None
    write_config: str | None = None
    overwrite: bool = False

    @field_validator("features", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`a,b,c`, as on the command line and in the environment."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("peak")
    @classmethod
    def _not_below_the_mean(cls, value: float | None, others: ValidationInfo) -> float | None:
        mean = others.data.get("requests_per_day", 0.0) / 86400
        if value is not None and value < mean:
            raise ValueError(f"less than the mean of a day's requests, {mean:.3g} a second")
        return value

    @property
    def peak_rate(self) -> float:
        """Requests per second in the busiest moment."""
        return self.peak if self.peak is not None else PEAK * self.requests_per_day / 86400

    @property
    def device_count(self) -> int:
        """Devices that can run the model; one where data arise on a device and nobody says."""
        return int(self.data_at == "device") if self.devices is None else self.devices
