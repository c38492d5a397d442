"""One route of one model: the only place that checks, answers, counts and logs its requests.

An endpoint takes a request and gives an answer, and knows neither WSGI nor Flask nor the sockets:
our server starts it (`start`) and goes on; another server's thread waits for it. Both get the same
answer, the same errors and the same metrics.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mlopsdeploy.columns import Array, Columns, concat, rows_of, take
from mlopsdeploy.core.answers import unanswered
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import RowError
from mlopsdeploy.serve.answers import Answers
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import (
    JSON,
    Answer,
    Problem,
    Request,
    expect_json,
    is_bulk,
    is_json,
    patience,
    problem_answer,
)
from mlopsdeploy.serve.metrics import ModelMetrics
from mlopsdeploy.serve.pictures import FORM, TYPES, decode_all, from_form, with_sizes
from mlopsdeploy.serve.queue import At, Call, Queue, Result
from mlopsdeploy.serve.speed import UNKNOWN, Speed
from mlopsdeploy.serve.unread import Unread

if TYPE_CHECKING:
    from mlopsdeploy.serve.capacity import Capacity


class Served:
    """A model of a server: its name, its metrics, and the queue before it."""

    def __init__(
        self,
        name: str,
        model: Model,
        metrics: ModelMetrics,
        speed: Speed = UNKNOWN,
        slo: float | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.metrics = metrics
        self.queue = Queue(model, metrics, speed, slo)
        self.capacity: Capacity | None = None  # once it is known
        self.unread = Unread(name, model, metrics)
        self._sees = model.task.data == "image"
        self._answers = model.task.answers

    def checked(self, call: Call, predictions: Columns) -> Columns:
        """Predictions that are answers; of pictures with their `width` and `height`.

        Raises:
            Problem: 422 where a number that an answer has is not finite.
        """
        if any((one.number or one.label) not in predictions for one in self._answers):
            return predictions  # only what the file itself outputs was asked for
        if unknown := unanswered(self._answers, predictions):
            raise _no_answer("the model has no answer to values like these", unknown, call.at)
        self.metrics.predicted(predictions, rows_of(predictions))
        assert not callable(call.columns)
        return with_sizes(predictions, call.columns["image"]) if self._sees else predictions

    def raw(self, wanted: Collection[str], columns: Columns) -> Columns:
        """The runtime's own output tensors of these names, a row each, as the task gets them.

        Raises:
            Problem: 422 where an output isn't an array of one shape a row, as of long texts that
                are read in parts.
        """
        task, run = self.model.task, self.model.runtime.run
        encoded = task.encode(columns)
        batches = self.model.plan(encoded)
        parts = []
        for batch in batches:
            tensors = task.collate(take(encoded, batch))
            outputs = run(tensors) if rows_of(tensors) == len(batch) else {}
            parts.append({name: outputs[name] for name in wanted if name in outputs})
            if any(len(parts[-1].get(name, ())) != len(batch) for name in wanted):
                raise _misshapen("has no value for each row")
        if any(len({part[name].shape[1:] for part in parts}) > 1 for name in wanted):
            raise _misshapen("differs in shape from row to row; ask for one row at a time")
        return take(concat(parts), np.argsort(np.concatenate(batches)))


def _misshapen(detail: str) -> Problem:
    return Problem(422, "no-raw-output", f"an output of the model's file {detail}", "outputs")


def _no_answer(detail: str, rows: Sequence[int], at: At) -> Problem:
    where = at(rows[0]) if rows else ""
    return Problem(422, "no-answer", f"{where}: {detail}" if where else detail, where)


class Endpoint:
    """What all endpoints share; `read` is theirs.

    Args:
        served: the model.
        max_body: the most bytes that a request may bring.
    """

    error = False
    """Whether a refusal also has the member `error`; see `problem_answer`."""

    def __init__(self, served: Served, max_body: int) -> None:
        self.served = served
        self.max_body = max_body
        self.reads_long = served.model.task.data == "image"  # however small a body is

    def __call__(self, request: Request) -> Answer:
        """The answer to a request, whatever is wrong with it; waits for it."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.start(request, answers.put, here=True)
        return answers.get()

    def start(
        self, request: Request, done: Callable[[Answer], None], *, here: bool = False
    ) -> None:
        """Answer a request, now or later, whatever is wrong with it.

        Args:
            request: the request.
            done: is given the answer, once, maybe in another thread.
            here: see `Queue.put`.
        """
        served = self.served
        served.metrics.started()
        try:
            headers, arrived = request.headers, request.arrived
            if (problem := served.queue.too_late(headers, len(request.body), arrived)) is not None:
                raise problem
            call = self.read(request)
            call.finish, call.done = self._finish, done
            call.patience = call.patience or patience(headers)
            call.bulk = is_bulk(headers)
        except Exception as error:  # noqa: BLE001  (logged there)
            done(self._counted(self._refusal(error, request), request))
            return
        try:
            served.queue.put(call, here=here)
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            self._finish(call, error)

    def at_once(self, headers: Mapping[str, str], size: int, arrived: float) -> Problem | None:
        """Why a request is refused before it is one, if it is; it is counted.

        Args:
            headers: of the request.
            size: bytes of its body.
            arrived: see `Request`.
        """
        served = self.served
        try:
            problem = served.queue.too_late(headers, size, arrived)
        except Problem:  # said when it is read
            return None
        if problem is not None:
            served.metrics.refused(problem.status, perf_counter() - arrived)
        return problem

    def _finish(self, call: Call, result: Result) -> None:
        request = call.request
        try:
            if isinstance(result, Exception):
                raise result
            answer = call.respond(self.served.checked(call, result))
        except RowError as error:
            detail = "the model can't take values like these"
            answer = self._refusal(_no_answer(detail, error.rows, call.at), request)
        except Exception as error:  # noqa: BLE001  (logged there)
            answer = self._refusal(error, request)
        call.done(self._counted(answer, request, call.started))

    def refuse(self, problem: Problem, request: Request) -> Answer:
        """The answer to a request that came no further than its head; it is counted, too."""
        self.served.metrics.started()
        return self._counted(self._refusal(problem, request), request)

    def read(self, request: Request) -> Call:
        """What a request asks; raises a `Problem` where that is not as it should be."""
        raise NotImplementedError

    def _refusal(self, error: Exception, request: Request) -> Answer:
        return problem_answer(error, request.id, error=self.error)

    def _counted(self, answer: Answer, request: Request, started: float = 0.0) -> Answer:
        now = perf_counter()
        seconds = now - request.arrived
        self.served.metrics.answered(answer.status, seconds, answer.rows)
        if not started:
            return answer
        waited = max(started - request.arrived, 0.0) * 1e3
        timing = f"queue;dur={waited:.3f}, model;dur={(now - started) * 1e3:.3f}"
        headers = (*answer.headers, ("Server-Timing", timing))
        return Answer(answer.status, answer.content_type, answer.body, headers, answer.rows)


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
        return self.served.model.yaml.example

    def read(self, request: Request) -> Call:
        """See `Endpoint.read`."""
        expect_json(request.headers)
        columns, single = self.instances.decode(request.body)
        at = partial(self.instances.at, single=single)
        return Call(request, columns, rows_of(columns), at, partial(self._respond, single=single))

    def _respond(self, predictions: Columns, *, single: bool) -> Answer:
        answers, rows = self.answers, rows_of(predictions)
        document = answers.one(predictions) if single else answers.many(predictions, rows)
        headers = self.served.unread.note(predictions)
        return Answer(200, JSON, self._encode(document), headers, rows)


class PredictPictures(Predict):
    """A picture, a form with one, or JSON with several in; the template's answers out."""

    def example(self) -> str | None:
        """The picture that the model's author gave, as a data URL; see `models.files`."""
        example = self.served.model.yaml.example
        is_picture = isinstance(example, str) and example.startswith("data:image/")
        return example if is_picture else None

    def read(self, request: Request) -> Call:
        """See `Endpoint.read`."""
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        body = request.body
        pictures: Collection[bytes | Array]
        if is_json(kind):
            columns, single = self.instances.decode(body)
            pictures = columns["image"]
            places = [self.instances.at(at, single=single) for at in range(len(pictures))]
        elif kind in TYPES or kind == FORM:
            pictures = [body if kind in TYPES else from_form(body, content_type)]
            single, places = True, [""]
        else:
            detail = f"send a picture ({', '.join(TYPES)}), a form with one ({FORM}), or {JSON}"
            accepted = ", ".join((*TYPES, FORM, JSON))
            raise Problem(415, "no-picture-type", detail, headers=(("Accept", accepted),))
        decode = partial(decode_all, pictures, places)
        respond = partial(self._respond, single=single)
        return Call(request, decode, len(pictures), places.__getitem__, respond)
