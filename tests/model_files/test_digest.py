"""A digest covers everything that shapes an answer, and nothing else."""

import hashlib
import json
import re
import shutil

import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model

from .external import with_weights_in

SHAPING = [
    "labels: [a, b]", "threshold: 0.4", "features: [a, b]", "precision: float32", "output: x",
    "task: tabular_classification", "activation: softmax", "label_offset: 1", "input: {mean: 3}",
    "outputs: {logits: true}", "boxes: {size: [3, 3], strides: [1]}",
]  # fmt: skip
NOT_SHAPING = [
    "name: other", "version: 1.10", "description: of a model", "example: [1, 2]",
    "serve: {route: /a}", "proof: {rows: 3}",
]  # fmt: skip


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"weights")
    return tmp_path


def described(model, text):
    (model / "model.yaml").write_text(text, "utf-8")
    return find_model(str(model))


def test_keys_that_shape_answers(model):
    plain, digests = described(model, "name: m"), set()
    for key in SHAPING:
        changed = described(model, key)
        assert key.partition(":")[0] in changed.digest_covers["keys"]
        assert changed.weights == plain.weights  # nothing is compiled anew
        digests.add(changed.digest)
    assert len(digests - {plain.digest}) == len(SHAPING)


@pytest.mark.parametrize("key", NOT_SHAPING)
def test_keys_that_do_not(model, key):
    assert described(model, key).digest == described(model, "name: m").digest


@pytest.mark.parametrize("name", ["model.keras", "model.safetensors"])
def test_files_with_weights(model, name):
    before = described(model, "name: m")
    (model / name).write_bytes(b"more")
    after = described(model, "name: m")
    assert after.digest != before.digest
    assert after.weights != before.weights


@pytest.mark.parametrize("name", ["model.onnx_data", "weights.bin", "parts/one.data"])
def test_files_that_an_onnx_graph_names(tmp_path, name):
    weights = with_weights_in(name, tmp_path)
    before = described(tmp_path, "name: m")
    assert before.digest_covers["files"].keys() == {"model.onnx", f"onnx:{name}"}
    (tmp_path / "model.onnx").rename(tmp_path / "other.onnx")
    (tmp_path / "other.yaml").write_text("name: m", "utf-8")
    assert find_model(str(tmp_path / "other.onnx")).digest == before.digest
    weights.write_bytes(weights.read_bytes()[::-1])
    after = find_model(str(tmp_path / "other.onnx"))
    assert after.digest != before.digest
    assert after.weights != before.weights


def test_each_file_with_weights_of_a_checkpoint(model):
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "odd"}}), "utf-8")
    for name in ("model-1.safetensors", "odd"):
        with pytest.raises(ModelError, match=f"{name}: missing; model.safetensors.index.json na"):
            described(model, "name: m")
        (model / name).write_bytes(b"some")
    before = described(model, "name: m")
    (model / "odd").write_bytes(b"others")
    assert described(model, "name: m").digest != before.digest


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
     "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model",
     "onnx/model.onnx"],
)  # fmt: skip
def test_files_of_a_text_model(tmp_path, bert, name):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    before = find_model(str(folder))
    file = folder / name
    file.write_bytes((file.read_bytes() if file.exists() else b"{}") + b"\n")
    after = find_model(str(folder))
    assert after.digest != before.digest
    assert name.removeprefix("onnx/") in after.digest_covers["files"]


def test_labels_wherever_they_stand(model):
    (model / "names.txt").write_text("a\nb\n", "utf-8")
    first = described(model, "labels: names.txt").digest
    assert described(model, "labels: [a, b]").digest == first
    (model / "names.txt").write_text("b\na\n", "utf-8")
    assert described(model, "labels: names.txt").digest != first


@pytest.mark.parametrize("change", ["threshold: 0.9", "labels: [fraud, legitimate]"])
def test_a_pinned_digest_refuses_what_was_changed(tmp_path, change):
    folder = tmp_path / "fraud"
    shutil.copytree(find_model("fraud").graphs["tflite"].parent, folder)
    digest = find_model(str(folder)).digest
    assert digest == find_model("fraud").digest
    assert load_model(str(folder), digest=digest).digest == digest
    file = folder / "model.yaml"
    line = re.compile(f"^{change.partition(':')[0]}:.*", re.MULTILINE)
    file.write_text(line.sub(change, file.read_text("utf-8")), "utf-8")
    with pytest.raises(ModelError, match="another model than the one that was pinned"):
        load_model(str(folder), digest=digest)


@pytest.mark.parametrize(
    ("file", "yaml_file"),
    [("model.onnx", "model.yaml"), ("detect.onnx", "detect.yaml"), ("detect.onnx", "model.yaml"),
     ("onnx/model.onnx", "model.yaml")],
)  # fmt: skip
def test_sums_are_verified_whichever_way_a_model_is_named(tmp_path, file, yaml_file):
    graph = tmp_path / file
    graph.parent.mkdir(exist_ok=True)
    graph.write_bytes(b"weights")
    total = hashlib.sha256(b"weights").hexdigest().upper()
    (tmp_path / yaml_file).write_text(f"version: 3\nsha256: {{{file}: {total}}}\n", "utf-8")
    assert find_model(str(graph)).version == "3"
    graph.write_bytes(b"others")
    with pytest.raises(ModelError, match=f"SHA-256 is not the one in {yaml_file}"):
        find_model(str(graph))
