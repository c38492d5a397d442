"""Reading bodies, and the gate before a model."""

import dataclasses
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlopsdeploy.errors import RowError
from mlopsdeploy.serve.app import create_app
from mlopsdeploy.serve.endpoint import Served
from mlopsdeploy.serve.messages import Problem, expect_json, read_body
from mlopsdeploy.serve.metrics import Metrics

LIMIT = 100


class Body(io.BytesIO):
    """A stream that remembers how far it was asked to read."""

    asked = 0

    def read(self, size=-1):
        assert size >= 0, "never without a limit"
        self.asked += size
        return super().read(size)


def environ(body, **more):
    return {"wsgi.input": Body(body), "CONTENT_LENGTH": str(len(body)), **more}


def test_bodies_that_are_read():
    for body in (b"", b"x", b"x" * LIMIT):
        assert read_body(environ(body), LIMIT) == body
    assert read_body({"wsgi.input": Body(b"more")}, LIMIT) == b""
    said = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    assert read_body({"wsgi.input": Body(b"x" * LIMIT), **said}, LIMIT) == b"x" * LIMIT
    assert read_body({"wsgi.input": Body(b""), "CONTENT_LENGTH": ""}, LIMIT) == b""


def refused(given):
    with pytest.raises(Problem) as raised:
        read_body(given, LIMIT)
    return raised.value.status, raised.value.kind


def test_bodies_that_are_refused():
    chunks = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    assert refused(environ(b"x" * 101)) == (413, "too-long")
    assert refused({"wsgi.input": Body(b"x" * 101), **chunks}) == (413, "too-long")
    del chunks["wsgi.input_terminated"]
    assert refused({"wsgi.input": Body(b"x"), **chunks}) == (411, "no-length")
    assert refused(environ(b"x", CONTENT_LENGTH="5")) == (400, "cut-off")
    assert refused(environ(b"x", HTTP_CONTENT_ENCODING="gzip")) == (415, "encoded")
    for length in ("-1", "x", "1.0", "+1", "1_0", "\xb2", " 1"):
        assert refused(environ(b"x", CONTENT_LENGTH=length)) == (400, "bad-length"), length


def test_what_is_too_long_is_let_run_out_but_not_for_ever():
    """A client that is not read from reads no answer; one that sends without end gets none."""
    given = environ(b"x" * 1_000_000)
    refused(given)
    assert given["wsgi.input"].read(1) == b""
    given = environ(b"x", CONTENT_LENGTH=str(10**12))
    refused(given)
    assert given["wsgi.input"].asked == 0

    class Endless(Body):
        def read(self, size=-1):
            super().read(size)
            return b"x" * size

    said = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    given = {"wsgi.input": Endless(), **said}
    refused(given)
    assert given["wsgi.input"].asked < 50_000_000


def test_json_is_expected_and_something_else_refused():
    for kind in ("application/json", "application/x+json ; charset=utf-8"):
        expect_json({"CONTENT_TYPE": kind})
    for kind in ("", "text/json", "image/svg+json", "application/jsonp"):
        with pytest.raises(Problem) as raised:
            expect_json({"CONTENT_TYPE": kind})
        assert raised.value.status == 415, kind


class Counted:
    """A runtime that knows how many call it at once."""

    name, batch_scale, precision, metadata = "counted", 1, "float32", {}

    def __init__(self, runtime, streams):
        self.inputs, self.outputs, self.streams = runtime.inputs, runtime.outputs, streams
        self._run, self._now, self.most, self._lock = runtime.run, 0, 0, threading.Lock()

    def run(self, tensors):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.02)
        with self._lock:
            self._now -= 1
        if not np.isfinite(tensors["features"]).all():
            raise RuntimeError("as asked")
        return self._run(tensors)


@pytest.mark.parametrize("streams", [1, 2])
def test_the_gate_lets_in_as_many_as_the_runtime_has_streams(churn, streams):
    runtime = Counted(churn.runtime, streams)
    model = dataclasses.replace(churn, runtime=runtime)
    metrics = Metrics({"churn": model})
    served = Served("churn", model, metrics.of("churn"))

    def ask(number):
        row = np.array([[number, 1, 2]], np.float32)
        try:
            return float(served.predict({"features": row})["score"][0])
        except RuntimeError:
            return None

    numbers = [*range(20), float("nan"), *range(20)]  # one fails, and gives its turn back
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, numbers))
    assert runtime.most == streams
    assert got[:20] == got[21:]
    assert got[20] is None
    assert len(set(got[:20])) == 20
    assert 'mlopsdeploy_queue{model="churn"} 0.0' in metrics.text().decode()


class Unsure(Counted):
    """Answers with what is not a number; refuses what is negative."""

    def run(self, tensors):
        if (tensors["features"] < 0).any():
            raise RowError("features: s3cr3t-4711 does not fit")
        answers = self._run(tensors)
        return {name: np.full_like(value, np.nan) for name, value in answers.items()}


PREDICT, INFER = "/v1/models/churn:predict", "/v2/models/churn/infer"
CANNOT_TAKE, NO_ANSWER = (
    f"the model {words} values like these" for words in ("can't take", "has no answer to")
)


@pytest.mark.parametrize(("route", "rows", "field", "detail"), [
    (PREDICT, [1, 1, 2], "instances", NO_ANSWER),
    (PREDICT, [-1, 1, 2], "instances", CANNOT_TAKE),
    (PREDICT, [[1, 1, 2], [-1, 1, 2], [1, 2, 3]], "instances[1]", CANNOT_TAKE),
    (INFER, [[1, 1, 2], [-1, 1, 2], [1, 2, 3]], "inputs.features[1]", CANNOT_TAKE),
])  # fmt: skip
def test_no_answer_is_no_answer(churn, route, rows, field, detail):
    """Rather than 'false', which is what a comparison with not-a-number gives."""
    model = dataclasses.replace(churn, runtime=Unsure(churn.runtime, 1))
    tensor = {"name": "features", "shape": [3, 3], "datatype": "FP32", "data": rows}
    body = {"inputs": [tensor]} if route == INFER else {"instances": rows}
    answer = create_app({"churn": model}).test_client().post(route, json=body)
    assert answer.status_code == 422
    assert answer.json["type"].endswith(":no-answer")
    assert (answer.json["field"], answer.json["detail"]) == (field, f"{field}: {detail}")
    assert "s3cr3t" not in answer.text
