"""The application: routes, answers and refusals, by the short way, through Flask, and served."""

import gzip
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import wsgiref.simple_server
import wsgiref.validate
from http.client import HTTPConnection

import flask
import numpy as np
import pytest

from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.serve import create_app
from mlopsdeploy.settings import ServeSettings

JSON = {"Content-Type": "application/json"}
ROW = [72027.0, *[0.1] * 28, 13.49]
FEATURES = ["Time", *(f"V{number}" for number in range(1, 29)), "Amount"]
MARK = "s3cr3t-4711"  # stands in inputs; may never come out again
QUOTED = f'"{MARK}"'


def row(**changes):
    """ROW as JSON, with something else at some places: `row(at3="NaN")`."""
    values = [str(value) for value in ROW]
    for place, value in changes.items():
        values[int(place.removeprefix("at"))] = value
    return "[" + ", ".join(values) + "]"


def named(**changes):
    values = {**dict(zip(FEATURES, ROW, strict=True)), **changes}
    return {name: value for name, value in values.items() if value is not ...}


@pytest.fixture(scope="module", params=["short way", "through Flask", "served"])
def call(request, client, fraud, churn):
    """The same two models three ways: `call(method, path, body, headers)`."""
    if request.param == "served":
        return request.getfixturevalue("server").call
    models = {"fraud": fraud, "churn": churn}
    return client(models, through_flask=request.param == "through Flask", max_body=200_000)


# ---------------------------------------------------------------- what works


def test_the_endpoint_of_the_article(call):
    answer = call("POST", "/detect_fraud", {"transaction_data": ROW})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert re.fullmatch(r"[\w-]+", answer.headers["x-request-id"])
    document = answer.json
    assert set(document) == {"is_fraud", "score", "threshold", "model", "version"}
    assert document["is_fraud"] is (document["score"] >= document["threshold"])
    assert 0 <= document["score"] <= 1
    assert (document["model"], document["version"]) == ("fraud", "1.0.0")


def test_a_list_of_rows_is_answered_in_order_as_each_alone(call, fraud):
    rows = np.random.default_rng(2).normal(0, 3, (40, 30)).round(3).tolist()
    together = call("POST", "/detect_fraud", {"transaction_data": rows}).json
    assert set(together) == {"predictions", "model", "version"}
    assert len({one["is_fraud"] for one in together["predictions"]}) == 2
    for given, one in zip(rows[:5], together["predictions"], strict=False):
        alone = call("POST", "/detect_fraud", {"transaction_data": given}).json
        assert alone["score"] == pytest.approx(one["score"], rel=1e-4)
        assert alone["is_fraud"] is one["is_fraud"]
    columns = {fraud.task.matrix.name: np.array(rows, np.float32)}
    scores = fraud.predict(columns)["scores"][:, 1]
    assert [one["score"] for one in together["predictions"]] == pytest.approx(scores, rel=1e-4)


def test_objects_by_feature_name_lists_of_them_and_both_mixed(call):
    alone = call("POST", "/detect_fraud", {"transaction_data": ROW}).json
    shuffled = dict(reversed(named(more="is ignored").items()))
    assert call("POST", "/detect_fraud", {"transaction_data": shuffled}).json == alone
    mixed = call("POST", "/detect_fraud", {"transaction_data": [ROW, shuffled, ROW]}).json
    assert len(mixed["predictions"]) == 3
    assert [one["score"] for one in mixed["predictions"]] == pytest.approx([alone["score"]] * 3)


def test_a_model_that_names_no_route_gets_the_default_one(call):
    answer = call(
        "POST", "/v1/models/churn:predict", {"instances": {"age": 80, "visits": 0, "spend": 99}}
    )
    assert answer.json == {"label": "1", "score": pytest.approx(1 / (1 + np.exp(-3.99)), rel=1e-5)}
    both = call("POST", "/v1/models/churn:predict", {"instances": [[80, 0, 99], [1, 9, 0]]}).json
    assert [one["label"] for one in both["predictions"]] == ["1", "0"]
    assert (both["model"], both["version"]) == ("churn", "")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.shop+json"]
)
def test_content_types_that_are_json(call, kind):
    answer = call("POST", "/detect_fraud", {"transaction_data": ROW}, {"Content-Type": kind})
    assert answer.status == 200


