"""One route of one model: the only place that checks, answers, counts and logs its requests.

An endpoint speaks WSGI's request on one side and bytes on the other, and knows nothing of Flask:
the application calls it from a Flask view or straight away (see `app.App`), and both give the
same answer, the same errors and the same metrics.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

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
    Environ,
    Problem,
    expect_json,
    is_json,
    problem_answer,
    read_body,
)
from mlopsdeploy.serve.metrics import ModelMetrics
from mlopsdeploy.serve.pictures import FORM, TYPES, decode_all, from_form, with_sizes
from mlopsdeploy.serve.unread import Unread

At = Callable[[int], str]
"""How to point at a row of a request."""


class Served:
    """A model of a server: its name, its metrics, and the gate before it.

    The gate lets in as many requests as the runtime has streams; the others wait here, where they
    are counted, and not somewhere inside the runtime.
    """

    def __init__(self, name: str, model: Model, metrics: ModelMetrics) -> None:
        self.name = name
        self.model = model
        self.metrics = metrics
        self.unread = Unread(name, model, metrics)
        self._sees = model.task.data == "image"
        self._answers = model.task.answers
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(model.runtime.streams):
            self._turns.put(None)

    def predict(
        self, columns: Columns | Callable[[], Columns], at: At = "row {}".format
    ) -> Columns:
        """Predictions, when it is this request's turn; of pictures with their `width` and `height`.

        Args:
            columns: the rows, or what makes them. Decoded pictures are large: no more of them are
                in memory than the model has streams.
            at: how to point at a row of the request.

        Raises:
            Problem: 422 where the values are of the right kind, but the model has no answer to
                them: it refuses them, or a number that its answer has is not finite.
        """
        columns, predictions = self._in_turn(columns, self.model.predict_columns, at)
        if unknown := unanswered(self._answers, predictions):
            raise _no_answer("the model has no answer to values like these", unknown, at)
        self.metrics.predicted(predictions, rows_of(predictions))
        return with_sizes(predictions, columns["image"]) if self._sees else predictions

    def raw(
        self,
        columns: Columns | Callable[[], Columns],
        wanted: Collection[str],
        at: At = "row {}".format,
    ) -> Columns:
        """The runtime's own output tensors of these names, a row each, as the task gets them.

        Raises:
            Problem: 422 where the model refuses the values, or where an output isn't an array of
                one shape a row, as of long texts that are read in parts.
        """
        return self._in_turn(columns, partial(self._run, wanted), at)[1]

    def _run(self, wanted: Collection[str], columns: Columns) -> Columns:
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

    def _in_turn(
        self, columns: Columns | Callable[[], Columns], call: Callable[[Columns], Columns], at: At
    ) -> tuple[Columns, Columns]:
        """The columns, and what a call makes of them, when it is this request's turn."""
        try:
            self._turns.get_nowait()
        except queue.Empty:
            self.metrics.waits(1)
            self._turns.get()
            self.metrics.waits(-1)
        try:
            columns = columns() if callable(columns) else columns
            return columns, call(columns)
        except RowError as error:
            raise _no_answer("the model can't take values like these", error.rows, at) from None
        finally:
            self._turns.put(None)


def _misshapen(detail: str) -> Problem:
    return Problem(422, "no-raw-output", f"an output of the model's file {detail}", "outputs")


def _no_answer(detail: str, rows: Sequence[int], at: At) -> Problem:
    where = at(rows[0]) if rows else ""
    return Problem(422, "no-answer", f"{where}: {detail}" if where else detail, where)


class Endpoint:
    """What all endpoints share; `answer` is theirs.

    Args:
        served: the model.
        max_body: the most bytes that a request may bring.
    """

    error = False
    """Whether a refusal also has the member `error`; see `problem_answer`."""

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
        except Exception as error:  # noqa: BLE001  (logged there)
            answer = problem_answer(error, request_id, error=self.error)
        metrics.answered(answer.status, perf_counter() - started, answer.rows)
        return answer

    def answer(self, environ: Environ) -> Answer:
        """The answer to a request; raises a `Problem` where that is not as it should be."""
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
        return self.served.model.yaml.example

    def answer(self, environ: Environ) -> Answer:
        """See `Endpoint.answer`."""
        columns, single, at = self._read(environ)
        predictions = self.served.predict(columns, at)
        rows = rows_of(predictions)
        answers = self.answers
        document = answers.one(predictions) if single else answers.many(predictions, rows)
        headers = self.served.unread.note(predictions)
        return Answer(200, JSON, self._encode(document), headers, rows)

    def _read(self, environ: Environ) -> tuple[Columns | Callable[[], Columns], bool, At]:
        """What to predict, whether it is one row that stood alone, and how to point at each."""
        expect_json(environ)
        columns, single = self.instances.decode(read_body(environ, self.max_body))
        return columns, single, lambda place: self.instances.at(place, single=single)


class PredictPictures(Predict):
    """A picture, a form with one, or JSON with several in; the template's answers out."""

    def example(self) -> str | None:
        """The picture that the model's author gave, as a data URL; see `models.files`."""
        example = self.served.model.yaml.example
        is_picture = isinstance(example, str) and example.startswith("data:image/")
        return example if is_picture else None

    def _read(self, environ: Environ) -> tuple[Callable[[], Columns], bool, At]:
        content_type = environ.get("CONTENT_TYPE", "")
        kind = content_type.partition(";")[0].strip().lower()
        pictures: Iterable[bytes | Array]
        if is_json(kind):
            columns, single = self.instances.decode(read_body(environ, self.max_body))
            pictures = columns["image"]
            places = [self.instances.at(at, single=single) for at in range(len(columns["image"]))]
        elif kind in TYPES or kind == FORM:
            body = read_body(environ, self.max_body)
            pictures = [body if kind in TYPES else from_form(body, content_type)]
            single, places = True, [""]
        else:
            detail = f"send a picture ({', '.join(TYPES)}), a form with one ({FORM}), or {JSON}"
            accepted = ", ".join((*TYPES, FORM, JSON))
            raise Problem(415, "no-picture-type", detail, headers=(("Accept", accepted),))
        return lambda: decode_all(pictures, places), single, places.__getitem__
