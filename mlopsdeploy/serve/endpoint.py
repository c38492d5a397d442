"""One route of one model: the only place that checks, answers, counts and logs its requests.

An endpoint speaks WSGI's request on one side and bytes on the other, and knows nothing of Flask:
the application calls it from a Flask view or straight away (see `app.App`), and both give the
same answer, the same errors and the same metrics.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from mlopsdeploy.columns import Array, Columns
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import RowError
from mlopsdeploy.serve import problems
from mlopsdeploy.serve.answers import Answers
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.metrics import ModelMetrics
from mlopsdeploy.serve.pictures import (
    FORM,
    TYPES,
    PictureInstances,
    decode_all,
    from_form,
    with_sizes,
)
from mlopsdeploy.serve.problems import Problem

JSON = "application/json"
_DISCARDED = 32 * 1024 * 1024  # bytes of a body that is too long, read so that its sender goes on
log = logging.getLogger("mlopsdeploy.serve")

Environ = Mapping[str, Any]


class Answer(NamedTuple):
    """A response before it is one."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    """How many were predicted."""


class Served:
    """A model of a server: its name, its metrics, and the gate before it.

    The gate lets in as many requests as the runtime has streams; the others wait here, where they
    are counted, and not somewhere inside the runtime.
    """

    def __init__(self, name: str, model: Model, metrics: ModelMetrics) -> None:
        self.name = name
        self.model = model
        self.metrics = metrics
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(model.runtime.streams):
            self._turns.put(None)

    def predict(
        self,
        columns: Columns | Callable[[], Columns],
        at: Callable[[int], str] = lambda place: f"row {place}",
    ) -> Columns:
        """Predictions, when it is this request's turn.

        Args:
            columns: the rows, or what makes them. Decoded pictures are large: no more of them are
                in memory than the model has streams.
            at: how to point at a row of the request.

        Raises:
            Problem: 422 where the values are of the right kind, but the model has no answer to
                them: it refuses them, or its score is not a number.
        """
        try:
            self._turns.get_nowait()
        except queue.Empty:
            self.metrics.waits(1)
            self._turns.get()
            self.metrics.waits(-1)
        try:
            predictions = self.model.predict(columns() if callable(columns) else columns)
        except RowError as error:
            raise _no_answer("the model can't take values like these", error.rows, at) from None
        finally:
            self._turns.put(None)
        score = predictions.get("score")
        if score is not None and score.dtype.kind == "f" and any(map(isnan, score.tolist())):
            unknown = [place for place, one in enumerate(score.tolist()) if isnan(one)]
            raise _no_answer("the model has no answer to values like these", unknown, at)
        return predictions


def _no_answer(detail: str, rows: Sequence[int], at: Callable[[int], str]) -> Problem:
    where = at(rows[0]) if rows else ""
    return Problem(422, "no-answer", f"{where}: {detail}" if where else detail, where)


class Endpoint:
    """What all endpoints share; `answer` is theirs.

    Args:
        served: the model.
        max_body: the most bytes that a request may bring.
    """

    error = False
    """Whether a refusal also has the member `error`; see `Problem.body`."""

    def __init__(self, served: Served, max_body: int) -> None:
        self.served = served
        self.max_body = max_body

    def __call__(self, environ: Environ, request_id: str) -> Answer:
        """The answer to a request, whatever is wrong with it."""
        started = perf_counter()
        metrics = self.served.metrics
        metrics.started()
        try:
            answer = self.answer(environ)
        except Problem as problem:
            answer = problem_answer(problem, request_id, error=self.error)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id})
            answer = problem_answer(server_fault(), request_id, error=self.error)
        metrics.answered(answer.status, perf_counter() - started, answer.rows)
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
        predictions = self.served.predict(
            columns, lambda place: self.instances.at(place, single=single)
        )
        answers = self.answers
        document = answers.one(predictions) if single else answers.many(predictions, rows)
        return Answer(200, JSON, self._encode(document), (), rows)


class PredictPictures(Predict):
    """A picture, a form with one, or JSON with several in; the template's answers out."""

    instances: PictureInstances

    def example(self) -> str | None:
        """The picture that the model's author gave, as a data URL; see `models.files`."""
        said = self.served.model.said.get("example")
        return said if isinstance(said, str) and said.startswith("data:image/") else None

    def answer(self, environ: Environ) -> Answer:
        """See `Endpoint.answer`."""
        pictures, single, places = self._read(environ)
        sizes: list[tuple[int, int]] = []
        predictions = self.served.predict(
            lambda: decode_all(pictures, places, sizes), places.__getitem__
        )
        predictions = with_sizes(predictions, sizes)
        answers, rows = self.answers, len(sizes)
        document = answers.one(predictions) if single else answers.many(predictions, rows)
        return Answer(200, JSON, self._encode(document), (), rows)

    def _read(self, environ: Environ) -> tuple[Sequence[bytes | Array], bool, list[str]]:
        """The pictures that were sent, whether one stood alone, and how to point at each."""
        content_type = environ.get("CONTENT_TYPE", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind in TYPES:
            return [read_body(environ, self.max_body)], True, [""]
        if kind == FORM:
            return [from_form(read_body(environ, self.max_body), content_type)], True, [""]
        if not is_json(kind):
            detail = f"send a picture ({', '.join(TYPES)}), a form with one ({FORM}), or {JSON}"
            accepted = ", ".join((*TYPES, FORM, JSON))
            raise Problem(415, "no-picture-type", detail, headers=(("Accept", accepted),))
        columns, single = self.instances.decode(read_body(environ, self.max_body))
        pictures = columns["image"].tolist()
        return pictures, single, self.instances.places(len(pictures), single=single)


def is_json(kind: str) -> bool:
    """Whether a media type, in lower case and without parameters, is JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def expect_json(environ: Environ) -> None:
    """Refuses other content types.

    Raises:
        Problem: 415.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    if content_type == JSON:
        return
    kind = content_type.partition(";")[0].strip().lower()
    if not is_json(kind):
        raise Problem(415, "not-json", "send JSON, with the header Content-Type: application/json")


def read_body(environ: Environ, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413 where it is longer than `limit` bytes, 415 where it is compressed, 400 and 411
            where its length is no number or can't be known.
    """
    coding = environ.get("HTTP_CONTENT_ENCODING")
    if coding and coding.lower() != "identity":
        detail = "send the body as it is, without Content-Encoding"
        raise Problem(415, "encoded", detail, headers=(("Accept-Encoding", "identity"),))
    said = environ.get("CONTENT_LENGTH")
    if said and not (said.isascii() and said.isdigit()):
        raise Problem(400, "bad-length", "the header Content-Length is not a number")
    length = int(said) if said else None
    if length is not None and length > limit:
        raise _too_long(limit, environ, length)
    if length is None and environ.get("HTTP_TRANSFER_ENCODING") is None:
        return b""
    if length is None and not environ.get("wsgi.input_terminated"):
        raise Problem(411, "no-length", "send the header Content-Length")
    body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise _too_long(limit, environ)
    if length is not None and len(body) < length:
        raise Problem(400, "cut-off", "the body ended before its Content-Length")
    return body


def problem_answer(problem: Problem, request_id: str, *, error: bool = False) -> Answer:
    """A problem as an answer."""
    body = problem.body(request_id, error=error)
    return Answer(problem.status, problems.CONTENT_TYPE, body, problem.headers)


def server_fault() -> Problem:
    """Our own mistake: says nothing of what happened; the log does, under the request's id."""
    return Problem(500, "server-fault", "the server failed; its log has the reason")


def _too_long(limit: int, environ: Environ, length: int | None = None) -> Problem:
    """A refusal that arrives: many clients read no answer before their whole body is sent."""
    left = _DISCARDED
    while left > 0 and (length is None or length <= _DISCARDED):
        read = len(environ["wsgi.input"].read(min(left, 65536)))
        if not read:
            break
        left -= read
    detail = f"the body may have at most {limit:,} bytes; the server's max_body says so"
    return Problem(413, "too-long", detail, headers=(("Connection", "close"),))
