"""Every kind of answer: by REST, by the Open Inference Protocol, in metrics, and as described."""

import json
import threading

import cv2
import jsonschema_rs
import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
from werkzeug.serving import make_server

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve import create_app
from mlopsdeploy.settings import ServeSettings

from .. import kinds
from .test_openapi import resolved

ROW = [0.25, 0.75, 0.6]
WINDOW = [[float(step), 0.0, 3.0] for step in range(8)]
TENSORS = {"tokens:0": [3, 4], "grid": [[1, 2, 3], [0.1, 0, 1e-3]], "word": "né"}
PICTURE = cv2.imencode(".png", np.full((4, 6, 3), 51, np.uint8))[1].tobytes()
TWICE = [[2, 4, 6], [float(np.float32(0.1)) * 2, 0, float(np.float32(1e-3)) * 2]]
EXPECTED = {
    "regression": {"value": 250749.4},
    "several_values": {"weight": 1.6, "height": pytest.approx(0.625)},
    "clusters": {"label": "2", "distance": pytest.approx(0.4)},
    "several_answers": {
        "fraud_label": "no", "fraud_score": 0.75, "kind_label": "cash", "kind_score": 0.75,
    },
    "multi_label": {"label": "threat|insult", "score": 0.75},
    "window": {"value": pytest.approx(6.5 / 3)},
    "tensors": {
        "hidden.state": [[3.0, 1.0], [4.0, 1.3333334]], "twice": TWICE, "even": [False, True],
        "said": "né!", "version": 7,
    },
}  # fmt: skip
ROWS = {"window": WINDOW, "tensors": TENSORS}


@pytest.fixture(scope="module")
def models():
    return {make.__name__: make() for make in kinds.ALL}


@pytest.fixture
def call(client, models):
    return client(models)


def path(name):
    return f"/v1/models/{name}:predict"


# ---------------------------------------------------------------- REST


@pytest.mark.parametrize("name", EXPECTED)
def test_an_answer_has_what_the_task_answers(call, name):
    row = ROWS.get(name, ROW)
    one = call("POST", path(name), {"instances": row})
    assert (one.status, one.json) == (200, EXPECTED[name])
    many = call("POST", path(name), {"instances": [row, row]}).json
    assert many == {"predictions": [EXPECTED[name]] * 2, "model": name, "version": "2"}
    media = call("GET", "/openapi.json").json["paths"][path(name)]["post"]
    described = media["responses"]["200"]["content"]["application/json"]["schema"]
    asked = media["requestBody"]["content"]["application/json"]["schema"]
    for body, answer in (({"instances": row}, one.json), ({"instances": [row, row]}, many)):
        assert jsonschema_rs.is_valid(asked, body)
        jsonschema_rs.validate(described, answer)
    assert not jsonschema_rs.is_valid(described, {"nothing": 1})


@pytest.mark.parametrize(
    ("name", "answer"),
    [("picture_regression", {"value": 51.0}), ("picture_tensors", {"embedding": [51.0, 0.2]})],
)
def test_pictures(call, name, answer):
    got = call("POST", path(name), PICTURE, {"Content-Type": "image/png"})
    assert (got.status, got.json) == (200, answer)


def test_one_array_by_its_name(call):
    by_name = {"window": WINDOW}
    for rows in (by_name, [by_name], [by_name, WINDOW]):
        assert call("POST", path("window"), {"instances": rows}).status == 200
    for wrong, field in (({"windows": 1}, "instances.window"), ([{}], "instances[0].window")):
        got = call("POST", path("window"), {"instances": wrong})
        assert (got.status, got.json["field"]) == (422, field)
    got = call("POST", path("window"), {"instances": WINDOW[1:]})
    assert "must be 8x3 numbers" in got.json["detail"]


