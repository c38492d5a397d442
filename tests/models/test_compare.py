"""Two models on the same rows: counts checked by hand, formulas against known values."""

import math

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.models import compare
from mlopsdeploy.models.compare import compare_models, show_comparison, verdict
from mlopsdeploy.models.data import as_labels
from mlopsdeploy.models.significance import f1_interval, mcnemar, wilson


@pytest.fixture(scope="module")
def stricter(churn_onnx, tmp_path_factory):
    """The churn model with another bias: -3 rather than -1."""
    model = onnx.load(str(churn_onnx))
    for place, weight in enumerate(model.graph.initializer):
        if weight.name == "b":
            changed = numpy_helper.from_array(np.array([-3], np.float32), "b")
            model.graph.initializer[place].CopyFrom(changed)
    path = tmp_path_factory.mktemp("stricter") / "stricter.onnx"
    onnx.save(model, str(path))
    return path


AGES, VISITS, SPEND = (20, 60, 40, 80), (0, 0, 0, 0), (10, 10, 50, 0)
LOGITS = [0.05 * a + 0.01 * s for a, s in zip(AGES, SPEND, strict=True)]  # before the bias


def test_what_differs_is_counted(churn_onnx, stricter, write_rows, shown):
    data = write_rows("customers.csv", age=AGES, visits=VISITS, spend=SPEND, gone=(0, 1, 0, 1))
    found = compare_models(
        str(churn_onnx), str(stricter), data=data, label_column="gone", runtime="onnxruntime"
    )
    first, second = ([int(x >= bias) for x in LOGITS] for bias in (1, 3))
    assert found["rows"] == 4
    assert found["same_labels"] == sum(a == b for a, b in zip(first, second, strict=True))
    assert found["confusion"] == [[0, 0], [2, 2]]  # 20 and 40 years flip
    truth = (0, 1, 0, 1)
    for model, labels in zip(found["models"], (first, second), strict=True):
        right = sum(a == b for a, b in zip(labels, truth, strict=True))
        assert model["accuracy"]["value"] == right / 4
    assert found["mcnemar"] == {"only_a_right": 0, "only_b_right": 2, "p": 0.5}

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    changes = [abs(sigmoid(x - 1) - sigmoid(x - 3)) for x in LOGITS]
    assert found["score_change"]["mean"] == pytest.approx(sum(changes) / 4, abs=1e-5)
    assert found["score_change"]["largest"] == pytest.approx(max(changes), abs=1e-5)
    assert sum(bin_["rows"] for bin_ in found["score_change"]["histogram"]) == 4
    assert [row["labels"] for row in found["most_different"][:2]] == [["1", "0"]] * 2
    text = shown(show_comparison, found)
    assert "age 40" in text
    assert "McNemar" in text
    assert found["verdict"] in " ".join(text.split())


def test_a_model_agrees_with_itself(bert, write_rows, reviews, shown):
    data = write_rows("reviews.csv", review_text=[*reviews(30), ""])
    found = compare_models(str(bert), str(bert), data=data, precision="float32")
    assert found["same_labels"] == found["rows"] == 30
    assert found["left_out"] == 1
    assert found["score_change"]["largest"] < 1e-5
    assert "same label to 100.0% of 30 rows" in found["verdict"]
    assert "mcnemar" not in found
    assert "1 left out" in shown(show_comparison, found)


def test_models_side_by_side_and_one_of_them(write_rows, reviews, shown):
    texts = [*reviews(12), "太差了，再也不买了", "Das ist leider ein sehr schlechtes Produkt."]
    found = compare_models(
        "sentiment", "sentiment,sentiment-zh", data=write_rows("a.csv", text=texts),
        precision="float32",
    )  # fmt: skip
    alone, together = found["models"]
    assert (alone["unread"], together["unread"]) == ({"zh": 1, "de": 1}, {"de": 1})
    assert together["bytes"] > alone["bytes"]
    assert found["same_labels"] >= 13
    text = shown(show_comparison, found)
    assert "A doesn't read  1 zh, 1 de" in text
    assert "B doesn't read  1 de" in text


