"""The job measured on small files, briefly: that figures fit together, never how large."""

import io
import json

import pytest
from rich.console import Console

from mlopsdeploy.bench.batch import NAIVE, bench_batch, show, verdict
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import BatchSettings

STAGES = ["read", "parse", "encode", "model", "write"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory, reviews):
    """600 reviews, a tenth of them twice."""
    path = tmp_path_factory.mktemp("bench") / "reviews.csv"
    rows = reviews(540)
    path.write_text("\n".join(["review_text", *rows, *rows[:60], ""]), "utf-8")
    return path


@pytest.fixture(scope="module")
def bench(bert):
    def run(path, seconds=0.3, precisions=False, **settings):
        chosen = {"model": str(bert), "runtime": "openvino", "threads": 2, **settings}
        wanted = BatchSettings(input=str(path), **chosen)
        return bench_batch(wanted, seconds=seconds, precisions=precisions)

    return run


@pytest.fixture(scope="module")
def report(bench, texts):
    return bench(texts, precision="float32", precisions=True)


def test_the_figures_fit_together(report):
    job, limit = report["job"], report["limit"]
    assert job["rows_per_second"] == pytest.approx(job["rows"] / job["seconds"], rel=0.01)
    assert report["ratio"] == pytest.approx(
        job["rows_per_second"] / limit["rows_per_second"], rel=0.01
    )
    assert list(report["stages"]) == STAGES
    assert all(seconds >= 0 for seconds in report["stages"].values())
    assert 0 < report["threads_busy"]["model"] <= 1.05
    assert report["bottleneck"] in STAGES
    assert report["verdict"] == verdict(report)
    assert json.loads(json.dumps(report)) == report
    # Planned batches pad less than plain ones.
    assert 0 <= report["padding"]["planned"] < report["padding"]["naive"] < 1
    assert limit["gflops"] > 0
    assert limit["peak_gflops"] > 0
    share = limit["gflops"] / limit["peak_gflops"]
    assert limit["share_of_peak"] == pytest.approx(share, rel=0.1, abs=0.001)


def test_other_precisions_come_from_the_dry_run(report):
    by_name = {row["precision"]: row for row in report["precisions"]}
    assert by_name["float32"]["chosen"]
    assert set(by_name) == {"float32", "bfloat16", "int8"}
    for row in by_name.values():
        assert "skipped" in row or row["rows_per_second"] > 0


def test_people_see_it_within_80_columns(report):
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console)
    text = console.export_text()
    assert all(stage in text for stage in STAGES)
    assert f"in batches of {NAIVE}" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if line != report["verdict"]) <= 130


def test_a_table_has_no_padding_and_is_run_again_and_again(bench, customers, churn_onnx):
    report = bench(customers, model=str(churn_onnx), runtime="onnxruntime")
    assert report["padding"] is None
    assert report["job"]["rows"] > 50  # of a file of 50
    assert report["precisions"] == []


def test_a_limit_is_kept(bench, texts):
    report = bench(texts, seconds=0.05, limit=20)
    assert report["job"]["rows"] % 20 == 0


def test_what_can_not_be_read_is_one_line(bench):
    for name in ("-", None):
        with pytest.raises(ConfigError, match="reads its input more than once; name a file"):
            bench_batch(BatchSettings(input=name))
    with pytest.raises(InputError, match="no such file"):
        bench("nowhere.csv")


BASE = {
    "bottleneck": "model",
    "ratio": 0.96,
    "cores": 2,
    "cores_ours": 1.0,
    "streams": 2,
    "scaling": 1.9,
    "job": {"rows_per_second": 1234.0, "cores_busy": 1.9},
    "stages": {"read": 1, "parse": 1, "encode": 6, "model": 90, "write": 2},
    "precisions": [
        {"precision": "float32", "chosen": True, "rows_per_second": 1000.0},
        {"precision": "bfloat16", "chosen": False, "rows_per_second": 1900.0,
         "labels_differ": 50, "labels_compared": 1000},
        {"precision": "int8", "chosen": False, "rows_per_second": 1400.0,
         "labels_differ": 5, "labels_compared": 1000},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        (
            {},
            "The model sets the pace: 1,234 rows/s are 96% of bare calls of the model; int8 would "
            "be 1.4 times as fast; 2 streams are 1.9 times one, so another core should help.",
        ),
        ({"ratio": 0.5}, "The model is the slowest stage, but 1,234 rows/s are only 50%"),
        ({"bottleneck": "encode", "ratio": 0.4}, "encode sets the pace, with 6% of all work"),
        ({"ratio": None}, "1,234 rows/s; no row had anything to compute."),
        ({"cores_ours": 0.5, "precisions": []}, "The model sets the pace: 1,234 rows/s are 96% of "
         "bare calls of the model; only a smaller model or another core is faster."),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(changes, start):
    sentence = verdict({**BASE, **changes})
    assert sentence.startswith(start)
    assert sentence.endswith(".")
    assert "\n" not in sentence
