"""The queue before a model: who is computed next and with whom, and who is refused at once.

An idle model answers at once. While it is busy, requests wait, and those that wait are computed
together, earliest deadline first, as far as the predicted time allows. A request that could only
be answered too late is refused when it comes, and one whose caller is gone or whose time is over
is dropped before it is computed. Large requests are computed in parts, between the others.

The limit on what waits adapts itself, as in github.com/Netflix/concurrency-limits: predictions are
corrected by the gradient of what calls take and what they were predicted to, and the share of the
budget that may be predicted to be needed grows by addition and shrinks by multiplication (AIMD),
as answers are in time or late. It is counted in seconds of predicted work and not in requests, as
one text may be a hundred times another's work.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter

import numpy as np

from mlopsdeploy.columns import Columns, concat, take
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.planner import Rows, plan
from mlopsdeploy.serve.messages import Answer, Problem, Request, is_bulk, patience
from mlopsdeploy.serve.metrics import ModelMetrics
from mlopsdeploy.serve.speed import Speed, padded_cost

SLO = 1.0
"""Seconds that a request may take where nobody says."""
BULK_SECONDS = 60.0  # that a large request may take, if its caller doesn't say: common time-outs
INTERACTIVE = 0.5  # of the budget: what takes more on its own is bulk
PART = 0.25  # of the budget: the most that a part of bulk holds up the others
BULK_SHARE = 0.1  # of the model's time that bulk has at least
INLINE = 1e-3  # seconds of work that the thread which reads requests may do itself
CAUTION = 0.8  # of what a body of this size took so far: one that could be answered is read
WINDOW = 64  # answers after which the limit is adapted
MOST_LATE = 0.01  # of them
HEADROOM = (0.2, 0.85)  # of the budget: how much of it may be predicted to be needed
LITTLE = 0.1  # of the budget: who waits no longer to be read doesn't wait
EVERY = 1e-3  # seconds after which how long requests may wait to be read is adapted again
MORE, LESS = 0.01, 0.97  # share of the budget that is added, and times
_REFUSALS = {
    "busy": "the server is busy, and could answer only too late",
    "too-late": "the time for this request was over before it was its turn",
}
_SMOOTH = 0.1  # weight of the newest call in what predictions are corrected by

Result = Columns | Exception
At = Callable[[int], str]
"""How to point at a row of a request."""
log = logging.getLogger("mlopsdeploy.serve")


@dataclass(slots=True, eq=False)
class Call:
    """What a request asks of a model, read and checked.

    Attributes:
        request: the request.
        columns: the rows, or what makes them. Decoded pictures are large: no more of them are in
            memory than the model has streams.
        rows: how many.
        at: how to point at a row of the request.
        respond: makes the answer of the predictions.
        compute: in place of predictions, what else is made of the columns; such a call is
            computed alone.
        patience: seconds that the caller says it waits; None if it says nothing.
        bulk: whether others go first.
        finish: called once, with this and its predictions or what was raised, in the thread that
            computed it.
        done: is given the answer.
        encoded: the columns as `task.encode` made them.
        cost: their work, as `speed.padded_cost` has it.
        seconds: predicted.
        deadline: when the answer must be there.
        started: when it was first computed.
        batches: of a large one, the rows of each part.
        parts: the predictions of those that are done.
    """

    request: Request
    columns: Columns | Callable[[], Columns]
    rows: int
    at: At
    respond: Callable[[Columns], Answer]
    compute: Callable[[Columns], Columns] | None = None
    patience: float | None = None
    bulk: bool = False
    finish: Callable[[Call, Result], None] = lambda _call, _result: None
    done: Callable[[Answer], None] = lambda _answer: None
    encoded: Columns | None = None
    cost: int = 1
    seconds: float = 0.0
    deadline: float = math.inf
    started: float = 0.0
    batches: list[Rows] = field(default_factory=list)
    parts: list[Columns] = field(default_factory=list)

    def predict(self, model: Model) -> Columns:
        """All of it in one go."""
        columns = self.columns = self.columns() if callable(self.columns) else self.columns
        if self.compute is not None:
            return self.compute(columns)
        if self.encoded is not None:
            return model.predict_encoded(self.encoded)
        return model.predict_columns(columns)

    def joinable(self, other: Call) -> bool:
        """Whether both can be computed as one."""
        if self.encoded is None or other.encoded is None:
            return False
        return self.compute is None and other.compute is None and _shapes(self) == _shapes(other)


def _shapes(call: Call) -> list[tuple[str, tuple[int, ...], np.dtype[np.generic]]]:
    assert call.encoded is not None
    return [(name, array.shape[1:], array.dtype) for name, array in call.encoded.items()]


class Queue:
    """The queue of one model.

    Args:
        model: the model.
        metrics: where waiting, calls and refusals are counted.
        speed: what its calls take.
        slo: seconds that a request may take.
    """

    def __init__(
        self, model: Model, metrics: ModelMetrics, speed: Speed, slo: float | None = None
    ) -> None:
        self.model = model
        self.speed = speed
        self.slo = SLO if slo is None else slo
        self._metrics = metrics
        self._streams = model.runtime.streams
        self._free = self._streams
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._waiting: list[tuple[float, int, Call]] = []
        self._bulk: deque[Call] = deque()
        self._numbers = itertools.count()
        self._backlog = 0.0  # predicted seconds of what waits, without bulk
        self._bulk_backlog = 0.0
        self._until = 0.0  # when the running call is predicted to end
        self._scale = 1.0  # what calls take, to what is predicted
        self._per_byte = 0.0  # cost of a body's bytes
        self._headroom = HEADROOM[1]
        self._answered = self._late = 0
        self._bulk_owed = 0.0
        self._may_wait = HEADROOM[1]  # the share of the budget that requests may wait to be read
        self._adapted = 0.0  # when that was last changed
        # A part of bulk, in the planner's unit.
        per_part = (self.slo * PART - speed.fixed) / speed.per_cost if speed.per_cost else math.inf
        budget = model.task.batch_cost * model.runtime.batch_scale
        self._budget = int(max(min(budget, per_part), speed.row, 1))
        self._interactive = max(self.slo * INTERACTIVE, 2 * speed.seconds(speed.row))
        per_row = speed.per_cost * speed.row
        self._quick_rows = int(min(max((INLINE - speed.fixed) / max(per_row, 1e-9), 1), 1 << 20))

    def fits(self, rows: int) -> bool:
        """Whether so many common rows may be computed together."""
        return rows * self.speed.row <= self._budget

    def now(self) -> dict[str, float]:
        """How the limit has adapted: to be read by people."""
        return {"slowdown": round(self._scale, 3), "share_of_slo": round(self._headroom, 3)}

    # -- coming in

    def put(self, call: Call, *, here: bool) -> None:
        """Compute a call, now or later.

        Args:
            call: its `finish` is called when it is done; maybe before this returns.
            here: whether this thread may compute it if the model is free.

        Raises:
            Problem: 503 where it could only be answered too late.
            RowError: the model can't take a row.
        """
        if not self._at_once(call, here=here):
            return
        call.started = perf_counter()
        try:
            result = self._alone(call)
        finally:
            with self._lock:
                self._free += 1
                if self._waiting or self._bulk:
                    self._work.notify()
        if not self.speed.quick:
            self._learn(call.cost, perf_counter() - call.started)
        _finish(call, result)

    def too_late(self, headers: Mapping[str, str], size: int, arrived: float) -> Problem | None:
        """Why a request is refused before it is read: no answer to its size would be in time.

        Under overload reading is most of what a refusal costs.

        Args:
            headers: of the request.
            size: bytes of its body.
            arrived: see `Request`.

        Raises:
            Problem: 400 where the headers don't make sense.
        """
        if self.speed.quick:
            return self._read_too_late(arrived)
        if self._free or is_bulk(headers):
            return None
        alone = self.speed.seconds(self._per_byte * size)
        if alone > self._interactive:
            return None
        now = perf_counter()
        seconds = patience(headers)
        allowed = (self.slo if seconds is None else seconds) * self._headroom
        wait = max(self._until - now, 0.0) + self._backlog / self._streams
        if now + wait + CAUTION * alone * self._scale > arrived + allowed:
            return refused("busy", wait)
        return None

    def _read_too_late(self, arrived: float) -> Problem | None:
        """What makes answers of a quick model late is that requests wait to be read.

        After a hiccup they may wait for most of the budget. But where they go on waiting there is
        a queue that stands, and most of it may be where it can't be seen: in the system, or in
        callers that wait for a connection. Then they may wait less and less, so that refusals,
        which cost less, drain it.
        """
        now = perf_counter()
        waited = now - arrived
        if now - self._adapted > EVERY:
            self._adapted = now
            if waited < self.slo * LITTLE:
                self._may_wait = min(self._may_wait + MORE, HEADROOM[1])
            else:
                self._may_wait = max(self._may_wait * LESS, LITTLE)
        return refused("busy", 0.0) if waited > self.slo * self._may_wait else None

    def _at_once(self, call: Call, *, here: bool) -> bool:
        """Whether a call is computed in this thread; if not, it waits from now on."""
        quick = self.speed.quick and call.rows <= self._quick_rows and not call.bulk
        if quick and call.patience is None:
            call.deadline = call.request.arrived + self.slo
        else:
            self._prepare(call)
        with self._lock:
            at_once = self._free > 0 and not self._waiting and not call.bulk
            at_once = at_once and (here or quick or (call.seconds < INLINE and self.speed.steady))
            if at_once:
                self._free -= 1
            else:
                self._admit(call)
        return at_once

    def _prepare(self, call: Call) -> None:
        """What is known of a call before it is computed: its work, deadline, and partition."""
        if not self.speed.quick and not callable(call.columns) and call.compute is None:
            call.encoded = self.model.task.encode(call.columns)
            call.cost = padded_cost(self.model, call.encoded)
            per_byte = call.cost / max(len(call.request.body), 1)
            self._per_byte += _SMOOTH * (per_byte - self._per_byte)
        else:
            call.cost = call.rows * self.speed.row
        alone = self.speed.seconds(call.cost)
        call.seconds = alone * self._scale
        budget = self.slo if call.patience is None else call.patience
        if call.bulk or alone > self._interactive:
            call.bulk = True
            budget = BULK_SECONDS if call.patience is None else call.patience
        call.deadline = call.request.arrived + budget

    def _admit(self, call: Call) -> None:
        now = perf_counter()
        wait = max(self._until - now, 0.0) if not self._free else 0.0
        wait += self._backlog / self._streams
        if call.bulk:
            wait += self._bulk_backlog / self._streams
        allowed = (call.deadline - call.request.arrived) * self._headroom
        # An idle model answers, whatever is predicted: else nothing would tell that it's better.
        idle = self._free > 0 and not self._waiting and not self._bulk
        if not idle and now + wait + call.seconds > call.request.arrived + allowed:
            raise refused("busy", wait)
        if call.bulk:
            self._bulk.append(call)
            self._bulk_backlog += call.seconds
        else:
            heapq.heappush(self._waiting, (call.deadline, next(self._numbers), call))
            self._backlog += call.seconds
        self._metrics.waits(1)
        if len(self._threads) < self._streams:
            self._start()
        self._work.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._threads.append(thread)
        thread.start()

    def expire(self) -> None:
        """Answer those whose time is over, though no call ends that would come upon them."""
        now = perf_counter()
        with self._lock:
            dead = [one for _, _, one in self._waiting if one.request.gone or now > one.deadline]
            if dead:
                self._waiting = [one for one in self._waiting if one[2] not in dead]
                heapq.heapify(self._waiting)
                self._backlog = sum(one.seconds for _, _, one in self._waiting)
                self._metrics.waits(-len(dead))
        for call in dead:
            _finish(call, refused("too-late", 0.0))

    # -- computing

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._free or not (self._waiting or self._bulk):
                    self._work.wait()
                self._free -= 1
            try:
                self._next()
            except Exception:
                log.exception("the queue failed")
            with self._lock:
                self._free += 1
                self._work.notify()

    def _next(self) -> None:
        with self._lock:
            calls, dead = self._take()
        for call in dead:
            _finish(call, refused("too-late", 0.0))
        if calls and calls[0].bulk:
            self._part(calls[0])
        elif calls:
            self._compute(calls)

    def _take(self) -> tuple[list[Call], list[Call]]:
        """What is computed next, and what isn't any more."""
        now = perf_counter()
        dead: list[Call] = []
        first = None if self._bulk and self._bulk_owed > 0 else self._pop(now, dead)
        if first is None:
            return self._next_part(now, dead), dead
        calls = [first]
        while (why := self._why_no_more(calls, now)) is None:
            if (popped := self._pop(now, dead)) is not None:
                calls.append(popped)
        self._metrics.called(why)
        seconds = self.speed.seconds(_cost(calls)) * self._scale
        self._until = now + seconds
        if self._bulk:
            self._bulk_owed += BULK_SHARE * seconds
        return calls, dead

    def _why_no_more(self, calls: list[Call], now: float) -> str | None:
        """Why the next call that waits isn't computed with these; None if it is."""
        if not self._waiting or not self.speed.joins:
            return "free"
        call = self._waiting[0][2]
        cost = _cost([*calls, call])
        if cost > self._budget or not calls[0].joinable(call):
            return "full"
        late = now + self.speed.seconds(cost) * self._scale > calls[0].deadline
        return "deadline" if late else None

    def _pop(self, now: float, dead: list[Call]) -> Call | None:
        """The waiting call of the earliest deadline that can still be answered."""
        while self._waiting:
            call = heapq.heappop(self._waiting)[2]
            self._backlog = max(self._backlog - call.seconds, 0.0) if self._waiting else 0.0
            self._metrics.waits(-1)
            if not call.request.gone and now <= call.deadline:
                return call
            dead.append(call)
        return None

    def _next_part(self, now: float, dead: list[Call]) -> list[Call]:
        while self._bulk:
            call = self._bulk[0]
            if not call.request.gone and now <= call.deadline:
                seconds = min(self.slo * PART, call.seconds)
                self._until = now + seconds
                self._bulk_owed -= seconds
                return [self._bulk.popleft()]
            self._leave_bulk(self._bulk.popleft())
            dead.append(call)
        return []

    def _leave_bulk(self, call: Call) -> None:
        self._metrics.waits(-1)
        self._bulk_backlog = max(self._bulk_backlog - call.seconds, 0.0) if self._bulk else 0.0

    def _part(self, call: Call) -> None:
        """Compute a part of a large call; the rest goes back to the head of its queue."""
        if call.encoded is None:
            with self._lock:
                self._leave_bulk(call)
            self._compute([call])
            return
        if not call.batches:
            call.started = perf_counter()
            call.batches = plan(self.model.task.cost(call.encoded), self._budget)
        try:
            part = take(call.encoded, call.batches[len(call.parts)])
            began = perf_counter()
            call.parts.append(self.model.predict_encoded(part))
            self._learn(padded_cost(self.model, part), perf_counter() - began)
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            # Its places are those of a part: all together tell those of the request.
            call.parts.clear()
            result: Result = self._alone(call) if len(call.batches) > 1 else error
        else:
            if len(call.parts) < len(call.batches):
                with self._lock:
                    self._bulk.appendleft(call)
                return
            order = np.argsort(np.concatenate(call.batches))
            result = take(concat(call.parts), order)
        with self._lock:
            self._leave_bulk(call)
        _finish(call, result)

    def _compute(self, calls: list[Call]) -> None:
        began = perf_counter()
        for call in calls:
            call.started = began
        results = self._together(calls) if len(calls) > 1 else None
        if results is None:
            results = [self._alone(call) for call in calls]
        ended = perf_counter()
        if not self.speed.quick:
            self._learn(_cost(calls), ended - began)
        for call, result in zip(calls, results, strict=True):
            _finish(call, result)
            self._answered += 1
            self._late += ended > call.deadline
        if self._answered >= WINDOW:
            self._adapt()

    def _together(self, calls: list[Call]) -> list[Result] | None:
        """The predictions of each; None where not all of them can be computed."""
        encoded = concat([call.encoded for call in calls if call.encoded is not None])
        try:
            predictions = self.model.predict_encoded(encoded)
        except Exception:  # noqa: BLE001  (each alone tells whose it is)
            return None
        ends = np.cumsum([call.rows for call in calls]).tolist()
        return [
            take(predictions, slice(end - call.rows, end))
            for call, end in zip(calls, ends, strict=True)
        ]

    def _alone(self, call: Call) -> Result:
        try:
            return call.predict(self.model)
        except Exception as error:  # noqa: BLE001  (the caller gets it)
            return error

    # -- adapting

    def _learn(self, cost: int, took: float) -> None:
        """What calls take changes with the machine's other load."""
        ratio = took / max(self.speed.seconds(cost), 1e-9)
        self._scale += _SMOOTH * (min(max(ratio, 0.2), 20.0) - self._scale)

    def _adapt(self) -> None:
        """Admit less while answers are late, and more while they aren't."""
        with self._lock:
            late = self._late / max(self._answered, 1)
            self._headroom += -0.1 * self._headroom if late > MOST_LATE else 0.02
            self._headroom = min(max(self._headroom, HEADROOM[0]), HEADROOM[1])
            self._answered = self._late = 0


def _cost(calls: list[Call]) -> int:
    """The work of calls that are computed as one, each padded to the longest row."""
    return max(call.cost // call.rows for call in calls) * sum(call.rows for call in calls)


def _finish(call: Call, result: Result) -> None:
    try:
        call.finish(call, result)
    except Exception:
        log.exception("an answer could not be given")


def refused(kind: str, wait: float) -> Problem:
    """503, and when to come again."""
    return Problem(503, kind, _REFUSALS[kind], headers=_come_again(max(math.ceil(wait), 1)))


@lru_cache
def _come_again(seconds: int) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(seconds)),)
