"""What a run would take, asked of real models; what was promised is held against real runs."""

import io
import itertools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino
import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

from mlopsdeploy.batch import command, dry_run, sampling
from mlopsdeploy.batch.loading import load_for
from mlopsdeploy.errors import ConfigError, MlopsDeployError

from . import tables

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(sampling, "MODEL_SECONDS", 0.5)


@pytest.fixture
def look(score, tmp_path, monkeypatch):
    """`look(path, limit=3)` is a dry run in this process."""
    estimate = dry_run.estimate
    thorough = []

    def checked(work, *arguments, **options):
        found = estimate(work, *arguments, **options, thorough=thorough[-1])
        assert work.statistics.rows == 0
        return found

    monkeypatch.setattr(dry_run, "estimate", checked)

    def run(path, compare=False, **settings):
        thorough.append(compare)
        before = sorted(tmp_path.rglob("*"))
        found = score(path, dry_run=True, **settings)
        assert sorted(tmp_path.rglob("*")) == before, "nothing is to be written"
        json.dumps(found)
        return found

    return run


def write(path, texts):
    return tables.write(path, enumerate(texts))


@pytest.fixture
def file(tmp_path, reviews):
    return write(tmp_path / "reviews.csv", reviews(400))


def shown(found, width=80):
    stream = io.StringIO()
    dry_run.show(found, Console(file=stream, width=width))
    return stream.getvalue()


def test_what_is_said_of_a_small_file_is_what_a_run_finds(look, score, tmp_path, reviews):
    texts = [*reviews(300), "great", "great", "great", "", "  ", "great " * 200]
    path = write(tmp_path / "r.csv", texts)
    with path.open("a", encoding="utf-8") as end:
        end.write("1,2,3\n")
    found = look(path, max_errors="none")
    summary = score(path, output=str(tmp_path / "out.csv"), max_errors="none")
    sample = found["sample"]
    assert (found["rows"], found["counted"]) == (summary["rows"], True)
    for name in ("duplicates", "failed", "reasons", "truncated", "tokens", "lost_tokens"):
        assert sample[name] == summary[name], name
    assert (sample["duplicates"], sample["failed"], sample["truncated"]) == (2, 1, 1)
    assert sample["empty"] == 2
    assert "line 308" in sample["first_failed"]
    (row,) = found["precisions"]
    assert (row["precision"], row["chosen"]) == ("float32", True)
    assert row["scored"] == 302  # each distinct text
    # On a machine that stalls, a run this short may be known no better than "some time".
    assert 0 <= row["least_seconds"] <= row["seconds"] <= row["most_seconds"]
    assert row["most_seconds"] > 0
    assert 2**25 < row["memory"] < 2**33


def test_precisions_are_compared_with_float32(look, file):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    found = look(file, compare=True, runtime="openvino", precision="bfloat16")
    names = [row["precision"] for row in found["precisions"]]
    assert names == ["bfloat16", "float32", "int8"]
    chosen, exact, int8 = found["precisions"]
    assert chosen["chosen"]
    assert not exact["chosen"]
    assert 0 < chosen["labels_compared"] <= 400
    assert chosen["labels_differ"] <= chosen["labels_compared"] * 0.02  # close calls look twice
    assert "labels_differ" not in exact
    assert int8 == {"precision": "int8", "chosen": False, "skipped": int8["skipped"]}
    assert "--precision int8 calibrates" in int8["skipped"]
    assert found["verdict"].startswith(("bfloat16, as chosen", "float32, --precision float32"))


def test_a_tabular_model_has_one_precision(look, customers, churn_onnx):
    found = look(customers, model=str(churn_onnx), price_per_hour=2.0)
    (row,) = found["precisions"]
    assert (found["rows"], row["scored"]) == (50, 50)
    assert row["cost"] == pytest.approx(row["seconds"] / 3600 * 2, abs=1e-4)
    assert found["verdict"] == "float32: the only one that can be measured here"
    page = shown(found)
    assert "truncated" not in page
    assert "h × 2 an hour = " in page


@pytest.mark.parametrize("texts", [["the food is great"], ["great"] * 50, [" "] * 3 + ["awful"]])
def test_few_different_rows(look, tmp_path, texts):
    found = look(write(tmp_path / "r.csv", texts), text_column="review_text")
    assert found["rows"] == len(texts)
    assert found["precisions"][0]["scored"] == 1
    assert "bad rows" in shown(found)


def test_nothing_to_score(look, tmp_path):
    found = look(write(tmp_path / "r.csv", ["", "  "]), text_column="review_text")
    assert found["sample"]["empty"] == 2
    assert found["precisions"][0]["scored"] == 0
    shown(found)


