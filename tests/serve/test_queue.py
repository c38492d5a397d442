"""Who is computed next and with whom, who is refused, and that answers are never swapped."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest

from mlopsdeploy.columns import rows_of
from mlopsdeploy.errors import RowError
from mlopsdeploy.serve import queue as queues
from mlopsdeploy.serve.messages import Problem
from mlopsdeploy.serve.metrics import Metrics
from mlopsdeploy.serve.queue import BULK_SECONDS, HEADROOM, Queue
from mlopsdeploy.serve.speed import Speed

from .conftest import made_call

JOINING = Speed(fixed=0.01, per_cost=0.0001)


class Clock:
    """Time that goes by only where somebody sleeps, and not while a machine stands still."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """That of the queue."""
    made = Clock()
    monkeypatch.setattr(queues, "perf_counter", made)
    return made


class Sum:
    """Answers with the sum of a row; remembers its calls; waits to be let on where asked to."""

    name, batch_scale, precision, metadata, steady, streams = "sum", 1, "float32", {}, False, 1

    def __init__(self, runtime, sleep):
        self.inputs, self.outputs = runtime.inputs, runtime.outputs
        self.calls, self.seconds, self.sleep = [], 0.0, sleep
        self.open = threading.Event()
        self.open.set()
        self.busy = threading.Event()
        self.begun, self.steps = SimpleQueue(), None

    def run(self, tensors):
        rows = tensors["features"]
        self.busy.set()
        self.open.wait(30)
        if self.steps is not None:  # each call is let on on its own
            self.begun.put(rows[:, 0].tolist())
            self.steps.get(timeout=30)
        self.sleep(self.seconds)
        self.calls.append(rows[:, 0].tolist())
        if (rows < 0).any():
            raise RowError("negative", np.flatnonzero((rows < 0).any(axis=1)).tolist())
        if (rows > 1e6).any():
            raise RuntimeError("broken")
        first = 1 / (1 + rows[:, 0])
        return {"probability": np.stack([first, 1 - first], axis=1).astype(np.float32)}


@pytest.fixture
def made(churn, clock, monkeypatch):
    """`made(slo=…, speed=…)`: a queue before a `Sum`, and its metrics; by `clock` or a real one."""

    def of(slo=None, speed=JOINING, *, real=False):
        if real:
            monkeypatch.setattr(queues, "perf_counter", time.perf_counter)
        runtime = Sum(churn.runtime, time.sleep if real else clock.sleep)
        model = dataclasses.replace(churn, runtime=runtime)
        metrics = Metrics({"churn": model})
        queue = Queue(model, metrics.of("churn"), speed, slo)
        queue.metric = lambda name: next(
            (float(line.split()[-1]) for line in metrics.text().decode().splitlines()
             if line.startswith(name)), 0.0
        )  # fmt: skip
        return queue, runtime

    return of


def row(number):
    return {"features": np.array([[number, 1, 2]], np.float32)}


def rows(*numbers):
    return {"features": np.array([[number, 1, 2] for number in numbers], np.float32)}


def score(result):
    return result["score"].tolist()


class Sent:
    """Calls that were put and what became of them."""

    def __init__(self, queue):
        self.queue = queue
        self.results = SimpleQueue()

    def put(self, columns, tag=None, **more):
        call = made_call(
            columns, rows_of(columns), finish=lambda _, result: self.results.put((tag, result)),
            **more,
        )  # fmt: skip
        self.queue.put(call, here=False)
        return call

    def next(self):
        return self.results.get(timeout=30)


def held(runtime, queue):
    """A queue whose model is busy until `runtime.open` is set."""
    runtime.open.clear()
    sent = Sent(queue)
    sent.put(row(0), "first")
    assert runtime.busy.wait(30)
    return sent


def test_an_idle_model_answers_at_once_in_the_thread_that_may(made):
    queue, _ = made()
    got = SimpleQueue()
    call = made_call(row(3), finish=lambda _, one: got.put((threading.get_ident(), one)))
    queue.put(call, here=True)
    thread, result = got.get_nowait()
    assert thread == threading.get_ident()
    assert score(result) == pytest.approx([0.75])


def test_those_that_wait_are_computed_together(made):
    queue, runtime = made()
    sent = held(runtime, queue)
    for number in range(1, 6):
        sent.put(row(number), number)
    runtime.open.set()
    got = dict(sent.next() for _ in range(6))
    assert runtime.calls == [[0], [1, 2, 3, 4, 5]]
    for number in range(1, 6):
        assert score(got[number]) == pytest.approx([max(1, number) / (1 + number)]), number
    assert queue.metric('mlopsdeploy_queued_calls_total{model="churn",reason="free"}') == 2


def test_the_earliest_deadline_goes_first(made):
    queue, runtime = made(slo=30, speed=Speed(0.01, 0.01))  # which doesn't join
    sent = held(runtime, queue)
    for number, patience in ((1, 20), (2, 5), (3, 10)):
        sent.put(row(number), number, patience=patience)
    runtime.open.set()
    assert [sent.next()[0] for _ in range(4)] == ["first", 2, 3, 1]


def test_a_call_is_no_larger_than_its_first_ones_deadline_allows(made):
    queue, runtime = made(slo=10)
    queue.speed = Speed(2.0, 0.4)
    sent = held(runtime, queue)
    for number in range(1, 4):
        sent.put(row(number), number, patience=9 + number)
    queue._scale = 3.7  # after the first call 3.35: two rows take 9.4 s, and three 10.7 s
    runtime.open.set()
    assert {sent.next()[0] for _ in range(4)} == {"first", 1, 2, 3}
    assert runtime.calls == [[0], [1, 2], [3]]
    assert queue.metric('mlopsdeploy_queued_calls_total{model="churn",reason="deadline"}') == 1


@pytest.mark.parametrize(("bad", "error"), [(-1, RowError), (2e6, RuntimeError)])
def test_one_that_fails_fails_alone(made, bad, error):
    queue, runtime = made()
    sent = held(runtime, queue)
    for number in (1, bad, 3):
        sent.put(row(number), number)
    runtime.open.set()
    got = dict(sent.next() for _ in range(4))
    assert isinstance(got[bad], error)
    assert score(got[1]) == pytest.approx([0.5])
    assert score(got[3]) == pytest.approx([0.75])


def test_rows_of_a_request_stay_together_and_in_order(made):
    queue, runtime = made()
    sent = held(runtime, queue)
    sent.put(rows(1, 3, 7), "a")
    sent.put(rows(9, 4), "b")
    runtime.open.set()
    got = dict(sent.next() for _ in range(3))
    assert score(got["a"]) == pytest.approx([1 / 2, 3 / 4, 7 / 8])
    assert score(got["b"]) == pytest.approx([9 / 10, 4 / 5])


def test_what_could_only_be_late_is_refused_at_once(made):
    queue, runtime = made(slo=0.1, speed=Speed(0.03, 0.0))
    sent = held(runtime, queue)
    refusals = []
    for number in range(1, 10):
        try:
            sent.put(row(number), number)
        except Problem as problem:
            refusals.append(problem)
    assert 6 <= len(refusals) <= 8
    assert {one.status for one in refusals} == {503}
    assert dict(refusals[0].headers)["Retry-After"] == "1"
    runtime.open.set()
    for _ in range(10 - len(refusals)):
        sent.next()


def test_who_hung_up_and_whose_time_is_over_is_not_computed(made, clock):
    queue, runtime = made(slo=30)
    sent = held(runtime, queue)
    sent.put(row(1), "gone").request.gone = True
    sent.put(row(2), "late", patience=0.2)
    sent.put(row(3), "in time")
    clock.sleep(0.3)
    runtime.open.set()
    got = dict(sent.next() for _ in range(4))
    assert runtime.calls == [[0], [3]]
    assert [got[name].kind for name in ("gone", "late")] == ["too-late"] * 2
    assert queue.metric("mlopsdeploy_queue{") == 0


def test_whose_time_is_over_is_told_while_the_model_is_stuck(made, clock):
    queue, runtime = made(slo=30)
    sent = held(runtime, queue)
    sent.put(row(2), "late", patience=0.1)
    clock.sleep(0.2)
    queue.expire()
    tag, result = sent.next()
    assert (tag, result.kind) == ("late", "too-late")
    runtime.open.set()
    assert sent.next()[0] == "first"


def test_a_large_request_is_computed_in_parts_between_the_others(made):
    queue, runtime = made(slo=0.5, speed=Speed(0.001, 0.01))
    runtime.seconds, runtime.steps = 0.01, SimpleQueue()
    sent = Sent(queue)
    sent.put(rows(*range(200)), "bulk")
    for number in range(1, 6):
        assert len(runtime.begun.get(timeout=30)) > 1, "a part of the large one"
        sent.put(row(number), number)
        runtime.steps.put("the part")
        assert runtime.begun.get(timeout=30) == [number], "it waits for one part alone"
        runtime.steps.put("the small one")
        tag, result = sent.next()
        assert tag == number
        assert score(result) == pytest.approx([max(1, number) / (1 + number)])
    for _ in range(200):
        runtime.steps.put("the rest")
    tag, result = sent.next()
    assert tag == "bulk"
    assert score(result) == pytest.approx([max(1, one) / (1 + one) for one in range(200)])
    assert max(map(len, runtime.calls)) <= 12, "a quarter of the budget"


def test_others_do_not_starve_a_large_request(made):
    queue, runtime = made(slo=0.5, speed=Speed(0.001, 0.01))
    runtime.seconds = 0.002
    sent, done = Sent(queue), threading.Event()
    bulk = made_call(rows(*range(60)), 60, finish=lambda *_: done.set())
    queue.put(bulk, here=False)

    def ask_on():
        while not done.is_set():
            sent.put(row(1))
            sent.next()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_on)
        assert done.wait(30)
        asking.result()


def test_an_error_in_a_part_tells_its_place_in_the_request(made):
    queue, _ = made(slo=0.5, speed=Speed(0.001, 0.01))
    sent = Sent(queue)
    sent.put(rows(*range(70), -1), "bulk")
    _, result = sent.next()
    assert isinstance(result, RowError)
    assert list(result.rows) == [70]


def test_bulk_waits_longer_but_not_for_ever(made):
    queue, _ = made(slo=0.5)
    call = made_call(row(1), bulk=True)
    queue._prepare(call)
    assert call.deadline - call.request.arrived == pytest.approx(BULK_SECONDS)


def test_the_limit_falls_while_answers_are_late_and_recovers(made):
    queue, _ = made(slo=0.5)
    for late, better in ((True, False), (False, True)):
        before = queue._headroom
        queue._answered, queue._late = 64, 64 if late else 0
        queue._adapt()
        assert (queue._headroom > before) is better
    for _ in range(50):
        queue._answered, queue._late = 64, 64
        queue._adapt()
    assert queue._headroom == HEADROOM[0]


def test_what_is_predicted_follows_what_calls_take(made, ask):
    queue, runtime = made(slo=30, speed=Speed(0.001, 0.0))
    runtime.seconds = 0.01
    for _ in range(40):
        ask(queue, row(1))
    assert 9 < queue._scale < 10


def test_thousands_of_callers_get_their_own_answers(made):
    queue, runtime = made(slo=60, real=True)
    runtime.seconds = 0.0005
    numbers = np.random.default_rng(0).integers(0, 10_000, 4000).tolist()
    wrong = []

    def ask_for(number):
        got = SimpleQueue()
        width = number % 3 + 1
        call = made_call(
            rows(*range(number, number + width)), width, finish=lambda _, one: got.put(one)
        )
        queue.put(call, here=False)
        found = score(got.get(timeout=60))
        wanted = [max(1, one) / (1 + one) for one in range(number, number + width)]
        if found != pytest.approx(wanted, rel=1e-5):
            wrong.append(number)

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask_for, numbers))
    assert not wrong
    assert max(map(len, runtime.calls)) > 8, "they were joined"
    assert queue.metric("mlopsdeploy_queue{") == 0


def test_requests_of_a_quick_model_wait_less_while_a_queue_stands(made, monkeypatch):
    """After a hiccup all are answered that still can be; where all wait for long, few may."""
    queue, _ = made(slo=1.0, speed=Speed(fixed=1e-5, per_cost=0.0))
    now = 100.0
    monkeypatch.setattr("mlopsdeploy.serve.queue.perf_counter", lambda: now)

    def answered(waited):
        """Whether a request is that waited so long to be read, two milliseconds later."""
        nonlocal now
        now += 2e-3
        problem = queue.too_late({}, 100, now - waited)
        assert problem is None or (problem.status, problem.kind) == (503, "busy")
        return problem is None

    assert all(answered(0.01) for _ in range(100))
    assert [answered(0.8), answered(0.9), answered(0.7)] == [True, False, True], "a hiccup"
    standing = [answered(0.3) for _ in range(100)]
    assert standing[0]
    assert not standing[-1]
    assert standing == sorted(standing, reverse=True)
    assert all(answered(0.01) for _ in range(100)), "it has drained"
    assert answered(0.8)