@pytest.mark.parametrize("name", [one for one in EXPECTED if one != "tensors"])
def test_what_has_no_number_is_no_answer(call, models, name, monkeypatch):
    runtime = models[name].runtime
    right = runtime.run

    def run(tensors):
        made = right(tensors)
        for values in made.values():
            if values.dtype.kind == "f":
                values[-1] = np.inf
        return made

    monkeypatch.setattr(runtime, "run", run)
    row = ROWS.get(name, ROW)
    got = call("POST", path(name), {"instances": [row, row]})
    assert (got.status, got.json["field"]) == (422, "instances[1]")
    assert "no answer" in got.json["detail"]


def test_tensors_are_answered_whatever_they_hold(call, models, monkeypatch):
    right = models["tensors"].runtime.run

    def run(tensors):
        made = right(tensors)
        made["hidden.state"][0, 0] = np.nan, np.inf
        made["said"][0] = b"\xffgood"
        return made

    monkeypatch.setattr(models["tensors"].runtime, "run", run)
    got = call("POST", path("tensors"), {"instances": TENSORS})
    assert got.json["hidden.state"][0] == [None, None]
    assert got.json["said"] == "\\xffgood"
    media = call("GET", "/openapi.json").json["paths"][path("tensors")]["post"]
    schema = media["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema_rs.validate(schema, got.json)


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("regression", "value", 250749.4),
        ("clusters", "label == 2", True),
        ("multi_label", "label == insult", True),
        ("multi_label", "label == toxic", False),
        ("multi_label", "scores.threat", 0.75),
        ("several_answers", "fraud_label == yes", False),
        ("several_answers", "kind_scores.cash", 0.75),
        ("several_answers", "fraud_scores", {"no": 0.75, "yes": 0.25}),
        ("tensors", "hidden.state", [[3.0, 1.0], [4.0, 1.3333334]]),
        ("tensors", "version", 7),  # an output goes before the model's own version
    ],
)
def test_templates_over_any_output(client, models, name, said, value):
    served = {"model": "x", "name": name, "answer": {"is": said}}
    got = client({name: models[name]}, models=[served])(
        "POST", path(name), {"instances": ROWS.get(name, ROW)}
    )
    assert got.json == {"is": value}


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("regression", "label", "it is nothing"),
        ("regression", "value.x", ""),
        ("clusters", "label == far", "numbers from 0 on"),
        ("several_answers", "fraud_label == cash", "no, yes"),
        ("tensors", "hidden", "hidden.state"),
    ],
)
def test_templates_that_ask_for_what_there_is_not(models, name, said, words):
    served = {"model": "x", "name": name, "answer": {"is": said}}
    with pytest.raises(ConfigError, match="answer: is: ") as raised:
        create_app({name: models[name]}, ServeSettings(models=[served]))
    assert words in str(raised.value) or words == "it is nothing"


# ---------------------------------------------------------------- metrics


def test_metrics_count_labels_probabilities_and_other_numbers(client, models):
    call = client(models)
    for name in ("multi_label", "several_answers", "clusters", "regression", "tensors"):
        row = ROWS.get(name, ROW)
        for rows in (row, [row] * 2, [row] * 20):
            assert call("POST", path(name), {"instances": rows}).status == 200
    got = call("GET", "/metrics")
    labels, score, value = (f"mlopsdeploy_{one}" for one in ("labels_total", "score", "value"))
    for label, count in (("threat", 23), ("insult", 23), ("toxic", 0), ("threat|insult", 0)):
        assert got.metric(labels, model="multi_label", label=label) == count
    for name, label in (("fraud", "no"), ("kind", "cash")):
        assert got.metric(labels, model="several_answers", answer=name, label=label) == 23
        assert got.metric(f"{score}_count", model="several_answers", answer=name) == 23
    assert got.metric(f"{score}_bucket", model="multi_label", le="0.7") == 0
    assert got.metric(f"{score}_bucket", model="multi_label", le="0.8") == 23
    assert got.metric(f"{score}_sum", model="multi_label") == 23 * 0.75
    assert got.metric(labels, model="clusters", label="2") == 23
    assert got.metric(f"{value}_sum", model="clusters") == pytest.approx(23 * 0.4)
    assert got.metric(f"{value}_count", model="regression") == 23
    assert got.metric(f"{value}_sum", model="regression") == pytest.approx(23 * 250749.4)
    assert got.metric(f"{score}_count", model="regression") == 0
    assert 'model="tensors",answer' not in got.body.decode()
    assert got.metric("mlopsdeploy_batch_rows_sum", model="tensors") == 23


