"""Answers by flags, environment and YAML."""

import pytest

from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import load


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("2 s", 2), ("5min", 300), ("1 h", 3600), ("1d", 86400), (3, 3), ("0.5", 0.5)],
)
def test_times(text, seconds):
    assert load(ChooseSettings, None, {"response_time": text}, {}).response_time == seconds


@pytest.mark.parametrize("text", ["soon", "-1s", "0", "nan", "1 fortnight"])
def test_times_that_are_none(text):
    with pytest.raises(ConfigError, match="--response-time"):
        load(ChooseSettings, None, {"response_time": text}, {})


def test_a_peak_below_the_mean_is_refused():
    with pytest.raises(ConfigError, match=r"--peak: .*less than the mean .*11\.6 a second"):
        load(ChooseSettings, None, {"requests_per_day": "1M", "peak": "2"}, {})


def test_amounts_and_what_follows_from_the_rest():
    assert ChooseSettings(requests_per_day="2M").requests_per_day == 2e6
    answers = ChooseSettings(requests_per_day="86,400", data_at="device")
    assert (answers.requests_per_day, answers.peak_rate, answers.device_count) == (86_400, 10, 1)
    assert ChooseSettings().device_count == 0


def test_yaml_and_environment(tmp_path):
    file = tmp_path / "choose.yaml"
    file.write_text("response_time: 1h\nmay_leave: no\ndevices: 3\n", "utf-8")
    answers = load(ChooseSettings, str(file), {}, {"MLOPSDEPLOY_DEVICES": "5"})
    assert (answers.response_time, answers.may_leave, answers.devices) == (3600, False, 5)
    file.write_text("responsetime: 1h\n", "utf-8")
    with pytest.raises(ConfigError, match="did you mean 'response_time'"):
        load(ChooseSettings, str(file), {}, {})
