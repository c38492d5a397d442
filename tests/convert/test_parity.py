"""The proof finds one wrong answer, and does not mistake float32's own noise for one."""

import numpy as np
import pytest

from mlopsdeploy.convert import parity


class Off:
    """A runtime that answers with twice its input, and a mistake in one row."""

    def __init__(self, mistake):
        self.mistake = mistake

    def run(self, tensors):
        values = tensors["x"] * 2
        values[tensors["x"][:, 0] == 7] += self.mistake
        return {"y": values}


@pytest.mark.parametrize("mistake", [1e-3, np.nan, np.inf])
def test_the_proof_finds_one_wrong_answer(mistake):
    values = np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32)
    values[9, 0] = 7
    values[3] = np.inf  # as both sides answer, that is no difference
    expected = {"y": values * 2}
    case = parity.Case({"x": values}, expected, parity.allowed(expected, expected))
    proof = parity.prove([case], Off(np.float32(1e-6)))
    assert 0 < proof["largest_difference"] < 1e-5
    with pytest.raises(parity.Unfit, match="answers differ by"):
        parity.prove([case], Off(np.float32(mistake)))


def test_the_rows_of_a_call_matter():
    """A runtime that is right row by row, and wrong when they are computed together."""

    class Together:
        def run(self, tensors):
            return {"y": tensors["x"] * len(tensors["x"])}

    values = np.ones((14, 3), np.float32)
    expected = {"y": values}
    case = parity.Case({"x": values}, expected, parity.allowed(expected, expected))
    with pytest.raises(parity.Unfit, match="answers differ by 1"):
        parity.prove([case], Together())


def test_an_answer_that_its_inputs_last_bit_moves_is_as_uncertain():
    """The small difference of large numbers, summed in either order."""
    large = np.random.default_rng(0).normal(size=(2, 20))
    large[:, -1] -= large.sum(axis=1)
    columns = {"x": (large * [[1e6], [1]]).astype(np.float32)}

    def sum_of(columns):
        return {"y": columns["x"].sum(axis=1, keepdims=True)}

    expected = sum_of(columns)
    limits = parity.allowed(expected, sum_of(parity.nudged(columns)))
    assert 0.1 < limits["y"][0, 0] < 10
    assert limits["y"][1, 0] < 1e-3


def test_what_is_not_finite_must_be_so_on_both_sides():
    expected = np.array([np.nan, np.inf, -np.inf, 1.0])
    got = np.array([np.nan, np.inf, np.inf, np.nan])
    assert parity.difference(expected, got).tolist() == [0, 0, np.inf, np.inf]
    assert parity.difference(expected, got[:3]).tolist() == [np.inf] * 4, "another shape"
    texts = np.array([b"a", b"b"], dtype=object)
    assert parity.difference(texts, np.array(["a", "c"], dtype=object)).tolist() == [0, np.inf]


def test_labels_that_change_are_counted():
    class Shifted:
        def run(self, tensors):
            return {"y": tensors["x"] + np.float32([2e-5, 0])}

    values = np.tile(np.float32([[0.5, 0.50001]]), (14, 1))
    values[7:] += np.float32([0, 0.1])
    case = parity.Case({"x": values}, {"y": values}, parity.allowed({"y": values}, {"y": values}))
    assert parity.prove([case], Shifted())["label_flips"] == 7