def test_a_label_that_nobody_named_makes_no_series_of_its_own(client, models):
    call = client(models)
    call("POST", path("clusters"), {"instances": [[1000, 0, 0], [63, 0, 0]]})
    got = call("GET", "/metrics")
    for label, count in (("other", 1), ("63", 1), ("1000", 0)):
        assert got.metric("mlopsdeploy_labels_total", model="clusters", label=label) == count


# ---------------------------------------------------------------- Open Inference


@pytest.fixture(scope="module")
def over_http(models):
    """Triton's client of these models."""
    server = make_server("127.0.0.1", 0, create_app(models), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with triton.InferenceServerClient(f"127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


COLUMNS = {
    "tokens:0": np.array([[3, 4], [-1, 2**40]]),
    "grid": np.array([[[1, 2, 3], [np.nan, np.inf, -0.0]]] * 2, np.float32),
    "word": np.array(["né", ""], object),
}


@pytest.mark.parametrize("binary", [False, True])
def test_tensors_by_the_files_own_names_as_they_are(over_http, models, binary):
    described = over_http.get_model_metadata("tensors")
    assert {one["name"]: (one["datatype"], one["shape"]) for one in described["inputs"]} == {
        "tokens:0": ("INT64", [-1, -1]), "grid": ("FP32", [-1, 2, 3]), "word": ("BYTES", [-1]),
    }  # fmt: skip
    assert "parameters" not in described, "all that the file outputs are the task's outputs"
    given = []
    for one in described["inputs"]:
        array = COLUMNS[one["name"]]
        tensor = triton.InferInput(one["name"], list(array.shape), one["datatype"])
        known = array if binary or array.dtype == object else np.nan_to_num(array, posinf=1)
        given.append(tensor.set_data_from_numpy(known, binary_data=binary))
    wanted = [
        triton.InferRequestedOutput(one["name"], binary_data=binary) for one in described["outputs"]
    ]
    got = over_http.infer("tensors", given, outputs=wanted)
    expected = models["tensors"].runtime.run(COLUMNS)
    for one in described["outputs"]:
        array = got.as_numpy(one["name"])
        if one["datatype"] == "BYTES":
            texts = [each.decode() if isinstance(each, bytes) else each for each in array.tolist()]
            assert texts == expected[one["name"]].tolist()
            continue
        assert array.dtype == expected[one["name"]].dtype
        if binary or one["name"] != "twice":
            np.testing.assert_array_equal(array, expected[one["name"]])


@pytest.mark.parametrize("binary", [False, True])
def test_what_the_file_itself_outputs_is_there_on_request(over_http, models, binary):
    described = over_http.get_model_metadata("regression")
    assert [one["name"] for one in described["outputs"]] == ["value"]
    (raw,) = described["parameters"]["raw_outputs"]
    assert raw == {"name": "dense_2", "datatype": "FP32", "shape": [-1, 1]}
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)  # computed in three calls
    tensor = triton.InferInput("features", [20, 3], "FP32").set_data_from_numpy(rows)
    by_default = over_http.infer("regression", [tensor])
    assert [one["name"] for one in by_default.get_response()["outputs"]] == ["value"]
    expected = models["regression"].runtime.run({"features": rows})["dense_2"]
    for names in (["dense_2"], ["value", "dense_2"]):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        got = over_http.infer("regression", [tensor], outputs=wanted)
        assert [one["name"] for one in got.get_response()["outputs"]] == names
        np.testing.assert_array_equal(got.as_numpy("dense_2"), expected)
    np.testing.assert_array_equal(got.as_numpy("value"), expected[:, 0])


def test_raw_outputs_are_described(call):
    document = call("GET", "/openapi.json").json
    body = document["paths"]["/v2/models/regression/infer"]["post"]["requestBody"]
    schema = resolved(document, body["content"]["application/json"]["schema"])
    said = {"name": "features", "datatype": "FP32", "shape": [1, 3], "data": ROW}
    for name, fits in (("dense_2", True), ("value", True), ("dense_3", False)):
        asked = {"inputs": [said], "outputs": [{"name": name}]}
        assert jsonschema_rs.is_valid(schema, asked) is fits
        assert (call("POST", "/v2/models/regression/infer", asked).status == 200) is fits


def test_raw_outputs_that_are_no_row_each(call, models, monkeypatch):
    runtime = models["regression"].runtime
    right = runtime.run
    monkeypatch.setattr(
        runtime, "run", lambda given: {"dense_2": right(given)["dense_2"].repeat(2, axis=0)}
    )
    said = {"name": "features", "datatype": "FP32", "shape": [1, 3], "data": ROW}
    asked = {"inputs": [said], "outputs": [{"name": "dense_2"}]}
    got = call("POST", "/v2/models/regression/infer", asked)
    assert (got.status, got.json["type"]) == (422, "urn:mlopsdeploy:problem:no-raw-output")
    assert "no value for each row" in got.json["detail"]
    monkeypatch.setattr(
        runtime,
        "run",
        lambda given: {"dense_2": right(given)["dense_2"].repeat(len(given["features"]), axis=1)},
    )
    said = {**said, "shape": [9, 3], "data": ROW * 9}  # calls of 8 rows and of 1
    got = call("POST", "/v2/models/regression/infer", {**asked, "inputs": [said]})
    assert "one row at a time" in got.json["detail"]


def test_a_text_models_logits(client, sentiment):
    (raw,) = sentiment.runtime.outputs
    name = sentiment.task.inputs[0].name
    texts = ["the food was great", "awful, broke twice, and nobody answered for a week or two"]
    said = {"name": name, "datatype": "BYTES", "shape": [2], "data": texts}
    asked = {"inputs": [said], "outputs": [{"name": raw.name}, {"name": "scores"}]}
    got = client({"sentiment": sentiment})("POST", "/v2/models/sentiment/infer", asked)
    logits, scores = (
        np.reshape(one["data"], one["shape"]) for one in json.loads(got.body)["outputs"]
    )
    assert logits.shape[0] == scores.shape[0] == 2
    assert (logits.argmax(axis=1) == scores.argmax(axis=1)).all()


@pytest.mark.parametrize("binary", [False, True])
def test_a_file_as_tensors_answers_as_its_runtime_does(client, churn_onnx, binary):
    """The real task, on a real file."""
    model = load_model(str(churn_onnx), task="tensors", runtime="onnxruntime", threads=1)
    session = onnxruntime.InferenceSession(churn_onnx, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    rows = np.array([[80, 0, 99], [1, 9, np.nan if binary else 0]], np.float32)
    expected = dict(
        zip([one.name for one in session.get_outputs()], session.run(None, {given.name: rows}),
            strict=True)
    )  # fmt: skip
    call = client({"churn": model})
    described = call("GET", "/v2/models/churn").json
    assert [one["name"] for one in described["inputs"]] == [given.name]
    assert [one["name"] for one in described["outputs"]] == [*expected]
    tensor = triton.InferInput(given.name, [2, 3], "FP32").set_data_from_numpy(rows, binary)
    body, length = triton.InferenceServerClient.generate_request_body([tensor])
    headers = {"Inference-Header-Content-Length": str(length)} if length else {}
    got = call("POST", "/v2/models/churn/infer", bytes(body), headers)
    assert got.status == 200, got
    answer = triton.InferenceServerClient.parse_response_body(
        got.body,
        header_length=int(got.headers.get("inference-header-content-length", 0)) or None,
    )
    for name, array in expected.items():
        np.testing.assert_array_equal(answer.as_numpy(name), array)
    alone = call("POST", path("churn"), {"instances": [80, 0, 99]}).json
    assert {name: np.asarray(value).tolist() for name, value in alone.items()} == {
        name: pytest.approx(array[0].tolist()) for name, array in expected.items()
    }
