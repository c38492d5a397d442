"""What a worker can take on this machine: requests a second, and at which p99.

Predicted from what calls take (see `speed`), and of what a request costs beside them. It is where
a worker starts from, and not a promise: the queue corrects its predictions as it goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from mlopsdeploy.serve import openapi
from mlopsdeploy.serve.messages import Problem, Request

if TYPE_CHECKING:
    from mlopsdeploy.serve.endpoint import Served
    from mlopsdeploy.serve.open_inference import Infer

HTTP_SECONDS = 20e-6
"""Of a request's parsing, its writing and two system calls, on one Zen 4 core."""
TRIES = 50


@dataclass(frozen=True)
class Capacity:
    """What one worker can take of common rows, one a request.

    Attributes:
        slo: seconds that a request may take.
        requests_per_second: at most.
        p99: seconds that nearly all of them take then, those that wait for a call included.
        rows: that are computed together then.
        seconds: that a row takes alone.
    """

    slo: float
    requests_per_second: float
    p99: float
    rows: int
    seconds: float

    def __str__(self) -> str:
        rate = f"{self.requests_per_second:,.3g}" if self.requests_per_second < 100 else (
            f"{round(self.requests_per_second, -1):,.0f}"
        )  # fmt: skip
        return f"{rate} requests/s, p99 {self.p99 * 1e3:.3g} ms"


def capacity(endpoint: Infer) -> Capacity:
    """What a worker can take of a model's requests.

    Args:
        endpoint: where its tensors can be sent.
    """
    queue, streams = endpoint.served.queue, endpoint.served.model.runtime.streams
    speed = queue.speed
    around = HTTP_SECONDS + _around_call(endpoint)
    rows = 1
    while speed.joins and queue.fits(2 * rows):
        if 2 * speed.seconds(2 * rows * speed.row) > queue.slo:
            break
        rows *= 2
    seconds = speed.alone if rows == 1 else speed.seconds(rows * speed.row)
    rate = 1 / (seconds / rows / streams + around)
    # One that just missed a call waits for it, and then for its own.
    return Capacity(queue.slo, rate, 2 * (seconds + around), rows, speed.alone)


def capacities(served: Mapping[str, Served]) -> dict[str, Any]:
    """What is answered to `GET /capacity`: of this worker, and how its limits are now."""
    models = {
        name: {**asdict(one.capacity), "now": one.queue.now()}
        for name, one in served.items()
        if one.capacity is not None
    }
    return {"worker": os.getpid(), "models": models}


def _around_call(endpoint: Infer) -> float:
    """Seconds of a request beside HTTP and the call of the model: to write costs as to read."""
    if endpoint.served.model.task.data == "image":  # its pixels as JSON are nobody's common request
        return 0.0
    body = msgspec.json.encode(openapi.example_of(endpoint))
    times = []
    for _ in range(TRIES):
        request = Request("POST", "", {}, body, "", perf_counter())
        try:
            endpoint.read(request)
        except Problem:  # it takes no such row
            return 0.0
        times.append(perf_counter() - request.arrived)
    return 2 * min(times)
