"""The Open Inference Protocol: as Triton's own client speaks it, and byte by byte."""

import json
import struct

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from mlopsdeploy.serve.open_inference import DATATYPES

JSON = {"Content-Type": "application/json"}
ROWS = np.random.default_rng(5).normal(0, 2, (4, 30)).astype(np.float32)


@pytest.fixture(scope="module")
def call(client, fraud, churn, per_feature):
    return client({"fraud": fraud, "churn": churn, "pair": per_feature})


@pytest.fixture(scope="module")
def tensor(fraud):
    """The name of the fraud model's one input."""
    return fraud.task.matrix.name


@pytest.fixture(scope="module")
def scores(fraud, tensor):
    return fraud.predict({tensor: ROWS})["scores"]


# ---------------------------------------------------------------- Triton's client


@pytest.fixture(scope="module")
def client_of_triton(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def test_triton_health_and_metadata(client_of_triton, tensor):
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready("fraud")
    assert client_of_triton.is_model_ready("fraud", "1.0.0")
    assert not client_of_triton.is_model_ready("fraud", "2")
    assert not client_of_triton.is_model_ready("none")
    assert client_of_triton.get_server_metadata()["name"] == "mlopsdeploy"
    assert client_of_triton.get_model_metadata("fraud") == {
        "name": "fraud",
        "versions": ["1.0.0"],
        "platform": "litert",
        "inputs": [{"name": tensor, "datatype": "FP32", "shape": [-1, 30]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "parameters": {
            "raw_outputs": [{"name": "fraud_probability", "datatype": "FP32", "shape": [-1, 1]}]
        },
    }
    index = client_of_triton.get_model_repository_index()
    assert [(one["name"], one["state"]) for one in index] == [
        ("fraud", "READY"), ("churn", "READY"),
    ]  # fmt: skip


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_triton_infer(client_of_triton, tensor, scores, binary_in, binary_out, version):
    given = triton.InferInput(tensor, [4, 30], "FP32")
    given.set_data_from_numpy(ROWS, binary_data=binary_in)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("scores", "label")
    ]
    result = client_of_triton.infer(
        "fraud", [given], model_version=version, outputs=wanted, request_id="r7"
    )
    assert result.get_response()["id"] == "r7"
    assert result.get_response()["model_version"] == "1.0.0"
    np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-5)
    labels = result.as_numpy("label")
    texts = [one.decode() if isinstance(one, bytes) else one for one in labels.tolist()]
    assert texts == ["fraud" if one >= 0.31 else "legitimate" for one in scores[:, 1]]


def test_triton_without_outputs_gets_them_all(client_of_triton, tensor, scores):
    given = triton.InferInput(tensor, [4, 30], "FP32").set_data_from_numpy(ROWS)
    result = client_of_triton.infer("fraud", [given])
    np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-5)
    assert result.as_numpy("score").shape == (4,)
    assert result.as_numpy("none") is None


def test_triton_shows_our_sentence(client_of_triton, tensor):
    given = triton.InferInput(tensor, [4, 29], "FP32").set_data_from_numpy(ROWS[:, 1:].copy())
    with pytest.raises(InferenceServerException, match=r"must have the shape \[n, 30\]") as raised:
        client_of_triton.infer("fraud", [given])
    assert raised.value.status() == "400"
    with pytest.raises(InferenceServerException, match="no model of this name and version"):
        client_of_triton.get_model_metadata("none")
    with pytest.raises(InferenceServerException, match="no model of this name and version"):
        client_of_triton.infer("fraud", [given], model_version="9")


def test_triton_texts_of_a_model_of_texts(serve):
    """BYTES in and out, over a real connection."""
    server = serve("--workers", "1", "--model", "sentiment", "--runtime", "onnxruntime")
    texts = np.array(["the food was great", "awful, broke twice — nie wieder"], dtype=object)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        (field,) = client.get_model_metadata("sentiment")["inputs"]
        assert (field["datatype"], field["shape"]) == ("BYTES", [-1])
        for binary in (False, True):
            given = triton.InferInput(field["name"], [2], "BYTES")
            given.set_data_from_numpy(texts, binary_data=binary)
            labels = client.infer("sentiment", [given]).as_numpy("label").tolist()
            assert labels == [b"POSITIVE", b"NEGATIVE"]
    assert server.stop() == 0


