"""Against the solver of SciPy, which comes with scikit-learn here."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mlopsdeploy.edge.filters.assignment import assign


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (12, 12), (30, 25)])
def test_the_sum_is_the_largest(shape, share):
    generator = np.random.default_rng(sum(shape))
    for _ in range(20):
        similarity = generator.random(shape) * (generator.random(shape) < share)
        pairs = assign(similarity)
        rows, columns = linear_sum_assignment(-similarity)
        assert sum(similarity[a, b] for a, b in pairs) == pytest.approx(
            similarity[rows, columns].sum()
        )
        assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
        assert all(similarity[a, b] > 0 for a, b in pairs)
