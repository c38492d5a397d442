"""A row that a model can't take, in each runtime, kind of data and strategy: one meaning.

The tables in docs/guides/own-runtime-or-task.md are what these tests hold.
"""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mlopsdeploy import load_model
from mlopsdeploy.cli import app
from mlopsdeploy.columns import TaskOptions, objects
from mlopsdeploy.core import plugins
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import MlopsDeployError, RowError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.serve import create_app

MODELS = Path(__file__).with_name("contract_models.py")
_spec = importlib.util.spec_from_file_location("contract_models", MODELS)
contract_models = sys.modules["contract_models"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract_models)

TABLES = {
    "onnxruntime": "table.onnx",
    "openvino": "table.onnx",
    "litert": "table.tflite",
    "tensorflow": "table_saved",
    "outside": "table.rows",
}
PICTURES = {name: file.replace("table", "picture") for name, file in TABLES.items()}
del PICTURES["outside"]
GOOD = [[0, 1, 2], [4, 0.5, -1], [2, 3, 1], [1, 0, 0]]
NAN = float("nan")
LOW = 2e-3  # of bfloat16, which OpenVINO takes where the CPU has it
BAD = {  # rows that no model of this table has an answer to
    "index": [5, 1, 2],
    "index far off": [3e9, 1, 2],
    "index below": [-7, 1, 2],
}
OUTSIDE = '''
"""A runtime as packages had it before the protocol knew RowError: NumPy, and its errors."""

import contract_models
from mlopsdeploy.columns import Field


class Rows:
    formats = ("rows",)
    inputs = (Field("x", "float32", (3,)),)
    outputs = (Field("p", "float32", (2,)),)

    def __init__(self, file, *, precision="auto", threads=1, streams=None):
        self.precision, self.streams = "float32", streams or threads

    def run(self, tensors):
        return {"p": contract_models.expected(tensors["x"])}
'''


@pytest.fixture(scope="module")
def folder(once_by):
    return once_by(MODELS)


@pytest.fixture(autouse=True, scope="module")
def outside(tmp_path_factory):
    """A package with a runtime of the old protocol, and the example of the guide."""
    site = tmp_path_factory.mktemp("site")
    (site / "contract_rows.py").write_text(OUTSIDE, "utf-8")
    points = {
        "contract_rows": "[mlopsdeploy.runtimes]\noutside = contract_rows:Rows\n",
        "mlopsdeploy_example": "[mlopsdeploy.runtimes]\n"
        "linear = mlopsdeploy_example.linear:Linear\n"
        "[mlopsdeploy.tasks]\nanomaly = mlopsdeploy_example.anomaly:Anomaly\n",
    }
    for name, text in points.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(text)
    added = [str(site), str(Path(__file__).with_name("outside_package"))]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


def load(file, name):
    if name != "tensorflow":
        return load_model(str(file), runtime=name, precision="float32", threads=1)
    # Straight away: otherwise it is compiled for LiteRT first, if that can be proven.
    files, runtime = find_model(str(file)), plugins.load("runtimes", name)(file, threads=1)
    task = plugins.load("tasks", files.task or "tabular_classification")
    return Model(files.name, "", files.digest, task.build(files, runtime, TaskOptions()), runtime)


@pytest.fixture(scope="module")
def tables(folder):
    return {name: load(folder / file, name) for name, file in TABLES.items()}


@pytest.fixture(scope="module")
def pictures(folder):
    return {name: load(folder / file, name) for name, file in PICTURES.items()}


@pytest.fixture
def loaded(monkeypatch):
    """`loaded(model)`: what the commands get where they load a model, if it is TensorFlow's."""

    def use(model):
        if isinstance(model.runtime, plugins.load("runtimes", "tensorflow")):
            for name in ("batch.loading.load_model", "edge.loading.load_as_set"):
                monkeypatch.setattr(f"mlopsdeploy.{name}", lambda *_, **__: model)

    return use


@pytest.fixture(params=TABLES)
def table(request, tables):
    return tables[request.param]


@pytest.fixture(params=PICTURES)
def picture(request, pictures):
    return pictures[request.param]


def columns_of(rows):
    return dict(zip(contract_models.FEATURES, np.array(rows, np.float64).T, strict=True))


