"""The fraud model that travels in the wheel, and the transactions that show it."""

import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ai_edge_litert.interpreter import Interpreter

import mlopsdeploy

FOLDER = Path(mlopsdeploy.__file__).parent / "builtin" / "fraud"
TRANSACTIONS = Path(__file__).resolve().parent.parent / "examples" / "transactions.csv"
LARGE = np.finfo(np.float32).max


@pytest.fixture(scope="module")
def said():
    return yaml.safe_load((FOLDER / "model.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def transactions():
    """Shape (200, 30), in the file's order of columns."""
    return np.loadtxt(TRANSACTIONS, np.float32, delimiter=",", skiprows=1)


@pytest.fixture(scope="module")
def score():
    """Probabilities of fraud by LiteRT, for any number of rows at a time."""
    interpreter = Interpreter(str(FOLDER / "model.tflite"))
    place = interpreter.get_input_details()[0]["index"]

    def run(rows):
        interpreter.resize_tensor_input(place, rows.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, rows.astype(np.float32))
        interpreter.invoke()
        scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert scores.shape == (len(rows), 1)
        return scores[:, 0]

    return run


def test_every_file_that_shapes_answers_has_a_true_checksum(said):
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.suffix in (".keras", ".tflite")
    }
    assert sums == said["sha256"]


def test_it_is_small_and_says_where_it_is_from():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 100_000
    assert "DbCL" in (FOLDER / "MODEL_CARD.md").read_text("utf-8")
    assert "Dal Pozzolo" in (FOLDER / "NOTICE").read_text("utf-8")


def test_the_file_says_what_it_takes_and_gives():
    interpreter = Interpreter(str(FOLDER / "model.tflite"))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["transaction"], "outputs": ["fraud_probability"]}
    }
    given = interpreter.get_input_details()[0]
    assert given["shape_signature"].tolist() == [-1, 30]
    assert given["dtype"] is np.float32


def test_the_example_is_a_legitimate_transaction(said, score):
    assert list(said["example"]) == said["features"]
    row = np.array([list(said["example"].values())])
    assert score(row)[0] < said["threshold"]


def test_the_examples_hold_some_of_each_class(said, transactions, score):
    with TRANSACTIONS.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == said["features"]
    assert transactions.shape == (200, 30)
    flagged = int((score(transactions) >= said["threshold"]).sum())
    assert 8 <= flagged <= 14  # 12 were drawn from the distribution of fraud


def test_rows_do_not_depend_on_their_neighbours(transactions, score):
    together = score(transactions)
    for count in (1, 3, 64):
        parts = [
            score(transactions[start : start + count])
            for start in range(0, len(transactions), count)
        ]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-6, rtol=0)


def test_time_is_not_used(transactions, score):
    later = transactions.copy()
    later[:, 0] = np.linspace(0, 1e9, len(later))
    assert score(later).tolist() == score(transactions).tolist()


@pytest.mark.parametrize("value", [0, 1e-38, 1e30, -1e30, LARGE, -LARGE])
def test_absurd_values_give_probabilities(transactions, score, value):
    everywhere = np.full((2, 30), value)
    each = np.repeat(transactions[:1], 30, axis=0)
    np.fill_diagonal(each, value)
    scores = score(np.concatenate([everywhere, each]))
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


IN_KERAS = """
import json, sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
assert model.input_shape == (None, 30), model.input_shape
scores = np.asarray(model(np.load(sys.argv[2])))
print(json.dumps({
    "scores": scores[:, 0].tolist(),
    "optimizer": getattr(model, "optimizer", None) is not None,
    "layers": [type(layer).__name__ for layer in model.layers],
}))
"""


def test_both_files_are_one_model(forks, transactions, score, tmp_path):
    """In a process of its own: TensorFlow keeps its threads."""
    wild = np.random.default_rng(1).normal(0, 1e3, (200, 30))
    absurd = np.array([[1e30] * 30, [-1e30] * 30, [0] * 30])
    rows = np.concatenate([transactions, wild, absurd]).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    script = tmp_path / "in_keras.py"
    script.write_text(IN_KERAS, "utf-8")
    words = [script, FOLDER / "model.keras", tmp_path / "rows.npy"]
    done = forks.run([sys.executable, "-P", *words], text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(score(rows), found["scores"], atol=1e-6, rtol=0)
    assert not found["optimizer"]
    assert found["layers"] == ["InputLayer", "Normalization", "Activation", "Dense", "Dense"]
