"""Folders that `--model` takes, and that answer as what they were made from."""

import numpy as np
import pytest
import yaml

from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.models import convert as compiling
from mlopsdeploy.models.convert import compile_model, show_compiled
from mlopsdeploy.models.verify import verify_model


def test_a_text_classifier_as_openvino(bert, tmp_path, reviews, shown):
    output = tmp_path / "compiled"
    found = compile_model(str(bert), to="openvino", output=str(output))
    assert found["loaded_from_there"]["agrees"]
    assert found["made_from"]["format"] == "onnx"
    assert "--model" in shown(show_compiled, found)
    said = yaml.safe_load((output / "model.yaml").read_text("utf-8"))
    assert set(said["sha256"]) >= {"openvino_model.xml", "openvino_model.bin", "tokenizer.json"}
    columns = {"text": objects(reviews(20))}
    expected, got = (
        load_model(str(path), runtime="openvino", precision="float32", threads=1).predict(columns)
        for path in (bert, output)
    )
    assert got["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(got["scores"], expected["scores"], atol=1e-5)
    assert verify_model(str(output))["ok"]


def test_a_checkpoint_brings_its_proof(bert_checkpoint, tmp_path):
    found = compile_model(str(bert_checkpoint), output=str(tmp_path / "made"))
    assert found["to"] == "onnx"
    assert found["proof"]["label_flips"] == 0
    said = yaml.safe_load((tmp_path / "made" / "model.yaml").read_text("utf-8"))
    assert said["proof"] == found["proof"]
    assert said["made_from"]["digest"] == found["made_from"]["digest"]
    assert not (tmp_path / "made" / "model.safetensors").exists()


def test_features_that_only_the_file_names_go_into_the_yaml(churn_onnx, tmp_path):
    compile_model(str(churn_onnx), to="openvino", output=str(tmp_path / "made"))
    model = load_model(str(tmp_path / "made"), precision="float32", threads=1)
    assert [field.name for field in model.task.inputs] == ["age", "visits", "spend"]
    row = {"age": np.array([40.0]), "visits": np.array([1.0]), "spend": np.array([80.0])}
    assert model.predict(row)["scores"][0, 1] == pytest.approx(1 / (1 + np.exp(-1.4)), abs=1e-4)


def test_fraud_as_litert_keeps_its_threshold_and_its_route(fraud_folder, tmp_path):
    compile_model(str(fraud_folder), to="litert", output=str(tmp_path / "made"))
    model, original = load_model(str(tmp_path / "made")), load_model("fraud")
    assert model.yaml.serve == original.yaml.serve
    assert model.task.threshold == original.task.threshold
    assert model.task.labels == ("legitimate", "fraud")
    assert (tmp_path / "made" / "MODEL_CARD.md").exists()


def test_what_can_not_be_is_one_line(bert, tmp_path):
    with pytest.raises(ModelError, match="has onnx; litert is made from Keras"):
        compile_model(str(bert), to="litert", output=str(tmp_path / "made"))
    with pytest.raises(ConfigError, match="--to tensorrt: expected onnx, litert, openvino"):
        compile_model(str(bert), to="tensorrt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="is there already"):
        compile_model(str(bert), output=str(tmp_path / "full"))
    with pytest.raises(ConfigError, match="does not exist"):
        compile_model(str(bert), output=str(tmp_path / "none" / "made"))


def test_without_a_proof_there_is_no_folder(churn_onnx, tmp_path, monkeypatch):
    real = compiling.answers

    def off(model, rows):
        found = real(model, rows)
        return {**found, "scores": found["scores"] + (type(model.runtime).__name__ == "OpenVino")}

    monkeypatch.setattr(compiling, "answers", off)
    with pytest.raises(ModelError, match="answers differently, by 1; nothing was written"):
        compile_model(str(churn_onnx), to="openvino", output=str(tmp_path / "made"))
    assert not (tmp_path / "made").exists()
