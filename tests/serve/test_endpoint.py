"""What an endpoint answers, and how many calls it makes at a time."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlopsdeploy.errors import RowError
from mlopsdeploy.serve import create_app
from mlopsdeploy.serve.endpoint import Served
from mlopsdeploy.serve.metrics import Metrics


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
def test_as_many_calls_at_a_time_as_the_runtime_has_streams(churn, streams, ask):
    runtime = Counted(churn.runtime, streams)
    model = dataclasses.replace(churn, runtime=runtime)
    metrics = Metrics({"churn": model})
    served = Served("churn", model, metrics.of("churn"))

    def score(number):
        row = np.array([[number, 1, 2]], np.float32)
        try:
            return float(ask(served.queue, {"features": row})["score"][0])
        except RuntimeError:
            return None

    numbers = [*range(20), float("nan"), *range(20)]  # one fails, and gives its turn back
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(score, numbers))
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
