"""What each strategy comes to over the six factors: numbers, each with its arithmetic.

Pure functions: answers and measurements in, figures out. A month is 30 days of 24 hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mlopsdeploy.choose.measurements import BatchSpeed, Measurements
from mlopsdeploy.choose.settings import ChooseSettings, Strategy
from mlopsdeploy.choose.units import duration, money, number, plural, size

DAY = 86400.0
DAYS = 30  # of a month
HOURS = 24 * DAYS
# Between two batch runs, as cron can say it; the last is its finest.
INTERVALS = tuple(
    60.0 * minutes for minutes in (1440, 720, 480, 360, 240, 180, 120, 60, 30, 20, 15, 10, 5, 2, 1)
)
BILLED = 60.0  # seconds that a cloud charges at least for a machine (AWS, Linux, on demand)
BUSY = 0.5  # of a device's time at most, so that most requests find it idle
# Jakob Nielsen, Usability Engineering, 1993, chapter 5: what a person makes of a wait.
FEELS = ((0.1, "instant"), (1.0, "noticed, thoughts flow on"), (10.0, "attention just holds"))

FACTORS = ("response time", "privacy", "resources", "cost", "upkeep", "user experience")


@dataclass(frozen=True)
class Cell:
    """One factor of one strategy.

    Attributes:
        value: the number that counts, in `unit`; None where there is none.
        says: it in short.
        arithmetic: how it comes about, to be checked by hand.
        broken: what it breaks, if it does: then the strategy is out.
    """

    value: float | None
    unit: str
    says: str
    arithmetic: str
    broken: str = ""


@dataclass(frozen=True)
class Option:
    """A strategy, by factor.

    `machine_cost` and `upkeep_cost` are per month. `every` is seconds between batch runs.
    """

    strategy: Strategy
    cells: dict[str, Cell]
    machines: int = 0
    machine_cost: float = 0.0
    upkeep_hours: float = 0.0
    upkeep_cost: float = 0.0
    every: float | None = None

    @property
    def broken(self) -> list[str]:
        """Why it is out; empty if it is not."""
        return [cell.broken for cell in self.cells.values() if cell.broken]

    @property
    def hardware(self) -> str:
        """What `machines` are."""
        return "devices" if self.strategy == "edge" else "machines"

    @property
    def total(self) -> float:
        """Machines and people, per month."""
        return self.machine_cost + self.upkeep_cost


def evaluate(strategy: Strategy, answers: ChooseSettings, found: Measurements) -> Option:
    """A strategy under the given answers."""
    if getattr(found, strategy) is None:
        why = found.missing.get(strategy, "not measured")
        cell = Cell(None, "", "not measured", why, f"not measured: {why}")
        return Option(strategy, {FACTORS[0]: cell})
    return {"batch": _batch, "serve": _serve, "edge": _edge}[strategy](answers, found)


# ---------------------------------------------------------------- batch


@dataclass(frozen=True)
class _Plan:
    """Runs at a steady interval; times in seconds."""

    every: float
    rows: float
    machines: int
    run: float
    billed: float  # machine-seconds a day
    billing: str  # how they come about

    @property
    def age(self) -> float:
        """From when data exist to their answer, at worst: they just missed a run."""
        return self.every + self.run


def _batch(answers: ChooseSettings, found: Measurements) -> Option:
    speed = found.batch
    assert speed is not None
    plans = [plan for every in INTERVALS if (plan := _plan(every, answers, speed))]
    fits = [plan for plan in plans if plan.age <= answers.response_time]
    # Where nothing meets the response time, the quickest shows how far it is away.
    quickest = min(plans, key=lambda plan: plan.age, default=_longest(answers, speed))
    plan = min(fits, key=lambda plan: plan.billed, default=quickest)
    limit = duration(answers.response_time)
    age = f"{duration(plan.every)} to the next run + {duration(plan.run)} that it takes"
    age += f" = {duration(plan.age)} at worst; {limit} allowed"
    rows = f"{number(answers.peak_rate)}/s for {duration(plan.every)}"  # of the busiest interval
    rows = "a day's" if plan.rows >= answers.requests_per_day else rows
    how = f"{plural(plan.rows, 'row')} ({rows}) ÷ {number(speed.rows_per_second)} rows/s"
    if plan.machines > 1:
        how += f" ÷ {plan.machines} machines"
    how += f" + {duration(speed.start)} to start = {duration(plan.run)} a run"
    late = "" if fits else f"answers are up to {duration(plan.age)} old, {limit} allowed"
    response = Cell(plan.age, "s", f"≤ {duration(plan.age)}", f"{how}; {age}", late)

    cost = plan.billed * DAYS / 3600 * answers.price_per_hour
    arithmetic = (
        f"{plan.billing} = {duration(plan.billed)} of machine a day; "
        f"× {DAYS} days × {money(answers.price_per_hour, answers.currency)} an hour = "
        f"{money(cost, answers.currency)} a month"
    )
    peak = f"runs of {duration(plan.run)} every {duration(plan.every)}"
    resources = _resources(plan.machines, "machine", peak, speed.memory_mb, answers.machine_memory)
    wait = f"nothing to wait for; an answer is up to {duration(plan.age)} old"
    feel = Cell(plan.age, "s", f"up to {duration(plan.age)} old", wait)
    return _option(
        "batch", answers, found, (response, resources, feel), machines=plan.machines, cost=cost,
        arithmetic=arithmetic, every=plan.every,
    )  # fmt: skip


def _plan(every: float, answers: ChooseSettings, speed: BatchSpeed) -> _Plan | None:
    """The fewest machines that keep pace at this interval and, if that can be, are in time."""
    rows = min(answers.requests_per_day, answers.peak_rate * every)
    room = every - speed.start
    in_time = answers.response_time - every - speed.start
    if room <= 0:
        return None
    if in_time > 0:
        room = min(room, in_time)
    work = rows / speed.rows_per_second
    machines = max(math.ceil(work / room), 1)
    run = speed.start + work / machines
    # Busy and quiet intervals of a day together hold a day's rows.
    least = BILLED if answers.server == "cloud" else 0.0
    daily = answers.requests_per_day / speed.rows_per_second
    mean = speed.start + daily * every / DAY / machines
    billing = f"{plural(DAY / every, 'run')} of {duration(mean)} on average"
    if mean < least:
        billing += f", billed as {duration(least)}"
    if machines > 1:
        billing += f", × {machines} machines"
    billed = DAY / every * machines * max(mean, least)
    return _Plan(every, rows, machines, run, billed, billing)


def _longest(answers: ChooseSettings, speed: BatchSpeed) -> _Plan:
    """Of a model that takes longer to start than any interval; it is out, whatever it costs."""
    run = speed.start + answers.requests_per_day / speed.rows_per_second
    return _Plan(INTERVALS[0], answers.requests_per_day, 1, run, run, "1 run")


# ---------------------------------------------------------------- serve


def _serve(answers: ChooseSettings, found: Measurements) -> Option:
    speed = found.serve
    assert speed is not None
    limit = duration(answers.response_time)
    fits = [load for load in speed.loads if load.p99 + answers.network <= answers.response_time]
    # A higher rate needs fewer machines; where none is in time, the quickest shows how far off.
    quickest = min(speed.loads, key=lambda load: load.p99)
    load = max(fits, key=lambda load: load.rate, default=quickest)
    total = load.p99 + answers.network
    late = "" if fits else f"p99 is {duration(total)} with the network, {limit} allowed"
    how = (
        f"{duration(load.p99)} at {number(load.rate)} requests/s (99 % of {load.requests:,} "
        f"requests were faster) + {duration(answers.network)} network = {duration(total)}; "
        f"{limit} allowed"
    )
    response = Cell(total, "s", f"p99 {duration(total)}", how, late)
    busy = max(math.ceil(answers.peak_rate / load.rate), 1)
    machines = busy + answers.user_facing
    share = load.rate / speed.capacity
    arithmetic = (
        f"peak {number(answers.peak_rate)}/s ÷ {number(load.rate)}/s a machine ({share:.0%} of the "
        f"{number(speed.capacity)}/s it can do, where p99 was measured) → {plural(busy, 'machine')}"
    )
    if answers.user_facing:
        arithmetic += "; + 1, so that people get answers while one restarts or fails"
    resources = _resources(machines, "machine", arithmetic, speed.memory_mb, answers.machine_memory)
    cost = machines * HOURS * answers.price_per_hour
    bill = (
        f"{plural(machines, 'machine')} × 24 h × {DAYS} × "
        f"{money(answers.price_per_hour, answers.currency)} = "
        f"{money(cost, answers.currency)} a month"
    )
    feel = _feel(total, "after the network", "no answer without a network")
    return _option(
        "serve", answers, found, (response, resources, feel), machines=machines, cost=cost,
        arithmetic=bill,
    )  # fmt: skip


# ---------------------------------------------------------------- edge


def _edge(answers: ChooseSettings, found: Measurements) -> Option:
    speed = found.edge
    assert speed is not None
    devices, factor = answers.device_count, answers.device_factor
    p99, rate = speed.p99 / factor, speed.per_second * factor
    limit = duration(answers.response_time)
    how = f"{duration(p99)}; {limit} allowed"
    if factor != 1:
        share = f"{number(factor)} (a device's speed as a share of this machine's)"
        how = f"{duration(speed.p99)} here ÷ {share} = {how}"
    late = p99 > answers.response_time
    broken = f"p99 is {duration(p99)} on a device, {limit} allowed" if late else ""
    response = Cell(p99, "s", f"p99 {duration(p99)}", how, broken)
    needed = max(math.ceil(answers.peak_rate / (rate * BUSY)), 1)
    counted = max(devices, needed)  # where some are missing, the cells say what all would take
    sum_ = (
        f"peak {number(answers.peak_rate)}/s ÷ ({number(rate)}/s a device × {BUSY:.0%} busy) → "
        f"{plural(needed, 'device')}, {devices} there; requests spread evenly over them"
    )
    resources = _resources(counted, "device", sum_, speed.memory_mb, answers.device_memory)
    if not devices:
        resources = replace(resources, broken="there is no device to run it on")
    elif needed > devices:
        there = f"there {'is' if devices == 1 else 'are'} {devices}"
        broken = f"the peak takes {plural(needed, 'device')}, {there}"
        resources = replace(resources, broken=broken)
    cost = counted * answers.device_price / (answers.device_years * 12)
    bill = (
        f"{plural(counted, 'device')} × {money(answers.device_price, answers.currency)} ÷ "
        f"({number(answers.device_years)} years × 12) = {money(cost, answers.currency)} a month"
    )
    after = "works with no network" if answers.data_at == "device" else "data come by network"
    return _option(
        "edge", answers, found, (response, resources, _feel(p99, "on the spot", after)),
        machines=counted, cost=cost, arithmetic=bill,
    )  # fmt: skip


# ---------------------------------------------------------------- what all share


def _option(
    strategy: Strategy,
    answers: ChooseSettings,
    found: Measurements,
    cells: tuple[Cell, Cell, Cell],
    *,
    machines: int,
    cost: float,
    arithmetic: str,
    every: float | None = None,
) -> Option:
    response, resources, feel = cells
    upkeep = _upkeep(strategy, answers, machines)
    hours = upkeep.value or 0.0
    million = cost / (answers.requests_per_day * DAYS) * 1e6
    says = f"{money(million, answers.currency)} per million"
    arithmetic += f"; ÷ {number(answers.requests_per_day)} × {DAYS} predictions = {says}"
    price = Cell(million, f"{answers.currency} per million", says, arithmetic)
    if strategy != "edge" and answers.server == "none":
        resources = replace(resources, broken="there is no server to run it on")
    by_factor = (response, _privacy(strategy, answers, found), resources, price, upkeep, feel)
    return Option(
        strategy, dict(zip(FACTORS, by_factor, strict=True)), machines, cost, hours,
        hours * answers.hourly_rate, every,
    )  # fmt: skip


def _crosses(strategy: Strategy, answers: ChooseSettings) -> str:
    """Where data go over a network to, if they do."""
    if strategy == "edge":
        return "to the devices" if answers.data_at == "server" else ""
    if answers.server == "cloud":
        return "to the cloud"
    return "off the device" if answers.data_at == "device" else ""


def _privacy(strategy: Strategy, answers: ChooseSettings, found: Measurements) -> Cell:
    where = _crosses(strategy, answers)
    if not where:
        place = f"computed on the {answers.data_at} they are on"
        return Cell(0.0, "bytes a day", "nothing leaves", place)
    daily = answers.requests_per_day * found.row_bytes
    says = f"{size(daily)} a day {where}"
    arithmetic = f"{number(answers.requests_per_day)} a day × {size(found.row_bytes)} = {says}"
    broken = []
    if not answers.may_leave:
        broken.append(f"data go {where}, and they may not leave")
    if answers.offline:
        broken.append(f"data go {where}, and it must work without a network")
    return Cell(daily, "bytes a day", says, arithmetic, "; ".join(broken))


def _resources(
    count: int, word: str, arithmetic: str, memory: float | None, limit: float | None
) -> Cell:
    says, broken = plural(count, word), ""
    if memory is None:
        arithmetic += "; memory not measured"
    else:
        says += f", {number(memory)} MB"
        arithmetic += f"; {number(memory)} MB of memory each"
        if limit is not None:
            arithmetic += f", {number(limit)} MB there"
            if memory > limit:
                broken = f"takes {number(memory)} MB, a {word} has {number(limit)} MB"
    return Cell(count, f"{word}s", says, arithmetic, broken)


def _upkeep(strategy: Strategy, answers: ChooseSettings, machines: int) -> Cell:
    hours: float = getattr(answers, f"{strategy}_upkeep")
    sum_ = f"{number(hours)} h a month"
    if strategy == "edge":
        total = hours + machines * answers.device_upkeep
        sum_ += f" + {plural(machines, 'device')} × {number(answers.device_upkeep)} h"
        sum_ += f" = {number(total)} h"
        hours = total
    bill = hours * answers.hourly_rate
    sum_ += f" × {money(answers.hourly_rate, answers.currency)} = {money(bill, answers.currency)}"
    broken = ""
    if answers.upkeep_hours is not None:
        sum_ += f"; {number(answers.upkeep_hours)} h are there"
        if hours > answers.upkeep_hours:
            broken = f"takes {number(hours)} h a month, {number(answers.upkeep_hours)} h are there"
    return Cell(hours, "hours a month", f"{number(hours)} h a month", sum_, broken)


def _feel(seconds: float, where: str, after: str) -> Cell:
    word = next((word for limit, word in FEELS if seconds <= limit), "people turn to other things")
    arithmetic = f"p99 {duration(seconds)} {where}: {word} (Nielsen: 0.1, 1, 10 s); {after}"
    return Cell(seconds, "s", f"{word}; {after}", arithmetic)