# ---------------------------------------------------------------- JSON


def asked(name, rows, datatype="FP32", shape=None, **more):
    data = np.asarray(rows)
    said = {"name": name, "datatype": datatype, "shape": shape or list(data.shape), **more}
    return {"inputs": [{"data": data.tolist(), **said}]}


def given(answer, name):
    assert answer.status == 200, answer
    (found,) = [one for one in answer.json["outputs"] if one["name"] == name]
    return np.array(found["data"]).reshape(found["shape"])


@pytest.mark.parametrize(
    ("datatype", "rtol"),
    [("FP16", 5e-3), ("FP32", 1e-5), ("FP64", 1e-5), ("INT8", 0), ("INT64", 0), ("UINT8", 0)],
)
def test_number_types_that_become_the_models(call, tensor, fraud, datatype, rtol):
    rows = ROWS if datatype[0] == "F" else np.abs(ROWS).astype(int)
    expected = fraud.predict({tensor: rows.astype(np.float32)})["scores"]
    answer = call("POST", "/v2/models/fraud/infer", asked(tensor, rows, datatype))
    np.testing.assert_allclose(given(answer, "scores"), expected, rtol=rtol or 1e-5, atol=1e-6)


def test_data_may_be_flat_or_nested(call, tensor, scores):
    for rows in (ROWS, ROWS.ravel()):
        answer = call("POST", "/v2/models/fraud/infer", asked(tensor, rows, shape=[4, 30]))
        np.testing.assert_allclose(given(answer, "scores"), scores, rtol=1e-5)


def test_the_one_matrix_or_a_tensor_per_feature(call):
    whole = call("POST", "/v2/models/churn/infer", asked("features", [[80, 0, 99.0], [1, 9, 0]]))
    for shape in ([2], [2, 1]):
        columns = {"age": [80, 1], "visits": [0, 9], "spend": [99.0, 0]}
        inputs = [asked(*column, shape=shape)["inputs"][0] for column in columns.items()]
        apart = call("POST", "/v2/models/churn/infer", {"inputs": inputs})
        assert apart.json["outputs"] == whole.json["outputs"]


def test_a_model_with_a_tensor_per_feature(call):
    described = call("GET", "/v2/models/pair").json["inputs"]
    assert [(one["name"], one["datatype"]) for one in described] == [
        ("age", "FP32"), ("visits", "INT64"),
    ]  # fmt: skip
    inputs = [
        {"name": "visits", "datatype": "INT32", "shape": [2, 1], "data": [3, 1]},
        {"name": "age", "datatype": "FP32", "shape": [2], "data": [1.0, 3.0]},
    ]
    answer = call("POST", "/v2/models/pair/infer", {"inputs": inputs})
    assert given(answer, "label").tolist() == ["0", "1"]
    inputs[0]["datatype"] = "FP32"
    answer = call("POST", "/v2/models/pair/infer", {"inputs": inputs})
    assert "inputs.visits must be INT64, not FP32" in answer.json["detail"]


def test_outputs_that_are_asked_for_in_their_order(call, tensor):
    body = asked(tensor, ROWS) | {"outputs": [{"name": "score"}, {"name": "label"}]}
    answer = call("POST", "/v2/models/fraud/infer", body)
    assert [one["name"] for one in answer.json["outputs"]] == ["score", "label"]
    assert "id" not in answer.json


def test_the_repository_index(call):
    for body in (None, b"", {}, {"ready": True}):
        index = call("POST", "/v2/repository/index", body).json
        assert index[0] == {"name": "fraud", "version": "1.0.0", "state": "READY", "reason": ""}
        assert [one["name"] for one in index] == ["fraud", "churn", "pair"]
        assert index[1]["version"] == "1", "the protocol wants one"
    for body in (b"[]", b"{", {"ready": 1}):
        assert call("POST", "/v2/repository/index", body).status == 400
    assert call("POST", "/v2/repository/index", b" " * 5_000_000).status == 413