def test_all_rows_are_bad(look, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("id,review_text\n" + "1,2,3\n" * 20, "utf-8")
    found = look(path, text_column="review_text", delimiter=",")
    assert found["sample"]["failed"] == 20
    assert found["notes"][-1:] == [
        "about 20 rows are bad, more than --max-errors allows: it would stop"
    ]
    assert "note: about 20 rows" in shown(found)


def test_limit(look, file):
    found = look(file, limit=30)
    assert (found["rows"], found["counted"], found["sample"]["rows"]) == (30, True, 30)


def test_folder_and_parquet(look, tmp_path, reviews):
    folder = tmp_path / "parts"
    folder.mkdir()
    for place in range(3):
        write(folder / f"{place}.csv", reviews(20, seed=place))
    assert look(folder)["rows"] == 60
    table = pa.table({"id": range(70), "review_text": reviews(70)})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    assert look(tmp_path / "r.parquet")["rows"] == 70


def test_chunks_of_long_texts_lose_nothing(look, tmp_path):
    path = write(tmp_path / "r.csv", ["great " * 300, "awful"])
    assert look(path)["sample"]["lost_tokens"] > 0
    assert look(path, long_text="chunks")["sample"]["lost_tokens"] == 0


def test_the_sample_lies_all_over_the_file(look, tmp_path, monkeypatch, reviews):
    """Long texts stand at the end; nothing of them is seen in the head."""
    monkeypatch.setattr(sampling, "MOST_WINDOWS", 8)
    texts = [*["great " * (number % 7 + 1) for number in range(900)], *["awful " * 200] * 100]
    found = look(write(tmp_path / "r.csv", texts), batch_size=1)
    sample = found["sample"]
    assert found["counted"]
    assert 4 <= sample["windows"] <= 8
    assert sample["rows"] == 8 * sample["windows"]
    assert sample["truncated"] > 0


def test_what_is_not_read_to_the_end_is_estimated(look, tmp_path, monkeypatch, reviews):
    monkeypatch.setattr(sampling, "READ_SECONDS", 0)
    path = write(tmp_path / "r.csv", reviews(400))
    found = look(path, batch_size=10)
    assert not found["counted"]
    assert found["rows"] == pytest.approx(400, rel=0.5)
    assert found["share"] == pytest.approx(80 / 400, rel=0.5)
    assert "about" in shown(found)
    assert any("read the first" in note for note in found["notes"])


def test_a_busy_machine_is_told(look, file, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (64.0, 0.0, 0.0))
    assert "the machine is busy: load 64.0 on" in look(file)["notes"][0]
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert look(file)["notes"] == []


def _said(precision, cpu, differ=0, chosen=False):
    row = {"precision": precision, "chosen": chosen, "cpu_seconds": cpu}
    return row | (
        {} if precision == "float32" else {"labels_differ": differ, "labels_compared": 1000}
    )


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([_said("int8", 10, chosen=True), _said("float32", 30)], "int8, as chosen: 3.0 times"),
        (
            [_said("int8", 10, 50, chosen=True), _said("float32", 30)],
            "float32, --precision float32",
        ),
        ([_said("float32", 30, chosen=True), _said("bfloat16", 29)], "float32, as chosen: nothing"),
        ([_said("float32", 30, chosen=True), _said("int8", 9)], "int8, --precision int8 instead"),
        (
            [_said("bfloat16", 10.5, chosen=True), _said("float32", 30), _said("int8", 10)],
            "bfloat16, as chosen: 2.9 times as fast as float32, 0 of 1,000 answers differ",
        ),
    ],
)
def test_the_verdict_weighs_speed_and_labels(rows, verdict):
    assert dry_run._verdict(rows, too_short=False).startswith(verdict)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 100])
