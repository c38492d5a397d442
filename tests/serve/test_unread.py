"""Models side by side, each for its language, and texts that none of them reads."""

import logging
from dataclasses import replace
from functools import partial

import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.serve import unread
from mlopsdeploy.serve.speed import measure

GERMAN = "Das ist leider ein sehr schlechtes Produkt, ich bin enttäuscht."
ARABIC = "هذا المنتج سيئ جدا ولا أنصح به"
ENGLISH, CHINESE = "Works like a charm, I would buy it again.", "太差了，再也不买了"
NAME = "sentiment-sentiment-zh"
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def both():
    return load_model("sentiment,sentiment-zh", runtime="onnxruntime", threads=1)


@pytest.fixture
def call(client, both):
    return client({NAME: both}, models=[{"model": "sentiment,sentiment-zh"}])


def infer(*texts):
    shape = [len(texts)]
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": shape, "data": [*texts]}]}


def test_each_text_is_answered_by_the_model_of_its_language(call, both):
    answer = call("POST", PREDICT, {"instances": [ENGLISH, CHINESE]})
    assert [one["label"] for one in answer.json["predictions"]] == ["POSITIVE", "NEGATIVE"]
    assert (answer.json["model"], answer.json["version"]) == (NAME, both.version)
    assert unread.HEADER.lower() not in answer.headers
    (output, *_) = call("POST", INFER, infer(ENGLISH, CHINESE)).json["outputs"]
    assert output["data"] == ["POSITIVE", "NEGATIVE"]
    assert call("GET", f"/v2/models/{NAME}").json["versions"] == [both.version]
    assert call("GET", f"/v2/models/{NAME}/versions/{both.version}/ready").status == 200
    assert {PREDICT, INFER} <= set(call("GET", "/openapi.json").json["paths"])
    shown = call("GET", "/metrics")
    assert shown.metric("mlopsdeploy_model_info", model=NAME, digest=both.digest[:12]) == 1
    assert shown.metric("mlopsdeploy_unread_texts_total") == 0


def test_what_is_not_read_is_counted_logged_once_and_told_to_the_caller(call, caplog, monkeypatch):
    caplog.set_level(logging.WARNING, "mlopsdeploy.serve")
    body = {"instances": [GERMAN, ENGLISH, GERMAN, ARABIC]}
    answer = call("POST", PREDICT, body)
    assert answer.headers[unread.HEADER.lower()] == "2 de, 1 ar"
    assert {frozenset(one) for one in answer.json["predictions"]} == {frozenset(["label", "score"])}
    protocol = call("POST", INFER, infer(GERMAN, ENGLISH))
    assert protocol.headers[unread.HEADER.lower()] == "1 de"
    assert {one["name"] for one in protocol.json["outputs"]} == {
        "label", "score", "truncated", "scores",
    }  # fmt: skip
    shown = call("GET", "/metrics")
    for language, count in {"de": 3, "ar": 1}.items():
        found = shown.metric("mlopsdeploy_unread_texts_total", model=NAME, language=language)
        assert found == count
    assert caplog.messages == [
        f"{NAME}, which reads en, zh, was sent texts that it doesn't read (2 de, 1 ar), so their "
        "labels mean little"
    ]
    monkeypatch.setattr(unread.time, "monotonic", partial(float, 1e12))  # some time later
    call("POST", PREDICT, {"instances": GERMAN})
    assert "(2 de)" in caplog.messages[1], "with those that were not logged"


def test_a_language_that_nobody_listed_makes_no_label_of_its_own(both):
    from mlopsdeploy.serve.metrics import Metrics

    metrics = Metrics({"m": both})
    metrics.of("m").unread({"de": 2, "unknown": 3, "tlh": 4, "x-y": 5})
    text = metrics.text().decode()
    for language, count in {"de": 2, "unknown": 3, "other": 9}.items():
        line = f'mlopsdeploy_unread_texts_total{{language="{language}",model="m"}} {count}.0'
        assert line in text


def test_an_answer_may_say_of_each_text_why_it_is_not_read(client, both):
    route = {"model": "a", "name": "m", "answer": {"label": "label", "why": "unread"}}
    call = client({"m": both}, models=[route])
    answer = call("POST", "/v1/models/m:predict", {"instances": [GERMAN, CHINESE]})
    assert [one["why"] for one in answer.json["predictions"]] == ["de", ""]


def test_all_models_are_warm_before_the_first_request(both):
    warmed = []

    def load(part):
        warmed.append(part.name)
        return part

    measure(replace(both, parts=tuple(partial(load, part()) for part in both.parts)))
    assert warmed == ["sentiment", "sentiment-zh"]


def test_as_a_server_beside_another(serve):
    pair = {"model": "sentiment,sentiment-zh", "name": "reviews"}
    server = serve(workers=1, models=["sentiment", pair], runtime="onnxruntime")
    assert server.get("/readyz").json["models"] == ["sentiment", "reviews"]
    for name, told in {"reviews": {}, "sentiment": {unread.HEADER.lower(): "1 zh"}}.items():
        answer = server.call("POST", f"/v1/models/{name}:predict", {"instances": CHINESE})
        assert answer.status == 200
        assert told.items() <= answer.headers.items()
        assert bool(told) == (unread.HEADER.lower() in answer.headers)
    shown = server.get("/metrics")
    assert shown.metric("mlopsdeploy_unread_texts_total", model="sentiment", language="zh") == 1
    assert server.stop() == 0
    assert server.log.count("doesn't read") == 1
