"""The config that is written validates, and runs."""

import json
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from cronsim import CronSim

from mlopsdeploy.bench import processes
from mlopsdeploy.choose import configs
from mlopsdeploy.choose.decide import decide
from mlopsdeploy.choose.factors import INTERVALS
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.core import machine
from mlopsdeploy.settings import BatchSettings, EdgeSettings, ServeSettings, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSES = {"batch": BatchSettings, "serve": ServeSettings, "edge": EdgeSettings}


@pytest.fixture
def written(tmp_path):
    """`written(answers, found)`: the strategy and the file."""

    def write(answers, found):
        decision = decide(answers, found)
        path = tmp_path / "config.yaml"
        path.write_text(configs.config(answers, found, decision), "utf-8")
        return decision.recommended, path

    return write


@pytest.mark.parametrize(
    ("answers", "strategy"),
    [
        ({"response_time": "25h"}, "batch"),
        ({"response_time": "25h", "text_column": "review", "price_per_hour": 0}, "batch"),
        ({}, "serve"),
        ({"features": "a,b"}, "serve"),
        ({"data_at": "device"}, "edge"),
    ],
)
def test_it_validates_and_says_why(found, written, answers, strategy):
    got, path = written(ChooseSettings(model="m", **answers), found)
    assert got == strategy
    load(CLASSES[strategy], str(path), {}, {})
    text = path.read_text("utf-8")
    assert text.startswith(f"# {strategy}: chosen by mlopsdeploy choose.")
    assert "# cost: " in text


def test_a_schedule_for_every_interval():
    for seconds in INTERVALS:
        times = CronSim(configs.cron(seconds), datetime(2026, 3, 2))
        runs = [next(times) for _ in range(50)]
        gaps = {(after - before).total_seconds() for before, after in pairwise(runs)}
        assert gaps == {seconds}


def test_batch_runs_it(found, written, customers, churn_onnx, mlopsdeploy, tmp_path):
    answers = ChooseSettings(model=str(churn_onnx), sample=str(customers), response_time="25h")
    strategy, path = written(answers, replace(found, data="table"))
    assert strategy == "batch"
    said = yaml.safe_load(path.read_text("utf-8"))
    assert said["schedule"] == "0 2 * * *"
    done = mlopsdeploy("batch", "--config", path, "--schedule", "off", "--json")
    assert done.code == 0, done
    assert json.loads(done.out)["rows"] == 50


def test_serve_runs_it(found, written, churn_onnx, tmp_path):
    answers = ChooseSettings(model=str(churn_onnx))
    strategy, path = written(answers, replace(found, data="table"))
    assert strategy == "serve"
    port = machine.free_port()
    command = [*processes.OURS, "serve", "--config", path, "--port", str(port), "--workers", "1"]
    with processes.start(command, tmp_path / "log") as server:
        ready = f"http://127.0.0.1:{port}/readyz"
        server.wait_until(lambda: processes.answers(ready), 60, "the server")


def test_edge_runs_it_over_lines(found, written, mlopsdeploy, churn_onnx, tmp_path):
    answers = ChooseSettings(model=str(churn_onnx), data_at="device", features="age,visits,spend")
    strategy, path = written(answers, replace(found, data="table"))
    assert strategy == "edge"
    done = mlopsdeploy("edge", "--config", path, "--threads", "1", stdin=b"40,1,90\n")
    assert done.code == 0, done
    events = map(json.loads, (tmp_path / "events.jsonl").read_text("utf-8").splitlines())
    assert [event["label"] for event in events if event["event"] == "line"] == ["1"]


@pytest.mark.parametrize(
    ("strategy", "answers", "flags", "made"),
    [
        ("edge", {"sample": EXAMPLES / "street.mp4", "data_at": "device"},
         ("--limit", "5", "--no-window", "--threads", "1"), "events.jsonl"),
        ("batch", {"sample": EXAMPLES / "photos", "response_time": "25h"},
         ("--schedule", "off", "-o", "found.jsonl"), "found.jsonl"),
    ],
)  # fmt: skip
def test_it_runs_over_pictures(
    found, written, mlopsdeploy, tmp_path, strategy, answers, flags, made
):
    answers["sample"] = str(answers["sample"])
    detector = replace(found, data="image")
    got, path = written(ChooseSettings(model="detector", **answers), detector)
    assert got == strategy
    done = mlopsdeploy(strategy, "--config", path, *flags)
    assert done.code == 0, done
    assert '"label"' in (tmp_path / made).read_text("utf-8")


def test_a_video_is_no_input_of_batch(found, written):
    answers = ChooseSettings(
        model="detector", sample=str(EXAMPLES / "street.mp4"), response_time="25h"
    )
    strategy, path = written(answers, replace(found, data="image"))
    assert strategy == "batch"
    assert "input: photos/" in path.read_text("utf-8")


def test_there_is_none_where_nothing_could_run_it(found):
    nothing = ChooseSettings(may_leave=False)
    assert configs.why_not(decide(nothing, found)) == "none of the three fits"