def test_what_can_not_be_compared_is_one_line(bert, three_class_bert, fraud_folder, tflite_models):
    detector = tflite_models / "post_process.tflite"
    for first, second, message in (
        (bert, three_class_bert, "has 2 labels and .* 3"),
        (bert, fraud_folder, "is a TextClassification, fraud a TabularClass"),
        (detector, detector, "finds any number of objects; compare works with one"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare_models(str(first), str(second), data="none.csv")


def test_labels_with_other_names_are_matched_by_place_and_said(
    churn_onnx, tmp_path, write_rows, shown
):
    named = tmp_path / "named.onnx"
    named.write_bytes(churn_onnx.read_bytes())
    named.with_suffix(".yaml").write_text("labels: [stays, goes]", "utf-8")
    data = write_rows("customers.csv", age=AGES, visits=VISITS, spend=SPEND)
    found = compare_models(str(churn_onnx), str(named), data=data, runtime="onnxruntime")
    assert found["matched_by_place"] == {"0": "stays", "1": "goes"}
    assert found["same_labels"] == 4
    assert "A's 0 is B's stays" in shown(show_comparison, found)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of three pictures of their own sizes, one of which is damaged, and a table."""
    folder = tmp_path_factory.mktemp("photos")
    for name, side, colour in (("a.png", 40, (0, 0, 255)), ("b.jpg", 90, (0, 255, 0))):
        cv2.imwrite(str(folder / name), np.full((side, side + 7, 3), colour, np.uint8))
    (folder / "c.png").write_bytes(b"no picture")
    table = folder.parent / f"{folder.name}.csv"
    lines = [f"{folder.name}/{name},{label}" for name, label in zip(
        ("a.png", "b.jpg", "c.png", "d.png"), ("red", "green", "blue", "blue"), strict=True
    )]  # fmt: skip
    table.write_text("\n".join(["image,kind", *lines]), "utf-8")
    return folder, table


def test_classifiers_of_pictures_on_a_folder_and_on_a_table(tflite_models, photos, shown):
    model = str(tflite_models / "described.tflite")
    folder, table = photos
    found = compare_models(model, model, data=str(folder))
    assert (found["rows"], found["left_out"], found["same_labels"]) == (2, 1, 2)
    assert found["models"][0]["rows_per_second"] > 0
    judged = compare_models(model, model, data=str(table), label_column="kind")
    assert (judged["rows"], judged["left_out"]) == (2, 2)
    assert judged["truth"]["how"] == "labels by name in 'kind'"
    assert judged["mcnemar"]["p"] == 1
    assert "2 (100.00%;" in shown(show_comparison, judged)


def test_of_many_labels_the_pairs_that_are_confused_are_shown(shown):
    labels = [f"kind {place}" for place in range(40)]
    counts = np.eye(40, dtype=int) * 9
    counts[3, 5], counts[7, 2] = 4, 6
    lines = [
        line.split("  ") for line in shown(
            lambda found, console: console.print(compare._confusion_table(found)),
            {"labels": labels, "confusion": counts.tolist()},
        ).splitlines()
    ]  # fmt: skip
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines[1:]] == [
        ["kind 7", "kind 2", "6"], ["kind 3", "kind 5", "4"],
    ]  # fmt: skip


def test_a_label_column_that_is_not_there(bert, write_rows, reviews):
    data = write_rows("reviews.csv", review_text=reviews(5))
    with pytest.raises(InputError, match="no column 'stars'; there are: 'review_text'"):
        compare_models(str(bert), str(bert), data=data, label_column="stars")


def test_how_a_column_says_what_is_right():
    labels = ("NEGATIVE", "POSITIVE")

    def places(*values):
        return as_labels(np.array(values, object), labels, "c")[0].tolist()

    assert places("positive", "Negative", "else", None) == [1, 0, -1, -1]
    assert places("1", "0", "") == [1, 0, -1]
    assert places("1", "2", "3", "4", "5") == [0, 0, -1, 1, 1]
    with pytest.raises(InputError, match="holds none of the labels NEGATIVE, POSITIVE"):
        places("happy", "sad")


def test_wilson_is_as_published():
    # 0 of 1,480 and 58 of 66: the figures on the card of the fraud model.
    assert wilson(0, 1480)[1] == pytest.approx(0.0026, abs=5e-5)
    low, high = wilson(58, 66)
    assert (low, high) == (pytest.approx(0.779, abs=1e-3), pytest.approx(0.937, abs=1e-3))


def test_mcnemar_is_the_exact_binomial():
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(5, 5) == 1
    assert mcnemar(450, 549) == pytest.approx(mcnemar(450, 550), rel=0.12)  # exact beside normal


def test_f1_with_its_interval():
    truth, said = np.array([1, 1, 1, 0, 0, 0] * 20), np.array([1, 1, 0, 0, 0, 1] * 20)
    found = f1_interval(truth, said, 2)
    assert found["value"] == pytest.approx(2 / 3)
    assert 0.5 < found["low"] < found["value"] < found["high"] < 0.8
    assert f1_interval(truth, np.full(120, -1), 2)["value"] == 0


def test_the_verdict_is_one_sentence():
    models = [
        {"rows_per_second": 100.0, "accuracy": {"value": 0.9}},
        {"rows_per_second": 250.0, "accuracy": {"value": 0.85}},
    ]
    said = {"rows": 1000, "agreement": {"value": 0.95}, "models": models}
    assert verdict(said) == (
        "A and B give the same label to 95.0% of 1,000 rows; B is 2.5 times as fast."
    )
    judged = {**said, "truth": {"rows": 1000}}
    clear = {**judged, "mcnemar": {"only_a_right": 70, "only_b_right": 20, "p": 1e-7}}
    assert verdict(clear).startswith("A is right more often, by 5.0% (p = 1e-07)")
    even = {**judged, "mcnemar": {"only_a_right": 11, "only_b_right": 10, "p": 1.0}}
    assert verdict(even).startswith("1,000 rows show no difference in accuracy")
