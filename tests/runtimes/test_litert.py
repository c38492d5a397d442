"""LiteRT runs any number of rows of any `.tflite` file, from several threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlopsdeploy.columns import Field
from mlopsdeploy.errors import ConfigError, ModelError, RowError
from mlopsdeploy.runtimes.litert import LiteRT

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10  # as in tiny_models.py


def numbers(rows, width=4, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("name", ["free", "fixed"])
def test_as_many_answers_as_rows(tiny, name):
    runtime = LiteRT(tiny / f"{name}.tflite")
    assert runtime.inputs == (Field("x", "float32", (4,)),)
    assert runtime.outputs == (Field("y", "float32", (3,)),)
    assert runtime.precision == "float32"
    for rows in (1, 4, 5, 9, 3, 100, 1):
        values = numbers(rows, seed=rows)
        got = runtime.run({"x": values})["y"]
        np.testing.assert_allclose(got, values @ WEIGHTS, atol=1e-6)


def test_an_answer_stays_when_the_next_one_is_computed(tiny):
    runtime = LiteRT(tiny / "free.tflite")
    values = numbers(2)
    first = runtime.run({"x": values})["y"]
    kept = first.copy()
    runtime.run({"x": values + 1})
    np.testing.assert_array_equal(first, kept)


def test_inputs_go_by_name_and_others_are_ignored(tiny):
    runtime = LiteRT(tiny / "two.tflite")
    assert {field.name: field.shape for field in runtime.inputs} == {"wide": (3,), "narrow": (1,)}
    wide, narrow = numbers(6, 3), numbers(6, 1, seed=1)
    got = runtime.run({"unknown": wide, "narrow": narrow, "wide": wide})
    assert set(got) == {"product", "total"}
    np.testing.assert_allclose(got["product"], wide * narrow, rtol=1e-6)
    np.testing.assert_allclose(got["total"], wide.sum(1) + narrow[:, 0], atol=1e-6)


def test_numbers_of_another_type_are_converted(tiny):
    runtime = LiteRT(tiny / "free.tflite")
    whole = np.array([[1, 2, 3, 4]])
    for values in (whole, whole.astype(np.float64), np.asfortranarray(whole.astype(np.float32))):
        np.testing.assert_allclose(runtime.run({"x": values})["y"], whole @ WEIGHTS, rtol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantised_model_takes_and_gives_real_numbers(tiny, kind):
    runtime = LiteRT(tiny / f"{kind}.tflite")
    assert runtime.precision == "int8"
    assert runtime.inputs == (Field("x", "float32", (4,)),)
    assert runtime.outputs == (Field("y", "float32", (3,)),)
    given = runtime.quantization["x"]
    assert given.dtype == kind
    assert given.scale == pytest.approx(2 / 255, rel=0.05)
    values = numbers(50)
    got = runtime.run({"x": values})["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, values @ WEIGHTS, atol=3 * runtime.quantization["y"].scale)

    steps = given.quantize(values)  # as a camera gives them
    assert steps.dtype == kind
    np.testing.assert_array_equal(runtime.run({"x": steps})["y"], got)
    np.testing.assert_allclose(given.dequantize(steps), values, atol=given.scale)


def test_what_is_beyond_an_integers_range_is_its_end(tiny):
    runtime = LiteRT(tiny / "int8.tflite")
    far, end = np.full((1, 4), 1e9), np.full((1, 4), 127, np.int8)
    np.testing.assert_array_equal(runtime.run({"x": far})["y"], runtime.run({"x": end})["y"])


def test_sequences_of_any_length(tiny):
    """Their length stands as 1 in the file, which is too short for this model."""
    runtime = LiteRT(tiny / "series.tflite")
    assert runtime.inputs == (Field("steps", "float32", (-1, 3)),)
    for rows, length in ((1, 2), (5, 7), (2, 40), (5, 7)):
        steps = numbers(rows * length, 3, seed=length).reshape(rows, length, 3)
        expected = (steps[:, 1:].sum(2) + steps[:, :-1].sum(2)).max(1)
        np.testing.assert_allclose(
            runtime.run({"steps": steps})["largest"][:, 0], expected, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("free", {"x": numbers(3, 5)}, {"x": numbers(3)}),
        ("fixed", {"x": numbers(4, 5)}, {"x": numbers(4)}),
        ("series", {"steps": np.ones((2, 1, 3))}, {"steps": np.ones((2, 2, 3))}),
        ("table", {"place": np.array([0, 5])}, {"place": np.array([0, 4])}),
    ],
)
def test_what_the_model_cannot_take_is_said_and_harms_nothing(tiny, name, wrong, right):
    runtime = LiteRT(tiny / f"{name}.tflite")
    before = runtime.run(right)
    with pytest.raises(RowError, match="LiteRT can't compute these values") as raised:
        runtime.run(wrong)
    assert "\n" not in str(raised.value)
    for key, values in runtime.run(right).items():
        np.testing.assert_array_equal(values, before[key])


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_many_threads_get_the_answers_to_their_own_rows(tiny, streams):
    runtime = LiteRT(tiny / "free.tflite", threads=3, streams=streams)
    assert runtime.streams == streams
    given = [numbers(1 + turn % 7, seed=turn) for turn in range(300)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda values: runtime.run({"x": values})["y"], given))
    for values, answers in zip(given, got, strict=True):
        np.testing.assert_allclose(answers, values @ WEIGHTS, atol=1e-6)


def test_a_precision_is_the_files_own(tiny):
    assert LiteRT(tiny / "free.tflite", precision="float32").precision == "float32"
    for name, precision in (("free", "int8"), ("free", "bfloat16"), ("int8", "float32")):
        with pytest.raises(ConfigError, match="runs in the precision it was made in"):
            LiteRT(tiny / f"{name}.tflite", precision=precision)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x1c\x00\x00\x00TFL3" + b"\x00" * 200])
def test_a_file_that_is_no_model(tmp_path, content):
    file = tmp_path / "broken.tflite"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="LiteRT can't load it") as raised:
        LiteRT(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="LiteRT can't load it"):
        LiteRT(tmp_path / "gone.tflite")


def test_nothing_is_said_and_no_framework_loaded(tiny):
    script = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from mlopsdeploy.runtimes.litert import LiteRT;"
        f"runtime = LiteRT(Path({str(tiny / 'series.tflite')!r}), threads=2);"
        "runtime.run({'steps': np.ones((2, 5, 3))});"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
