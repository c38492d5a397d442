"""Folders that `--model` takes, and that answer as what they were made from."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import yaml

from mlopsdeploy.columns import objects
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.models import convert as compiling
from mlopsdeploy.models.convert import compile_model, show_compiled
from mlopsdeploy.models.verify import verify_model


def test_a_text_classifier_as_openvino(bert, tmp_path, reviews, shown):
    output, bert = tmp_path / "compiled", shutil.copytree(bert, tmp_path / "bert")
    (bert / "README.md").write_text("---\nlanguage: en\n---\n", "utf-8")
    found = compile_model(str(bert), to="openvino", output=str(output))
    assert found["loaded_from_there"]["agrees"]
    assert found["made_from"]["format"] == "onnx"
    assert "--model" in shown(show_compiled, found)
    said = yaml.safe_load((output / "model.yaml").read_text("utf-8"))
    assert said["languages"] == ["en"], "as the card of the other has it"
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
    with pytest.raises(
        ConfigError, match="is 2 models; compile each by itself, then .* --model A,B"
    ):
        compile_model("sentiment,sentiment-zh")
    with pytest.raises(ConfigError, match="--to tensorrt: expected onnx, litert, openvino"):
        compile_model(str(bert), to="tensorrt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="is there already"):
        compile_model(str(bert), output=str(tmp_path / "full"))
    with pytest.raises(ConfigError, match="does not exist"):
        compile_model(str(bert), output=str(tmp_path / "none" / "made"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/proc/made", r"/proc can't be written \(.+\); name another$"),
        ("loop", r"loop: can't be looked into \(.+\)$"),
        ("gone/made", "does not exist"),
        ("to-gone", "does not exist"),
        ("/dev/shm", "is a mount point"),
        ("to-shm", "is a mount point"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    churn_onnx, tmp_path, monkeypatch, output, message
):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to-gone").symlink_to("gone/made")
    (tmp_path / "to-shm").symlink_to("/dev/shm")
    if "mount" in message and not Path("/dev/shm").is_mount():
        pytest.skip("no mount point is known here")
    monkeypatch.setattr(compiling, "_graph", None)  # the work
    monkeypatch.chdir(tmp_path)
    for overwrite in (True, False):
        with pytest.raises(ConfigError, match=message) as raised:
            compile_model(str(churn_onnx), output=output, overwrite=overwrite)
        assert str(raised.value).startswith(f"--output {output}: ")
        assert "\n" not in str(raised.value)


def test_an_empty_folder_and_what_a_link_leads_to_are_filled(churn_onnx, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "ahead").symlink_to("made")
    for name in ("link", "empty", "ahead"):
        found = compile_model(str(churn_onnx), output=str(tmp_path / name), overwrite=True)
        assert "model.yaml" in found["files"]
        assert verify_model(str(tmp_path / name))["ok"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ahead", "empty", "link", "made"]
    assert (tmp_path / "link").is_symlink()


def test_without_a_proof_there_is_no_folder(churn_onnx, tmp_path, monkeypatch):
    real = compiling.answers

    def off(model, rows):
        found = real(model, rows)
        return {**found, "scores": found["scores"] + (type(model.runtime).__name__ == "OpenVino")}

    monkeypatch.setattr(compiling, "answers", off)
    with pytest.raises(ModelError, match="answers differently, by 1; nothing was written"):
        compile_model(str(churn_onnx), to="openvino", output=str(tmp_path / "made"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").touch()
    with pytest.raises(ModelError, match="nothing was written"):
        compile_model(str(churn_onnx), output=str(tmp_path / "made"), overwrite=True)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["old"]


def test_openvino_keeps_how_outputs_are_made(tmp_path):
    """Its own files have no place for what ONNX tells: two sigmoids are two labels a row."""
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,3] x) => (float[n,2] p) <float[3,2] w = {1.0, 0.0, 0.0, 1.0, 0.0, 0.0}> {
          z = MatMul(x, w)
          p = Sigmoid(z)
        }"""
    )
    onnx.save(graph, str(tmp_path / "tags.onnx"))
    source = load_model(str(tmp_path / "tags.onnx"), runtime="onnxruntime")
    compile_model(str(tmp_path / "tags.onnx"), to="openvino", output=str(tmp_path / "made"))
    made = load_model(str(tmp_path / "made"), runtime="openvino", precision="float32")
    rows = np.array([[3, 3, 0], [3, -3, 0]], np.float32)
    for model in (source, made):
        assert model.task.multi_label
        assert model.predict(rows)["label"].tolist() == ["0|1", "0"]
