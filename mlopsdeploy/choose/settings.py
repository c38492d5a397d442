"""What is asked: the answers that decide, each with a default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mlopsdeploy.settings.declaring import Amount, Declared, Kind, Names, Seconds, setting

PEAK = 10.0  # times the mean, where nobody says

Strategy = Literal["batch", "serve", "edge"]
STRATEGIES: tuple[Strategy, ...] = ("batch", "serve", "edge")

LONGEST = 366 * 86400
Price = Annotated[float, Kind("PRICE", bounds=(("ge", 0), ("le", 1e9)))]
Hours = Annotated[float, Kind("HOURS", bounds=(("ge", 0), ("le", 10_000)))]
Megabytes = Annotated[float, Kind("MB", bounds=(("gt", 0),))]


def _not_below_the_mean(value: float | None, others: Mapping[str, Any]) -> float | None:
    mean = others.get("requests_per_day", 0.0) / 86400
    if value is not None and value < mean:
        raise ValueError(f"less than the mean of a day's requests, {mean:.3g} a second")
    return value


class ChooseSettings(Declared):
    """`mlopsdeploy choose`.

    `response_time` is in seconds, from when the data exist to when the answer is there.
    `upkeep_hours` and those of each strategy are hours of a person's work a month.
    """

    model: str | None = setting(
        None, "Measure this one: built-in name, folder, file, hub id", group="Model", short="-m",
        shown="none: speeds are assumed", offers="model",
    )  # fmt: skip
    sample: str | None = setting(
        None, "What it gets: a file of rows, or a video or folder of pictures", metavar="PATH"
    )
    data: Literal["table", "text", "pictures"] = setting(
        "table", "Without a model, what it would look at"
    )
    text_column: str | None = setting(
        None, "Column of the text in the sample", shown="the only one that reads like text"
    )
    features: Names = setting(
        (), "Numbers: their columns in the order of the model", shown="as the model names them"
    )
    seconds: Seconds = setting(3.0, "Of each measurement", ge=0.1, le=600)
    trust_model: bool = setting(False, "Run code in the model's files, such as Keras Lambda layers")

    response_time: Seconds = setting(
        1.0, "From data to answer at most: 200ms, 5min, 1d", group="Requirements", shown="1s",
        gt=0, le=LONGEST,
    )  # fmt: skip
    requests_per_day: Amount = setting(
        10_000.0, "Predictions a day: 10000, 100k, 2M", shown="10000", gt=0, le=1e12
    )
    peak: Amount | None = setting(
        None, "Of them a second, at most", shown="ten times the mean", check=_not_below_the_mean,
        gt=0, le=1e12,
    )  # fmt: skip
    user_facing: bool = setting(True, "Does a person wait for the answer?", off="--no-user-facing")
    offline: bool = setting(False, "It must work without a network")

    data_at: Literal["server", "device"] = setting(
        "server", "Where data arise", group="Data and machines"
    )
    may_leave: bool = setting(True, "May data go elsewhere?", off="--may-not-leave")
    server: Literal["cloud", "own", "none"] = setting("cloud", "Which server there is")
    devices: int | None = setting(
        None, "That could run the model", shown="one if data arise there", ge=0, le=10_000_000
    )
    device_factor: float = setting(
        1.0, "Speed of a device as a share of this machine's", metavar="SHARE", gt=0, le=1000
    )
    device_memory: Megabytes | None = setting(None, "Memory of a device")
    machine_memory: Megabytes | None = setting(None, "Memory of a server")
    network: Seconds = setting(
        0.05, "Round trip of callers to a server", shown="50ms", gt=0, le=LONGEST
    )

    # A t3.medium of AWS (2 vCPU, 4 GiB) is 0.0416 USD an hour in us-east-1 (2026).
    currency: str = setting("USD", "Of all prices", group="Cost", min_length=1, max_length=12)
    price_per_hour: Price = setting(0.0416, "Of a machine like this one")
    device_price: Price = setting(100.0, "Of a device")
    device_years: float = setting(3.0, "That a device lasts", metavar="YEARS", gt=0, le=50)
    hourly_rate: Price = setting(60.0, "Of who keeps it up")
    upkeep_hours: Hours | None = setting(
        None, "A month that somebody has for it", shown="as many as it takes"
    )
    # Guesses of ours, to be replaced by yours; see `decide.UPKEEP`.
    batch_upkeep: Hours = setting(1.0, "Hours a month that batch takes", flag=None)
    serve_upkeep: Hours = setting(4.0, "Hours a month that serve takes", flag=None)
    edge_upkeep: Hours = setting(2.0, "Hours a month that edge takes", flag=None)
    device_upkeep: Hours = setting(0.1, "Hours a month that each device takes", flag=None)

    report: str | None = setting(
        None, "Write it as a page, with a picture, to this .html", group="Output", metavar="FILE"
    )
    write_config: str | None = setting(None, "Write the matching YAML here", metavar="FILE")
    overwrite: bool = setting(False, "Replace an output that exists, whoever wrote it")

    @property
    def peak_rate(self) -> float:
        """Requests per second in the busiest moment."""
        return self.peak if self.peak is not None else PEAK * self.requests_per_day / 86400

    @property
    def device_count(self) -> int:
        """Devices that can run the model; one where data arise on a device and nobody says."""
        return int(self.data_at == "device") if self.devices is None else self.devices
