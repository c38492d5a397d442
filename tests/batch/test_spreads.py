"""Numbers without bounds: right to within 0.5 %, exact in their sums, the same however cut."""

import json
from fractions import Fraction

import numpy as np
import pytest

from mlopsdeploy.batch import spreads

RANDOM = np.random.default_rng(5)
KINDS = {
    "both signs": RANDOM.lognormal(0, 3, 5000) * RANDOM.choice([-1, 1], 5000),
    "zeros": np.repeat([0.0, 1.0, -2.5], [900, 60, 40]),
    "any size": np.array([5e-324, 1e-310, 1.7e308, -1.7e308, 3.0, 0.0]),
    "float32": RANDOM.normal(1e6, 20_000, 5000).astype(np.float32).astype(np.float64),
}


def spread(numbers, places=None):
    made = spreads.spread_of(is_probability=False)
    made.add(np.zeros(len(numbers), np.intp) if places is None else places, numbers)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_mean_quantiles_least_and_greatest(name):
    numbers = KINDS[name]
    known = spread(numbers).as_dict(0, len(numbers))
    assert known["mean"] == float(sum(map(Fraction, numbers)) / len(numbers))
    assert (known["least"], known["greatest"]) == (numbers.min(), numbers.max())
    assert sum(known["bins"]["rows"]) == len(numbers)
    for share in (0.05, 0.5, 0.95):
        near = (
            np.quantile(numbers, share, method="lower"),
            np.quantile(numbers, share, method="higher"),
        )
        slack = 0.005 * max(map(abs, near)) + 5e-324
        assert min(near) - slack <= spreads.quantile(known, share) <= max(near) + slack


@pytest.mark.parametrize("name", KINDS)
def test_order_cuts_and_restarts_change_nothing(name):
    numbers = KINDS[name]
    places = np.arange(len(numbers)) % 3
    whole = spread(numbers, places)
    order = np.random.default_rng(1).permutation(len(numbers))
    parts = np.array_split(order, 4)
    first = spread(numbers[parts[0]], places[parts[0]])
    again = spreads.spread_of(is_probability=False)
    for place in range(3):
        again.read(place, json.loads(json.dumps(first.as_dict(place, 1))))
    for part in parts[1:]:
        again.merge(spread(numbers[part], places[part]), np.arange(3))
    rows = np.bincount(places, minlength=3).tolist()
    assert [again.as_dict(place, rows[place]) for place in range(3)] == [
        whole.as_dict(place, rows[place]) for place in range(3)
    ]
    together = spreads.together([whole.as_dict(place, rows[place]) for place in range(3)])
    assert together == spread(numbers).as_dict(0, len(numbers))


def test_bins_are_in_the_order_of_their_numbers():
    numbers = np.sort(KINDS["both signs"])
    bins = spreads.bins_of(numbers)
    assert (np.diff(bins) >= 0).all()
    low, high = spreads.edges_of(bins)
    near = 1e-9 * np.abs(numbers)
    assert ((low - near <= numbers) & (numbers <= high + near)).all()


def test_a_histogram_has_all_rows_between_its_edges():
    numbers = KINDS["zeros"]
    known = spread(numbers).as_dict(0, len(numbers))
    counts = spreads.histogram(known, np.array([-3, -1, 0.5, 2.0]))
    assert counts.round(6).tolist() == [40, 900, 60]
    assert spreads.histogram(known, np.array([5.0, 6.0])).tolist() == [0]
