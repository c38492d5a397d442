"""Numbers as people read them."""

import pytest

from mlopsdeploy.choose.units import duration, money, number, plural, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0110, "0.011"), (3.14159, "3.14"), (99.96, "100"), (1234.5, "1,234"),
     (310, "310"), (10, "10"), (0.000693, "0.000693"), (float("inf"), "–")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.000017, "0.017 ms"), (0.0031, "3.1 ms"), (0.9999, "1 s"), (63.7, "63.7 s"),
     (300, "5 min"), (3600, "1 h"), (4020, "67 min"), (43_200, "12 h"), (86_400, "24 h"),
     (172_800, "2 d")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_others():
    assert money(0.011, "EUR") == "0.011 EUR"
    assert (size(950), size(4_710_000)) == ("950 B", "4.71 MB")
    assert (plural(1, "machine"), plural(2, "machine")) == ("1 machine", "2 machines")
