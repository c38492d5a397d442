"""The sentiment model that travels in the wheel."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlopsdeploy
from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.resolve import built_in

FOLDER = Path(mlopsdeploy.__file__).parent / "builtin" / "sentiment"
REVIEWS = Path(__file__).resolve().parent.parent / "examples" / "reviews.csv"

PLAIN = {
    "I love it, works perfectly.": "POSITIVE",
    "Best purchase I have made this year.": "POSITIVE",
    "The food was delicious and the staff were friendly.": "POSITIVE",
    "Great value for money, highly recommended.": "POSITIVE",
    "A wonderful, moving film.": "POSITIVE",
    "Arrived early, well packed, and exactly as described.": "POSITIVE",
    "Not bad at all, I would buy it again.": "POSITIVE",
    "Terrible. It broke after one day.": "NEGATIVE",
    "A complete waste of money.": "NEGATIVE",
    "The service was slow and the food was cold.": "NEGATIVE",
    "I want my money back.": "NEGATIVE",
    "Boring, far too long and badly acted.": "NEGATIVE",
    "It is not good.": "NEGATIVE",
    "The worst hotel I have ever stayed in.": "NEGATIVE",
}


@pytest.fixture(scope="module")
def examples():
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        texts = [row["review_text"] for row in csv.DictReader(file)]
    return {"text": objects([text for text in texts if text.strip()])}


@pytest.fixture(scope="module")
def in_float(examples):
    """Predictions of the examples by ONNX Runtime in float32."""
    return load_model(runtime="onnxruntime", precision="float32").predict(examples)


def test_it_is_there_and_small_enough():
    assert "sentiment" in built_in()
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert 1 << 20 < size < 30 << 20
    assert (FOLDER / "MODEL_CARD.md").is_file()


def test_every_file_that_shapes_answers_has_a_true_checksum():
    said = yaml.safe_load((FOLDER / "model.yaml").read_text("utf-8"))
    for name, expected in said["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected, name
    shaping = {path.name for path in FOLDER.iterdir() if path.suffix in (".onnx", ".json")}
    assert shaping <= set(said["sha256"])
    files = find_model("sentiment")
    assert files.labels == ("NEGATIVE", "POSITIVE")
    assert files.version


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_plain_sentences(precision):
    model = load_model(precision=precision)
    result = model.predict({"text": objects(list(PLAIN))})
    assert dict(zip(PLAIN, result["label"], strict=True)) == PLAIN


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_runtimes_agree_in_float32(examples, in_float, runtime):
    result = load_model(runtime=runtime, precision="float32").predict(examples)
    np.testing.assert_allclose(result["scores"], in_float["scores"], atol=1e-4)
    assert result["label"].tolist() == in_float["label"].tolist()


@pytest.mark.parametrize("precision", ["auto", "int8", "bfloat16"])
def test_low_precisions_flip_hardly_a_label(examples, in_float, precision):
    from mlopsdeploy.errors import ConfigError

    try:
        model = load_model(runtime="openvino", precision=precision)
    except ConfigError as error:
        pytest.skip(str(error))
    result = model.predict(examples)
    flips = (result["label"] != in_float["label"]).mean()
    assert flips <= 0.005


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_copy_is_refused(tmp_path, name):
    copy = tmp_path / "sentiment"
    shutil.copytree(FOLDER, copy)
    assert find_model(str(copy)).digest == find_model("sentiment").digest
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ModelError, match=rf"{name}: its SHA-256 is not the one in model.yaml"):
        find_model(str(copy))


def test_the_example_from_the_outside(mlopsdeploy, tmp_path):
    shutil.copy(REVIEWS, tmp_path / "reviews.csv")
    done = mlopsdeploy("batch", "reviews.csv", "--json")
    assert done.code == 0, done
    summary = json.loads(done.out)
    assert set(summary["labels"]) <= {"NEGATIVE", "POSITIVE"}
    assert summary["failed"] == 0
    assert summary["model"]["name"] == "sentiment"
    with (tmp_path / "reviews.predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # The stars are not what the model sees, but most of them should be what it says.
    clear = [row for row in rows if row["rating"] in "15" and row["rating"] and row["label"]]
    right = sum((row["rating"] == "5") == (row["label"] == "POSITIVE") for row in clear)
    assert right / len(clear) > 0.7