def test_versions(call, tensor):
    for path in ("", "/versions/1.0.0"):
        assert call("GET", f"/v2/models/fraud{path}").json["versions"] == ["1.0.0"]
        assert call("GET", f"/v2/models/fraud{path}/ready").json == {"name": "fraud", "ready": True}
        assert call("POST", f"/v2/models/fraud{path}/infer", asked(tensor, ROWS)).status == 200
    for path in ("none", "fraud/versions/2", "none/versions/1.0.0"):
        for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            answer = call(method, f"/v2/models/{path}{end}", {} if method == "POST" else None)
            assert answer.status == 404
            assert answer.json["type"] == "urn:mlopsdeploy:problem:unknown-model"
            assert answer.json["error"] == answer.json["detail"]


# ---------------------------------------------------------------- bytes


def packed(header, *chunks):
    head = json.dumps(header).encode()
    return head + b"".join(chunks), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def raw(tensor, size=4 * 30 * 4, shape=(4, 30), datatype="FP32", **more):
    parameters = {"binary_data_size": size}
    said = {"name": tensor, "datatype": datatype, "shape": list(shape), "parameters": parameters}
    return {"inputs": [said], **more}


def test_bytes_in_and_bytes_out(call, tensor, scores):
    body, headers = packed(
        raw(tensor, parameters={"binary_data_output": True}, outputs=[{"name": "scores"}]),
        ROWS.astype("<f4").tobytes(),
    )
    answer = call("POST", "/v2/models/fraud/infer", body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert "data" not in output
    assert output["parameters"]["binary_data_size"] == len(answer.body) - length == 4 * 2 * 4
    got = np.frombuffer(answer.body[length:], "<f4").reshape(output["shape"])
    np.testing.assert_allclose(got, scores, rtol=1e-5)


def test_several_tensors_of_bytes_stand_one_behind_the_other(call):
    inputs = [
        {"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": size}}
        for name, datatype, size in (("age", "FP32", 8), ("visits", "INT64", 16))
    ]
    chunks = np.array([1, 3], "<f4").tobytes(), np.array([3, 1], "<i8").tobytes()
    body, headers = packed({"inputs": inputs}, *chunks)
    answer = call("POST", "/v2/models/pair/infer", body, headers)
    assert given(answer, "label").tolist() == ["0", "1"]


# ---------------------------------------------------------------- what is refused

