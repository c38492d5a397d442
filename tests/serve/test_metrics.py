"""The numbers at /metrics, of one process and of several."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlopsdeploy.serve.metrics import Metrics

ROW = [0.0] * 30


def families(answer):
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {one.name: one for one in text_string_to_metric_families(answer.body.decode())}


@pytest.fixture
def call(client, fraud, churn):
    return client({"fraud": fraud, "churn": churn})


def test_before_the_first_request_all_is_there_and_zero(call):
    shown = families(call("GET", "/metrics"))
    assert {"mlopsdeploy_in_flight", "mlopsdeploy_queue"} <= set(shown)
    assert {sample.value for sample in shown["mlopsdeploy_in_flight"].samples} == {0}
    (fraud, churn) = shown["mlopsdeploy_model_info"].samples
    assert len(fraud.labels.pop("digest")) == 12
    assert fraud.labels == {
        "model": "fraud", "version": "1.0.0", "runtime": "litert", "precision": "float32",
    }  # fmt: skip
    assert churn.labels["runtime"] == "onnxruntime"
    resident = call("GET", "/metrics").metric(
        "mlopsdeploy_worker_resident_memory_bytes", pid=str(os.getpid())
    )
    assert 1e6 < resident < 1e11


def test_requests_are_counted_by_model_and_code(call):
    for _ in range(3):
        call("POST", "/detect_fraud", {"transaction_data": ROW})
    call("POST", "/detect_fraud", {"transaction_data": [ROW] * 5})
    call("POST", "/detect_fraud", {"transaction_data": [1]})
    call("POST", "/detect_fraud", b"{")
    call("POST", "/v1/models/churn:predict", {"instances": [1, 2, 3]})
    call("POST", "/none", {})
    shown = call("GET", "/metrics")
    for code, count in (("200", 4), ("422", 1), ("400", 1)):
        assert shown.metric("mlopsdeploy_requests_total", model="fraud", code=code) == count
    assert shown.metric("mlopsdeploy_requests_total", model="churn") == 1
    assert shown.metric("mlopsdeploy_requests_total") == 7
    assert shown.metric("mlopsdeploy_batch_rows_count", model="fraud") == 4
    assert shown.metric("mlopsdeploy_batch_rows_sum", model="fraud") == 8
    assert shown.metric("mlopsdeploy_batch_rows_bucket", model="fraud", le="1.0") == 3
    assert shown.metric("mlopsdeploy_in_flight") == 0
    assert shown.metric("mlopsdeploy_queue") == 0


def test_histograms_are_cumulative_and_end_with_their_count(call):
    for rows in (1, 2, 3, 40, 2000):
        call("POST", "/detect_fraud", {"transaction_data": [ROW] * rows})
    shown = families(call("GET", "/metrics"))
    for name in ("mlopsdeploy_request_seconds", "mlopsdeploy_batch_rows"):
        samples = [
            one for one in shown[name].samples
            if one.labels["model"] == "fraud" and one.labels.get("code", "200") == "200"
        ]  # fmt: skip
        buckets = [one.value for one in samples if one.name.endswith("_bucket")]
        bounds = [one.labels["le"] for one in samples if one.name.endswith("_bucket")]
        (count,) = [one.value for one in samples if one.name.endswith("_count")]
        assert buckets == sorted(buckets)
        assert bounds[-1] == "+Inf"
        assert [float(bound) for bound in bounds] == sorted(float(bound) for bound in bounds)
        assert buckets[-1] == count == 5
    (total,) = [
        one.value for one in shown["mlopsdeploy_request_seconds"].samples
        if one.name.endswith("_sum") and one.labels.get("code") == "200"
        and one.labels["model"] == "fraud"
    ]  # fmt: skip
    assert 0 < total < 60


@pytest.mark.parametrize(("rows", "bound"), [(1, "1.0"), (2, "2.0"), (3, "4.0"), (4, "4.0")])
def test_a_value_on_a_bound_belongs_below_it(call, rows, bound):
    call("POST", "/detect_fraud", {"transaction_data": [ROW] * rows})
    shown = call("GET", "/metrics")
    assert shown.metric("mlopsdeploy_batch_rows_bucket", model="fraud", le=bound) == 1
    if bound != "1.0":
        below = str(float(bound) / 2)
        assert shown.metric("mlopsdeploy_batch_rows_bucket", model="fraud", le=below) == 0


def test_two_applications_in_one_process_count_apart(client, fraud):
    one, other = client({"fraud": fraud}), client({"fraud": fraud})
    one("POST", "/detect_fraud", {"transaction_data": ROW})
    assert one("GET", "/metrics").metric("mlopsdeploy_requests_total") == 1
    assert other("GET", "/metrics").metric("mlopsdeploy_requests_total") == 0


def test_a_worker_goes_on_with_the_counts_of_one_that_died(fraud, tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    (tmp_path / f"{gone.pid}.cells").touch()  # of another size: not its counts
    first = Metrics({"fraud": fraud}, tmp_path)
    counted = first.of("fraud")
    counted.started()
    counted.answered(200, 0.001, 2)
    counted.started()
    (tmp_path / f"{os.getpid()}.cells").rename(tmp_path / f"{gone.pid}.cells")
    second = Metrics({"fraud": fraud}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [f"{os.getpid()}.cells"]
    text = second.text().decode()
    assert 'mlopsdeploy_requests_total{code="200",model="fraud"} 1.0' in text
    assert 'mlopsdeploy_in_flight{model="fraud"} 0.0' in text


def test_threads_lose_no_count(fraud):
    metrics = Metrics({"fraud": fraud})
    counted = metrics.of("fraud")

    def request(_):
        counted.started()
        counted.answered(200, 0.001, 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(20_000)))
    text = metrics.text().decode()
    assert 'mlopsdeploy_requests_total{code="200",model="fraud"} 20000.0' in text
    assert 'mlopsdeploy_batch_rows_sum{model="fraud"} 40000.0' in text
    assert 'mlopsdeploy_in_flight{model="fraud"} 0.0' in text


# ---------------------------------------------------------------- several workers


@pytest.fixture(scope="module")
def two_workers(serve):
    return serve("--workers", "2", ready=2)


def metrics_of_each(server):
    """What each worker says of all: a new connection goes to whichever takes it."""
    return [server.get("/metrics") for _ in range(12)]


def test_whichever_worker_answers_counts_all(two_workers):
    before = two_workers.get("/metrics").metric("mlopsdeploy_requests_total")
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(two_workers.call, "POST", "/detect_fraud", {"transaction_data": [ROW] * 3})
            for _ in range(60)
        ]
    assert {one.result().status for one in sent} == {200}
    for shown in metrics_of_each(two_workers):
        assert shown.metric("mlopsdeploy_requests_total", code="200") - before == 60
        assert shown.metric("mlopsdeploy_request_seconds_count", code="200") - before == 60
        assert shown.metric("mlopsdeploy_batch_rows_sum") == 180
        assert shown.metric("mlopsdeploy_in_flight") == 0
        assert shown.metric("mlopsdeploy_queue") == 0
        assert shown.metric("mlopsdeploy_model_info") == 1, "once, not once per worker"
        families(shown)
        for pid in two_workers.workers:
            resident = shown.metric("mlopsdeploy_worker_resident_memory_bytes", pid=str(pid))
            assert 1e6 < resident < 1e9


def test_a_killed_worker_is_replaced_and_its_counts_stay(two_workers):
    before = two_workers.get("/metrics")
    killed = two_workers.workers[0]
    os.kill(killed, signal.SIGKILL)
    two_workers.until(lambda: killed not in two_workers.workers and len(two_workers.workers) == 2)
    two_workers.until(lambda: two_workers.log.count("worker ready") == 3)
    assert "ended by SIGKILL; another one starts" in two_workers.log
    for shown in metrics_of_each(two_workers):
        name = "mlopsdeploy_requests_total"
        assert shown.metric(name) == before.metric(name)
        assert shown.metric("mlopsdeploy_in_flight") == 0
        assert shown.metric("mlopsdeploy_worker_resident_memory_bytes", pid=str(killed)) == 0
    assert two_workers.stop() == 0
