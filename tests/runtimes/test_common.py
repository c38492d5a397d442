"""What runtimes have in common."""

import numpy as np
import pytest

from mlopsdeploy.runtimes.common import rows_with_nan


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_with_nan_are_found_and_infinities_are_none(dtype):
    good = np.array([[np.inf, -np.inf], [np.finfo(dtype).max, 0], [1, 2]], dtype)
    bad = good.copy()
    bad[2, 0] = np.nan
    whole = np.ones((3, 2), int)
    assert rows_with_nan({"a": good, "b": whole}) == []
    assert rows_with_nan({"a": good, "b": bad}) == [2]
    assert rows_with_nan({"a": good[:0]}) == []
