"""One route of one model: the only place that checks, answers, counts and logs its requests.

An endpoint speaks WSGI's request on one side and bytes on the other, and knows nothing of Flask:
the application calls it from a Flask view or straight away (see `app.App`), and both give the
same answer, the same errors and the same metrics.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from mlopsdeploy.columns import Columns
from mlopsdeploy.model import Model
from mlopsdeploy.serve import problems
from mlopsdeploy.serve.answers import Answers
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.metrics import ModelMetrics
from mlopsdeploy.serve.problems import Problem

JSON = "application/json"
log = logging.getLogger("mlopsdeploy.serve")

Environ = Mapping[str, Any]


class Answer(NamedTuple):
    """A response before it is one."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Served:
    """A model of a server: its name, its metrics, and the gate before it.

    The gate lets in as many requests as the runtime has streams; the others wait here, where they
    are counted, and not somewhere inside the runtime.
    """

    def __init__(self, name: str, model: Model, metrics: ModelMetrics) -> None:
        self.name = name
        self.model = model
        self.metrics = metrics
        self._gate = threading.Semaphore(model.runtime.streams)

    def predict(self, columns: Columns, rows: int) -> Columns:
        """Predictions, when it is this request's turn."""
        self.metrics.rows.observe(rows)
        if not self._gate.acquire(blocking=False):
            self.metrics.queue.inc()
            self._gate.acquire()
            self.metrics.queue.dec()
        try:
            return self.model.predict(columns)
        finally:
            self._gate.release()


class Endpoint:
    """What all endpoints share; `answer` is theirs.

    Args:
        served: the model.
        max_body: the most bytes that a request may bring.
    """

    def __init__(self, served: Served, max_body: int) -> None:
        self.served = served
        self.max_body = max_body

    def __call__(self, environ: Environ, request_id: str) -> Answer:
        """The answer to a request, whatever is wrong with it."""
        started = perf_counter()
        metrics = self.served.metrics
        metrics.in_flight.inc()
        try:
            answer = self.answer(environ)
        except Problem as problem:
            answer = problem_answer(problem, request_id)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id})
            answer = problem_answer(server_fault(), request_id)
        metrics.in_flight.dec()
        metrics.answered(answer.status, perf_counter() - started)
        return answer

    def answer(self, environ: Environ) -> Answer:
        """The answer to a request.

        Raises:
            Problem: the request is not as it should be.
        """
        raise NotImplementedError


class Predict(Endpoint):
    """JSON rows in, the answer's shape from a template out."""

    def __init__(
        self, served: Served, max_body: int, instances: Instances, answers: Answers
    ) -> None:
        super().__init__(served, max_body)
        self.instances = instances
        self.answers = answers
        self._encode = msgspec.json.Encoder().encode

    def example(self) -> Any:
        """A row as the model's author gave it in `model.yaml`, or None."""
        return self.served.model.said.get("example")

    def answer(self, environ: Environ) -> Answer:
        """See `Endpoint.answer`."""
        expect_json(environ)
        columns, single = self.instances.decode(read_body(environ, self.max_body))
        rows = len(next(iter(columns.values())))
        predictions = self.served.predict(columns, rows)
        answers = self.answers
        document = answers.one(predictions) if single else answers.many(predictions, rows)
        return Answer(200, JSON, self._encode(document))


def expect_json(environ: Environ) -> None:
    """Refuses other content types.

    Raises:
        Problem: 415.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    if content_type == JSON:
        return
    kind = content_type.partition(";")[0].strip().lower()
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, "not-json", "send JSON, with the header Content-Type: application/json")


def read_body(environ: Environ, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413 where it is longer than `limit` bytes, 400 where its length is no number.
    """
    said = environ.get("CONTENT_LENGTH")
    try:
        length = int(said) if said else None
    except ValueError:
        raise Problem(400, "bad-length", "the header Content-Length is not a number") from None
    if length is not None and length > limit:
        raise _too_long(limit)
    if length is None and environ.get("HTTP_TRANSFER_ENCODING") is None:
        return b""
    body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise _too_long(limit)
    if length is not None and len(body) < length:
        raise Problem(400, "cut-off", "the body ended before its Content-Length")
    return body


def problem_answer(problem: Problem, request_id: str) -> Answer:
    """A problem as an answer."""
    body = problem.body(request_id)
    return Answer(problem.status, problems.CONTENT_TYPE, body, problem.headers)


def server_fault() -> Problem:
    """Our own mistake: says nothing of what happened; the log does, under the request's id."""
    return Problem(500, "server-fault", "the server failed; its log has the reason")


def _too_long(limit: int) -> Problem:
    detail = f"the body may have at most {limit:,} bytes"
    return Problem(413, "too-long", detail, headers=(("Connection", "close"),))
