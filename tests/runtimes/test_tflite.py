"""tflite-runtime, which wants NumPy 1 and Python 3.11, in an environment of its own.

Where it can't be made (no network, another Python) the tests say so and are skipped.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent.parent

# Predictions of models on pictures, as JSON. Arguments: pictures.npy model.tflite ...
SCRIPT = """
import json, sys
import numpy as np
from mlopsdeploy.core.loading import load_model

pictures = np.load(sys.argv[1])
answers = {}
for path in sys.argv[2:]:
    model = load_model(path, threads=1)
    found = model.predict({"image": pictures})
    answers[path] = {
        "runtime": type(model.runtime).__name__,
        "found": {
            name: [np.asarray(row).tolist() for row in column] for name, column in found.items()
        },
    }
print(json.dumps(answers))
"""


def test_it_answers_as_litert_does(tflite_python, tflite_models, rectangle, tmp_path):
    box = (0.25, 0.25, 0.75, 0.5)
    pictures = np.stack([rectangle("green", box), rectangle("red", (0, 0.5, 0.5, 1))])
    np.save(tmp_path / "pictures.npy", pictures)
    names = ("post_process", "tf2_order", "listed_uint8", "yolo_v8", "yolo_v8_int8", "softmax_int8")
    paths = [str(tflite_models / f"{name}.tflite") for name in names]
    done = subprocess.run(
        [str(tflite_python), "-c", SCRIPT, str(tmp_path / "pictures.npy"), *paths],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout)
    for path in paths:
        assert answers[path]["runtime"] == "TFLite"
        ours = load_model(path, runtime="litert", threads=1).predict({"image": pictures})
        for name, column in ours.items():
            theirs = answers[path]["found"][name]
            for row, value in enumerate(column):
                if name == "label":
                    assert np.asarray(value).tolist() == theirs[row]
                else:
                    np.testing.assert_allclose(theirs[row], value, rtol=0, atol=1e-6)


def test_with_numpy_2_it_says_so_in_one_line(tflite_models):
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("here is NumPy 1")
    with pytest.raises(ConfigError, match=r"needs numpy < 2, and here is numpy 2") as caught:
        load_model(str(tflite_models / "softmax.tflite"), runtime="tflite")
    assert "mlopsdeploy[edge-tflite]" in str(caught.value)
    assert "\n" not in str(caught.value)
