"""Too much of everything: health answers all the same, refusals are counted, answers are never
swapped. How fast it is stands in `benchmarks/`; here bounds are wide, and figures are printed."""

import contextlib
import http.client
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest

from .conftest import JSON, ask_slow
from .wire import GOOD, HEAD, POST, read_answers

PATHS = ("/healthz", "/readyz", "/metrics", "/v2/health/live")


@pytest.fixture(scope="module")
def fired(serve, slow, churn_onnx):
    """One worker with a slow model and a quick one; answers may take a second."""
    server = serve(
        workers=1, threads=1, slo=1.0, body_timeout=60.0, modules=[slow], access_log=False,
        models=[
            "fraud",
            {"model": str(churn_onnx), "name": "churn", "runtime": "slow"},
            {"model": str(churn_onnx), "name": "patient", "runtime": "slow", "slo": 60.0},
        ],
    )  # fmt: skip
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


def answers_meanwhile(server, capsys, what, seconds=1.5):
    """That health, readiness and metrics are answered while something goes on."""
    took = []
    end = time.monotonic() + seconds
    for path in cycle(PATHS):
        began = time.monotonic()
        assert server.get(path).status == 200
        took.append(time.monotonic() - began)
        if began > end and len(took) >= 20:
            break
    middle, worst = statistics.median(took), max(took)
    with capsys.disabled():
        print(f"\n{what}: health in {middle * 1e3:.1f} ms, at worst {worst * 1e3:.0f} ms")
    assert middle < 1
    assert worst < 10


def in_flight(server):
    return server.get("/metrics").metric("mlopsdeploy_in_flight")


# ---------------------------------------------------------------- health


def test_health_while_a_call_takes_long(fired, capsys, some):
    seconds = some(5.0, 30.0)
    body = json.dumps({"instances": [seconds, 0, 0]}).encode()
    head = HEAD.replace(b"/detect_fraud", b"/v1/models/churn:predict")
    with fired.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        fired.until(lambda: in_flight(fired) == 1)
        answers_meanwhile(fired, capsys, "a long call", seconds / 2)
        assert fired.call("POST", "/detect_fraud", GOOD).status == 200, "another model"
        ((status, _),) = read_answers(connection, 1)
    assert status == 200, "it was computed, however late"


@pytest.mark.parametrize(("what", "sent", "number"), [
    ("500 slow bodies", HEAD + b"Content-Length: 500\r\n\r\n{", 500),
    ("1,000 idle connections", b"", 1000),
])  # fmt: skip
def test_health_while_callers_say_little(fired, capsys, what, sent, number):
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(fired.connect())
            connection.sendall(sent)
        answers_meanwhile(fired, capsys, what)
        assert fired.call("POST", "/detect_fraud", GOOD).status == 200


def test_health_while_the_loop_that_answers_is_held_up(slow_server, capsys):
    """It computes what is quick as a rule, which may take long for once."""
    server = slow_server("--workers", "1", env={"SLOW_STEADY": "1"})
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(ask_slow, server, 6)
        server.until(lambda: in_flight(server) == 1)
        waits = pool.submit(ask_slow, server, 0)
        answers_meanwhile(server, capsys, "a loop that is held up")
        assert not waits.done()
        assert [long.result().status, waits.result().status] == [200, 200]
    assert server.stop() == 0


def test_health_when_a_thousand_connect_at_once(fired, capsys):
    """And each of them is answered."""
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(fired.connect()) for _ in range(1000)]
        for connection in asking:
            connection.sendall(POST)
        answers_meanwhile(fired, capsys, "1,000 connections at once")
        for connection in asking:
            ((status, _),) = read_answers(connection, 1)
            assert status == 200


def test_a_connection_that_asked_for_health_first(fired):
    """It is as good as any other for what comes then, and ends as any other does."""
    with fired.connect() as connection:
        ask = b"Host: localhost\r\n\r\n"
        connection.sendall(b"GET /healthz HTTP/1.1\r\n" + ask)
        connection.sendall(POST)
        connection.sendall(b"GET /metrics HTTP/1.1\r\n" + ask)
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\n" + ask)
        answers = read_answers(connection, 4)
    assert [status for status, _ in answers] == [200] * 4


def test_health_while_three_times_too_much_is_asked(slow_server, capsys):
    """A row takes 50 ms, so 20 a second are possible; what can't be answered in a second is
    refused, at once, and says when to come again."""
    server = slow_server("--workers", "1", "--threads", "1", slo=1.0, env={"SLOW_ROW": "0.05"})
    over = threading.Event()
    got = []

    def ask_on():
        while not over.is_set():
            began = time.monotonic()
            answer = ask_slow(server, 0)
            got.append((answer.status, time.monotonic() - began, answer.headers))
            over.wait(0.5 if answer.status == 503 else 0)

    with ThreadPoolExecutor(60) as pool:
        asking = [pool.submit(ask_on) for _ in range(60)]
        try:
            answers_meanwhile(server, capsys, "three times the load", seconds=6)
        finally:
            over.set()
        for one in asking:
            one.result()
    good = [seconds for status, seconds, _ in got if status == 200]
    refused = [(seconds, headers) for status, seconds, headers in got if status == 503]
    with capsys.disabled():
        for what, times in (("answered", good), ("refused", [seconds for seconds, _ in refused])):
            print(f"{len(times)} {what}, half of them in {statistics.median(times) * 1e3:.1f} ms")
    assert len(good) + len(refused) == len(got)
    assert len(good) >= 30, "it goes on answering"
    assert statistics.median(seconds for seconds, _ in refused) < 1
    assert all(int(headers["retry-after"]) >= 1 for _, headers in refused)
    shown = server.get("/metrics")
    assert shown.metric("mlopsdeploy_requests_total", code="503") == len(refused)
    assert shown.metric("mlopsdeploy_requests_total", code="200") == len(good)
    assert ask_slow(server, 0).status == 200
    assert server.stop() == 0


