import numpy as np
import pytest

from mlopsdeploy.core.planner import plan, unique


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_in_exactly_one_batch(seed):
    cost = np.random.default_rng(seed).lognormal(3.5, 0.8, 3000).astype(np.int64)
    batches = plan(cost, 1024)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))


@pytest.mark.parametrize("budget", [1, 7, 64, 1024, 10**9])
def test_padded_work_stays_within_the_budget(budget):
    cost = np.random.default_rng(0).integers(1, 600, 2000)
    for batch in plan(cost, budget):
        assert len(batch) == 1 or len(batch) * cost[batch].max() <= budget


@pytest.mark.parametrize(
    ("cost", "budget", "batches"),
    [
        ([100] * 10, 400, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),  # as full as may be
        ([5, 50, 6, 49, 5, 51], 153, [[5, 1, 3], [2, 0, 4]]),  # of one length, costliest first
        ([3, 900, 2], 100, [[1], [0, 2]]),  # over the budget alone
        ([4] * 5, 8, [[0, 1], [2, 3], [4]]),  # ties keep their order: one plan every time
        ([0] * 3, 100, [[0, 1, 2]]),
        ([], 100, []),
    ],
)
def test_which_rows_lie_together(cost, budget, batches):
    assert [batch.tolist() for batch in plan(np.array(cost, np.int64), budget)] == batches


@pytest.mark.parametrize(
    ("values", "places"), [(["b", "a", "b", "c", "a", "A", "b "], [0, 1, 3, 5, 6]), ([], [])]
)
def test_unique_has_first_places_and_the_way_back(values, places):
    first, inverse = unique(values)
    assert first.tolist() == places
    assert np.array(values, object)[first][inverse].tolist() == values
