"""TensorFlow alone: text, folders that are no model, silence, and within its threads."""

import subprocess
import sys

import pytest

from mlopsdeploy.columns import Field, objects
from mlopsdeploy.errors import ConfigError, ModelError, RowError
from mlopsdeploy.runtimes.tensorflow import TensorFlow


def test_text_goes_in_and_comes_out(tiny):
    runtime = TensorFlow(tiny / "text")
    assert runtime.inputs == (Field("text", "str"),)
    assert set(runtime.outputs) == {Field("loud", "str"), Field("length", "int32")}
    got = runtime.run({"text": objects(["good", "", "schön 好"])})
    assert got["loud"].tolist() == ["GOOD", "", "SCHÖN 好"]
    assert got["length"].tolist() == [4, 0, 7]
    with pytest.raises(RowError, match="TensorFlow can't compute these values") as raised:
        runtime.run({"text": objects([b"\xff", 3])})
    assert "\n" not in str(raised.value)
    assert runtime.run({"text": objects(["a"])})["loud"].tolist() == ["A"]


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_another_precision_is_refused(tiny, precision):
    with pytest.raises(ConfigError, match="tensorflow runs float32"):
        TensorFlow(tiny / "free", precision=precision)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python", r"Python code that isn't in a SavedModel \(PyFunc"),
        ("unsigned", "needs a signature 'serving_default', has none at all"),
    ],
)
def test_a_model_that_cannot_run_by_itself(tiny, name, message):
    with pytest.raises(ModelError, match=message):
        TensorFlow(tiny / name)


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