MARK = "s3cr3t-4711"
GOOD = ROWS.ravel().tolist()
BAD = {
    "not JSON": (MARK.encode(), "not-json", None),
    "nothing": (b"", "not-json", None),
    "not UTF-8": (b'{"inputs": [{"name": "\xff"}]}', "not-json", None),
    "deep lists": (b'{"inputs": [{"name": "T", "datatype": "FP32", "shape": [1, 30], "data": '
                   + b"[" * 90_000 + b"]" * 90_000 + b"}]}", "not-json", None),
    "a list": ([], "wrong-type", None),
    "no inputs": ({}, "missing", "inputs"),
    "inputs of another type": ({"inputs": MARK}, "wrong-type", "inputs"),
    "empty inputs": ({"inputs": []}, "missing", "inputs.T"),
    "no name": ({"inputs": [{"shape": [1], "datatype": "FP32"}]}, "missing", "inputs[0].name"),
    "no shape": ({"inputs": [{"name": "T", "datatype": "FP32"}]}, "missing", "inputs[0].shape"),
    "a shape of texts": ({"shape": [MARK]}, "wrong-type", "inputs[0].shape[0]"),
    "a shape of floats": ({"shape": [4.5, 30]}, "wrong-type", "inputs[0].shape[0]"),
    "unknown input": ({"name": MARK}, "unknown-input", "inputs"),
    "unknown datatype": ({"datatype": MARK}, "wrong-type", "inputs.T"),
    "texts for numbers": ({"datatype": "BYTES"}, "wrong-type", "inputs.T"),
    "truth for numbers": ({"datatype": "BOOL"}, "wrong-type", "inputs.T"),
    "one size too few": ({"shape": [120]}, "wrong-shape", "inputs.T"),
    "one size too many": ({"shape": [1, 4, 30]}, "wrong-shape", "inputs.T"),
    "another width": ({"shape": [30, 4]}, "wrong-shape", "inputs.T"),
    "no size at all": ({"shape": []}, "wrong-shape", "inputs.T"),
    "a negative size": ({"shape": [-4, 30]}, "wrong-shape", "inputs.T"),
    "a vast size": ({"shape": [10**18, 30]}, "too-many-rows", "inputs.T"),
    "no rows": ({"shape": [0, 30], "data": []}, "empty", "inputs"),
    "no data": ({"data": None}, "missing", "inputs.T.data"),
    "data of another type": ({"data": MARK}, "wrong-type", "inputs[0].data"),
    "too little data": ({"data": GOOD[1:]}, "wrong-length", "inputs.T.data"),
    "too much data": ({"data": [*GOOD, 4711]}, "wrong-length", "inputs.T.data"),
    "a text in data": ({"data": [MARK, *GOOD[1:]]}, "wrong-type", "inputs.T.data"),
    "null in data": ({"data": [None, *GOOD[1:]]}, "wrong-type", "inputs.T.data"),
    "true in data": ({"data": [True, *GOOD[1:]]}, "wrong-type", "inputs.T.data"),
    "an object in data": ({"data": [{MARK: 1}, *GOOD[1:]]}, "wrong-type", "inputs.T.data"),
    "deep lists in data": ({"data": [[[[[4711.0]]]], *GOOD[1:]]}, "wrong-type", "inputs.T.data"),
    "too large a number": ({"data": [4.711e39, *GOOD[1:]]}, "out-of-range", "inputs.T"),
    "too large, as FP64": (
        {"data": [4.711e39, *GOOD[1:]], "datatype": "FP64"}, "out-of-range", "inputs.T",
    ),
    "too large, a whole number": (
        {"data": [4711] * 120, "datatype": "INT8"}, "out-of-range", "inputs.T.data",
    ),
    "a fraction as a whole number": (
        {"data": [4.711] * 120, "datatype": "INT64"}, "wrong-type", "inputs.T.data",
    ),
    "unknown output": ({"outputs": [{"name": MARK}]}, "unknown-output", "outputs"),
    "outputs of another type": ({"outputs": MARK}, "wrong-type", "outputs"),
    "parameters of another type": ({"parameters": MARK}, "wrong-type", "parameters"),
    "binary without bytes": (
        {"tensor": {"binary_data_size": 480}, "data": None}, "bad-length", "inputs.T",
    ),
    "binary size of another type": (
        {"tensor": {"binary_data_size": MARK}, "data": None}, "bad-length", "inputs.T",
    ),
}  # fmt: skip


def refused(answer, kind, field, tensor):
    assert answer.status == (413 if kind == "too-many-rows" else 400), answer
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json
    assert document["type"] == f"urn:mlopsdeploy:problem:{kind}", document
    assert document.get("field") == (field and field.replace(".T", f".{tensor}")), document
    assert document["error"] == document["detail"], "where Triton's and KServe's clients look"
    assert len(document["detail"]) < 120
    for leak in (MARK, "4711", "4.711", "Traceback", "Expected `"):
        assert leak not in answer.body.decode().replace(document["request_id"], "")


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_as_the_protocol_says(call, tensor, name, caplog):
    change, kind, field = BAD[name]
    if isinstance(change, dict) and change and "inputs" not in change:
        said = {"name": tensor, "datatype": "FP32", "shape": [4, 30], "data": GOOD}
        said |= {key: change[key] for key in ("name", "datatype", "shape", "data") if key in change}
        said["parameters"] = change.get("tensor", {})
        more = {key: change[key] for key in ("outputs", "parameters") if key in change}
        change = {"inputs": [said], **more}
    refused(call("POST", "/v2/models/fraud/infer", change), kind, field, tensor)
    assert MARK not in caplog.text


