"""LiteRT and TensorFlow run any number of rows, by name, from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlopsdeploy.columns import Field
from mlopsdeploy.core import plugins
from mlopsdeploy.errors import RowError

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10  # as in tiny_models.py


@pytest.fixture(params=["litert", "tensorflow"])
def opened(request, tiny):
    """`opened("free", threads=2)`: a tiny model in either runtime."""
    suffix = ".tflite" if request.param == "litert" else ""

    def open_(name, **how):
        return plugins.load("runtimes", request.param)(tiny / (name + suffix), **how)

    return open_


def numbers(rows, width=4, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("name", ["free", "fixed"])
def test_as_many_outputs_as_rows(opened, name):
    runtime = opened(name)
    assert runtime.inputs == (Field("x", "float32", (4,)),)
    assert runtime.outputs == (Field("y", "float32", (3,)),)
    assert runtime.precision == "float32"
    for rows in (1, 4, 5, 9, 3, 100, 1):
        values = numbers(rows, seed=rows)
        for given in (values, values.astype(np.float64), np.asfortranarray(values)):
            got = runtime.run({"x": given})["y"]
            np.testing.assert_allclose(got, values @ WEIGHTS, atol=1e-6)


def test_whole_numbers_become_real_ones(opened):
    whole = np.array([[1, 2, 3, 4]])
    np.testing.assert_allclose(opened("free").run({"x": whole})["y"], whole @ WEIGHTS, rtol=1e-6)


def test_an_output_stays_when_the_next_one_is_computed(opened):
    runtime = opened("free")
    values = numbers(2)
    first = runtime.run({"x": values})["y"]
    kept = first.copy()
    runtime.run({"x": values + 1})
    np.testing.assert_array_equal(first, kept)


def test_inputs_go_by_name_and_others_are_ignored(opened):
    runtime = opened("two")
    assert {field.name: field.shape for field in runtime.inputs} == {"wide": (3,), "narrow": (1,)}
    assert {field.name: field.shape for field in runtime.outputs} == {"product": (3,), "total": ()}
    wide, narrow = numbers(6, 3), numbers(6, 1, seed=1)
    got = runtime.run({"unknown": wide, "narrow": narrow, "wide": wide})
    assert set(got) == {"product", "total"}
    np.testing.assert_allclose(got["product"], wide * narrow, rtol=1e-6)
    np.testing.assert_allclose(got["total"], wide.sum(1) + narrow[:, 0], atol=1e-6)


def test_sequences_of_any_length(opened):
    """Their length stands as 1 in the .tflite file, which is too short for this model."""
    runtime = opened("series")
    assert runtime.inputs == (Field("steps", "float32", (-1, 3)),)
    for rows, length in ((1, 2), (5, 7), (2, 40), (5, 7)):
        steps = numbers(rows * length, 3, seed=length).reshape(rows, length, 3)
        expected = (steps[:, 1:].sum(2) + steps[:, :-1].sum(2)).max(1)
        got = runtime.run({"steps": steps})["largest"]
        np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("free", {"x": numbers(3, 5)}, {"x": numbers(3)}),
        ("fixed", {"x": numbers(4, 5)}, {"x": numbers(4)}),
        ("table", {"place": np.array([0, 5])}, {"place": np.array([0, 4])}),
    ],
)
def test_what_the_model_cannot_take_is_said_and_harms_nothing(opened, name, wrong, right):
    refused_unharmed(opened(name), wrong, right)


def refused_unharmed(runtime, wrong, right):
    before = runtime.run(right)
    with pytest.raises(RowError, match=r"(LiteRT|TensorFlow) can't compute these values") as raised:
        runtime.run(wrong)
    assert "\n" not in str(raised.value)
    for key, values in runtime.run(right).items():
        np.testing.assert_array_equal(values, before[key])


@pytest.mark.parametrize("streams", [None, 1, 2])
def test_many_threads_get_the_outputs_of_their_own_rows(opened, streams):
    runtime = opened("free", threads=3, streams=streams)
    assert runtime.streams == (streams or 3)
    given = [numbers(1 + turn % 7, seed=turn) for turn in range(300)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda values: runtime.run({"x": values})["y"], given))
    for values, outputs in zip(given, got, strict=True):
        np.testing.assert_allclose(outputs, values @ WEIGHTS, atol=1e-6)
