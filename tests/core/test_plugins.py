import subprocess
import sys

import pytest

from mlopsdeploy import load_model
from mlopsdeploy.core import plugins
from mlopsdeploy.errors import ConfigError


def test_what_there_is():
    assert plugins.names("runtimes") == (
        "litert", "onnxruntime", "openvino", "tensorflow", "tflite", "torch",
    )  # fmt: skip
    assert plugins.names("tasks") == (
        "anomaly_detection", "clustering", "image_classification", "image_multi_output",
        "image_regression", "multi_output", "object_detection", "tabular_classification",
        "tabular_regression", "tensors", "text_classification", "text_regression",
    )  # fmt: skip


def test_classes_by_name():
    assert plugins.load("runtimes", "onnxruntime").__name__ == "OnnxRuntime"
    assert plugins.load("tasks", "text_classification").__name__ == "TextClassification"


def test_an_unknown_name():
    with pytest.raises(ConfigError, match="no runtime called 'onxruntime'; did you mean 'onnxrun"):
        plugins.load("runtimes", "onxruntime")
    with pytest.raises(ConfigError, match="no task called 'x'; there are: anomaly_detection, cl"):
        plugins.load("tasks", "x")


def python(script):
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_installed_imports_nothing():
    python(
        "import sys; from mlopsdeploy.core import plugins;"
        "assert plugins.installed('openvino'); assert not plugins.installed('no_such_package');"
        "assert 'openvino' not in sys.modules"
    )


@pytest.mark.parametrize(
    ("kind", "name", "package", "extra"),
    [
        ("runtimes", "openvino", "openvino", "openvino"),
        ("runtimes", "torch", "transformers", "torch"),
        ("tasks", "text_classification", "tokenizers", "text"),
        ("tasks", "object_detection", "cv2", "edge"),
    ],
)
def test_a_missing_package_names_its_extra(kind, name, package, extra):
    printed = python(
        f"import sys; sys.modules[{package!r}] = None\n"
        "from mlopsdeploy.core import plugins\n"
        "from mlopsdeploy.errors import ConfigError\n"
        f"try: plugins.load({kind!r}, {name!r})\n"
        "except ConfigError as error: print(error)\n"
    )
    assert f"needs the package {package!r}: pip install 'mlopsdeploy[{extra}]'" in printed


@pytest.mark.parametrize(
    ("missing", "expected"),
    [(("openvino",), "OnnxRuntime"), (("openvino", "onnxruntime"), "Torch")],
)
def test_auto_takes_the_next_runtime_that_is_installed(
    bert_checkpoint, monkeypatch, missing, expected
):
    known = plugins.installed
    monkeypatch.setattr(plugins, "installed", lambda name: name not in missing and known(name))
    model = load_model(str(bert_checkpoint), threads=1)
    assert type(model.runtime).__name__ == expected