def run_cli(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, MlopsDeployError):  # which the command shows as one line
        return result.exception.exit_code, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# ---------------------------------------------------------------- from Python, and the runtime


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_among_good_ones(table, bad):
    with pytest.raises(RowError) as raised:
        table.predict(columns_of([*GOOD[:2], BAD[bad], *GOOD[2:]]))
    assert raised.value.rows == (2,)
    assert "\n" not in str(raised.value)
    got = table.predict(columns_of(GOOD))  # and it harms nothing
    np.testing.assert_allclose(got["scores"], contract_models.expected(GOOD), atol=1e-5)


def test_a_missing_number_has_no_answer_and_the_others_have_theirs(table):
    got = table.predict(columns_of([GOOD[0], [1, NAN, 0], GOOD[1]]))
    assert np.isnan(got["score"][1])
    np.testing.assert_allclose(got["scores"][[0, 2]], contract_models.expected(GOOD[:2]), atol=1e-5)


def test_a_wrong_width(table):
    with pytest.raises(MlopsDeployError, match="3"):
        table.predict({"x": np.ones((6, 2), np.float32)})
    with pytest.raises(RowError):
        table.runtime.run({"x": np.ones((6, 2), np.float32)})


def test_no_rows_and_one_row(table):
    assert len(table.runtime.run({"x": np.ones((0, 3), np.float32)})["p"]) == 0
    got = table.predict(columns_of(GOOD[1:2]))
    np.testing.assert_allclose(got["scores"], contract_models.expected(GOOD[1:2]), atol=1e-5)
    with pytest.raises(RowError) as raised:
        table.predict(columns_of([BAD["index"]]))
    assert raised.value.rows == (0,)


def test_what_an_outside_class_leaves_out_is_added(tables):
    runtime = tables["outside"].runtime
    assert (runtime.precisions, runtime.batch_scale, dict(runtime.quantization)) == ((), 1, {})
    with runtime.native() as native:
        assert native is None
    task = plugins.load("tasks", "anomaly")(["a", "b"], None)
    assert (task.data, task.finds_objects, task.multi_label, task.facts) == (
        "table", False, False, (),
    )  # fmt: skip


def test_the_example_of_the_guide(tmp_path):
    weights = np.eye(2)
    np.savez(tmp_path / "pump.npz", center=np.zeros(2), weights=weights, columns=["a", "b"])
    (tmp_path / "pump.yaml").write_text("task: anomaly\n")
    model = load_model(str(tmp_path / "pump.npz"), threads=1)
    got = model.predict({"a": np.array([0, NAN, 9.0]), "b": np.array([0.1, 1, 9.0])})
    assert [got["label"][0], got["label"][2]] == ["usual", "unusual"]
    assert np.isnan(got["score"][1])
    with pytest.raises(RowError, match="the model can't compute these values"):
        model.runtime.run({"features": np.ones((2, 3), np.float32)})


# ---------------------------------------------------------------- batch


