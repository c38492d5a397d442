"""TensorFlow runs a SavedModel's function where LiteRT can't, in silence and within its threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlopsdeploy.columns import Field, objects
from mlopsdeploy.errors import ConfigError, ModelError, RowError
from mlopsdeploy.runtimes.tensorflow import TensorFlow

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10  # as in tiny_models.py


def numbers(rows, width=4, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("name", ["free", "fixed"])
def test_as_many_answers_as_rows(tiny, name):
    runtime = TensorFlow(tiny / name)
    assert runtime.inputs == (Field("x", "float32", (4,)),)
    assert runtime.outputs == (Field("y", "float32", (3,)),)
    assert runtime.precision == "float32"
    for rows in (1, 4, 5, 9, 3):
        values = numbers(rows, seed=rows)
        got = runtime.run({"x": values.astype(np.float64), "unknown": values})["y"]
        np.testing.assert_allclose(got, values @ WEIGHTS, atol=1e-6)


def test_several_inputs_and_outputs_by_name(tiny):
    runtime = TensorFlow(tiny / "two")
    assert {field.name: field.shape for field in runtime.inputs} == {"wide": (3,), "narrow": (1,)}
    assert {field.name: field.shape for field in runtime.outputs} == {"product": (3,), "total": ()}
    wide, narrow = numbers(6, 3), numbers(6, 1, seed=1)
    got = runtime.run({"narrow": narrow, "wide": wide})
    np.testing.assert_allclose(got["product"], wide * narrow, rtol=1e-6)
    np.testing.assert_allclose(got["total"], wide.sum(1) + narrow[:, 0], atol=1e-6)


def test_sequences_of_any_length(tiny):
    runtime = TensorFlow(tiny / "series")
    assert runtime.inputs == (Field("steps", "float32", (-1, 3)),)
    for length in (2, 9):
        assert runtime.run({"steps": np.ones((3, length, 3))})["largest"].tolist() == [[6]] * 3


def test_text_goes_in_and_comes_out(tiny):
    runtime = TensorFlow(tiny / "text")
    assert runtime.inputs == (Field("text", "str"),)
    assert set(runtime.outputs) == {Field("loud", "str"), Field("length", "int32")}
    got = runtime.run({"text": objects(["good", "", "schön 好"])})
    assert got["loud"].tolist() == ["GOOD", "", "SCHÖN 好"]
    assert got["length"].tolist() == [4, 0, 7]


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("table", {"place": np.array([0, 5])}, {"place": np.array([0, 4])}),
        ("free", {"x": numbers(3, 5)}, {"x": numbers(3)}),
        ("text", {"text": objects([b"\xff", 3])}, {"text": objects(["a"])}),
    ],
)
def test_what_the_model_cannot_take_is_said_and_harms_nothing(tiny, name, wrong, right):
    runtime = TensorFlow(tiny / name)
    with pytest.raises(RowError, match="TensorFlow can't compute these values") as raised:
        runtime.run(wrong)
    assert "\n" not in str(raised.value)
    assert len(next(iter(runtime.run(right).values()))) == len(next(iter(right.values())))


def test_many_threads_get_the_answers_to_their_own_rows(tiny):
    runtime = TensorFlow(tiny / "free", threads=2)
    assert runtime.streams == 2
    given = [numbers(1 + turn % 7, seed=turn) for turn in range(100)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda values: runtime.run({"x": values})["y"], given))
    for values, answers in zip(given, got, strict=True):
        np.testing.assert_allclose(answers, values @ WEIGHTS, atol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_another_precision_is_refused(tiny, precision):
    with pytest.raises(ConfigError, match="tensorflow runs float32"):
        TensorFlow(tiny / "free", precision=precision)


def test_a_model_that_calls_python_is_refused(tiny):
    with pytest.raises(ModelError, match=r"Python code that isn't in a SavedModel \(PyFunc"):
        TensorFlow(tiny / "python")


def test_a_folder_that_offers_nothing_to_call(tiny):
    with pytest.raises(ModelError, match="needs a signature 'serving_default', has none at all"):
        TensorFlow(tiny / "unsigned")


@pytest.mark.parametrize("content", [None, b"", b"\x0a\xff\xff\xff"])
def test_a_folder_that_is_no_model(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ModelError, match="damaged|holds no graph") as raised:
        TensorFlow(tmp_path)
    assert "\n" not in str(raised.value)


def test_lost_variables_are_named_in_one_line(tiny, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((tiny / "free" / "saved_model.pb").read_bytes())
    with pytest.raises(ModelError, match="TensorFlow can't load it") as raised:
        TensorFlow(tmp_path)
    assert "\n" not in str(raised.value)


def test_in_silence_and_within_its_threads(tiny):
    script = (
        "from pathlib import Path; import numpy as np;"
        "from mlopsdeploy.runtimes.tensorflow import TensorFlow;"
        f"runtime = TensorFlow(Path({str(tiny / 'free')!r}), threads=2, streams=1);"
        "runtime.run({'x': np.ones((2, 4))});"
        "import tensorflow as tf; threading = tf.config.threading;"
        "print(threading.get_inter_op_parallelism_threads(),"
        " threading.get_intra_op_parallelism_threads());"
        f"TensorFlow(Path({str(tiny / 'two')!r}), threads=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 2\n", "")
