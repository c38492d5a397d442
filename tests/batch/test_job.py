"""The strategy itself, in this process, on real models."""

import json
import random
import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.batch.job import Summary
from mlopsdeploy.convert import quantize
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.errors import ConfigError, InputError, ModelError

from .tables import read, write


def scored(score, path, **settings):
    """The output's rows, by review_text where it is distinct."""
    output = path.with_name(f"{path.stem}.{abs(hash(str(settings)))}.predictions.csv")
    summary = score(path, output=str(output), **settings)
    return read(output), summary


@pytest.fixture
def file(tmp_path, reviews):
    return write(tmp_path / "reviews.csv", enumerate(reviews(400)))


def test_labels_and_scores_of_a_real_model(score, file):
    rows, summary = scored(score, file)
    assert [row["id"] for row in rows] == [str(number) for number in range(400)]
    labels = {row["label"] for row in rows}
    assert labels == {"NEGATIVE", "POSITIVE"}
    assert all(0.5 <= float(row["score"]) <= 1 for row in rows)
    assert summary["labels"]["NEGATIVE"] == sum(row["label"] == "NEGATIVE" for row in rows)
    assert min(summary["labels"].values()) > 40, "the tiny model is to tell texts apart"


def test_a_row_does_not_depend_on_its_neighbours(score, file, tmp_path):
    rows, _ = scored(score, file)
    known = {row["review_text"]: row for row in rows}
    shuffled = list(enumerate(known))
    random.Random(1).shuffle(shuffled)
    again, _ = scored(score, write(tmp_path / "shuffled.csv", shuffled))
    small, _ = scored(score, file, batch_size=1)
    alone = [
        scored(score, write(tmp_path / f"{place}.csv", [(0, text)]))[0][0]
        for place, text in enumerate(list(known)[:8])
    ]
    for row in [*again, *small, *alone]:
        before = known[row["review_text"]]
        assert row["label"] == before["label"]
        assert float(row["score"]) == pytest.approx(float(before["score"]), abs=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
def test_int8_is_calibrated_on_a_file_longer_than_a_read(
    score, tmp_path, reviews, monkeypatch, suffix
):
    """Rows to calibrate on have a reader of their own; the job starts at the first one."""
    texts = reviews(20_000)
    frame = pd.DataFrame({"id": range(len(texts)), "review_text": texts})
    path = tmp_path / f"long.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    calibrated = []

    def int8_model(folder, graph, calibrate, **_):
        calibrated.extend(calibrate()["text"])  # and no proof: what takes long is tested elsewhere

    monkeypatch.setattr(quantize, "int8_model", int8_model)
    output = tmp_path / "out.jsonl"
    summary = score(path, output=str(output), runtime="openvino", precision="int8")
    assert calibrated == texts[:: len(texts) // command.CALIBRATION_ROWS]
    assert [row["review_text"] for row in read(output)] == texts
    assert summary["failed"] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 50, 1000])
def test_order_is_kept_whatever_the_batch_size(score, file, batch_size):
    rows, summary = scored(score, file, batch_size=batch_size)
    assert [row["id"] for row in rows] == [str(number) for number in range(400)]
    assert summary["rows"] == 400


def test_the_same_run_twice_gives_the_same_bytes(score, file, tmp_path):
    for name in ("a.csv", "b.csv"):
        score(file, output=str(tmp_path / name))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_duplicates_are_computed_once_and_written_each_time(score, tmp_path):
    texts = ["the food is great", "awful service", "the food is great", "the food is great "]
    rows, summary = scored(score, write(tmp_path / "r.csv", enumerate(texts)))
    assert summary["duplicates"] == 1  # the fourth has a blank at its end: another text
    assert rows[0]["label"] == rows[2]["label"]
    assert rows[0]["score"] == rows[2]["score"]
    assert summary["rows"] == sum(summary["labels"].values()) == 4


def test_empty_texts_get_no_label(score, tmp_path):
    texts = ["the food is great", "", "   ", "\n", "awful"]
    rows, summary = scored(score, write(tmp_path / "r.csv", enumerate(texts)))
    assert [bool(row["label"]) for row in rows] == [True, False, False, False, True]
    assert [bool(row["score"]) for row in rows] == [True, False, False, False, True]
    assert [row["truncated"] for row in rows] == ["false"] * 5
    assert summary["empty"] == 3
    assert summary["failed"] == summary["duplicates"] == 0
    assert sum(summary["labels"].values()) == 2


