"""LiteRT alone: quantised files, files that are no model, silence."""

import subprocess
import sys

import numpy as np
import pytest

from mlopsdeploy.columns import Field
from mlopsdeploy.errors import ConfigError, ModelError, RowError
from mlopsdeploy.runtimes.litert import LiteRT

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10  # as in tiny_models.py


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantised_model_takes_and_gives_real_numbers(tiny, kind):
    runtime = LiteRT(tiny / f"{kind}.tflite")
    assert runtime.precision == "int8"
    assert runtime.inputs == (Field("x", "float32", (4,)),)
    assert runtime.outputs == (Field("y", "float32", (3,)),)
    given = runtime.quantization["x"]
    assert given.dtype == kind
    assert given.scale == pytest.approx(2 / 255, rel=0.05)
    values = np.random.default_rng(0).uniform(-1, 1, (50, 4)).astype(np.float32)
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


def test_too_short_a_sequence_is_said_and_harms_nothing(tiny):
    runtime = LiteRT(tiny / "series.tflite")
    before = runtime.run({"steps": np.ones((2, 2, 3))})["largest"]
    with pytest.raises(RowError, match="LiteRT can't compute these values") as raised:
        runtime.run({"steps": np.ones((2, 1, 3))})
    assert "\n" not in str(raised.value)
    after = runtime.run({"steps": np.ones((2, 2, 3))})["largest"]
    np.testing.assert_array_equal(after, before)


def test_a_precision_is_the_files_own(tiny):
    assert LiteRT(tiny / "free.tflite", precision="float32").precision == "float32"
    for name, precision in (("free", "int8"), ("free", "bfloat16"), ("int8", "float32")):
        with pytest.raises(ConfigError, match="runs in the precision it was made in"):
            LiteRT(tiny / f"{name}.tflite", precision=precision)


@pytest.mark.parametrize(
    "content", [None, b"", b"nothing", b"\x1c\x00\x00\x00TFL3" + b"\x00" * 200]
)
def test_a_file_that_is_no_model(tmp_path, content):
    file = tmp_path / "broken.tflite"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match="LiteRT can't load it") as raised:
        LiteRT(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


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
