"""Real models measured over lines, briefly: that figures fit together, never how large."""

import json
import subprocess
import sys

import pytest

from mlopsdeploy.bench.edge_lines import bench_lines, verdict
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    body = "".join(f"{20 + n % 50},{n % 9},{n}\n" for n in range(200))
    path.write_text("age,visits,spend\n" + body, "utf-8")
    return path


def test_the_figures_fit_together(churn_onnx, rows):
    settings = EdgeSettings(lines=str(rows), model=str(churn_onnx), threads=1)
    report = bench_lines(settings, seconds=0.3)
    alone, together, limit = (report[key] for key in ("one_at_a_time", "all_at_once", "limit"))
    assert 0 < alone["p50"] <= alone["p99"]
    assert together["lines"] > 200
    assert set(together["stages_s"]) == {"parse", "model", "write"}
    assert report["bottleneck"] in together["stages_s"]
    ratio = together["lines_per_second"] / limit["lines_per_second"]
    assert report["ratio"] == pytest.approx(ratio, abs=0.01)
    assert 0 < limit["cores_ours"] <= 1
    assert limit["share_of_peak"] is None or limit["share_of_peak"] > 0
    assert report["memory_mb"] > 10
    assert report["verdict"] == verdict(report)


def test_texts_through_the_command(bert, reviews, tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("\n".join([*reviews(20), ""]), "utf-8")
    command = [sys.executable, "-m", "mlopsdeploy", "bench", "edge", "--lines", str(path)]
    command += ["--model", str(bert), "--threads", "1", "--seconds", "0.3"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in ("one at a time", "all at once", "bare calls", "lines/s are"):
        assert part in shown
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["verdict"].endswith(".")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bottleneck": "model", "ratio": 0.95}, "The model sets the pace: 900 lines/s are 95%"),
        ({"bottleneck": "model"}, "The model is the slowest stage, but 900 lines/s are only 50%"),
        ({}, "parse sets the pace, with 60% of all work: 900 lines/s are 50%"),
    ],
)
def test_the_verdict_is_one_sentence(changes, said):
    stages = {"parse": 3.0, "model": 1.0, "write": 1.0}
    together = {"lines_per_second": 900.0, "stages_s": stages, "cores_busy": 1.0}
    report = {"ratio": 0.5, "bottleneck": "parse", "all_at_once": together, "cores": 2, **changes}
    sentence = verdict(report)
    assert sentence.startswith(said)
    assert sentence.endswith(".")


def test_what_can_not_be_measured(churn_onnx, tmp_path):
    with pytest.raises(ConfigError, match="reads lines more than once; name a file"):
        bench_lines(EdgeSettings(lines="-", model=str(churn_onnx), threads=1), seconds=0.1)
    (tmp_path / "a.csv").write_text("\nx\n", "utf-8")
    settings = EdgeSettings(lines=str(tmp_path / "a.csv"), model=str(churn_onnx), threads=1)
    with pytest.raises(InputError, match="no line of it can be scored"):
        bench_lines(settings, seconds=0.1)