def test_a_window_of_nothing_but_empty_texts(score, tmp_path):
    texts = [""] * 20 + ["awful"] + [""] * 20
    path = write(tmp_path / "r.csv", enumerate(texts))
    rows, summary = scored(score, path, batch_size=1, all_scores=True, text_column="review_text")
    assert [bool(row["score_POSITIVE"]) for row in rows].index(True) == 20
    assert (len(rows), summary["empty"]) == (41, 40)


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 400, 5000])
def test_limit(score, file, limit):
    rows, summary = scored(score, file, limit=limit, batch_size=1)
    assert len(rows) == summary["rows"] == min(limit, 400)
    assert rows[-1]["id"] == str(len(rows) - 1)


def test_all_scores_of_two_labels(score, file):
    rows, _ = scored(score, file, all_scores=True, limit=50)
    for row in rows:
        both = {name: float(row[f"score_{name}"]) for name in ("NEGATIVE", "POSITIVE")}
        assert sum(both.values()) == pytest.approx(1, abs=1e-5)
        assert max(both, key=both.get) == row["label"]
        assert both[row["label"]] == float(row["score"])


def test_threshold_of_two_labels_moves_the_second(score, file):
    rows, _ = scored(score, file, all_scores=True, threshold=0.9)
    for row in rows:
        positive = float(row["score_POSITIVE"])
        assert (row["label"] == "POSITIVE") == (positive >= 0.9)
        assert row["score"] == row[f"score_{row['label']}"]
    assert any(0.5 < float(row["score_POSITIVE"]) < 0.9 for row in rows)
    everything, _ = scored(score, file, threshold=0)
    assert {row["label"] for row in everything} == {"POSITIVE"}


def test_three_classes(score, file, three_class_bert):
    rows, summary = scored(score, file, model=str(three_class_bert), all_scores=True)
    names = ("negative", "neutral", "positive")
    assert set(summary["labels"]) == set(names)
    for row in rows:
        each = {name: float(row[f"score_{name}"]) for name in names}
        assert sum(each.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(each, key=each.get)


def test_threshold_of_three_classes_withholds_labels(score, file, three_class_bert):
    plain, _ = scored(score, file, model=str(three_class_bert))
    rows, summary = scored(score, file, model=str(three_class_bert), threshold=0.7)
    for row, before in zip(rows, plain, strict=True):
        assert row["score"] == before["score"]
        assert row["label"] == (before["label"] if float(row["score"]) >= 0.7 else "")
    assert 0 < summary["labels"][""] < 400
    assert summary["failed"] == 0


def test_multi_label(score, file, multi_label_bert):
    rows, summary = scored(score, file, model=str(multi_label_bert), all_scores=True)
    names = ("toxic", "insult", "threat")
    seen = set()
    for row in rows:
        each = {name: float(row[f"score_{name}"]) for name in names}
        assert row["label"] == "|".join(name for name in names if each[name] >= 0.5)
        assert float(row["score"]) == max(each.values())
        seen.add(row["label"])
    assert any("|" in label for label in seen)
    assert summary["rows"] == 400
    strict, _ = scored(score, file, model=str(multi_label_bert), threshold=0.99)
    assert sum(row["label"].count("|") for row in strict) < sum(
        row["label"].count("|") for row in rows
    )


def test_long_texts_are_cut_and_marked(score, tmp_path):
    # 128 tokens, of which two are special
    texts = [" ".join(["great"] * count) for count in (125, 126, 127, 500)]
    rows, summary = scored(score, write(tmp_path / "r.csv", enumerate(texts)))
    assert [row["truncated"] for row in rows] == ["false", "false", "true", "true"]
    assert rows[2]["score"] == rows[3]["score"] == rows[1]["score"]
    assert summary["truncated"] == 2


def test_prefix(score, file):
    rows, _ = scored(score, file, prefix="predicted_", all_scores=True, limit=2)
    assert list(rows[0])[2:] == [
        "predicted_label",
        "predicted_score",
        "predicted_truncated",
        "predicted_score_NEGATIVE",
        "predicted_score_POSITIVE",
    ]


@pytest.mark.parametrize(
    ("column", "all_scores"), [("label", False), ("score", False), ("score_POSITIVE", True)]
)
def test_a_column_of_a_new_ones_name_is_refused(score, tmp_path, leftovers, column, all_scores):
    path = write(tmp_path / "r.csv", [("kept", "great food")], (column, "review_text"))
    with pytest.raises(InputError, match=f"already has '.*{column}'.*--prefix"):
        score(path, all_scores=all_scores)
    assert leftovers() == []
    score(path, prefix="new_", all_scores=all_scores)
    assert read(tmp_path / "r.predictions.csv")[0][column] == "kept"


def test_only_columns_that_are_kept_are_in_the_way_of_new_ones(score, tmp_path):
    path = write(tmp_path / "r.csv", [(5, "great food", 1)], ("score", "review_text", "id"))
    score(path, columns=["id"])
    (row,) = read(tmp_path / "r.predictions.csv")
    assert list(row) == ["id", "label", "score", "truncated"]
    assert 0.5 <= float(row["score"]) <= 1
    with pytest.raises(InputError, match="already has 'score'.*--prefix"):
        score(path, columns=["id", "score"])
    late = [json.dumps({"id": number, "review_text": "good"}) for number in range(201)]
    late.append('{"id": 201, "review_text": "bad", "score": 1, "new": 2}')
    (tmp_path / "r.jsonl").write_text("\n".join(late), "utf-8")
    for output in ("o.jsonl", "o.csv"):
        summary = score(tmp_path / "r.jsonl", columns=["id"], output=str(tmp_path / output))
        assert summary["failed"] == 0
        assert len(read(tmp_path / output)) == 202


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["id", "dat"], r"r\.csv: no column 'dat'; there are: 'id' and 'review_text'$"),
        (["id", "id"], r"--columns: 'id' is named twice"),
        (["label"], r"no column 'label'"),
    ],
)
def test_columns_that_can_not_be_kept_are_refused(score, tmp_path, leftovers, columns, said):
    path = write(tmp_path / "r.csv", [(1, "great food")])
    with pytest.raises(InputError, match=said):
        score(path, columns=columns, model="no model is looked for")
    assert leftovers() == []


