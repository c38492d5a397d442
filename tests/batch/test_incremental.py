"""The second night: only rows that are new or changed are computed."""

import json
import shutil
import signal
import sqlite3

import numpy as np
import pytest

from mlopsdeploy.batch import command, scoring
from mlopsdeploy.batch.incremental import ScoreStore
from mlopsdeploy.columns import objects
from mlopsdeploy.errors import MlopsDeployError
from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime
from mlopsdeploy.settings import BatchSettings

from .tables import read, write


@pytest.fixture
def computed(monkeypatch):
    """How many rows the model was called with, as a list of one number per call."""
    calls = []
    real = OnnxRuntime.run

    def run(self, tensors):
        calls.append(len(next(iter(tensors.values()))))
        return real(self, tensors)

    monkeypatch.setattr(OnnxRuntime, "run", run)
    return calls


@pytest.fixture
def night(bag, tmp_path, computed):
    """`night(texts)`: a run over them; the rows written, the summary, how many were computed."""

    def run(texts, **settings):
        path = write(tmp_path / "r.csv", enumerate(texts), ("id", "text"))
        chosen = {
            "model": str(bag),
            "runtime": "onnxruntime",
            "incremental": True,
            "output": str(tmp_path / "o.csv"),
            "max_errors": "none",
        }
        computed.clear()
        summary = command.run_batch(BatchSettings(input=str(path), **{**chosen, **settings}))
        return read(tmp_path / "o.csv"), summary, sum(computed)

    return run


@pytest.fixture
def texts(quick_reviews):
    return [f"{text} {number}" for number, text in enumerate(quick_reviews(500))]


def test_other_columns_of_known_rows(night, texts):
    night(texts)
    rows, summary, computed = night(texts, columns=[])
    assert (computed, summary["reused"], list(rows[0])) == (0, 500, ["label", "score", "truncated"])


def test_who_read_known_rows_is_known(night, side_by_side, mixed_reviews):
    texts = mixed_reviews(100)
    first, told, _ = night(texts, model=side_by_side["both"])
    assert (told["unread"], told["read_by"]) == ({"de": 10}, {"en": 60, "zh": 40})
    second, again, computed = night(texts, model=side_by_side["both"])
    assert (second, computed) == (first, 0)
    assert (again["unread"], again["read_by"]) == (told["unread"], told["read_by"])


def test_the_second_night_computes_what_is_new_or_changed(night, texts):
    first, summary, count = night(texts)
    assert count == 500
    assert summary["reused"] == 0
    changed = [*texts[:100], "slow food", *texts[101:], "new box", "very new box"]
    second, summary, count = night(changed)
    assert count == 3
    assert summary["reused"] == 499
    assert summary["rows"] == 502
    assert [row["label"] for row in second[:100]] == [row["label"] for row in first[:100]]
    assert [row["score"] for row in second[101:500]] == [row["score"] for row in first[101:]]
    _, summary, count = night(changed)
    assert count == 0
    assert summary["reused"] == 502


def test_labels_and_counts_are_the_same_as_without(night, texts):
    texts = [*texts, "", texts[3], "  ", " ".join(texts[:60])]
    whole, without, count = night(texts, incremental=False)
    assert count == 501
    night(texts[::2])
    for _ in range(2):
        rows, summary, _ = night(texts)
        assert [(row["id"], row["text"], row["label"]) for row in rows] == [
            (row["id"], row["text"], row["label"]) for row in whole
        ]
        for row, same in zip(rows, whole, strict=True):
            assert row["truncated"] == same["truncated"]
            if same["score"]:
                assert float(row["score"]) == pytest.approx(float(same["score"]), abs=2e-6)
        for name in ("rows", "labels", "truncated", "tokens", "lost_tokens", "duplicates", "empty"):
            assert summary[name] == without[name], name


