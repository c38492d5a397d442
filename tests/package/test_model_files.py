"""Models as packages carry them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from mlopsdeploy.config import Running
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model import load_model
from mlopsdeploy.models import find_model
from mlopsdeploy.package.model_files import pack


def packed(reference, tmp_path, **running):
    said = []
    made = pack(str(reference), "m", Running(**running), tmp_path / "models", said.append)
    return made, tmp_path / "models" / "m"


def test_a_file_becomes_a_folder_with_its_sums(churn_onnx, tmp_path):
    model, folder = packed(churn_onnx, tmp_path)
    assert (model.runtime, model.task) == ("onnxruntime", "tabular_classification")
    assert model.digest == find_model(str(folder)).digest
    said = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert list(said["sha256"]) == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == churn_onnx.read_bytes()
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        find_model(str(folder))


def test_what_stands_beside_a_file_goes_with_it(churn_onnx, tmp_path):
    copy = tmp_path / "churn.onnx"
    shutil.copyfile(churn_onnx, copy)
    said = {"version": "3.1", "threshold": 0.7, "labels": ["stays", "leaves"]}
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(said), "utf-8")
    model, folder = packed(copy, tmp_path)
    assert model.version == "3.1"
    row = {"age": np.array([80.0]), "visits": np.array([0.0]), "spend": np.array([10.0])}
    ours, theirs = load_model(str(folder)).predict(row), load_model(str(copy)).predict(row)
    assert ours["label"].tolist() == theirs["label"].tolist() == ["leaves"]


def test_a_text_model_takes_its_tokenizer_along(bert, tmp_path):
    _, folder = packed(bert, tmp_path, runtime="onnxruntime", precision="float32")
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "model.yaml"} <= names
    text = {"text": np.array(["it was very good", "awful service"], object)}
    ours = load_model(str(folder), runtime="onnxruntime", precision="float32").predict(text)
    theirs = load_model(str(bert), runtime="onnxruntime", precision="float32").predict(text)
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-6)


def test_a_checkpoint_becomes_onnx_so_that_no_framework_is_needed(bert_checkpoint, tmp_path):
    model, folder = packed(bert_checkpoint, tmp_path, runtime="onnxruntime")
    names = {path.name for path in folder.iterdir()}
    assert "model.onnx" in names
    assert not [name for name in names if "safetensors" in name]
    assert model.runtime == "onnxruntime"


KERAS = """
import sys, keras
keras.utils.set_random_seed(7)
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
model.save(sys.argv[1])
"""


def test_a_keras_file_becomes_litert_with_its_proof(tmp_path):
    source = tmp_path / "churn.keras"
    subprocess.run(
        [sys.executable, "-c", KERAS, str(source)], check=True, timeout=120, capture_output=True
    )
    (tmp_path / "churn.yaml").write_text("features: [age, visits, spend]\n", "utf-8")
    model, folder = packed(source, tmp_path)
    assert model.runtime == "litert"
    assert {path.name for path in folder.iterdir()} == {
        "model.tflite", "model.yaml", "parity.json",
    }  # fmt: skip
    assert json.loads((folder / "parity.json").read_text("utf-8"))["label_flips"] == 0


def test_a_built_in_model_stays_in_the_wheel(tmp_path):
    model, folder = packed("fraud", tmp_path)
    assert model.built_in
    assert not folder.exists()


def test_the_packaged_yaml_pins_the_digest(packaged, churn_onnx):
    folder = packaged("serve", "systemd", models=[str(churn_onnx)])
    [served] = yaml.safe_load((folder / "serve.yaml").read_text("utf-8"))["models"]
    assert served["digest"] == find_model(str(folder / "models" / "churn")).digest


def test_a_training_framework_is_refused(bert_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="a training framework"):
        packed(bert_checkpoint, tmp_path, runtime="torch")
