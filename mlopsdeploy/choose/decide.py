"""Which strategy fits, why, and what would change that. Pure: no clock, no file, no network.

Hard constraints come first: a strategy that breaks one is out. Of those left the cheapest wins,
machines and people's time together. Within `TIE` of the cheapest, less upkeep wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlopsdeploy.choose.factors import Option, evaluate
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings, Strategy
from mlopsdeploy.choose.units import duration, money, number, plural, unit_of

TIE = 0.10  # of the cheapest: nearer than the guesses that go in
STEPS = 6  # of the search, for each power of ten
FAR = 6  # powers of ten that it goes either way


@dataclass(frozen=True)
class Change:
    """Another answer that makes another strategy win.

    Attributes:
        answer: the setting, such as `response_time`; `traffic` stands for requests and peak.
        value: the first value found, from the present one on, that does.
        words: it as a condition.
        strategy: what then wins; None if then nothing is left.
        why: what the decision there says.
    """

    answer: str
    value: Any
    words: str
    strategy: Strategy | None
    why: str


@dataclass(frozen=True)
class Decision:
    """What fits, and how one can check it."""

    recommended: Strategy | None
    options: tuple[Option, ...]
    reasons: tuple[str, ...]
    changes: tuple[Change, ...] = ()

    def option(self, strategy: Strategy) -> Option:
        """One of the three."""
        return self.options[STRATEGIES.index(strategy)]

    @property
    def headline(self) -> str:
        """The answer as one sentence."""
        if self.recommended is None:
            return "None of the three fits."
        names = {"batch": "a batch job", "serve": "a service", "edge": "the device itself"}
        every, how = self.option(self.recommended).every, ""
        if every:
            night = every == 86400
            how = f", every {'night' if night else duration(every).removeprefix('1 ')}"
        return f"{self.recommended}: {names[self.recommended]}{how}"


def decide(answers: ChooseSettings, found: Measurements) -> Decision:
    """The strategy that fits, with what would change it."""
    decision = choose(answers, found)
    return replace(decision, changes=tuple(_changes(answers, found, decision.recommended)))


def choose(answers: ChooseSettings, found: Measurements) -> Decision:
    """The strategy that fits, and why; without what would change it."""
    options = tuple(evaluate(strategy, answers, found) for strategy in STRATEGIES)
    left = sorted((option for option in options if not option.broken), key=lambda one: one.total)
    reasons = [f"{one.strategy} is out: {'; '.join(one.broken)}" for one in options if one.broken]
    if not left:
        return Decision(None, options, tuple(reasons))
    near = [one for one in left if one.total <= left[0].total * (1 + TIE)]
    best = min(near, key=lambda one: (one.upkeep_hours, one.total))
    currency = answers.currency
    if len(left) == 1:
        reasons.append(f"{best.strategy} is the only one left: {_sum(best, currency)}")
    else:
        sums = ", ".join(f"{one.strategy} {_sum(one, currency)}" for one in left)
        reasons.append(f"what is left costs by month: {sums}")
        if len(near) > 1:
            others = " and ".join(one.strategy for one in near if one is not best)
            reasons.append(
                f"{others} and {best.strategy} differ by less than {TIE:.0%}, and what goes in is "
                f"not known better: {best.strategy} takes the least upkeep, "
                f"{number(best.upkeep_hours)} h a month"
            )
    return Decision(best.strategy, options, tuple(reasons))


def _sum(option: Option, currency: str) -> str:
    return (
        f"{number(option.machine_cost)} for {option.hardware} + "
        f"{number(option.upkeep_cost)} for upkeep = {money(option.total, currency)}"
    )


# ---------------------------------------------------------------- what would change it


def _changes(
    answers: ChooseSettings, found: Measurements, now: Strategy | None
) -> Sequence[Change]:
    """One change of one answer each, the likeliest questions first."""
    changes: list[Change] = []
    for name in ("response_time", "traffic", "peak", "devices", "device_factor"):
        if name == "peak" and answers.peak is None:
            continue  # it goes with the traffic
        changes += _thresholds(name, answers, found, now)
    for name, value, words in _switches(answers):
        then = choose(answers.replace(**{name: value}), found)
        if then.recommended != now:
            changes.append(_change(name, value, words, then, now))
    for name in (
        "price_per_hour", "device_price", "hourly_rate", "batch_upkeep", "serve_upkeep",
        "edge_upkeep", "network",
    ):  # fmt: skip
        changes += _thresholds(name, answers, found, now)
    return changes


def _switches(answers: ChooseSettings) -> list[tuple[str, Any, str]]:
    """Answers that are a choice, each turned the other way, and that as a condition."""
    leave = "may not leave" if answers.may_leave else "may leave"
    network = "may need" if answers.offline else "must work without"
    at, arise = ("device", "devices") if answers.data_at == "server" else ("server", "a server")
    wait = "nobody waits" if answers.user_facing else "people wait"
    servers = {"cloud": "in a cloud", "own": "your own", "none": "not there"}
    return [
        ("may_leave", not answers.may_leave, f"if data {leave} where they are"),
        ("offline", not answers.offline, f"if it {network} a network"),
        ("data_at", at, f"if data arise on {arise}"),
        ("user_facing", not answers.user_facing, f"if {wait} for the answer"),
        *(
            ("server", kind, f"if the server is {words}")
            for kind, words in servers.items()
            if kind != answers.server
        ),
    ]


def with_value(answers: ChooseSettings, name: str, value: Any) -> ChooseSettings:
    """The answers with one of them changed; `traffic` is requests a day, the peak along with it."""
    if name == "traffic":
        peak = answers.peak and answers.peak * value / answers.requests_per_day
        return answers.replace(requests_per_day=value, peak=peak)
    return answers.replace(**{name: value})


def _present(answers: ChooseSettings, name: str) -> float:
    known = {"traffic": "requests_per_day", "peak": "peak_rate", "devices": "device_count"}
    return float(getattr(answers, known.get(name, name)))


def _thresholds(
    name: str, answers: ChooseSettings, found: Measurements, now: Strategy | None
) -> list[Change]:
    """The nearest value below and the nearest above the present one that change the decision."""

    def then(value: float) -> Decision:
        return choose(with_value(answers, name, value), found)

    changes = []
    for up in (False, True):
        value = _search(lambda value: then(value).recommended != now, name, answers, up=up)
        if value is not None:
            words = _words(name, value, answers.currency, up=up)
            shown = int(value) if name == "devices" else value
            changes.append(_change(name, shown, words, then(value), now))
    return changes


def _search(
    differs: Callable[[float], bool], name: str, answers: ChooseSettings, *, up: bool
) -> float | None:
    """In steps of a geometric grid, then halving the step in which the decision changes.

    A change back within one step of the grid, a factor of 1.47, goes unseen.
    """
    whole = name == "devices"
    least, most = _bounds(name, answers)
    before = _present(answers, name)
    for value in _grid(before, up=up, whole=whole):
        value = min(max(value, least), most)  # noqa: PLW2901
        if differs(value):
            unit = unit_of(value) if name in ("response_time", "network") else 1.0
            return _halve(differs, before, value, whole=whole, unit=unit)
        if value in (least, most):
            return None
        before = value
    return None


def _bounds(name: str, answers: ChooseSettings) -> tuple[float, float]:
    """What can be answered at all."""
    if name == "response_time":
        return 0.0005, 366 * 86400.0
    if name == "traffic":
        return 1.0, 1e12
    if name == "peak":
        return answers.requests_per_day / 86400, 1e12
    return (0.0, 10_000_000.0) if name == "devices" else (1e-6, 1e9)


def _grid(present: float, *, up: bool, whole: bool) -> list[float]:
    start = present or 1.0
    sign = 1 if up else -1
    values = [start * 10 ** (sign * step / STEPS) for step in range(1, FAR * STEPS + 1)]
    if not present:
        values = [start, *values] if up else []
    rounded = math.ceil if up else math.floor
    return [float(rounded(value)) if whole else value for value in values]


def _halve(
    differs: Callable[[float], bool], same: float, other: float, *, whole: bool, unit: float
) -> float:
    """The value nearest to `same` where the decision differs, rounded outward to what is shown."""
    while abs(other - same) > (1 if whole else 1e-5 * abs(other)):
        middle = (same + other) / 2
        if whole:
            middle = float(math.floor(middle))
        if differs(middle):
            other = middle
        else:
            same = middle
    if whole:
        return other
    # On the far side of the threshold, so that what is shown is true as it stands.
    shown = other / unit
    scale = 10.0 ** (math.floor(math.log10(shown)) - 2)
    rounded = (math.ceil if other > same else math.floor)(shown / scale) * scale
    rounded = float(f"{rounded:.6g}") * unit
    return rounded if differs(rounded) else other


def _words(name: str, value: float, currency: str, *, up: bool) -> str:
    """A threshold as a condition."""
    if name == "response_time":
        return f"if answers may take {duration(value)}" + ("" if up else " at most")
    if name == "device_factor":
        than = "faster" if up else "slower"
        return f"if a device is {number(value)} times as fast as this machine or {than}"
    if name.endswith("_upkeep"):
        than = "more" if up else "less"
        what = name.removesuffix("_upkeep")
        return f"if keeping {what} up takes {number(value)} h a month or {than}"
    if name == "devices":
        return f"with {plural(value, 'device')}{' or more' if up else ' or fewer' * (value > 0)}"
    shown, what = {
        "traffic": (number(value), "requests a day"),
        "peak": (number(value), "requests a second at peak"),
        "network": (duration(value), "of network"),
        "price_per_hour": (money(value, currency), "an hour for a machine"),
        "device_price": (money(value, currency), "a device"),
        "hourly_rate": (money(value, currency), "an hour of upkeep"),
    }[name]
    return f"from {shown} {what} on" if up else f"at {shown} {what} or less"


def _change(name: str, value: Any, words: str, then: Decision, now: Strategy | None) -> Change:
    """The reason is why the present one is out, where it is, and why the new one wins."""
    out = [reason for reason in then.reasons if now and reason.startswith(f"{now} is out")]
    won = [then.reasons[-1]] if then.recommended else []
    return Change(name, value, words, then.recommended, "; ".join(out + won))
