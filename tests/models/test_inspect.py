import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from mlopsdeploy.cli import app
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.model_files import find_model
from mlopsdeploy.models import inspect
from mlopsdeploy.models.inspect import inspect_model, show

PAIR = "sentiment,sentiment-zh"


def test_inspect_says_what_was_understood_and_why(mlopsdeploy, tflite_models):
    done = mlopsdeploy("models", "inspect", tflite_models / "post_process.tflite")
    assert done.code == 0, done
    out = done.out.decode()
    lines = out.splitlines()
    assert lines[0].startswith("post_process: object detection on litert float32, ready in ")
    assert ["what", "understood", "as", "because", "of"] in [line.split() for line in lines]
    assert "runtime    litert: the first choice for its format" in out
    assert out.count("threshold") == 1
    assert any("y1 x1 y2 x2" in line for line in lines)
    assert done.err == ""


def test_inspect_as_json(tflite_models):
    file = str(tflite_models / "described.tflite")
    result = CliRunner().invoke(app, ["models", "inspect", file, "--json", "--no-speed"])
    report = json.loads(result.stdout)
    assert report["task"] == "image_classification"
    assert report["labels"] == ["red", "green", "blue"]
    assert report["tensors"]["inputs"] == [
        {"name": "picture", "dtype": "float32", "shape": [64, 64, 3]}
    ]
    assert [field["name"] for field in report["outputs"]] == ["label", "score", "scores"]
    why = {entry["name"]: entry["source"] for entry in report["facts"]}
    assert why["normalisation"] == "the file's metadata"


def test_json_says_what_the_digest_covers(churn_onnx, tmp_path):
    shutil.copyfile(churn_onnx, tmp_path / "model.onnx")
    found = []
    for threshold in (0.4, 0.6):
        (tmp_path / "model.yaml").write_text(f"name: a\nthreshold: {threshold}\n", "utf-8")
        found.append(inspect_model(str(tmp_path)))
    for report in found:
        assert list(report["digest_covers"]["files"]) == ["model.onnx"]
        assert list(report["digest_covers"]["keys"]) == ["threshold"]
    assert found[0]["digest"] != found[1]["digest"]


def test_inspect_of_a_model_that_leaves_nothing_to_find_out(shown):
    report = inspect_model("fraud")
    assert report["task"] == "tabular_classification"
    assert not report["doubts"]
    sources = {fact["source"] for fact in report["facts"]}
    assert sources == {"the file", "its last step, Sigmoid", "model.yaml"}
    assert report["doubts"] == []
    text = shown(show, report, width=200)
    assert re.search(r"inputs +30 × float32: Time, V1,", text)
    assert "2: legitimate, fraud" in text
    assert "transaction (30) float32 → fraud_probability (1) float32" in text


def test_inspect_of_models_side_by_side_shows_each(shown):
    report = inspect_model(PAIR)
    assert (report["name"], report["languages"]) == (PAIR, ["en", "zh"])
    assert report["digest"] == find_model(PAIR).digest
    assert [part["digest"] for part in report["parts"]] == [
        find_model(part).digest for part in PAIR.split(",")
    ]
    text = shown(show, report, width=200)
    assert "reads   en by sentiment; zh by sentiment-zh; any other by sentiment" in text
    assert text.count(" (from model.yaml)") == 2
    assert all(part["digest"] in text for part in (report, *report["parts"]))


def test_inspect_says_where_the_languages_come_from(bert, tmp_path, shown):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    assert "languages  nothing names them" in shown(show, inspect_model(str(folder)), width=200)
    (folder / "README.md").write_text("---\nlanguage: [en, de]\n---\n# A model\n", "utf-8")
    text = shown(show, inspect_model(str(folder)), width=200)
    assert "languages  en, de (from README.md)" in text


def test_inspect_says_which_file_runs_on_what_and_why(bert, bert_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))
    said = []
    report = inspect_model(str(bert_checkpoint), runtime="onnxruntime", log=said.append)
    assert report["runs"] == "model.onnx, compiled here from a checkpoint"
    assert report["compiled"]["label_flips"] == 0
    assert report["runtime_why"] == "asked for"
    assert report["precision_why"] == "onnxruntime runs files as they are"
    assert said[0].startswith("exporting")
    report = inspect_model(str(bert))
    assert report["runs"] == "model.onnx"
    assert report["compiled"] == {}
    assert report["runtime_why"] == "the first choice for texts"
    assert "this CPU has" in report["precision_why"]
    assert report["labels_from"] == "config.json"
    assert report["inputs"] == [{"name": "text", "dtype": "str", "shape": []}]


def test_what_has_no_names_is_said(churn_onnx, shown):
    report = inspect_model(str(churn_onnx), runtime="onnxruntime")
    assert "2 classes by number  nothing names them" in shown(show, report)


def test_what_is_missing_is_why_another_runtime_runs(bert, monkeypatch):
    installed = inspect.plugins.installed
    monkeypatch.setattr(
        inspect.plugins, "installed", lambda name: name != "openvino" and installed(name)
    )
    report = inspect_model(str(bert))
    assert (report["runtime"], report["runtime_why"]) == (
        "onnxruntime", "openvino is not installed",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "message"), [("nothing", "no model called 'nothing'"), ("a/x.tflite", "no such")]
)
def test_a_model_that_is_not_there_is_one_line(mlopsdeploy, reference, message):
    done = mlopsdeploy("models", "inspect", reference)
    assert done.code == 2
    (line,) = done.lines
    assert message in line


def test_speed_and_sizes_are_those_of_this_model_here(churn_onnx, shown):
    report = inspect_model(str(churn_onnx), runtime="onnxruntime", speed=True)
    assert report["files"] == {"churn.onnx": churn_onnx.stat().st_size}
    assert report["bytes"] == churn_onnx.stat().st_size
    (speed,) = report["speed"]
    assert (speed["runtime"], speed["precision"]) == ("onnxruntime", "float32")
    assert 0 < speed["row_ms"]["p50"] <= speed["row_ms"]["p99"]
    assert speed["rows_per_second"] > 0
    assert speed["memory"] > 1e7
    text = shown(show, report)
    assert report["digest"] in text
    assert "onnxruntime float32" in text


def test_every_runtime_that_can_run_it_is_measured(churn_onnx, monkeypatch):
    measured = []

    def measure(reference, runtime, trust_model):
        load_model(reference, runtime=runtime, threads=1)
        measured.append(runtime)
        return {"runtime": runtime}

    monkeypatch.setattr(inspect, "_apart", measure)
    monkeypatch.setattr(inspect.plugins, "names", lambda kind: ("litert", "onnxruntime", "torch"))
    inspect_model(str(churn_onnx), runtime="onnxruntime", all_runtimes=True)
    assert measured == ["onnxruntime"]  # the others run other formats
