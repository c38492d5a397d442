"""What was proven still holds, or it is said what does not."""

import shutil

import pytest
import yaml

from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.models import verify
from mlopsdeploy.models.verify import show_verified, verify_model


def results(found):
    return {check["what"]: check["result"] for check in found["checks"]}


def test_the_built_in_fraud_holds(fraud_folder, shown):
    found = verify_model(str(fraud_folder))
    assert found["ok"]
    got = results(found)
    assert (got["sha256"], got["loads"], got["example"]) == ("ok", "ok", "ok")
    assert got["litert float32"] == "ok"
    assert "all that was checked holds" in shown(show_verified, found)


def test_the_example_of_a_detector_is_a_picture():
    found = verify_model("detector")
    (example,) = [check for check in found["checks"] if check["what"] == "example"]
    assert example["result"] == "ok"
    assert "Car " in str(example)


def test_every_runtime_answers_alike(bert):
    found = verify_model(str(bert))
    assert found["ok"]
    got = results(found)
    assert got["openvino float32"] == got["onnxruntime float32"] == "ok"
    assert got["sha256"] == "skipped"


def test_a_changed_file_fails(tmp_path, churn_onnx, shown):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(churn_onnx, folder / "model.onnx")
    said = {"task": "tabular_classification", "sha256": {"model.onnx": "0" * 64}}
    (folder / "model.yaml").write_text(yaml.safe_dump(said), "utf-8")
    found = verify_model(str(folder))
    assert not found["ok"]
    assert results(found) == {"files": "failed"}
    assert "SHA-256 is not the one in model.yaml" in found["checks"][0]["detail"]
    assert "1 failed" in shown(show_verified, found, width=400)  # the path may be long


def test_a_runtime_that_answers_otherwise_fails(bert, monkeypatch):
    real = verify.answers

    def off(model, rows):
        found = real(model, rows)
        return (
            {**found, "scores": found["scores"] * (0.9 if model.runtime.outputs else 1)}
            if (type(model.runtime).__name__ == "OnnxRuntime")
            else found
        )

    monkeypatch.setattr(verify, "answers", off)
    found = verify_model(str(bert))
    assert not found["ok"]
    assert results(found)["onnxruntime float32"] == "failed"


def test_of_models_side_by_side_each_is_checked(bert, tmp_path):
    for name, language in {"english": "en", "german": "de"}.items():
        shutil.copytree(bert, tmp_path / name)
        (tmp_path / name / "model.yaml").write_text(f"languages: [{language}]\n", "utf-8")
    both = f"{tmp_path}/english,{tmp_path}/german"
    found = verify_model(both)
    assert found["ok"]
    assert found["digest"] == find_model(both).digest
    assert results(found)[f"{tmp_path}/german: loads"] == "ok"
    said = f"languages: [de]\nsha256: {{config.json: {'0' * 64}}}\n"
    (tmp_path / "german" / "model.yaml").write_text(said, "utf-8")
    found = verify_model(both)
    assert not found["ok"]
    assert results(found)[f"{tmp_path}/german: files"] == "failed"
    assert results(found)[f"{tmp_path}/english: loads"] == "ok"


def test_a_model_that_is_not_there_is_an_error():
    with pytest.raises(ModelError, match="no model called"):
        verify_model("nothing")


def test_a_runtime_that_can_not_compute_the_model_is_noted(bert, monkeypatch):
    real = verify.answers

    def broken(model, rows):
        if model.runtime.name == "onnxruntime":
            raise ModelError("can't compute it")
        return real(model, rows)

    monkeypatch.setattr(verify, "answers", broken)
    found = verify_model(str(bert), all_runtimes=True)
    skipped = [c for c in found["checks"] if c["detail"] == "can't compute it"]
    assert skipped
    assert {check["result"] for check in skipped} <= {"skipped", "failed"}
