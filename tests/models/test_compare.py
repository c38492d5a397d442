"""Two models on the same rows: counts checked by hand, formulas against known values."""

import math
import shutil

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.models import compare_labels
from mlopsdeploy.models.compare import compare_models, show_comparison, verdict
from mlopsdeploy.models.data import as_labels
from mlopsdeploy.models.significance import (
    errors_of,
    f1_interval,
    mcnemar,
    rand_index,
    sign_flips,
    wilson,
)


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
    (answer,) = found["answers"]
    assert answer["same_labels"] == sum(a == b for a, b in zip(first, second, strict=True))
    assert answer["confusion"] == [[0, 0], [2, 2]]  # 20 and 40 years flip
    truth = (0, 1, 0, 1)
    for model, labels in zip(found["models"], (first, second), strict=True):
        right = sum(a == b for a, b in zip(labels, truth, strict=True))
        assert model["accuracy"]["value"] == right / 4
    assert answer["mcnemar"] == {"only_a_right": 0, "only_b_right": 2, "p": 0.5}

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    changes = [abs(sigmoid(x - 1) - sigmoid(x - 3)) for x in LOGITS]
    assert answer["score_change"]["mean"] == pytest.approx(sum(changes) / 4, abs=1e-5)
    assert answer["score_change"]["largest"] == pytest.approx(max(changes), abs=1e-5)
    assert sum(bin_["rows"] for bin_ in answer["score_change"]["histogram"]) == 4
    assert [row["labels"] for row in answer["most_different"][:2]] == [["1", "0"]] * 2
    text = shown(show_comparison, found)
    assert "age 40" in text
    assert "McNemar" in text
    assert found["verdict"] in " ".join(text.split())


def test_a_model_agrees_with_itself(bert, write_rows, reviews, shown):
    data = write_rows("reviews.csv", review_text=[*reviews(30), ""])
    found = compare_models(str(bert), str(bert), data=data, precision="float32")
    (answer,) = found["answers"]
    assert answer["same_labels"] == found["rows"] == 30
    assert found["left_out"] == 1
    assert answer["score_change"]["largest"] < 1e-5
    assert "same label to 100.0% of 30 rows" in found["verdict"]
    assert "mcnemar" not in answer
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
    assert found["answers"][0]["same_labels"] >= 13
    text = shown(show_comparison, found)
    assert "A doesn't read  1 zh, 1 de" in text
    assert "B doesn't read  1 de" in text


