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


def test_batches_are_as_full_as_the_budget_allows():
    assert [len(batch) for batch in plan(np.full(10, 100), 400)] == [4, 4, 2]


def test_rows_of_one_length_lie_together_and_the_costliest_come_first():
    cost = np.array([5, 50, 6, 49, 5, 51])
    assert [batch.tolist() for batch in plan(cost, 153)] == [[5, 1, 3], [2, 0, 4]]


def test_a_row_over_the_budget_is_a_batch_of_its_own():
    assert [batch.tolist() for batch in plan(np.array([3, 900, 2]), 100)] == [[1], [0, 2]]


def test_ties_keep_their_order_so_that_a_plan_is_the_same_every_time():
    cost = np.array([4, 4, 4, 4, 4])
    assert [batch.tolist() for batch in plan(cost, 8)] == [[0, 1], [2, 3], [4]]


def test_no_rows_and_rows_that_cost_nothing():
    assert plan(np.array([], np.int64), 100) == []
    assert [batch.tolist() for batch in plan(np.zeros(3, np.int64), 100)] == [[0, 1, 2]]


def test_unique_gives_first_places_and_the_way_back():
    values = np.array(["b", "a", "b", "c", "a", "A", "b "], dtype=object)
    first, inverse = unique(values.tolist())
    assert first.tolist() == [0, 1, 3, 5, 6]
    assert values[first][inverse].tolist() == values.tolist()


def test_unique_of_nothing():
    first, inverse = unique([])
    assert len(first) == len(inverse) == 0
