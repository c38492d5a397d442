"""Models as packages carry them."""

import shutil
from importlib import resources

import numpy as np
import pytest
import yaml

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.package.packing import pack
from mlopsdeploy.settings import Running


def packed(reference, tmp_path, **running):
    made = pack(str(reference), "m", Running(**running), tmp_path / "models", lambda _: None)
    return made, tmp_path / "models" / "m"


def test_a_file_becomes_a_folder_with_its_sums(churn_onnx, tmp_path):
    model, folder = packed(churn_onnx, tmp_path)
    assert (model.runtime, model.task) == ("onnxruntime", "tabular_classification")
    assert model.digest == find_model(str(folder)).digest
    described = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert list(described["sha256"]) == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == churn_onnx.read_bytes()
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        find_model(str(folder))


def test_what_stands_beside_a_file_goes_with_it(churn_onnx, tmp_path):
    copy = tmp_path / "churn.onnx"
    shutil.copyfile(churn_onnx, copy)
    beside = {"version": "3.1", "threshold": 0.7, "labels": ["stays", "leaves"]}
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(beside), "utf-8")
    model, folder = packed(copy, tmp_path)
    assert model.version == "3.1"
    row = {"age": np.array([80.0]), "visits": np.array([0.0]), "spend": np.array([10.0])}
    ours, theirs = load_model(str(folder)).predict(row), load_model(str(copy)).predict(row)
    assert ours["label"].tolist() == theirs["label"].tolist() == ["leaves"]


@pytest.mark.parametrize("source", ["bert", "bert_checkpoint"])
def test_a_text_model_is_onnx_with_its_tokenizer_and_needs_no_framework(source, request, tmp_path):
    original = request.getfixturevalue(source)
    running = {"runtime": "onnxruntime", "precision": "float32"}
    model, folder = packed(original, tmp_path, **running)
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "model.yaml"} <= names
    assert not [name for name in names if "safetensors" in name]
    assert model.runtime == "onnxruntime"
    text = {"text": np.array(["it was very good", "awful service"], object)}
    ours, theirs = (load_model(str(path), **running).predict(text) for path in (folder, original))
    np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "source", "carried"),
    [
        ("{en},{zh}", "{models}/bert,{models}/bert-2", {"bert", "bert-2"}),
        ("sentiment, {zh}", "sentiment,{models}/bert", {"bert"}),
        ("sentiment,sentiment-zh", "sentiment,sentiment-zh", set()),
    ],
)
def test_models_side_by_side_go_as_one(side_by_side, tmp_path, given, source, carried):
    en, zh = side_by_side
    reference, models = given.format(en=en, zh=zh), tmp_path / "models"
    model = pack(reference, "m", Running(), models, lambda _: None, taken=["m"])
    assert {path.name for path in models.glob("*")} == carried
    assert [part.name for part in model.parts if not part.built_in] == sorted(carried)
    assert model.built_in == (not carried)
    assert model.bytes == sum(part.bytes for part in model.parts)
    assert (model.name, model.runtime, model.task) == ("m", "openvino", "text_classification")
    there = model.reference(str(models))
    assert there == source.format(models=models)
    assert load_model(there, digest=model.digest).digest == find_model(there).digest


def test_a_keras_file_becomes_litert_with_its_proof(tmp_path):
    builtin = resources.files("mlopsdeploy") / "builtin" / "fraud"
    source = tmp_path / "cards.keras"
    source.write_bytes((builtin / "model.keras").read_bytes())
    described = yaml.safe_load((builtin / "model.yaml").read_text("utf-8"))
    beside = {"features": described["features"]}
    source.with_suffix(".yaml").write_text(yaml.safe_dump(beside), "utf-8")
    model, folder = packed(source, tmp_path)
    assert model.runtime == "litert"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["model.tflite", "model.yaml"]
    written = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert written["proof"]["label_flips"] == 0


def test_int8_that_was_calibrated_here_goes_with_its_proof(bert, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    running = {"runtime": "openvino", "precision": "int8"}
    with pytest.raises(ConfigError, match=r"calibrated on your rows.*'mlopsdeploy models quantise"):
        packed(bert, tmp_path / "without", **running)
    rows = {"text": np.array(reviews(300), object)}
    here = load_model(str(bert), calibrate=lambda: rows, max_flips=0.2, threads=1, **running)
    model, folder = packed(bert, tmp_path, **running)
    described = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    assert described["proof"] == here.proof
    graphs = {"openvino_model.xml", "openvino_model.bin", "float32.xml", "float32.bin"}
    assert graphs <= set(described["sha256"])
    assert model.digest == find_model(str(folder)).digest
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "elsewhere"))
    there = load_model(str(folder), threads=1, digest=model.digest, **running)
    assert (there.runtime.precision, there.proof) == ("int8", {})
    ours, theirs = (one.predict(rows) for one in (here, there))
    assert (ours["label"] == theirs["label"]).all()
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-6)
    (folder / "LICENSE").write_text("MIT", "utf-8")
    again, second = packed(folder, tmp_path / "again")
    assert (second / "LICENSE").read_text("utf-8") == "MIT"
    assert (again.digest, again.runtime) == (model.digest, "openvino")
    assert (second / "float32.bin").read_bytes() == (folder / "float32.bin").read_bytes()


def test_the_packaged_yaml_pins_what_shapes_answers(packaged, churn_onnx, tmp_path):
    """Models that differ in nothing else differ in their packages as well."""
    texts = set()
    for number, key in enumerate(("threshold: 0.4", "threshold: 0.6", "labels: [a, b]")):
        place = tmp_path / str(number)
        place.mkdir()
        shutil.copyfile(churn_onnx, place / "churn.onnx")
        (place / "churn.yaml").write_text(f"version: '1'\n{key}\n", "utf-8")
        folder = packaged("serve", "kubernetes", models=[str(place / "churn.onnx")])
        texts.add((folder / "kubernetes" / "deployment.yaml").read_text("utf-8"))
        [served] = yaml.safe_load((folder / "serve.yaml").read_text("utf-8"))["models"]
        assert served["digest"] == find_model(str(folder / "models" / "churn")).digest
    assert len(texts) == 3


def test_a_training_framework_is_refused(bert_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="a training framework"):
        packed(bert_checkpoint, tmp_path, runtime="torch")