# ---------------------------------------------------------------- what is counted and told


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code"),
    [
        ("GET", "/none", None, {}, 404),
        ("GET", "/detect_fraud", None, {}, 405),
        ("POST", "/healthz", b"", {}, 405),
        ("POST", "/detect_fraud", bytes(5_000_000), JSON, 413),
        ("POST", "/none", bytes(5_000_000), JSON, 413),
        ("GET", "/healthz", None, {"X": "a" * 70_000}, 431),
        ("POST", "/detect_fraud", b"{}", {"Content-Type": "text/plain"}, 415),
        ("GET", "/healthz", None, {"Host": "evil.example"}, 421),
        ("GET", "/" + "a" * 9000, None, {}, 414),
    ],
)
def test_every_refusal_is_counted(fired, method, path, body, headers, code):
    def counted():
        shown = fired.get("/metrics")
        return sum(
            shown.metric(f"mlopsdeploy_{name}_total", code=str(code))
            for name in ("requests", "refused")
        )

    before = counted()
    assert fired.call(method, path, body, headers).status == code
    assert counted() == before + 1


def timing(answer):
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    return {name: float(milliseconds) for name, milliseconds in parts.items()}


def patient(server, seconds, headers=JSON):
    return server.call(
        "POST", "/v1/models/patient:predict", {"instances": [seconds, 0, 0]}, headers
    )


def test_an_answer_tells_how_long_it_waited_and_was_computed(fired):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(patient, fired, 0.8)
        fired.until(lambda: in_flight(fired) == 1)
        second = patient(fired, 0.2)
        assert timing(first.result())["model"] >= 800
    assert timing(second)["model"] >= 200
    assert timing(second)["queue"] > 20
    assert timing(fired.call("POST", "/detect_fraud", GOOD)).keys() == {"queue", "model"}


V2 = {"inputs": [{"name": "features", "shape": [1, 3], "datatype": "FP32", "data": [0, 0, 0]}]}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/models/patient:predict", {"instances": [0, 0, 0]}, {"X-Request-Timeout": "0.8"}),
        (
            "/v1/models/patient:predict",
            {"instances": [0, 0, 0]},
            {"X-Envoy-Expected-Rq-Timeout-Ms": "800"},
        ),
        ("/v2/models/patient/infer", {**V2, "parameters": {"timeout": 800_000}}, {}),
    ],
)
def test_a_callers_own_deadline_is_kept(fired, path, body, headers):
    """While the model is busy, it is told so when its time is over, and not later."""
    # A machine that stands still answers only too late.
    fired.until(lambda: fired.call("POST", path, body, {**JSON, **headers}).status == 200)
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(patient, fired, 3.5)
        fired.until(lambda: in_flight(fired) == 1)
        refused = fired.call("POST", path, body, {**JSON, **headers})
        assert not busy.done(), "it was told before the model was free"
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert busy.result().status == 200


@pytest.mark.parametrize("said", ["0", "-1", "soon", "nan", "inf"])
def test_a_deadline_that_is_none(fired, said):
    assert patient(fired, 0, {**JSON, "X-Request-Timeout": said}).status == 400


# ---------------------------------------------------------------- answers are never swapped


@pytest.mark.parametrize(("model", "each"), [("tiny", 40), ("sentiment", 8)])
def test_thousands_of_requests_get_their_own_answers(serve, bert, reviews, model, each):
    """Texts of all lengths: computed together where that pays here; see test_queue for that."""
    reference = bert if model == "tiny" else model
    server = serve(
        "--model", f"texts={reference}", "--runtime", "onnxruntime", "--precision", "float32",
        workers=1, threads=1, slo=60,
    )  # fmt: skip
    texts = reviews(100)

    def ask(connection, text, body):
        connection.request("POST", "/v1/models/texts:predict", body, JSON)
        got = connection.getresponse()
        assert got.status == 200
        return text, json.loads(got.read())["predictions"]

    bodies = [json.dumps({"instances": [text]}) for text in texts]
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port)) as one:
        alone = dict(ask(one, text, body) for text, body in zip(texts, bodies, strict=True))

    def ask_some(start):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        with contextlib.closing(connection):
            places = [(start * 7 + step * 13) % len(texts) for step in range(each)]
            return [ask(connection, texts[place], bodies[place]) for place in places]

    with ThreadPoolExecutor(50) as pool:
        together = [pair for pairs in pool.map(ask_some, range(50)) for pair in pairs]
    assert len(together) == 50 * each
    for text, (answer,) in together:
        (expected,) = alone[text]
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
    shown = server.get("/metrics")
    assert shown.metric("mlopsdeploy_requests_total", code="200") == 50 * each + 100
    assert shown.metric("mlopsdeploy_queue") == 0
    assert server.stop() == 0


def test_the_time_that_a_caller_takes_to_send_is_not_the_servers(fired):
    """A body that comes later than answers may take is answered all the same."""
    with fired.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD[:20])
        time.sleep(1.3)
        connection.sendall(GOOD[20:])
        ((status, _),) = read_answers(connection, 1)
    assert status == 200