def test_what_can_not_be_compared_is_one_line(bert, three_class_bert, fraud_folder):
    detector = "detector"
    for first, second, message in (
        (bert, three_class_bert, "has 2 labels and .* 3"),
        (bert, fraud_folder, "is a TextClassification, fraud a TabularClass"),
        (detector, detector, "finds any number of objects; compare works with answers"),
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
    (answer,) = found["answers"]
    assert answer["matched_by_place"] == {"0": "stays", "1": "goes"}
    assert answer["same_labels"] == 4
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


def test_classifiers_of_pictures_on_a_folder_and_on_a_table(tflite_models, photos, tmp_path, shown):
    model = str(shutil.copy(tflite_models / "described.tflite", tmp_path))
    (tmp_path / "described.yaml").write_text("activation: none\n", "utf-8")
    folder, table = photos
    found = compare_models(model, model, data=str(folder))
    assert (found["rows"], found["left_out"]) == (2, 1)
    assert found["answers"][0]["same_labels"] == 2
    assert found["models"][0]["rows_per_second"] > 0
    judged = compare_models(model, model, data=str(table), label_column="kind")
    assert (judged["rows"], judged["left_out"]) == (2, 2)
    (answer,) = judged["answers"]
    assert answer["truth"]["how"] == "labels by name in 'kind'"
    assert answer["mcnemar"]["p"] == 1
    assert "2 (100.00%;" in shown(show_comparison, judged)


def test_of_many_labels_the_pairs_that_are_confused_are_shown(shown):
    labels = [f"kind {place}" for place in range(40)]
    counts = np.eye(40, dtype=int) * 9
    counts[3, 5], counts[7, 2] = 4, 6
    lines = [
        line.split("  ") for line in shown(
            lambda found, console: console.print(compare_labels._confusion_table(found)),
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
    label = {"name": "", "kind": "label", "rows": 1000, "agreement": {"value": 0.95}}

    def said(*answers):
        return verdict({"models": models, "answers": answers})

    same = "A and B give the same label to 95.0% of 1,000 rows"
    assert said(label) == f"{same}; B is 2.5 times as fast."
    judged = {**label, "truth": {"rows": 1000}}
    clear = {**judged, "mcnemar": {"only_a_right": 70, "only_b_right": 20, "p": 1e-7}}
    assert said(clear).startswith("A is right more often, by 5.0% (p = 1e-07)")
    even = {**judged, "mcnemar": {"only_a_right": 11, "only_b_right": 10, "p": 1.0}}
    assert said(even).startswith("1,000 rows show no difference in accuracy")
    number = {"name": "price", "kind": "number", "rows": 9, "correlation": 0.5,
              "difference": {"mean": 1.5, "largest": 4.0}}  # fmt: skip
    assert said({**label, "name": "kind"}, number) == (
        f"kind: {same}; price: A and B differ by 1.5 on average and 4 at most on 9 rows, "
        "correlation 0.5; B is 2.5 times as fast."
    )


# ---------------------------------------------------------------- other kinds of answers

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


@pytest.fixture
def made(tmp_path):
    """`made("a", graph, yaml)`: an .onnx file with its YAML, from the graph's text."""

    def write(name, graph, said):
        model = onnx.parser.parse_model(f"{HEAD}\n{graph}")
        onnx.checker.check_model(model)
        onnx.save(model, str(tmp_path / f"{name}.onnx"))
        (tmp_path / f"{name}.yaml").write_text(said, "utf-8")
        return str(tmp_path / f"{name}.onnx")

    return write


def linear(weights, bias, output="y"):
    count = len(weights[0])
    flat = ", ".join(str(float(one)) for row in weights for one in row)
    biases = ", ".join(map(str, map(float, bias)))
    return f"""g (float[n,{len(weights)}] x) => (float[n,{count}] {output})
    <float[{len(weights)},{count}] w = {{{flat}}}, float[{count}] b = {{{biases}}}> {{
      m = MatMul(x, w)
      {output} = Add(m, b)
    }}"""


def test_rows_that_only_one_model_can_take_are_left_out_of_both(made, write_rows):
    def model(name, column):
        graph = f"g (float[n] {column}) => (float[n] y) {{ y = Identity({column}) }}"
        return made(name, graph, "task: tabular_regression\n")

    data = write_rows("rows.csv", a=[1, "", 3, 4], b=[1, 2, "", 4], y=[1, 2, 3, 4])
    found = compare_models(
        model("first", "a"), model("second", "b"),
        data=data, label_column="y", runtime="onnxruntime",
    )  # fmt: skip
    assert (found["rows"], found["left_out"]) == (2, 2)
    assert [one["mae"]["value"] for one in found["models"]] == [0, 0]


def test_equal_input_names_with_other_columns(made, write_rows):
    first = made("first", linear([[1], [2]], [0]), "task: tabular_regression\nfeatures: [a, b]\n")
    second = made("second", linear([[2], [1]], [0]), "task: tabular_regression\nfeatures: [b, a]\n")
    data = write_rows("rows.csv", a=[1, 2, 3], b=[7, 5, 9])
    (answer,) = compare_models(first, second, data=data, runtime="onnxruntime")["answers"]
    assert answer["difference"]["mean"] == 0


def test_models_that_take_arrays(made, write_rows, tmp_path):
    graph = "g (float[n,3] x) => (float[n,3] y) {{ y = {}(x) }}"
    first = made("first", graph.format("Identity"), "task: tensors\n")
    second = made("second", graph.format("Neg"), "task: tensors\n")
    lists = tmp_path / "rows.jsonl"
    lists.write_text('{"x": [0, 0, 0]}\n{"x": [1, 2, 3]}\n')
    for data in (str(lists), write_rows("rows.csv", x_0=[0, 1], x_1=[0, 2], x_2=[0, 3])):
        (answer,) = compare_models(first, second, data=data, runtime="onnxruntime")["answers"]
        assert answer["outputs"][0]["largest"] == 6


def test_two_regressions(made, write_rows, shown):
    said = "task: tabular_regression\nfeatures: [a, b]\n"
    first = made("first", linear([[1], [2]], [0]), said)
    second = made("second", linear([[1], [2]], [1]), said)
    a, b = list(range(40)), [n % 7 for n in range(40)]
    price = [n + 2 * m + 0.1 for n, m in zip(a, b, strict=True)]
    data = write_rows("rows.csv", a=a, b=b, price=price)
    found = compare_models(first, second, data=data, runtime="onnxruntime")
    (answer,) = found["answers"]
    assert answer["kind"] == "number"
    assert answer["difference"]["mean"] == pytest.approx(1)
    assert answer["difference"]["b_minus_a"] == pytest.approx(1)
    assert answer["correlation"] == pytest.approx(1)
    assert "differ by 1 on average and 1 at most on 40 rows" in found["verdict"]
    judged = compare_models(first, second, data=data, label_column="price", runtime="onnxruntime")
    mae = [model["mae"]["value"] for model in judged["models"]]
    assert mae == [pytest.approx(0.1, abs=1e-5), pytest.approx(0.9, abs=1e-5)]
    spread = np.var(price)
    assert judged["models"][1]["r2"]["value"] == pytest.approx(1 - 0.81 / spread, abs=1e-5)
    assert judged["answers"][0]["paired"]["a_nearer"] == 40
    assert judged["verdict"].startswith("A is nearer to the truth, by 0.8 on average (p = ")
    text = shown(show_comparison, judged)
    assert "numbers in 'price'" in text
    assert "RMSE" in text
    with pytest.raises(InputError, match="the models answer with numbers, but it holds 'x'"):
        compare_models(
            first, second, label_column="c", runtime="onnxruntime",
            data=write_rows("no.csv", a=[1], b=[2], c=["x"]),
        )  # fmt: skip


def test_a_regression_and_a_classifier_are_not_compared(made, write_rows):
    first = made("first", linear([[1]], [0]), "task: tabular_regression\nfeatures: [a]\n")
    second = made("second", linear([[1]], [0]), "activation: sigmoid\nfeatures: [a]\n")
    with pytest.raises(ConfigError, match="first answers with value, second with label and score"):
        compare_models(first, second, data=write_rows("rows.csv", a=[1]), runtime="onnxruntime")


def test_several_values_are_compared_by_name(made, write_rows, shown):
    said = "task: tabular_regression\nfeatures: [a]\nlabels: [low, high]\n"
    first = made("first", linear([[1, 2]], [0, 0]), said)
    second = made("second", linear([[2, 1]], [0, 5]), said.replace("low, high", "high, low"))
    data = write_rows("rows.csv", a=[1, 2, 3], high=[2, 4, 6])
    found = compare_models(first, second, data=data, label_column="high", runtime="onnxruntime")
    assert [answer["name"] for answer in found["answers"]] == ["low", "high"]
    low, high = found["answers"]
    assert (low["difference"]["mean"], high["difference"]["mean"]) == (5, 0)
    assert "truth" not in low
    assert high["truth"]["rows"] == 3
    assert "low: A and B differ by 5 on average" in found["verdict"]
    assert "high" in shown(show_comparison, found)
    with pytest.raises(ConfigError, match=r"several answers \(low, high\); give the column"):
        compare_models(first, second, data=data, label_column="a", runtime="onnxruntime")


def test_several_labels_a_row(made, write_rows, shown):
    said = "activation: sigmoid\nfeatures: [a, b]\nlabels: [hot, loud]\n"
    first = made("first", linear([[1, 0], [0, 1]], [0, 0]), said)
    second = made("second", linear([[1, 0], [0, 1]], [0, -2]), said)
    data = write_rows(
        "rows.csv", a=[1, 1, -1, -1], b=[1, 3, 1, -1], said=["hot|loud", "hot|loud", "loud", ""]
    )
    found = compare_models(first, second, data=data, label_column="said", runtime="onnxruntime")
    (answer,) = found["answers"]
    assert [one["only_a"] for one in answer["by_label"]] == [0, 2]
    assert answer["same_labels"] == 2
    assert answer["mcnemar"] == {"only_a_right": 2, "only_b_right": 0, "p": 0.5}
    assert [model["accuracy"]["value"] for model in found["models"]] == [1, 0.5]
    assert found["models"][1]["f1"]["value"] == pytest.approx(2 * 3 / (5 + 3))
    assert "only A" in shown(show_comparison, found)


def test_clusters_are_matched_by_the_rows_they_share(made, write_rows, shown):
    """Distances from centres 0, 10 and 20, whose numbers mean nothing."""

    def centres(*places):
        values = ", ".join(map(str, map(float, places)))
        return f"""g (float[n,1] x) => (float[n,3] d)
        <float[1,3] c = {{{values}}}> {{
          away = Sub(x, c)
          d = Abs(away)
        }}"""

    said = "task: clustering\nfeatures: [a]\n"
    first, second = (
        made("first", centres(0, 10, 20), said),
        made("second", centres(20, 0, 11), said),
    )
    data = write_rows("rows.csv", a=[1, 2, 11, 12, 19, 21])
    found = compare_models(first, second, data=data, runtime="onnxruntime")
    (answer,) = found["answers"]
    assert answer["matched_by_place"] == {"0": "1", "1": "2", "2": "0"}
    assert (answer["same_labels"], answer["rand_index"]) == (6, 1.0)
    assert answer["difference"]["largest"] == 1
    text = shown(show_comparison, found)
    assert "A's 0 is B's 1" in text
    assert "adjusted Rand index 1.0000" in text


def test_tensors(made, write_rows, shown):
    said = "task: tensors\n"
    graph = """g (float[n] x) => (float[n] y, float[n] z)
    <float one = {{{}}}> {{
      y = Mul(x, one)
      z = Identity(x)
    }}"""
    first, second = (
        made("first", graph.format("1.0"), said),
        made("second", graph.format("1.5"), said),
    )
    found = compare_models(
        first, second, data=write_rows("rows.csv", x=[0, 2, 4]), runtime="onnxruntime"
    )
    (answer,) = found["answers"]
    assert [one["largest"] for one in answer["outputs"]] == [2, 0]
    assert (answer["same_rows"], answer["outputs"][1]["same_rows"]) == (1, 3)
    assert "all outputs are equal within 0.0001 in 33.3% of 3 rows" in found["verdict"]
    assert "1 of 3" in shown(show_comparison, found)


def test_errors_with_their_intervals():
    draw = np.random.default_rng(3)
    truth = draw.normal(1e6, 2, 400)
    found = errors_of(truth, truth + draw.normal(0, 1, 400))
    assert found["mae"]["low"] < math.sqrt(2 / math.pi) < found["mae"]["high"]
    assert found["rmse"]["low"] < 1 < found["rmse"]["high"]
    assert found["r2"]["low"] < 0.75 < found["r2"]["high"]
    assert errors_of(np.ones(5), np.ones(5))["r2"]["value"] is None


def test_sign_flips_are_counted_or_near_to_normal():
    assert sign_flips(np.zeros(4)) == 1
    assert sign_flips(np.array([1.0, 2.0, 3.0])) == 2 / 8  # all of one sign: 2 of 8 ways
    draw = np.random.default_rng(0)
    assert sign_flips(draw.normal(0, 1, 1000)) > 0.05 > sign_flips(draw.normal(0.3, 1, 1000))


def test_the_rand_index_is_as_published():
    # Hubert and Arabie's formula on a table of theirs kind: worked out by hand.
    assert rand_index(np.array([[2, 0], [0, 2]])) == 1
    assert rand_index(np.array([[1, 1], [1, 1]])) == pytest.approx(-0.5)
