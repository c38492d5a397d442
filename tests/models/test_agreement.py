"""Two ways to run a model agree or not, whatever its answers are."""

import numpy as np
import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.models.agreement import agreement

FAR = {"value": np.array([1e6, 3.0, 0.0])}


def test_each_number_counts_by_its_own_size():
    """Beside a million, 3 for 2.9 is no rounding."""
    same = agreement(FAR, {"value": np.array([1e6 + 1, 3.0, 0.0])}, "float32")
    assert same["agrees"]
    other = agreement(FAR, {"value": np.array([1e6, 2.9, 0.0])}, "float32")
    assert not other["agrees"]
    assert other["largest_change"] == pytest.approx(0.1 / 3)


def test_labels_without_numbers_are_counted():
    said = {"label": objects(["a"] * 200)}
    assert agreement(said, {"label": objects(["a"] * 198 + ["b"] * 2)}, "float32")["agrees"]
    found = agreement(said, {"label": objects(["a"] * 197 + ["b"] * 3)}, "float32")
    assert (found["label_flips"], found["agrees"]) == (3, False)


@pytest.mark.parametrize("got", [{}, {"value": np.array([np.nan, 3.0, 0.0])}])
def test_a_column_or_a_number_that_is_not_there(got):
    assert not agreement(FAR, got, "float32")["agrees"]


def test_arrays_count_by_the_largest_of_their_row():
    boxes = {"boxes": np.array([[[0.1, 600.0]]])}
    assert agreement(boxes, {"boxes": np.array([[[0.3, 600.0]]])}, "float32")["agrees"]
    assert not agreement(boxes, {"boxes": np.array([[[0.1, 610.0]]])}, "float32")["agrees"]