def test_all_scores_of_known_rows(night, texts):
    first, _, _ = night(texts)
    second, _, count = night(texts, all_scores=True, prefix="my_")
    assert count == 0, "what is written does not change a score"
    for row, same in zip(second, first, strict=True):
        assert row["my_label"] == same["label"]
        both = float(row["my_score_NEGATIVE"]) + float(row["my_score_POSITIVE"])
        assert both == pytest.approx(1, abs=2e-6)


def test_another_model_starts_anew(night, texts, fragile, tmp_path):
    night(texts)
    _, summary, count = night(texts, model=str(fragile))
    assert count == 500
    assert summary["reused"] == 0
    with sqlite3.connect(tmp_path / "o.csv.scores.sqlite") as store:
        assert store.execute("SELECT count(*) FROM scored").fetchone() == (500,)
    store.close()
    _, summary, _ = night(texts)
    assert summary["reused"] == 0, "the file does not keep every model's"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("threshold: 0.999", {"0"}),
        ("threshold: 0.0001", {"1"}),
        ("labels: [no, yes]", {"no", "yes"}),
    ],
)
def test_labels_of_another_model_yaml_are_new(churn_onnx, customers, tmp_path, key, expected):
    """The weights and the settings are the same, and the answers are not."""
    shutil.copyfile(churn_onnx, tmp_path / "model.onnx")

    def labels():
        settings = {"model": str(tmp_path / "model.onnx"), "incremental": True}
        summary = command.run_batch(
            BatchSettings(input=str(customers), output=str(tmp_path / "o.csv"), **settings)
        )
        return [row["label"] for row in read(tmp_path / "o.csv")], summary["reused"]

    first, reused = labels()
    assert (set(first), reused) == ({"0", "1"}, 0)
    assert labels() == (first, 50)
    (tmp_path / "model.yaml").write_text(f"{key}\n", "utf-8")
    second, reused = labels()
    assert (set(second), reused) == (expected, 0)


@pytest.mark.parametrize("setting", [{"threshold": 0.9}, {"long_text": "chunks"}])
def test_another_setting_of_the_model_starts_anew(night, texts, setting):
    night(texts)
    _, summary, count = night(texts, **setting)
    assert count >= 500
    assert summary["reused"] == 0
    _, summary, count = night(texts, **setting)
    assert count == 0


def test_rows_that_fail_are_not_kept(night, texts, fragile):
    poisoned = [*texts[:5], "poison", *texts[5:]]
    for _ in range(2):
        rows, summary, count = night(poisoned, model=str(fragile))
        assert len(rows) == 500
        assert summary["failed"] == 1
    assert count == 1, "only that one is tried again"


def test_rows_of_numbers(night, churn_onnx, customers, tmp_path, computed):
    settings = {
        "model": str(churn_onnx),
        "runtime": "onnxruntime",
        "incremental": True,
        "input": str(customers),
        "output": str(tmp_path / "c.csv"),
    }
    computed.clear()
    command.run_batch(BatchSettings(**settings))
    first = (tmp_path / "c.csv").read_bytes()
    assert sum(computed) == 50
    computed.clear()
    with customers.open("a") as file:
        file.write("new,33,2,1.5\n")
    summary = command.run_batch(BatchSettings(**settings))
    assert sum(computed) == 1
    assert summary["reused"] == 50
    assert (tmp_path / "c.csv").read_bytes().startswith(first)


def test_killed_in_the_middle(processes, bag, tmp_path, quick_reviews):
    """Whatever of the store is lost, the output is not, and the next night knows all rows."""
    texts = [f"{text} {number}" for number, text in enumerate(quick_reviews(2000))]
    (tmp_path / "r.csv").write_text("text\n" + "\n".join(texts) + "\n", "utf-8")

    def batch(name, *more, **how):
        return processes.run(
            tmp_path, "r.csv", "-o", name, "--model", bag, "--runtime", "onnxruntime",
            "--batch-size", "20", "--incremental", "--json", *more, **how,
        )  # fmt: skip

    assert batch("clean.csv").code == 0
    expected = (tmp_path / "clean.csv").read_bytes()
    some_done = processes.has_rows(tmp_path / "o.csv")
    assert batch("o.csv", kill=some_done).code == -signal.SIGKILL
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        batch("o.csv", kill=0.2, number=number)
    ended = batch("o.csv")
    assert ended.code == 0, ended.said
    assert "Traceback" not in ended.said
    assert (tmp_path / "o.csv").read_bytes() == expected
    ended = batch("o.csv")
    assert json.loads(ended.out)["reused"] >= 1600
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith("o.csv")}
    assert left == {"o.csv", "o.csv.manifest.json", "o.csv.scores.sqlite"}