def test_columns_of_an_unfinished_run_are_those_it_began_with(score, tmp_path, bag):
    rows = [(number, "good food") for number in range(40)]
    path = write(tmp_path / "r.csv", [*rows, ("a", "b", "c")])
    settings = {"batch_size": 1, "commit_seconds": 0, "model": str(bag)}
    with pytest.raises(InputError, match="1 of 41 rows are bad"):
        score(path, columns=["id"], max_errors="0", **settings)
    for columns, now in ((None, "not set"), ([], "none"), (["review_text"], r"\['review_text'\]")):
        with pytest.raises(ConfigError, match=rf"columns kept was \['id'\] and is now {now}"):
            score(path, columns=columns, **settings)
    summary = score(path, columns=["id"], max_errors="none", **settings)
    assert (summary["rows"], summary["attempts"]) == (41, 2)
    assert [row["id"] for row in read(tmp_path / "r.predictions.csv")] == [str(n) for n, _ in rows]
    errors = tmp_path / "r.predictions.csv.errors.jsonl"
    assert json.loads(errors.read_text("utf-8"))["record"] == "a,b,c"


def test_a_report_breaks_down_by_columns_that_are_not_kept(score, tmp_path, reviews):
    rows = [(text, f"shop {number % 3}") for number, text in enumerate(reviews(60))]
    path = write(tmp_path / "r.csv", rows, ("review_text", "branch"))
    score(path, columns=[], report=str(tmp_path / "r.html"))
    report = (tmp_path / "r.html").read_text("utf-8")
    assert "branch" in report
    assert "shop 2" in report


def test_rows_that_fail_are_set_aside_whole(score, tmp_path, fragile):
    texts = ["good", "poison", "bad"]
    rows = [{"id": number, "review_text": text, "x": "y"} for number, text in enumerate(texts)]
    pd.DataFrame(rows).to_parquet(tmp_path / "r.parquet")
    pd.DataFrame(rows).to_csv(tmp_path / "r.csv", index=False)
    pd.DataFrame(rows).to_json(tmp_path / "r.jsonl", orient="records", lines=True)
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        for output in ("o.csv", "o.jsonl", "o.parquet"):
            columns, to = ["id"], tmp_path / f"{name}.{output}"
            score(tmp_path / name, columns=columns, output=str(to), model=str(fragile),
                  max_errors="1", text_column="review_text")  # fmt: skip
            (line,) = to.with_name(f"{to.name}.errors.jsonl").read_text("utf-8").splitlines()
            assert "poison" in str(json.loads(line)["record"])
            assert "y" in str(json.loads(line)["record"])


