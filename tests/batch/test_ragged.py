"""Rows that differ in shape."""

import numpy as np

from mlopsdeploy.columns import Field, joined, objects
from mlopsdeploy.core.inputs import has_numbers


def test_ragged_whole_numbers_lack_none():
    rows = objects([np.array([1.0, 2.0]), np.array([np.nan])])
    assert has_numbers(Field("x", "int64", (None,)), rows).tolist() == [True, False]


def test_parts_whose_rows_differ_in_shape():
    rows = joined([np.zeros((2, 3)), np.zeros((1, 2))])
    assert [len(row) for row in rows] == [3, 3, 2]