@pytest.mark.parametrize("name", TABLES)
def test_batch(folder, tables, loaded, tmp_path, name):
    loaded(tables[name])
    rows = [GOOD[0], BAD["index"], GOOD[1], [1, NAN, 0], BAD["index below"], *GOOD[2:]]
    pd.DataFrame(rows, columns=contract_models.FEATURES).to_csv(tmp_path / "in.csv", index=False)
    options = (
        "--model", folder / TABLES[name], "--runtime", name, "--precision", "float32",
        "--threads", 1, "--all-scores",
    )  # fmt: skip
    code, said = run_cli("batch", tmp_path / "in.csv", "--max-errors", 2, *options)
    assert code == 0, said
    out = pd.read_csv(tmp_path / "in.predictions.csv")
    assert np.isnan(out["score"][2])
    assert out["label"].isna().tolist() == [False, False, True, False, False]
    good = out.drop(index=2)
    np.testing.assert_allclose(
        good[["score_stays", "score_leaves"]], contract_models.expected(GOOD), atol=1e-5
    )
    errors = (tmp_path / "in.predictions.csv.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in errors] == [2, 5]
    assert all("compute these values" in json.loads(line)["reason"] for line in errors)
    code, said = run_cli(
        "batch", tmp_path / "in.csv", "--max-errors", 1, "-o", tmp_path / "few.csv", *options
    )
    assert code == 2
    assert "rows are bad, more than --max-errors allows" in said


def test_batch_of_no_rows(folder, tmp_path):
    (tmp_path / "in.csv").write_text(",".join(contract_models.FEATURES) + "\n")
    code, said = run_cli("batch", tmp_path / "in.csv", "--model", folder / "table.onnx")
    assert code == 2
    assert said.endswith("in.csv: has a header but no rows")


# ---------------------------------------------------------------- serve


def test_serve(table):
    client = create_app({"shop": table}).test_client()
    rows = [GOOD[0], BAD["index"], GOOD[1]]

    def ask(body, route="/v1/models/shop:predict"):
        answer = client.post(route, json=body)
        return answer.status_code, answer.json

    status, said = ask({"instances": rows})
    assert (status, said["field"]) == (422, "instances[1]")
    assert ask({"instances": BAD["index"]})[1]["field"] == "instances"
    tensor = {"name": "x", "datatype": "FP32", "shape": [3, 3], "data": rows}
    status, said = ask({"inputs": [tensor]}, "/v2/models/shop/infer")
    assert (status, said["field"]) == (422, "inputs.x[1]")
    assert ask({"instances": [[1, 2]]})[0] == 422
    assert ask({"instances": []})[0] == 422
    status, said = ask({"instances": GOOD})
    assert status == 200
    scores = [one["score"] for one in said["predictions"]]
    np.testing.assert_allclose(scores, contract_models.expected(GOOD).max(axis=1), atol=1e-5)


# ---------------------------------------------------------------- edge


@pytest.mark.parametrize("name", TABLES)
def test_edge_lines(folder, tables, loaded, tmp_path, name):
    loaded(tables[name])
    rows = [GOOD[0], BAD["index"], GOOD[1], BAD["index below"]]
    lines = [",".join(map(str, row)) for row in rows]
    (tmp_path / "in.csv").write_text("\n".join([*lines, "1,2", "1,,2", ""]))
    code, said = run_cli(
        "edge", "--lines", tmp_path / "in.csv", "--model", folder / TABLES[name], "--runtime", name,
        "--events", tmp_path / "out.jsonl", "--threads", 1,
    )  # fmt: skip
    assert code == 0, said
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    answers = [event for event in events if event["event"] in ("line", "unreadable")]
    kinds = ["line", "unreadable", "line", "unreadable", "unreadable"]
    assert [answer["event"] for answer in answers][:5] == kinds
    scores = [answer["score"] for answer in answers[:3:2]]
    np.testing.assert_allclose(scores, contract_models.expected(GOOD[:2]).max(axis=1), atol=LOW)
    assert "label" not in answers[5] or answers[5]["label"] is None


# ---------------------------------------------------------------- pictures


def grey(level):
    return np.full((contract_models.SIDE, contract_models.SIDE, 3), level, np.uint8)


def test_a_picture_that_the_model_cannot_take(picture):
    with pytest.raises(RowError) as raised:
        picture.predict({"image": objects([grey(20), grey(255), grey(120)])})
    assert raised.value.rows == (1,)
    got = picture.predict({"image": objects([grey(20), grey(120)])})
    right = [contract_models.expected_of_picture(level) for level in (20, 120)]
    np.testing.assert_allclose(got["scores"], right, atol=1e-5)
    with pytest.raises(RowError) as raised:
        picture.predict({"image": objects([grey(20), grey(20)[..., 0]])})
    assert raised.value.rows == (1,)
    client = create_app({"shade": picture}).test_client()
    body = cv2.imencode(".png", grey(255))[1].tobytes()
    answer = client.post("/v1/models/shade:predict", data=body, content_type="image/png")
    assert answer.status_code == 422


@pytest.mark.parametrize("name", PICTURES)
def test_files_of_pictures(folder, pictures, loaded, tmp_path, name):
    loaded(pictures[name])
    shots = tmp_path / "shots"
    shots.mkdir()
    for place, level in enumerate([20, 255, 120]):
        cv2.imwrite(str(shots / f"{place}.png"), grey(level))
    options = ("--model", folder / PICTURES[name], "--runtime", name, "--threads", 1)
    code, said = run_cli(
        "edge", "--camera", shots, "--events", tmp_path / "e.jsonl", "--no-window", *options
    )
    assert code == 0, said
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [event["frame"] for event in events if event["event"] == "unreadable"] == [1]
    code, said = run_cli(
        "batch", shots, "-o", tmp_path / "out.csv", "--max-errors", 1, "--all-scores", *options
    )
    assert code == 0, said
    out = pd.read_csv(tmp_path / "out.csv")
    right = [contract_models.expected_of_picture(level) for level in (20, 120)]
    np.testing.assert_allclose(out[["score_stays", "score_leaves"]], right, atol=LOW)
