"""A real server under a real load, briefly: that figures fit together, never how large."""

import io
import json
import subprocess

import cv2
import pytest
from rich.console import Console

from mlopsdeploy.bench.serve import (
    CONNECTIONS,
    Cores,
    Loads,
    Parts,
    bench_serve,
    show,
    verdict,
    where,
)
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError
from mlopsdeploy.settings import ServeSettings


@pytest.fixture(scope="module")
def report():
    return bench_serve(ServeSettings(models="fraud"), seconds=0.3)


def test_the_figures_fit_together(report):
    assert [load["connections"] for load in report["closed"]] == list(CONNECTIONS)
    for load in (*report["closed"], report["open"]):
        assert 0 < load["p50_ms"] <= load["p99_ms"] <= load["max_ms"]
        assert load["unanswered"] == 0
    most = max(load["requests_per_second"] for load in report["closed"])
    assert report["most"]["requests_per_second"] == pytest.approx(most, abs=0.1)
    assert report["open"]["rate"] == pytest.approx(most / 2, rel=0.01)
    assert 0 < report["ratio"] < 1
    assert report["verdict"] == verdict(report)
    assert json.loads(json.dumps(report)) == report


def test_a_request_s_time_is_all_accounted_for(report):
    parts = report["parts_us"]
    # Parts that were measured while others had the cores may add up to more than the whole.
    assert sum(parts.values()) >= report["request_us"] - 1
    assert parts["model"] > 0
    assert report["bottleneck"] == max(parts, key=parts.get)
    assert report["limit"]["empty_requests_per_second"] > 0


def test_memory_and_cores_are_told(report):
    assert len(report["memory"]) == report["workers"]
    assert all(2e7 < size < 1e9 for size in report["memory"])
    assert report["cores"]["shared"] == (report["cores"]["server"] == 1 == Cores().all)


def test_people_see_it_and_no_server_is_left(report):
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console)
    text = console.export_text()
    for part in ("64 connections", "server, HTTP", report["verdict"]):
        assert part in text
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "mlopsdeploy.bench.empty_server" not in listed.stdout


def test_a_row_of_one_s_own(tmp_path):
    settings = ServeSettings(models="fraud")
    row = tmp_path / "row.json"
    row.write_text(json.dumps({"transaction_data": [0.5] * 30}), "utf-8")
    assert json.loads(Parts(settings, str(row)).body) == {"transaction_data": [0.5] * 30}
    assert json.loads(Parts(settings, json.dumps([1.0] * 30)).body) == {
        "transaction_data": [1.0] * 30
    }
    for wrong, message in (
        ("[1, 2]", "fraud refuses it: .*30"),
        ("none.json", r"--row none.json: can't be read"),
        ("{", "not JSON"),
    ):
        with pytest.raises(InputError, match=message):
            Parts(settings, wrong)


def test_a_model_without_an_example_gets_a_row_that_it_takes(churn_onnx, per_feature_onnx, bert):
    for model in (churn_onnx, per_feature_onnx, bert):
        parts = Parts(ServeSettings(models=str(model), threads=1), None)
        assert parts.measure()["model"] > 0


def test_pictures_are_sent_as_they_are(tflite_models, rectangle, tmp_path):
    """The model's own example, a file, or one that is made up, as the body."""
    own = Parts(ServeSettings(models="detector", threads=1), None)
    assert own.kind == "image/jpeg"
    assert own.body.startswith(b"\xff\xd8")
    parts = own.measure()
    assert parts["picture"] > 0
    assert "json" not in parts
    path = tmp_path / "red.png"
    cv2.imwrite(str(path), rectangle("red", (0.25, 0.25, 0.75, 0.75)))
    settings = ServeSettings(models=str(tflite_models / "listed_described.tflite"), threads=1)
    assert Parts(settings, str(path)).body == path.read_bytes()
    assert Parts(settings, str(path)).kind == "image/png"
    assert Parts(settings, None).measure()["model"] > 0
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="refuses it: the body: not a picture"):
        Parts(settings, str(path))
    with pytest.raises(InputError, match=r"--row none.png: can't be read"):
        Parts(settings, "none.png")


def test_pictures_under_load():
    report = bench_serve(ServeSettings(models="detector"), seconds=0.3)
    assert report["parts_us"]["picture"] > 0
    assert report["most"]["requests_per_second"] > 0


def test_several_models_are_refused():
    with pytest.raises(ConfigError, match="one model at a time"):
        bench_serve(ServeSettings(models="fraud,sentiment"))


def test_where_time_goes_adds_up():
    inside = {
        "json": 3.0, "encode": 1.0, "model": 10.0, "decode": 2.0, "answer": 1.0,
        "endpoint": 20.0,
    }  # fmt: skip
    parts = where(inside, 50.0)
    assert parts["checks, metrics"] == 3
    assert parts["server, HTTP"] == 30
    assert sum(parts.values()) == 50


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"model": 90.0, "server, HTTP": 10.0}, "The model sets the pace with 90% of a request"),
        ({"model": 10.0, "server, HTTP": 30.0}, "HTTP sets the pace with 75% of a request"),
        ({"json": 30.0, "server, HTTP": 10.0, "model": 10.0}, "json takes the most, 60%"),
    ],
)
def test_the_verdict_is_one_sentence(parts, said):
    sentence = verdict(
        {
            "bottleneck": max(parts, key=parts.get),
            "parts_us": parts,
            "most": {"connections": 16, "requests_per_second": 9000.0},
            "open": {"p99_ms": 2.5},
            "request_us": 50.0,
            "empty_us": 20.0,
        }
    )
    assert sentence.startswith(said)
    assert "2.5 ms" in sentence
    assert sentence.endswith(".")


def test_a_server_that_does_not_start_is_one_line(tmp_path):
    loads = Loads(Cores(), ServeSettings(models="nothing"), tmp_path, None, 0.1)
    with pytest.raises(MlopsDeployError, match="the server ended at once: no model called"):
        loads.model()
