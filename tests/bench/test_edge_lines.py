"""Real models measured over lines, briefly: that figures fit together, never how large."""

import io

import pytest
from rich.console import Console

from mlopsdeploy.bench.edge_lines import bench_lines, show, verdict
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
    assert set(together["stages_s"]) == {"parse", "model", "write", "events"}
    assert report["bottleneck"] in together["stages_s"]
    ratio = together["lines_per_second"] / limit["lines_per_second"]
    assert report["ratio"] == pytest.approx(ratio, abs=0.01)
    assert 0 < limit["cores_ours"] <= 1
    assert limit["share_of_peak"] is None or limit["share_of_peak"] > 0
    assert report["memory_mb"] > 10
    assert report["verdict"] == verdict(report)


def test_texts_as_people_see_them(bert, reviews, tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("\n".join([*reviews(20), ""]), "utf-8")
    report = bench_lines(EdgeSettings(lines=str(path), model=str(bert), threads=1), seconds=0.3)
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console)
    shown = " ".join(console.export_text().split())
    for part in ("one at a time", "all at once", "bare calls", "lines/s are", report["verdict"]):
        assert part in shown


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"bottleneck": "model", "ratio": 0.95}, "The model sets the pace: 900 lines/s are 95%"),
        ({"bottleneck": "model"}, "The model is the slowest stage, but 900 lines/s are only 50%"),
        ({}, "parse sets the pace, with 60% of all work: 900 lines/s are 50%"),
    ],
)
def test_the_verdict_is_one_sentence(changes, start):
    stages = {"parse": 3.0, "model": 1.0, "write": 1.0}
    together = {"lines_per_second": 900.0, "stages_s": stages, "cores_busy": 1.0}
    report = {"ratio": 0.5, "bottleneck": "parse", "all_at_once": together, "cores": 2, **changes}
    sentence = verdict(report)
    assert sentence.startswith(start)
    assert sentence.endswith(".")


def test_what_can_not_be_measured(churn_onnx, tmp_path):
    with pytest.raises(ConfigError, match="reads lines more than once; name a file"):
        bench_lines(EdgeSettings(lines="-", model=str(churn_onnx), threads=1), seconds=0.1)
    (tmp_path / "a.csv").write_text("\nx\n", "utf-8")
    settings = EdgeSettings(lines=str(tmp_path / "a.csv"), model=str(churn_onnx), threads=1)
    with pytest.raises(InputError, match="no line of it can be scored"):
        bench_lines(settings, seconds=0.1)
