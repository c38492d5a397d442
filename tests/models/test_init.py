"""`models init` writes what was read, and asks what can't be."""

import onnx
import onnx.parser
import pytest

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.models.init import init_model
from mlopsdeploy.models.inspect import inspect_model

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
WEIGHTS = "<float[3,1] w = {0.05, -0.4, 0.01}>"


@pytest.fixture
def linear(tmp_path):
    text = f"{HEAD} g (float[n,3] x) => (float[n,1] y) {WEIGHTS} {{ y = MatMul(x, w) }}"
    path = tmp_path / "demand.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_a_doubt_is_left_to_decide(linear):
    found = init_model(str(linear))
    text = linear.with_suffix(".yaml").read_text("utf-8")
    assert found["output"] == str(linear.with_suffix(".yaml"))
    assert "'y' has one number without a meaning" in found["to_decide"][0]
    assert "# task: tabular_regression  # values\n# activation: sigmoid  # logits" in text
    assert find_model(str(linear)).yaml.name == "demand"
    with pytest.raises(ConfigError, match=r"demand\.yaml: is there already"):
        init_model(str(linear))


def test_inspect_shows_a_doubt_and_then_the_decision(linear):
    report = inspect_model(str(linear), speed=False)
    assert report["doubts"][0]["what"].startswith("its output 'y'")
    assert report["doubts"][0]["readings"][0] == {
        "yaml": "task: tabular_regression", "meaning": "values",
    }  # fmt: skip
    linear.with_suffix(".yaml").write_text("task: tabular_regression\nfeatures: [a, b, c]\n")
    report = inspect_model(str(linear), speed=False)
    assert (report["doubts"], report["task_from"]) == ([], "the YAML")
    assert [field["name"] for field in report["outputs"]] == ["value"]
    init_model(str(linear), output=str(linear.with_name("other.yaml")))
    text = linear.with_name("other.yaml").read_text("utf-8")
    assert "task: tabular_regression  # the YAML\nfeatures: [a, b, c]\n" in text


def test_what_can_not_be_loaded_is_said_there(tmp_path):
    text = f"{HEAD} g (string[n,3] x) => (string[n,3] y) {{ y = Identity(x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    found = init_model(str(tmp_path / "m.onnx"))
    assert "does not name them" in found["to_decide"][0]
    assert "does not name them" in (tmp_path / "m.yaml").read_text("utf-8")


def test_a_model_without_a_place_of_its_own():
    with pytest.raises(ConfigError, match="is no file or folder to put a YAML beside"):
        init_model("sentiment")