def test_the_callers_request_id_is_kept_where_it_is_one(call):
    for said in ("abc-1.2:3", "A" * 128):
        answer = call("GET", "/healthz", headers={"X-Request-ID": said})
        assert answer.headers["x-request-id"] == said
    for said in ("a b", "A" * 129, "<script>", "caf\xe9", ""):
        answer = call("GET", "/healthz", headers={"X-Request-ID": said})
        assert answer.headers["x-request-id"] != said
    ids = {call("GET", "/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_health_and_readiness(call):
    assert call("GET", "/healthz").json == {"status": "ok"}
    assert call("GET", "/readyz").json == {"status": "ready", "models": ["fraud", "churn"]}
    assert call("HEAD", "/healthz").body == b""


# ---------------------------------------------------------------- what is refused

FRAUD, CHURN = "/detect_fraud", "/v1/models/churn:predict"
NOT_JSON = {
    "nothing": b"",
    "blank": b" \n",
    "words": MARK.encode(),
    "cut off": b'{"transaction_data": [1, 2, "' + MARK.encode(),
    "behind": f'{{"transaction_data": {row()}}} {MARK}'.encode(),
    "single quotes": f"{{'transaction_data': '{MARK}'}}".encode(),
    "UTF-16": json.dumps({"transaction_data": MARK}).encode("utf-16"),
    "deep objects": b'{"transaction_data":' * 9_000,
    "deep elsewhere": b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b', "transaction_data": 1}',
    "a byte of nothing": b'{"transaction_data": "\x00' + MARK.encode() + b'"}',
}
# name: (path, body, kind, field)
NOT_WHAT_THE_MODEL_TAKES = {
    "a list": (FRAUD, f'["{MARK}"]', "wrong-type", None),
    "a text": (FRAUD, f'"{MARK}"', "wrong-type", None),
    "null": (FRAUD, "null", "wrong-type", None),
    "another field": (FRAUD, {MARK: ROW}, "missing", "transaction_data"),
    "the other model": (CHURN, {"instances": [1, 2, MARK]}, "wrong-type", "instances[2]"),
    "the other model's width": (CHURN, {"instances": ROW}, "wrong-length", "instances"),
}
# name: (value of transaction_data, as JSON or as what JSON is made of; kind, field within it)
NO_TRANSACTION = {
    "a field that is null": (None, "wrong-type", ""),
    "a field that is a text": (QUOTED, "wrong-type", ""),
    "a number": (4711, "wrong-type", ""),
    "true": (True, "wrong-type", ""),
    "deep lists": ("[" * 100_000, "wrong-type", "[0][0]"),
    "no rows": ([], "empty", ""),
    "a row of nothing": ([[]], "wrong-length", "[0]"),
    "too few": ([4711, 4711], "wrong-length", ""),
    "too many": ([*ROW, 4711], "wrong-length", ""),
    "too few in the second": ([ROW, [4711]], "wrong-length", "[1]"),
    "a text among numbers": (row(at3=QUOTED), "wrong-type", "[3]"),
    "null among numbers": (row(at29="null"), "wrong-type", "[29]"),
    "true among numbers": (row(at0="true"), "wrong-type", "[0]"),
    "null in the second row": (f"[{row()}, {row(at4='null')}]", "wrong-type", "[1][4]"),
    "a list among numbers": (row(at2="[4711]"), "wrong-type", "[2]"),
    "an object among numbers": ([1.0, named(), *ROW[2:]], "wrong-type", "[1]"),
    "1e999": (row(at5="1e999"), "out-of-range", "[5]"),
    "more than float32 holds": (row(at5="-4.711e39"), "out-of-range", "[5]"),
    "more than float32 holds, second row": (
        f"[{row()}, {row(at5='4.711e39')}]", "out-of-range", "[1][5]",
    ),
    "a long whole number": (row(at5="4711" * 100), "out-of-range", "[5]"),
    "a row, then a number": ([ROW, 4711], "wrong-type", "[1]"),
    "a row, then null": ([ROW, None], "wrong-type", "[1]"),
    "an object without a feature": (named(V3=...), "missing", ".V3"),
    "an object with a text": (named(V3=MARK), "wrong-type", ".V3"),
    "an object with null": ([ROW, named(V3=None)], "wrong-type", "[1].V3"),
    "an object with too much": (named(Amount=4.711e39), "out-of-range", ".Amount"),
    "in the second of three": ([ROW, named(V9=...), ROW], "missing", "[1].V9"),
}  # fmt: skip
for name, (value, kind, within) in NO_TRANSACTION.items():
    body = f'{{"transaction_data": {value if isinstance(value, str) else json.dumps(value)}'
    body += "" if name == "deep lists" else "}"
    NOT_WHAT_THE_MODEL_TAKES[name] = (FRAUD, body, kind, f"transaction_data{within}")
for place, word in (("3", "NaN"), ("0", "Infinity"), ("29", "-Infinity"), ("7", "nan")):
    NOT_JSON[word] = f'{{"transaction_data": {row(**{f"at{place}": word})}}}'.encode()


def refused(answer, status, kind, field=None, caplog=None):
    """Problem details as they should be; gives the sentence."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))
    document = answer.json
    assert list(document)[:4] == ["type", "title", "status", "detail"]
    assert document["type"] == f"urn:mlopsdeploy:problem:{kind}"
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document.get("field") == field
    assert set(document) <= {"type", "title", "status", "detail", "field", "request_id", "error"}
    detail = document["detail"]
    assert 8 < len(detail) < 100
    assert "\n" not in detail
    assert "$" not in detail
    assert "`" not in detail
    if field:
        assert field in detail
    shown = (answer.body.decode() + str(answer.headers)).replace(document["request_id"], "")
    for leak in (MARK, "4711", "4.711", "Traceback", "msgspec", "Body", "Row"):
        assert leak not in shown
    return detail


@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_not_json(call, name, caplog):
    answer = call("POST", "/detect_fraud", NOT_JSON[name])
    field = "transaction_data" if "N" in name[:2] or "Inf" in name else None
    field = None if name.startswith("not") else field
    refused(answer, 400, "not-json", field)
    assert MARK not in caplog.text


@pytest.mark.parametrize("name", NOT_WHAT_THE_MODEL_TAKES)
def test_json_that_is_not_what_the_model_takes(call, name, caplog):
    path, body, kind, field = NOT_WHAT_THE_MODEL_TAKES[name]
    answer = call("POST", path, body.encode() if isinstance(body, str) else body)
    refused(answer, 422, kind, field)
    assert MARK not in caplog.text


@pytest.mark.parametrize("kind", [
    None, "", "text/plain", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x", "application/jsonl", MARK,
])  # fmt: skip
def test_another_content_type(call, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = call("POST", "/detect_fraud", {"transaction_data": ROW}, headers)
    assert "Content-Type: application/json" in refused(answer, 415, "not-json")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_not_read_as_garbage(call, coding):
    body = gzip.compress(json.dumps({"transaction_data": ROW}).encode())
    answer = call("POST", "/detect_fraud", body, {**JSON, "Content-Encoding": coding})
    assert "Content-Encoding" in refused(answer, 415, "encoded")
    assert answer.headers["accept-encoding"] == "identity"
    plain = {**JSON, "Content-Encoding": "identity"}
    assert call("POST", "/detect_fraud", {"transaction_data": ROW}, plain).status == 200


def test_a_body_that_is_too_long(call):
    body = b'{"transaction_data": "' + MARK.encode() * 900_000 + b'"}'
    assert len(body) > 9_900_000
    detail = refused(call("POST", "/detect_fraud", body), 413, "too-long")
    assert "200,000 bytes" in detail
    just = json.dumps({"transaction_data": ROW}).encode().ljust(200_000)
    assert call("POST", "/detect_fraud", just).status == 200
    assert call("POST", "/detect_fraud", just + b" ").status == 413


@pytest.mark.parametrize("path", [
    "/none", f"/{MARK}", "/detect_fraud/", "/v1/models/none:predict", "/static/x", "/../etc/passwd",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_where_there_is_nothing(call, method, path):
    body = {"transaction_data": ROW} if method == "POST" else None
    refused(call(method, path, body), 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/detect_fraud", "/v2/models/fraud/infer"])
def test_another_method(call, method, path):
    answer = call(method, path, {} if method in ("PUT", "PATCH") else None)
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
    if method != "HEAD":
        refused(answer, 405, "method-not-allowed")


def test_which_methods_there_are(call):
    for path in ("/healthz", "/metrics", "/openapi.json", "/v2", "/v2/models/fraud"):
        answer = call("POST", path, {})
        refused(answer, 405, "method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    answer = call("OPTIONS", "/detect_fraud")
    assert answer.status == 200
    assert set(answer.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
    answer = call("GET", "//healthz")  # doubled slashes are no fault of ours
    assert answer.status in (200, 308, 404)
    assert "Traceback" not in answer.body.decode()


# ---------------------------------------------------------------- both ways are the same


def test_both_ways_give_the_same_answers_and_count_the_same(client, fraud, churn):
    models = {"fraud": fraud, "churn": churn}
    ways = [client(models, through_flask=flask, max_body=200_000) for flask in (False, True)]
    requests = [("/detect_fraud", body, JSON) for body in NOT_JSON.values()]
    requests += [(path, body, JSON) for path, body, _, _ in NOT_WHAT_THE_MODEL_TAKES.values()]
    requests += [
        ("/detect_fraud", {"transaction_data": ROW}, JSON),
        ("/detect_fraud", {"transaction_data": [ROW, named()]}, JSON),
        ("/detect_fraud", {"transaction_data": ROW}, {}),
        ("/detect_fraud", {"transaction_data": ROW}, {**JSON, "Content-Encoding": "gzip"}),
        ("/detect_fraud", b" " * 200_001, JSON),
        ("/v2/models/fraud/infer", {"inputs": []}, JSON),
        ("/v2/models/churn/infer", MARK.encode(), JSON),
    ]
    for path, body, headers in requests:
        raw = body.encode() if isinstance(body, str) else body
        pair = [way("POST", path, raw, {**headers, "X-Request-ID": "the-same"}) for way in ways]
        for one in pair:
            one.headers.pop("server-timing", None)
        assert pair[0] == pair[1], (path, body)
    counted = [way("GET", "/metrics") for way in ways]
    for one in counted:
        assert one.metric("mlopsdeploy_requests_total") == len(requests)
        assert one.metric("mlopsdeploy_request_seconds_count") == len(requests)
        assert one.metric("mlopsdeploy_in_flight") == 0
    for code in ("200", "400", "413", "415", "422"):
        each = [
            one.metric("mlopsdeploy_requests_total", model="fraud", code=code) for one in counted
        ]
        assert each[0] == each[1] > 0, code


def test_a_hosts_hooks_see_predictions_too_and_may_turn_them_away(client, fraud):
    call = client({"fraud": fraud})
    seen = []
    assert call("POST", "/detect_fraud", {"transaction_data": ROW}).status == 200

    @call.app.after_request
    def add(response):
        seen.append(response.status_code)
        response.headers["X-Shop"] = "ours"
        return response

    answer = call("POST", "/detect_fraud", {"transaction_data": ROW})
    assert (answer.status, answer.headers["x-shop"], seen) == (200, "ours", [200])
    call = client({"fraud": fraud})
    call.app.before_request(lambda: flask.abort(401))
    refused(call("POST", "/detect_fraud", {"transaction_data": ROW}), 401, "unauthorized")


# ---------------------------------------------------------------- our own mistakes


@pytest.fixture(params=[False, True], ids=["short way", "through Flask"])
def broken(request, client, fraud):
    """A model whose runtime fails at every call."""
    import dataclasses

    class Broken:
        name, streams, batch_scale, precision = "broken", 1, 1, "float32"
        inputs, outputs, metadata = fraud.runtime.inputs, fraud.runtime.outputs, {}

        def run(self, tensors):
            raise RuntimeError(f"tensor arena: {MARK}")

    model = dataclasses.replace(fraud, runtime=Broken())
    return client({"fraud": model}, through_flask=request.param)


@pytest.mark.parametrize("path", ["/detect_fraud", "/v2/models/fraud/infer"])
def test_a_500_tells_nothing_but_the_id_under_which_the_log_has_it(broken, caplog, path):
    tensor = {"name": "transaction", "datatype": "FP32", "shape": [1, 30], "data": ROW}
    if path.startswith("/v2"):
        tensor["name"] = broken("GET", "/v2/models/fraud").json["inputs"][0]["name"]
    for _ in range(2):  # the first one does not keep the model
        caplog.clear()
        answer = broken("POST", path, {"transaction_data": ROW, "inputs": [tensor]})
        refused(answer, 500, "server-fault")
        (record,) = [one for one in caplog.records if one.exc_info]
        assert record.request_id == answer.json["request_id"]
        assert "tensor arena" in caplog.text
    assert broken("GET", "/metrics").metric("mlopsdeploy_requests_total", code="500") == 2
    assert broken("GET", "/metrics").metric("mlopsdeploy_in_flight") == 0


def test_a_fault_in_a_hosts_own_page_is_a_problem_too(client, fraud, caplog):
    call = client({"fraud": fraud})

    @call.app.get("/own")
    def own():
        raise KeyError(MARK)

    answer = call("GET", "/own")
    refused(answer, 500, "server-fault")
    assert MARK in caplog.text


# ---------------------------------------------------------------- routes from settings and model


@pytest.fixture
def described(tmp_path, churn_onnx):
    """`described(serve={...})`: the churn model with a `serve:` section of its own."""
    import yaml

    from mlopsdeploy.core.loading import load_model

    def make(**said):
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(churn_onnx.read_bytes())
        told = {"name": "shop", "version": "3", "task": "tabular_classification", **said}
        told.setdefault("labels", ["stays", "leaves"])
        (folder / "model.yaml").write_text(yaml.safe_dump(told), "utf-8")
        return load_model(str(folder), runtime="onnxruntime", threads=1)

    return make


CUSTOMER = {"age": 80, "visits": 0, "spend": 99}


def test_a_models_own_route(client, described):
    model = described(
        serve={"route": "/leaving", "input": "customer", "answer": {"leaves": "label == leaves"}}
    )
    call = client({"shop": model})
    assert call("POST", "/leaving", {"customer": CUSTOMER}).json == {"leaves": True}
    answer = call("POST", "/leaving", {"customer": [CUSTOMER, [0, 9, 0]]}).json
    assert answer == {
        "predictions": [{"leaves": True}, {"leaves": False}], "model": "shop", "version": "3",
    }  # fmt: skip
    assert call("POST", "/v1/models/shop:predict", {"instances": CUSTOMER}).status == 404


def test_settings_win_over_the_models_own_words_one_by_one(client, described):
    model = described(serve={"route": "/leaving", "input": "customer"})
    said = {"route": "/v9/churn:score", "answer": {"risk": "scores.leaves"}}
    call = client({"shop": model}, models=[{"model": "x", "name": "shop", **said}])
    answer = call("POST", "/v9/churn:score", {"customer": CUSTOMER}).json
    assert answer == {"risk": pytest.approx(0.981841, rel=1e-5)}


def test_a_setting_belongs_to_the_model_of_its_name(client, churn, fraud):
    said = {"model": "x", "name": "churn", "route": "/churn"}
    call = client({"fraud": fraud, "churn": churn}, models=[said])
    assert call("POST", "/churn", {"instances": CUSTOMER}).status == 200
    assert call("POST", "/detect_fraud", {"transaction_data": ROW}).status == 200


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        ({"rout": "/x"}, ["serve.rout", "did you mean 'route'?"]),
        ({"route": "x"}, ["serve.route"]),
        ({"answer": {"a": 1}}, ["answer: a", "'1'"]),
        ({"answer": {"a": "scores.gone"}}, ["answer: a", "'gone'", "stays, leaves"]),
        ("/leaving", ["serve: expected a map of keys"]),
    ],
)
def test_a_serve_section_that_is_wrong(described, serve, words):
    with pytest.raises((ConfigError, ModelError)) as raised:
        create_app({"shop": described(serve=serve)})
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_models_with_one_route_are_refused(fraud):
    with pytest.raises(ConfigError, match="'a' and 'b' have the same route /detect_fraud"):
        create_app({"a": fraud, "b": fraud})


def routed(name, route):
    return ServeSettings(models=[{"model": "x", "name": name, "route": route}])


@pytest.mark.parametrize(("route", "message"), [
    *((route, f"{route}.*the server's own")
      for route in ("/healthz", "/metrics", "/v2", "/v2/repository/index", "/openapi.json")),
    ("/v2/models/churn/infer", "same route"),
])  # fmt: skip
def test_a_route_that_is_the_servers_own_is_refused(churn, route, message):
    with pytest.raises(ConfigError, match=message):
        create_app({"churn": churn}, routed("churn", route))


def test_no_route_can_be_where_a_page_is(fraud):
    app = create_app({"fraud": fraud})
    paths = {rule.rule for rule in app.url_map.iter_rules() if "<" not in rule.rule}
    for path in paths - {"/", *app.endpoints}:
        with pytest.raises(ConfigError, match="the server's own"):
            create_app({"fraud": fraud}, routed("fraud", path))


def test_flask_is_loaded_for_pages_alone():
    code = (
        "import sys\n"
        "from mlopsdeploy.serve import server\n"
        "from mlopsdeploy.serve.app import assembled\n"
        "from mlopsdeploy.serve.messages import Request\n"
        "app = assembled({})\n"
        "def status(path): return app.page(Request('GET', path, {}, b'', '', 0.0), 'x', 1).status\n"
        "print(status('/metrics'), status('/capacity'), 'flask' in sys.modules)\n"
        "print(status('/'), status('/none'), 'flask' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["200 200 False", "200 404 True"]


# ---------------------------------------------------------------- the access log


@pytest.mark.parametrize("flask", [False, True], ids=["short way", "through Flask"])
def test_the_access_log_has_the_request_but_not_what_it_brought(client, fraud, caplog, flask):
    caplog.set_level(logging.INFO, "mlopsdeploy.access")
    call = client({"fraud": fraud}, through_flask=flask, access_log=True)
    headers = {**JSON, "X-Request-ID": "q1"}
    call("POST", f"/detect_fraud?key={MARK}", {"transaction_data": MARK}, headers)
    call("GET", "/none/%0Aforged%20line/caf%C3%A9")
    first, second = caplog.records
    assert (first.method, first.path, first.status) == ("POST", "/detect_fraud", 422)
    assert first.request_id == "q1"
    assert 0 < first.seconds < 5
    assert second.path == "/none/%0Aforged%20line/caf%C3%A9"
    assert (second.method, second.status) == ("GET", 404)
    assert MARK not in caplog.text
    caplog.clear()
    client({"fraud": fraud}, through_flask=flask)("GET", "/healthz")
    assert caplog.records == [], "it is off by default"


# ---------------------------------------------------------------- other servers


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.parametrize("flask", [False, True], ids=["short way", "through Flask"])
def test_it_keeps_to_wsgi_under_another_server(fraud, flask):
    """wsgiref's validator raises at whatever the standard forbids."""
    app = create_app({"fraud": fraud})
    if flask:
        app.before_request(lambda: None)
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, wsgiref.validate.validator(app), handler_class=Quiet
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def call(method, path, body=None, **headers):
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request(method, path, body, {**JSON, **headers})
        answer = connection.getresponse()
        read = answer.status, answer.read()
        connection.close()
        return read

    try:
        good = json.dumps({"transaction_data": ROW})
        assert call("POST", "/detect_fraud", good)[0] == 200
        assert call("POST", "/detect_fraud", b"{}")[0] == 422
        assert call("GET", "/readyz")[0] == 200
        assert call("GET", "/none")[0] == 404
        assert b"mlopsdeploy_requests_total" in call("GET", "/metrics")[1]
        assert call("GET", "/openapi.json")[0] == 200
        # This server does not decode chunks; to read them would be to wait for ever.
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as bare:
            bare.sendall(
                b"POST /detect_fraud HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            answer = bare.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.0 411 ")
        assert b"urn:mlopsdeploy:problem:no-length" in answer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