@pytest.mark.parametrize(
    ("header", "chunks", "said", "kind", "field"),
    [
        ({}, [b""], None, "bad-length", "inputs.T"),
        ({}, [ROWS.tobytes(), b"x"], None, "wrong-length", "inputs"),
        ({"size": 476}, [ROWS.tobytes()[4:]], None, "wrong-length", "inputs.T"),
        ({"size": -1}, [ROWS.tobytes()], None, "bad-length", "inputs.T"),
        ({"size": 10**20}, [ROWS.tobytes()], None, "bad-length", "inputs.T"),
        ({"shape": (10**15, 30)}, [ROWS.tobytes()], None, "too-many-rows", "inputs.T"),
        ({"shape": (5, 30)}, [ROWS.tobytes()], None, "wrong-length", "inputs.T"),
        ({"datatype": "FP64"}, [ROWS.tobytes()], None, "wrong-length", "inputs.T"),
        ({}, [ROWS.tobytes()], "9999999", "bad-length", None),
        ({}, [ROWS.tobytes()], "-1", "bad-length", None),
        ({}, [ROWS.tobytes()], MARK, "bad-length", None),
        ({}, [ROWS.tobytes()], "\xb2", "bad-length", None),
        ({}, [ROWS.tobytes()], "3", "not-json", None),
        ({}, [np.full((4, 30), np.nan, "<f4").tobytes()], None, "out-of-range", "inputs.T"),
        ({}, [np.full((4, 30), np.inf, "<f4").tobytes()], None, "out-of-range", "inputs.T"),
    ],
)  # fmt: skip
def test_bytes_that_are_not_what_the_header_says(call, tensor, header, chunks, said, kind, field):
    body, headers = packed(raw(tensor, **header), *chunks)
    if said:
        headers["Inference-Header-Content-Length"] = said
    refused(call("POST", "/v2/models/fraud/infer", body, headers), kind, field, tensor)


@pytest.mark.parametrize(
    ("chunk", "kind"),
    [
        (struct.pack("<I", 4) + b"good", "wrong-length"),  # one text of two
        ((struct.pack("<I", 4) + b"good") * 3, "wrong-length"),
        (struct.pack("<I", 4) + b"good" + b"\x01\x00", "wrong-length"),
        (struct.pack("<I", 4) + b"good" + struct.pack("<I", 2**31) + b"x", "wrong-length"),
        ((struct.pack("<I", 1) + b"\xff") * 2, "wrong-type"),
    ],
)
def test_texts_in_bytes_that_are_cut_or_not_utf8(client, sentiment, chunk, kind):
    call = client({"sentiment": sentiment})
    name = sentiment.task.inputs[0].name
    body, headers = packed(raw(name, len(chunk), (2,), "BYTES"), chunk)
    refused(call("POST", "/v2/models/sentiment/infer", body, headers), kind, "inputs.T", name)


def test_inputs_that_do_not_belong_together(call):
    def of(**columns):
        inputs = [asked(*column)["inputs"][0] for column in columns.items()]
        return call("POST", "/v2/models/churn/infer", {"inputs": inputs})

    refused(of(age=[1, 2], visits=[1], spend=[1, 2]), "wrong-shape", "inputs", "")
    refused(of(age=[1], visits=[1]), "missing", "inputs.T", "features")


def test_a_tensor_twice_or_beside_its_features(call):
    """The last one counts; a feature beside the whole matrix is not read."""
    one, other = (asked("features", rows)["inputs"][0] for rows in ([[1, 9, 0]], [[80, 0, 99]]))
    answer = call("POST", "/v2/models/churn/infer", {"inputs": [one, other]})
    assert given(answer, "label").tolist() == ["1"]


def test_every_datatype_has_a_name_of_the_protocol():
    assert len(set(DATATYPES.values())) == len(DATATYPES) == 13
    for name, datatype in DATATYPES.items():
        if name not in ("str", "bool"):
            assert np.dtype(name).itemsize * 8 == int(datatype.lstrip("UINTFP"))


def test_no_more_rows_than_a_request_may_have(client, fraud):
    call = client({"fraud": fraud}, max_rows=2)
    for rows, status in ((2, 200), (3, 413)):
        raw = np.zeros((rows, 30), "<f4").tobytes()
        tensor = {"name": fraud.task.matrix.name, "datatype": "FP32", "shape": [rows, 30]}
        listed = {**tensor, "data": [0.5] * 30 * rows}
        header = json.dumps(
            {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
        ).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        for body, headers in (({"inputs": [listed]}, JSON), (header + raw, {**JSON, **length})):
            answer = call("POST", "/v2/models/fraud/infer", body, headers)
            assert answer.status == status, answer.body
    assert (
        answer.json["error"]
        == f"inputs.{tensor['name']} may have 2 rows at most; the server's max_rows says so"
    )
    document = call("GET", "/openapi.json").json["paths"]["/detect_fraud"]["post"]
    rows = document["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert rows["transaction_data"]["anyOf"][1]["maxItems"] == 2