def test_places_are_spread_out(count):
    places = list(sampling.spread_out(count))
    assert sorted(places) == list(range(count))
    half = sorted(places[: count // 2])
    gaps = [after - before for before, after in itertools.pairwise(half)]
    assert max(gaps, default=0) <= 4


@pytest.mark.parametrize(
    ("rate", "cores", "least", "most"),
    [(1e9, 1, 0, 0), (2e3, 2, 0, 0), (4e2, 1, 2, 5), (4e2, 0.1, 0, 0), (40, 1.9, 6, 6)],
)
def test_no_comparison_takes_longer_than_the_run(look, file, monkeypatch, rate, cores, least, most):
    asked = {}

    def model(_, planned, seconds):
        cost = float(sum(item.cost.sum() for item in planned))
        seconds = cost / rate
        return sampling.Measured(seconds=seconds, cost=cost, cpu=cores * seconds, rate=rate)

    def measure(work, load, name, sample, seconds):
        asked[name] = seconds
        made = model(None, sample.planned, seconds)
        made.start = 100.0 if name == "int8" else 0.1  # which was compiled, and which was not
        return made if name != "bfloat16" else "this CPU lacks it"

    names = ["float32", "int8", "bfloat16"]
    monkeypatch.setattr(sampling, "MODEL_SECONDS", 6.0)
    monkeypatch.setattr(dry_run, "timed", model)
    monkeypatch.setattr(dry_run, "measure", measure)
    monkeypatch.setattr(dry_run, "_names", lambda _: names)
    monkeypatch.setattr(dry_run, "time", SimpleNamespace(time=lambda: time.time() + 1.5))
    found = look(file)
    chosen, other, lacking = found["precisions"]
    if not most:
        assert not asked
        assert lacking["skipped"] == other["skipped"]
        assert other["skipped"].startswith("not compared: that would take longer than the run")
        assert found["verdict"].startswith("float32, as chosen: just run it")
        return
    assert list(asked) == names
    assert all(least <= seconds <= most for seconds in asked.values())
    assert sum(asked.values()) + 3 * 1.5 < chosen["seconds"]
    assert other["seconds"] == chosen["seconds"], "to start takes each as long"
    assert lacking["skipped"] == "this CPU lacks it"


@pytest.mark.parametrize(
    ("windows", "reading", "seconds"),
    [(1, 40.0, 1 + 40 + 2), (1, 0.0, 1 + 2), (1000, 40.0, 40 + 3 / 1000)],
)
def test_what_one_window_takes_is_not_counted_twice(monkeypatch, windows, reading, seconds):
    """A text of 50 MB, which takes long to tokenize, is one window."""
    monkeypatch.setattr(dry_run, "core_count", lambda: 2)
    sample = SimpleNamespace(
        counts=SimpleNamespace(rows=10), costs=np.array([100]), cpu=reading, seconds=reading
    )
    survey = sampling.Survey([], rows=10, windows=windows)
    model = sampling.Measured(seconds=1.0, cpu=1.0, cost=100.0, rate=100.0)
    got, _ = dry_run._seconds(model, survey, sample, (2.0, 0.0))
    assert got == pytest.approx(seconds, rel=1e-3)


def test_each_batch_is_computed_once_and_none_for_hours(look, tmp_path, monkeypatch, reviews):
    asked = []
    predict = sampling.scoring.predict

    def counted(model, planned, batch):
        asked.append(len(batch))
        return predict(model, planned, batch)

    monkeypatch.setattr(sampling.scoring, "predict", counted)
    texts = reviews(900)
    found = look(write(tmp_path / "r.csv", texts))
    assert sum(asked) == found["precisions"][0]["scored"] == len(set(texts))
    asked.clear()
    monkeypatch.setattr(sampling, "MODEL_SECONDS", 0.01)
    texts = [*reviews(300), " ".join(reviews(60_000))]
    found = look(write(tmp_path / "l.csv", texts), long_text="chunks")
    assert found["precisions"][0]["scored"] <= len(set(texts[:-1]))
    assert found["precisions"][0]["seconds"] > 0.5


class Once:
    """Loads here, fails in another process."""

    def __init__(self, fail):
        self.fail = fail

    def __call__(self, settings, precision=None, **more):
        if multiprocessing.parent_process() is not None:
            self.fail()
        return load_for(settings, precision, **more)


def broken():
    raise ConfigError("no such thing")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (broken, ConfigError, "no such thing"),
        (killed, MlopsDeployError, "ended with code -9, perhaps for want of memory"),
    ],
)
def test_a_model_that_fails_in_its_process(look, file, monkeypatch, fail, error, message):
    monkeypatch.syspath_prepend(REPOSITORY)  # the process finds `Once` by this module's name
    monkeypatch.setattr(command, "load_for", Once(fail))
    monkeypatch.setattr(dry_run, "_names", lambda _: ["float32", "int8"])
    with pytest.raises(error, match=message):
        look(file, compare=True)


@pytest.mark.parametrize(
    ("least", "most", "said"),
    [
        (1.23, 1.5, "1.2 to 1.5 s"),
        (40.2, 46, "40 to 46 s"),
        (118, 130, "2.0 to 2.2 min"),
        (660, 780, "11 to 13 min"),
        (7000, 8000, "1.9 to 2.2 h"),
        (50, 50, "50 s"),
    ],
)
def test_times_are_said_as_people_say_them(least, most, said):
    assert dry_run._range(least, most) == said


def test_none_that_differ_is_not_none_that_can():
    row = {"labels_differ": 0, "labels_compared": 1500}
    assert dry_run.difference(row) == "0 of 1,500 answers differ (<0.20%)"
    assert "3 of 1,500 answers differ (0.20%)" in dry_run.difference(row | {"labels_differ": 3})


def test_a_page_of_eighty_columns(look, file):
    page = shown(look(file, price_per_hour=0.4))
    assert max(len(line.rstrip()) for line in page.splitlines()) <= 80
    for word in ("rows", "looked at", "duplicates", "precision", "done by", "memory", "cost"):
        assert word in page
