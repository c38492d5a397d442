"""The OpenAPI document: well-formed, complete, and true."""

import json
import re
import subprocess
import sys

import jsonschema_rs
import pytest

ROW = [0.0] * 30
CONFIG = """
color = false
seed = 1

[checks]
enabled = true
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 415, 422]  # 413: too many rows

# That `data` has as many values as the sizes of `shape` multiply to is nothing that JSON Schema
# can say. That requests as the document describes them are accepted has a test of its own.
[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false

# Nor that a text is a picture.
[[operations]]
include-path-regex = "detector:predict$"
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def call(client, fraud, churn, sentiment, per_feature):
    models = {"fraud": fraud, "churn": churn, "sentiment": sentiment, "pair": per_feature}
    return client(models)


@pytest.fixture(scope="module")
def document(call):
    answer = call("GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json


def resolved(document, schema):
    """With the document's components, so that references are found."""
    return {**schema, "components": document["components"]}


def schemas(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                for media in body.get("content", {}).values():
                    yield method, path, media
            for parameter in operation.get("parameters", []):
                yield method, path, parameter


def test_it_is_openapi(document):
    assert document["openapi"].startswith("3.1.")
    assert document["info"].keys() >= {"title", "version"}
    for method, path, media in schemas(document):
        assert method in ("get", "post")
        assert path.startswith("/")
        jsonschema_rs.Draft202012Validator(resolved(document, media["schema"]))
    named = re.findall(r"\{(\w+)\}", " ".join(document["paths"]))
    assert set(named) == {"name"}
    ids = [op["operationId"] for item in document["paths"].values() for op in item.values()
           if "operationId" in op]  # fmt: skip
    assert len(set(ids)) == len(ids)


def test_all_that_is_served_is_described_and_the_other_way_round(call, document):
    served = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in call.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/page/")
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described <= served
    # What is left are the same operations of the protocol at a version, or of no known model.
    assert {path for path, _ in served - described} <= {
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/versions/{version}/infer",
    }


def test_every_example_fits_its_schema_and_is_accepted(call, document):
    tried = 0
    for method, path, media in schemas(document):
        if "example" in media:
            schema = resolved(document, media["schema"])
            assert jsonschema_rs.is_valid(schema, media["example"]), path
            answer = call(method.upper(), path, media["example"])
            assert answer.status == 200, (path, answer)
            tried += 1
    assert tried == 2 + 2 * 4, "the built-in models' rows, and the protocol's for each model"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/detect_fraud", {"transaction_data": ROW}),
        ("/detect_fraud", {"transaction_data": [ROW, ROW]}),
        ("/detect_fraud", {"transaction_data": [1]}),
        ("/detect_fraud", b"{"),
        ("/v1/models/sentiment:predict", {"instances": ["good", "bad"]}),
        ("/v1/models/pair:predict", {"instances": [3.5, 1]}),
        ("/v1/models/pair:predict", {"instances": [{"age": 3.5, "visits": 1.0}]}),
        ("/v2/models/fraud/infer", {"inputs": []}),
    ],
)
def test_answers_are_as_described(call, document, path, body):
    answer = call("POST", path, body)
    operation = document["paths"][path]["post"]
    (kind,) = [
        kind
        for kind in operation["responses"][str(answer.status)]["content"]
        if kind == answer.headers["content-type"]
    ]
    schema = operation["responses"][str(answer.status)]["content"][kind]["schema"]
    jsonschema_rs.validate(resolved(document, schema), answer.json)
    if not isinstance(body, bytes):
        described = operation["requestBody"]["content"]["application/json"]["schema"]
        assert jsonschema_rs.is_valid(resolved(document, described), body) == (answer.status == 200)


def test_a_schema_follows_the_models_fields(document):
    def row(path, key):
        media = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        return media["schema"]["properties"][key]["anyOf"][0]

    numbers, by_name = row("/detect_fraud", "transaction_data")["anyOf"]
    assert (numbers["minItems"], numbers["maxItems"]) == (30, 30)
    assert numbers["items"]["maximum"] == pytest.approx(3.4028235e38)
    assert by_name["required"] == ["Time", *(f"V{n}" for n in range(1, 29)), "Amount"]
    values, _ = row("/v1/models/pair:predict", "instances")["anyOf"]
    assert [one["type"] for one in values["prefixItems"]] == ["number", "integer"]
    assert row("/v1/models/sentiment:predict", "instances")["anyOf"][0] == {"type": "string"}


def test_schemathesis_finds_nothing(serve, churn_onnx, per_feature_onnx, tmp_path, some):
    """Thousands of good and bad requests to a real server: no answer that is not described."""
    tensors = {"model": str(per_feature_onnx), "name": "tensors", "task": "tensors"}
    models = [
        "fraud", f"churn={churn_onnx}", f"pair={per_feature_onnx}", "sentiment", "detector",
        tensors,
    ]  # fmt: skip
    bounds = {"max_body": 100_000, "max_rows": 20}
    server = serve("--workers", "1", models=models, runtime="auto", **bounds)
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG, "utf-8")
    # Thirty tensors are wrong in thousands of ways; those of the other tables are fewer.
    left_out = some("^/v2/models/fraud/.*infer$", "^none$")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(config), "run", f"{server.url}/openapi.json"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(some(1, 5))),
            *("--exclude-path-regex", left_out),
        ],
        check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    tested = re.search(r"Tested: (\d+)", done.stdout)
    paths = server.get("/openapi.json").json["paths"]
    asked = [item for path, item in paths.items() if not re.search(left_out, path)]
    but_itself = sum(map(len, asked)) - 1
    assert int(tested[1]) == but_itself, done.stdout
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 1000
    assert not [one for one in map(json.loads, server.log.splitlines()) if one["level"] != "info"]
    assert server.stop() == 0
    assert "Traceback" not in server.log
