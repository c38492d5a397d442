"""MLflow's folders as it writes them, and a real tracking server on a port."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from mlopsdeploy import load_model
from mlopsdeploy.core.machine import free_port
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.settings import ServedModel

COLUMNS = [{"type": "float", "name": name, "required": True} for name in ("age", "visits", "spend")]


def mlmodel(folder, flavours, inputs=None):
    """A folder with the file that MLflow writes."""
    folder.mkdir(exist_ok=True)
    content = {"flavors": {**flavours, "python_function": {"loader_module": "mlflow"}}}
    if inputs is not None:
        content["signature"] = {"inputs": json.dumps(inputs), "outputs": None, "params": None}
    (folder / "MLmodel").write_text(yaml.safe_dump(content), "utf-8")
    return folder


@pytest.fixture
def churn_folder(tmp_path, unnamed_onnx):
    """An ONNX model whose features only the signature names."""
    folder = mlmodel(tmp_path / "churn", {"onnx": {"data": "model.onnx"}}, COLUMNS)
    shutil.copy(unnamed_onnx, folder / "model.onnx")
    return folder


# ---------------------------------------------------------------- folders


def test_onnx_and_the_signatures_columns(churn_folder):
    files = find_model(str(churn_folder))
    assert files.features == ("age", "visits", "spend")
    assert files.graphs == {"onnx": churn_folder / "model.onnx"}
    model = load_model(str(churn_folder), threads=1)
    assert [field.name for field in model.task.inputs] == ["age", "visits", "spend"]


def test_a_model_yaml_in_the_folder_says_more(churn_folder):
    (churn_folder / "model.yaml").write_text("labels: [stays, leaves]\nthreshold: 0.3\n", "utf-8")
    files = find_model(str(churn_folder))
    assert (files.labels, files.threshold) == (("stays", "leaves"), 0.3)
    assert files.features == ("age", "visits", "spend")


@pytest.mark.parametrize(
    "inputs", [None, [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}], 3]
)
def test_a_signature_without_names_leaves_them_open(churn_folder, inputs):
    mlmodel(churn_folder, {"onnx": {"data": "model.onnx"}}, inputs)
    assert find_model(str(churn_folder)).features == ()


@pytest.mark.parametrize(
    ("flavours", "file", "graphs"),
    [
        ({"keras": {"data": "data"}}, "data/model.keras", {"keras": "data/model.keras"}),
        ({"tensorflow": {"data": "data"}}, "data/model.keras", {"keras": "data/model.keras"}),
        ({"tensorflow": {"saved_model_dir": "tf"}}, "tf/saved_model.pb", {"saved_model": "tf"}),
    ],
)
def test_keras_and_saved_models(tmp_path, flavours, file, graphs):
    folder = mlmodel(tmp_path / "m", flavours)
    (folder / file).parent.mkdir()
    (folder / file).write_bytes(b"graph")
    (form, name), *_ = graphs.items()
    assert find_model(str(folder)).graphs == {form: folder / name}


def test_transformers_whose_tokenizer_lies_elsewhere(tmp_path, bert_checkpoint):
    flavour = {"task": "text-classification", "model_binary": "model", "components": ["tokenizer"]}
    folder = mlmodel(tmp_path / "m", {"transformers": flavour})
    for place, names in (
        ("model", ("config.json", "model.safetensors")),
        ("components/tokenizer", ("tokenizer.json", "tokenizer_config.json")),
    ):
        (folder / place).mkdir(parents=True)
        for name in names:
            shutil.copy(bert_checkpoint / name, folder / place)
    files, original = find_model(str(folder)), find_model(str(bert_checkpoint))
    assert files.digest == original.digest
    assert files.labels == ("NEGATIVE", "POSITIVE")
    assert files.tokenizer.parent == files.graphs["checkpoint"]


@pytest.mark.parametrize(
    ("flavours", "message"),
    [
        ({"sklearn": {"pickled_model": "model.pkl"}}, r"skl2onnx\.to_onnx\(.*mlflow\.onnx\.log_"),
        ({"xgboost": {"data": "model.ubj"}}, r"convert_xgboost\("),
        ({"lightgbm": {"data": "model.skops"}}, r"convert_lightgbm\("),
        ({"pytorch": {"model_data": "data"}}, r"torch\.onnx\.export\("),
        ({"prophet": {}}, "flavour prophet, .* log it as ONNX$"),
        ({}, "flavour python_function"),
        ({"transformers": {"task": "summarization"}}, "for summarization; of these only text-cl"),
        ({"onnx": {"data": "../../secret.onnx"}}, r"names \.\./\.\./secret\.onnx, which lies out"),
        ({"onnx": {"data": "gone.onnx"}}, r"gone\.onnx: missing; the MLmodel beside it names it"),
    ],
)
def test_what_can_not_be_run_is_one_line(tmp_path, flavours, message):
    with pytest.raises(ModelError, match=message) as raised:
        find_model(str(mlmodel(tmp_path / "m", flavours)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "not YAML"), ("- a", "expected 'key: value'"), ("", "no flavors")],
)
def test_a_broken_mlmodel(tmp_path, content, message):
    (tmp_path / "MLmodel").write_text(content, "utf-8")
    with pytest.raises(ModelError, match=message):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        *[(one, r"MLflow's models are models:/name/version")
          for one in ("models:/churn", "models:/", "runs:/abc", "models:/a/b/c")],
        ("models:/churn/Production", "give the version an alias: models:/churn@production"),
    ],
)  # fmt: skip
def test_addresses_that_are_none(reference, message):
    with pytest.raises(ModelError, match=message):
        find_model(reference)


@pytest.mark.parametrize("reference", ["models:/churn/3", "models:/churn@champion"])
def test_what_callers_of_a_server_call_it(reference):
    assert ServedModel(model=reference).called == "churn"


# ---------------------------------------------------------------- a server

LOG = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, onnx
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

signature = ModelSignature(Schema([ColSpec("float", name) for name in ("age", "visits", "spend")]))
model = onnx.load(sys.argv[1])
with mlflow.start_run() as run:
    for _ in range(2):
        mlflow.onnx.log_model(
            model, name="model", signature=signature, registered_model_name="churn",
            pip_requirements=["onnx"],
        )
    mlflow.log_artifact(sys.argv[1], "files")
mlflow.MlflowClient().set_registered_model_alias("churn", "champion", 2)
print(run.info.run_id)
"""
FIND = """
import json, sys
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model

for reference in sys.argv[1:]:
    try:
        files = find_model(reference)
    except ModelError as error:
        print(json.dumps({"error": str(error)}))
    else:
        known = {"name": files.name, "version": files.version, "digest": files.digest}
        print(json.dumps({**known, "features": files.features, "mlflow": "mlflow" in sys.modules}))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory, unnamed_onnx):
    """A tracking server that has `churn` in two versions; its environment, and how to stop it."""
    pytest.importorskip("alembic", reason="MLflow's server needs it")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ, "MLFLOW_TRACKING_URI": url, "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLOPSDEPLOY_CACHE": str(folder / "cache"),
    }  # fmt: skip
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ],
        cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "not ready in two minutes"
                time.sleep(0.2)
        done = subprocess.run(
            [sys.executable, "-c", LOG, str(unnamed_onnx)], cwd=folder, env=env,
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        yield {"env": env, "run": done.stdout.split()[-1], "server": server}
    finally:
        server.terminate()
        server.wait(timeout=60)


def find(registry, *references):
    done = subprocess.run(
        [sys.executable, "-c", FIND, *references], env=registry["env"],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_versions_aliases_and_runs_of_a_server(registry, unnamed_onnx):
    run = registry["run"]
    first, champion, latest, logged, file = find(
        registry, "models:/churn/1", "models:/churn@champion", "models:/churn/latest",
        f"runs:/{run}/model", f"runs:/{run}/files/{unnamed_onnx.name}",
    )  # fmt: skip
    assert [one["version"] for one in (first, champion, latest, logged)] == ["1", "2", "2", ""]
    assert {one["name"] for one in (first, champion, latest)} == {"churn"}
    digest = find_model(str(unnamed_onnx)).digest
    assert file["digest"] == digest
    # The same graph, and columns of the signature, which are part of what a digest covers.
    assert len({one["digest"] for one in (first, champion, latest, logged)} - {digest}) == 1
    assert logged["features"] == ["age", "visits", "spend"]


def test_what_the_server_does_not_have(registry):
    errors = find(registry, "models:/churn/9", "models:/churn@none", "models:/none/latest",
                  f"runs:/{registry['run']}/none", f"runs:/{registry['run']}/files")  # fmt: skip
    reasons = ("version=9", "alias none", "no model of this name", "none", "no file MLmodel")
    for error, reason in zip(errors, reasons, strict=True):
        assert reason in error["error"]
        assert "\n" not in error["error"]


def test_what_was_fetched_needs_neither_the_server_nor_mlflow(registry):
    find(registry, "models:/churn/1")
    registry["server"].terminate()
    registry["server"].wait(timeout=60)
    known, alias = find(registry, "models:/churn/1", "models:/churn@champion")
    assert known["version"] == "1"
    assert known["mlflow"] is False
    assert "did not give it" in alias["error"]


def test_without_the_client_its_extra_is_named(tmp_path):
    script = "import sys; sys.modules['mlflow'] = None\n" + FIND
    done = subprocess.run(
        [sys.executable, "-c", script, "models:/churn/1"], capture_output=True, text=True,
        check=True, timeout=60, env={**os.environ, "MLOPSDEPLOY_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert "needs MLflow's client; pip install 'mlopsdeploy[mlflow]'" in done.stdout
    assert list(Path(tmp_path).rglob("*")) in ([], [tmp_path / "mlflow"])
