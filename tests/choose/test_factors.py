"""Each figure by hand, once."""

import re
from dataclasses import replace

import pytest

from mlopsdeploy.choose.factors import FACTORS, INTERVALS, evaluate
from mlopsdeploy.choose.settings import STRATEGIES, ChooseSettings


def cells(strategy, found, **answers):
    return evaluate(strategy, ChooseSettings(**answers), found).cells


def test_a_nightly_run(found):
    option = evaluate("batch", ChooseSettings(response_time="25h", requests_per_day=10_000), found)
    assert option.every == 86400
    assert option.machines == 1
    run = 3 + 10_000 / 100
    assert option.cells["response time"].value == pytest.approx(86400 + run)
    # 103 s a day, 30 days, at 0.0416 an hour
    assert option.machine_cost == pytest.approx(103 / 3600 * 30 * 0.0416)
    assert option.cells["cost"].value == pytest.approx(option.machine_cost / 300_000 * 1e6)
    assert not option.broken


def test_a_short_run_is_billed_as_a_minute_by_a_cloud_and_as_it_is_by_your_own_machine(found):
    for server, seconds in (("cloud", 60), ("own", 4)):
        few = ChooseSettings(response_time="25h", requests_per_day=100, server=server)
        cost = evaluate("batch", few, found).machine_cost
        assert cost == pytest.approx(seconds / 3600 * 30 * 0.0416)


@pytest.mark.parametrize(
    ("allowed", "every"),
    [("25h", 86400), ("24h", 43200), ("2h", 3600), ("70s", 60), ("10min", 300)],
)
def test_runs_are_as_rare_as_the_response_time_allows(found, allowed, every):
    answers = ChooseSettings(response_time=allowed, requests_per_day=1000)
    option = evaluate("batch", answers, found)
    assert option.every == every
    assert option.cells["response time"].value <= answers.response_time


def test_nothing_that_cron_can_do_is_quick_enough_for_milliseconds(found):
    option = evaluate("batch", ChooseSettings(response_time="100ms"), found)
    assert option.every == INTERVALS[-1]
    assert "allowed" in option.broken[0]


def test_more_machines_where_one_would_fall_behind(found):
    # 20 million rows take one machine 200,000 s, and a day has 86,400.
    answers = ChooseSettings(response_time="2d", requests_per_day=20_000_000)
    option = evaluate("batch", answers, found)
    assert option.machines == 3
    assert option.machine_cost == pytest.approx((200_000 + 9) / 3600 * 30 * 0.0416, rel=1e-3)


def test_a_model_that_starts_longer_than_a_day_is_out(found):
    slow = replace(found, batch=replace(found.batch, start=90_000.0))
    assert evaluate("batch", ChooseSettings(response_time="2d"), slow).broken


def test_a_service(found):
    answers = ChooseSettings(response_time="1s", requests_per_day=864_000, peak=250)
    option = evaluate("serve", answers, found)
    assert option.machines == 4  # 250 ÷ 100, and one to spare
    assert option.machine_cost == pytest.approx(4 * 720 * 0.0416)
    assert option.cells["response time"].value == pytest.approx(0.1)
    assert evaluate("serve", answers.replace(user_facing=False), found).machines == 3


def test_a_tighter_response_time_is_met_at_a_lower_load_with_more_machines(found):
    option = evaluate("serve", ChooseSettings(response_time="80ms", peak=100), found)
    assert not option.broken
    assert option.machines == 6  # 100 ÷ 20, and one
    assert evaluate("serve", ChooseSettings(response_time="69ms"), found).broken


def test_a_device(found):
    answers = ChooseSettings(data_at="device", devices=4, device_factor=0.5, peak=80)
    option = evaluate("edge", answers, found)
    assert option.cells["response time"].value == pytest.approx(0.024)
    assert not option.broken  # 4 × 45 × 50 % = 90
    assert option.machine_cost == pytest.approx(4 * 100 / 36)
    assert option.upkeep_hours == pytest.approx(2.4)
    slower = evaluate("edge", answers.replace(device_factor=0.4), found)
    assert slower.broken == ["the peak takes 5 devices, there are 4"]
    assert slower.machine_cost == pytest.approx(5 * 100 / 36), "what it takes, not what is there"
    none = evaluate("edge", answers.replace(devices=0), found)
    assert none.broken == ["there is no device to run it on"]
    assert none.cells["cost"].value > 0


@pytest.mark.parametrize(
    ("answers", "out"),
    [
        ({"may_leave": False}, {"batch", "serve", "edge"}),
        ({"may_leave": False, "server": "own"}, {"edge"}),
        ({"may_leave": False, "data_at": "device"}, {"batch", "serve"}),
        ({"may_leave": False, "data_at": "device", "server": "own"}, {"batch", "serve"}),
        ({"offline": True, "data_at": "device"}, {"batch", "serve"}),
        ({"offline": True, "server": "own"}, {"edge"}),
        ({"server": "none", "devices": 1}, {"batch", "serve"}),
        ({"devices": 0, "data_at": "device"}, {"edge"}),
        ({"upkeep_hours": 1.5, "devices": 1}, {"serve", "edge"}),
        ({"device_memory": 99, "devices": 1}, {"edge"}),
        ({"machine_memory": 260, "devices": 1}, {"batch"}),
        ({"devices": 1}, set()),
    ],
)
def test_hard_constraints(found, answers, out):
    wanted = ChooseSettings(**{"response_time": "25h", **answers})
    assert {name for name in STRATEGIES if evaluate(name, wanted, found).broken} == out


def test_data_that_leave_are_counted(found):
    assert cells("serve", found, requests_per_day=1000)["privacy"].value == 500_000
    assert cells("edge", found, data_at="device")["privacy"].value == 0


def test_every_cell_has_its_arithmetic(found):
    for strategy in STRATEGIES:
        found_cells = cells(strategy, found, devices=2)
        assert list(found_cells) == list(FACTORS)
        for cell in found_cells.values():
            assert cell.says
            assert cell.arithmetic


def test_the_arithmetic_is_right(found):
    """`2 machines × 24 h × 30 × 0.0416 USD = 59.9 USD`, computed from what is printed."""
    said = cells("serve", found)["cost"].arithmetic
    machines, price, month, per_day, million = (
        float(number.replace(",", ""))
        for number in re.fullmatch(
            r"(\d+) machines × 24 h × 30 × ([\d.]+) USD = ([\d.]+) USD a month; "
            r"÷ ([\d,]+) × 30 predictions = ([\d.]+) USD per million",
            said,
        ).groups()
    )
    assert machines * 24 * 30 * price == pytest.approx(month, rel=0.005)
    assert month / (per_day * 30) * 1e6 == pytest.approx(million, rel=0.005)


def test_what_was_not_measured_is_out_and_says_why(found):
    without = replace(found, edge=None, missing={"edge": "no camera"})
    assert evaluate("edge", ChooseSettings(devices=1), without).broken == [
        "not measured: no camera"
    ]