def test_a_model_with_another_number_of_outputs_than_labels(score, file, bert, tmp_path, leftovers):
    folder = tmp_path / "odd"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"):
        (folder / name).write_bytes((bert / name).read_bytes())
    config = json.loads((bert / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match="has 3 labels; is it a text classifier"):
        score(file, model=str(folder))
    assert leftovers() == []


def test_precision_and_runtime_that_do_not_go_together(score, file):
    with pytest.raises(ConfigError, match="onnxruntime computes in float32 only"):
        score(file, precision="bfloat16")
    with pytest.raises(ConfigError, match="no runtime called 'onxruntime'; did you mean 'onnxrun"):
        score(file, runtime="onxruntime")


# ---------------------------------------------------------------- rows of numbers


def expected_churn(row):
    logit = 0.05 * float(row["age"]) - 0.4 * float(row["visits"]) + 0.01 * float(row["spend"]) - 1
    return 1 / (1 + np.exp(-logit))


def test_features_are_found_by_name_in_any_order(score, customers, churn_onnx, tmp_path):
    rows = read(customers)
    names = ("spend", "name", "visits", "age")
    turned = [[row[name] for name in names] for row in rows]
    for path in (customers, write(tmp_path / "turned.csv", turned, names)):
        got, summary = scored(score, path, model=str(churn_onnx), all_scores=True)
        assert summary["rows"] == 50
        assert len(summary["labels"]) == 2
        for row in got:
            probability = expected_churn(row)
            assert row["label"] == str(int(probability >= 0.5))
            assert float(row["score"]) == pytest.approx(max(probability, 1 - probability), abs=1e-5)
            assert "truncated" not in row


def test_features_named_by_flag(score, customers, unnamed_onnx, churn_onnx):
    with pytest.raises(ModelError, match="takes 3 features but does not name them.*--features"):
        score(customers, model=str(unnamed_onnx))
    with pytest.raises(ModelError, match="takes 3 features, but 2 are named"):
        score(customers, model=str(unnamed_onnx), features=("age", "visits"))
    named, _ = scored(
        score, customers, model=str(unnamed_onnx), features=("age", "visits", "spend")
    )
    known, _ = scored(score, customers, model=str(churn_onnx))
    assert named == known


def test_features_and_labels_in_a_yaml_beside_the_file(score, customers, unnamed_onnx, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(unnamed_onnx.read_bytes())
    model.with_suffix(".yaml").write_text(
        "name: churn\nversion: 3\nfeatures: [age, visits, spend]\nlabels: [stays, leaves]\n"
        "threshold: 0.8\n",
        "utf-8",
    )
    rows, summary = scored(score, customers, model=str(model), all_scores=True)
    assert summary["model"]["name"] == "churn"
    assert summary["model"]["version"] == "3"
    for row in rows:
        assert row["label"] == ("leaves" if expected_churn(row) >= 0.8 else "stays")
        assert float(row["score_leaves"]) == pytest.approx(expected_churn(row), abs=1e-5)
    low, _ = scored(score, customers, model=str(model), threshold=0)
    assert {row["label"] for row in low} == {"leaves"}


def test_one_input_per_feature(score, customers, per_feature_onnx):
    rows, _ = scored(score, customers, model=str(per_feature_onnx))
    for row in rows:
        probability = 1 / (1 + np.exp(-(float(row["age"]) - float(row["visits"]))))
        assert float(row["score"]) == pytest.approx(max(probability, 1 - probability), abs=1e-5)


def test_the_models_own_labels(score, customers, labelled_onnx):
    rows, _ = scored(score, customers, model=str(labelled_onnx), all_scores=True)
    names = {"age": "old", "visits": "loyal", "spend": "rich"}
    for row in rows:
        largest = max(names, key=lambda name: float(row[name]))
        assert row["label"] == names[largest]
        assert float(row["score"]) == max(float(row[f"score_{name}"]) for name in names.values())


def test_a_word_in_a_numbers_place_fails_that_row_alone(score, tmp_path, churn_onnx):
    rows = [(20 + number, 1, 5.5) for number in range(40)]
    rows[21] = ("old", 1, 5.5)
    rows[30] = ("", 1, 5.5)
    rows[31] = ("NA", 1, 5.5)
    path = write(tmp_path / "c.csv", rows, ("age", "visits", "spend"))
    got, summary = scored(score, path, model=str(churn_onnx), batch_size=1, max_errors="1")
    assert len(got) == 39  # without the word
    empty = [place for place, row in enumerate(got) if not row["label"]]
    assert [got[place]["age"] for place in empty] == ["", "NA"]
    assert (summary["rows"], summary["failed"], summary["empty"]) == (40, 1, 2)
    assert summary["first_failed"].endswith("c.csv: line 23: column 'age' holds no number")
    assert sum(summary["labels"].values()) == 37
    (errors,) = tmp_path.glob("*.errors.jsonl")
    said = json.loads(errors.read_text("utf-8"))
    assert (said["row"], said["record"]) == (22, "old,1,5.5")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_failed_row_in_a_later_window_into_any_format(score, tmp_path, churn_onnx, suffix):
    rows = [(20 + number, 1, 5.5) for number in range(40)]
    rows[33] = ("old", 1, 5.5)
    path = write(tmp_path / "c.csv", rows, ("age", "visits", "spend"))
    output = tmp_path / f"out{suffix}"
    summary = score(path, output=str(output), model=str(churn_onnx), batch_size=1, max_errors="10%")
    assert (summary["rows"], summary["failed"]) == (40, 1)
    assert "line 35: " in summary["first_failed"]
    assert output.stat().st_size > 100


def test_all_scores_when_the_first_window_holds_nothing(score, tmp_path, churn_onnx):
    rows = [("", 1, 5.5)] * 8 + [(20, 1, 5.5)] * 8
    path = write(tmp_path / "c.csv", rows, ("age", "visits", "spend"))
    got, _ = scored(score, path, model=str(churn_onnx), batch_size=1, all_scores=True)
    names = ["age", "visits", "spend", "label", "score", "score_0", "score_1"]
    assert list(got[0]) == list(got[-1]) == names
    assert got[0]["score_1"] == ""
    assert float(got[-1]["score_1"]) == pytest.approx(expected_churn(got[-1]), abs=1e-5)


def test_a_missing_value_for_a_whole_number(score, tmp_path, per_feature_onnx):
    path = write(tmp_path / "c.csv", [(1, 2), (1, ""), (5, 3)], ("age", "visits"))
    rows, summary = scored(score, path, model=str(per_feature_onnx))
    assert [bool(row["label"]) for row in rows] == [True, False, True]
    assert (summary["failed"], summary["empty"]) == (0, 1)


def test_missing_features_are_named(score, tmp_path, churn_onnx):
    path = write(tmp_path / "c.csv", [(1, 2)], ("age", "other"))
    with pytest.raises(
        InputError, match=r"lacks 'visits', 'spend', which churn needs; it has 'age'"
    ):
        score(path, model=str(churn_onnx))


def test_a_text_column_for_a_model_of_numbers(score, customers, churn_onnx):
    with pytest.raises(InputError, match="--text-column: churn takes 3 features, not a text"):
        score(customers, model=str(churn_onnx), text_column="name")


# ---------------------------------------------------------------- the summary


def test_summary(score, file, capsys):
    _, summary = scored(score, file)
    rows = read(next(file.parent.glob("*.predictions.csv")))
    assert summary["mean_score"] == pytest.approx(
        np.mean([float(row["score"]) for row in rows]), abs=1e-5
    )
    assert summary["rows_per_second"] == pytest.approx(400 / summary["seconds"], rel=0.01)
    assert summary["runtime"] == "onnxruntime"
    assert summary["precision"] == "float32"
    assert summary["columns"] == {"text": "review_text"}
    assert re.fullmatch("[0-9a-f]{64}", summary["model"]["digest"])
    json.dumps(summary)
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in ("rows", "400", "rows/s", "NEGATIVE", "mean score", "truncated", "duplicates",
                 "bad rows", "onnxruntime float32"):  # fmt: skip
        assert word in shown.err


def test_a_summary_of_nothing():
    empty = Summary()
    assert empty.rows_per_second == 0
    assert empty.as_dict()["rows"] == 0


def test_reasons_are_bounded_however_many_and_long_they_are():
    summary = Summary()
    rows = [BadRow(row, f"key {row % 150:03}" + "x" * 5000, "", "r.jsonl") for row in range(300)]
    summary.count_bad(rows)
    assert summary.failed == sum(summary.reasons.values()) == 300
    assert (len(summary.reasons), summary.reasons["(other)"]) == (101, 100)
    assert max(map(len, summary.reasons)) == 300
    assert len(summary.first_failed) < 330


def test_progress_adds_up_to_all_rows(score, file, monkeypatch):
    told = []

    @contextmanager
    def progress(*_):
        yield lambda rows, share: told.append((rows, share))

    monkeypatch.setattr(command, "progress_of", progress)
    score(file, batch_size=5)
    assert sum(rows for rows, _ in told) == pytest.approx(400)
    assert sum(share for _, share in told) == pytest.approx(1, rel=0.01)  # the header is none
    assert len(told) >= 10
