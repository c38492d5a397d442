"""Properties of the decision, over many answers; and every threshold, by crossing it."""

import math
import random

import pytest

from mlopsdeploy.choose.decide import TIE, choose, decide, with_value
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings

TIMES = [0.005, 0.05, 0.09, 0.3, 1, 30, 65, 300, 4000, 40_000, 86_400, 100_000]


def seeds(few, many):
    more = [pytest.param(seed, marks=pytest.mark.with_all) for seed in range(few, many)]
    return pytest.mark.parametrize("seed", [*range(few), *more])


def random_answers(seed):
    draw = random.Random(seed)
    requests = 10 ** draw.uniform(1, 7)
    return ChooseSettings(
        response_time=draw.choice(TIMES),
        requests_per_day=requests,
        peak=draw.choice([None, requests / 86400 * 10 ** draw.uniform(0, 2.5)]),
        user_facing=draw.random() < 0.5,
        offline=draw.random() < 0.15,
        data_at=draw.choice(["server", "device"]),
        may_leave=draw.random() < 0.75,
        server=draw.choice(["cloud", "cloud", "own", "none"]),
        devices=draw.choice([None, 0, 1, 10, 300]),
        device_factor=10 ** draw.uniform(-2, 0),
        device_memory=draw.choice([None, None, 50, 512]),
        machine_memory=draw.choice([None, None, 200, 4096]),
        price_per_hour=10 ** draw.uniform(-3, 1),
        device_price=10 ** draw.uniform(0, 3),
        hourly_rate=draw.choice([0.0, 30.0, 100.0]),
        upkeep_hours=draw.choice([None, None, 0.5, 3, 20]),
        network=draw.choice([0.001, 0.05]),
    )


def breaks(strategy, answers, found):
    """The hard constraints once more, straight from the answers."""
    leaves = (
        answers.data_at == "server"
        if strategy == "edge"
        else answers.server == "cloud" or answers.data_at == "device"
    )
    if leaves and (answers.offline or not answers.may_leave):
        return True
    needed = math.ceil(answers.peak_rate / (0.5 * 90 * answers.device_factor))
    devices = max(answers.device_count, needed)
    hours = {"batch": 1, "serve": 4, "edge": 2 + 0.1 * devices}[strategy]
    if answers.upkeep_hours is not None and hours > answers.upkeep_hours:
        return True
    memory = answers.device_memory if strategy == "edge" else answers.machine_memory
    if memory is not None and getattr(found, strategy).memory_mb > memory:
        return True
    if strategy == "edge":
        each = answers.peak_rate / answers.device_count if answers.device_count else float("inf")
        factor = answers.device_factor
        return each > 0.5 * 90 * factor * (1 + 1e-9) or 0.012 / factor > answers.response_time
    if answers.server == "none":
        return True
    if strategy == "serve":
        return 0.02 + answers.network > answers.response_time
    # A run a minute, on as many machines as it takes, is the best that batch can do.
    return answers.response_time <= 63


@seeds(25, 100)
def test_what_is_recommended_breaks_no_hard_constraint(found, seed):
    answers = random_answers(seed)
    decision = choose(answers, found)
    left = [name for name in STRATEGIES if not breaks(name, answers, found)]
    assert [option.strategy for option in decision.options if not option.broken] == left
    assert (decision.recommended in left) if left else decision.recommended is None


@seeds(25, 100)
def test_what_is_recommended_costs_the_least_but_for_ties(found, seed):
    decision = choose(random_answers(seed), found)
    left = [option for option in decision.options if not option.broken]
    if not left:
        return
    least = min(option.total for option in left)
    best = decision.option(decision.recommended)
    assert best.total <= least * (1 + TIE)
    near = [option for option in left if option.total <= least * (1 + TIE)]
    assert best.upkeep_hours == min(option.upkeep_hours for option in near)
    if len(near) > 1:
        assert "differ by less than 10%" in decision.reasons[-1]


@seeds(10, 40)
def test_more_time_never_takes_a_choice_away_nor_makes_one_dearer(found, seed):
    answers, before = random_answers(seed), {}
    for seconds in TIMES:
        decision = choose(answers.replace(response_time=seconds), found)
        now = {one.strategy: one.total for one in decision.options if not one.broken}
        for strategy, total in before.items():
            assert now[strategy] <= total * (1 + 1e-9)
        before = now


@seeds(10, 40)
def test_each_stated_change_changes_the_decision_and_a_little_less_does_not(found, seed):
    answers = random_answers(seed)
    decision = decide(answers, found)
    for change in decision.changes:
        crossed = choose(with_value(answers, change.answer, change.value), found)
        assert crossed.recommended == change.strategy
        assert crossed.recommended != decision.recommended
        if not isinstance(change.value, float):
            continue
        present = (
            answers.requests_per_day
            if change.answer == "traffic"
            else answers.peak_rate
            if change.answer == "peak"
            else getattr(answers, change.answer)
        )
        # Three digits are stated, rounded away from the present value: 1 % at most.
        if change.value > present:
            short = max(present, change.value * 0.989)
        else:
            short = min(present, change.value * 1.011)
        near = choose(with_value(answers, change.answer, short), found)
        assert near.recommended == decision.recommended


def test_there_are_changes_to_state(found):
    answers = ChooseSettings(data_at="device", device_factor=0.5)
    said = {change.answer: change for change in decide(answers, found).changes}
    assert {"response_time", "traffic", "devices", "device_factor", "data_at"} <= set(said)
    assert said["traffic"].strategy == "serve"
    # 86,400 ÷ 10 × 90/s × 0.5 × 50 %
    assert said["traffic"].value == pytest.approx(194_400, rel=0.01)
    assert "edge is out: the peak takes 2 devices" in said["traffic"].why
    assert said["traffic"].words.startswith("from 195,000 requests a day on")


def test_a_tie_goes_to_less_upkeep_and_says_so(found):
    answers = ChooseSettings(
        response_time="25h", devices=1, device_price=0, edge_upkeep=0.95, device_upkeep=0
    )
    decision = choose(answers, found)
    assert decision.recommended == "edge"
    assert "edge takes the least upkeep, 0.95 h a month" in decision.reasons[-1]


def test_nothing_fits_and_each_reason_is_said(found):
    decision = decide(ChooseSettings(may_leave=False), found)
    assert decision.recommended is None
    assert decision.headline == "None of the three fits."
    assert len(decision.reasons) == 3
    assert {change.answer for change in decision.changes} >= {"may_leave", "data_at", "server"}


def test_the_same_answers_give_the_same_decision(found):
    answers = random_answers(7)
    assert decide(answers, found) == decide(answers, found)