# ---------------------------------------------------------------- the store itself


def predictions(*labels):
    return {
        "label": objects(labels),
        "score": np.linspace(0, 1, len(labels), dtype=np.float32),
        "truncated": np.zeros(len(labels), bool),
        "tokens": np.arange(len(labels)),
        "scores": np.ones((len(labels), 2), np.float32) / 3,
        "margin": np.zeros(len(labels)),
    }


def test_what_is_found_is_what_was_added(tmp_path):
    store = ScoreStore(tmp_path / "s.sqlite", "me")
    keys = [bytes([place]) * 16 for place in range(3)]
    store.add(keys, said := predictions("a", "b", "c"))
    known, found = store.find(keys)
    assert known.tolist() == [False] * 3, "not certain yet"
    assert found == {}
    store.commit()
    assert not store.find(keys)[0].any(), "of this run itself"
    store.begin()
    known, found = store.find([keys[2], b"other" * 3, keys[0]])
    assert known.tolist() == [True, False, True]
    for name in ("label", "score", "truncated", "tokens", "scores"):
        assert found[name].tolist() == said[name][[2, 0]].tolist()
        assert found[name].dtype == said[name].dtype
    store.close()


def test_more_keys_than_sqlite_takes_at_once(tmp_path):
    store = ScoreStore(tmp_path / "s.sqlite", "me")
    keys = [number.to_bytes(16, "big") for number in range(5000)]
    store.add(keys[::2], predictions(*["x"] * 2500))
    store.begin()
    known, found = store.find(keys)
    assert known.tolist() == [True, False] * 2500
    assert len(found["label"]) == 2500
    store.close()


def test_a_store_that_is_broken_is_said(night, texts, tmp_path):
    store = tmp_path / "o.csv.scores.sqlite"
    store.write_bytes(b"no database, and longer than a header of one" * 50)
    with pytest.raises(MlopsDeployError, match=r"scores.sqlite: can't be used \(.*delete it"):
        night(texts)
    store.unlink()
    _, _, count = night(texts)
    assert count == 500


def test_a_store_that_breaks_later_is_said(night, texts, tmp_path):
    night(texts)
    store = tmp_path / "o.csv.scores.sqlite"
    content = bytearray(store.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    store.write_bytes(bytes(content))
    with pytest.raises(MlopsDeployError, match=r"scores.sqlite: can't be used \(.*malformed"):
        night([*texts, "new"])


def test_words_among_numbers_are_known_by_both():
    columns = {"age": np.array([1.0, 1.0, 2.0, np.nan]), "plan": objects(["a", "b", "a", None])}
    keys = scoring._keys(columns)
    assert len(set(keys)) == 4
    assert scoring._keys({name: values[1:2] for name, values in columns.items()}) == keys[1:2]


def test_a_full_disk_costs_no_scores(tmp_path):
    """Nobody is told to delete what took nights to compute."""
    store = ScoreStore(tmp_path / "s.sqlite", "me")
    store._writing.execute("PRAGMA max_page_count = 4")
    keys = [number.to_bytes(16, "big") for number in range(2000)]
    with pytest.raises(MlopsDeployError) as raised:
        store.add(keys, predictions(*["x"] * 2000))
    store.close()
    said = str(raised.value)
    assert "is full); free some space" in said
    assert "delete" not in said
