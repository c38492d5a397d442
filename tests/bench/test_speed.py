"""Figures that fit together, and work that is counted as on paper; never how fast."""

import numpy as np
import pytest

from mlopsdeploy.bench import speed
from mlopsdeploy.core.languages import languages_of
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import unread_in


def test_made_up_rows_are_the_same_every_time(bert):
    model = load_model(str(bert), runtime="onnxruntime", threads=1)
    first, second = (speed.made_up_rows(model, 50)["text"].tolist() for _ in range(2))
    assert first == second
    lengths = [len(text.split()) for text in first]
    assert min(lengths) < speed.WORDS < max(lengths)
    assert (
        len(set(model.predict_columns({"text": speed.made_up_rows(model, 50)["text"]})["label"]))
        >= 1
    )


def test_models_side_by_side_have_rows_of_each_in_its_language():
    model = load_model("sentiment,sentiment-zh", threads=1)
    texts = speed.made_up_rows(model, 5)["text"].tolist()
    assert ["zh" if language == "zh" else "" for language in languages_of(texts)] == [
        "", "zh", "", "zh", "",
    ]  # fmt: skip
    assert not unread_in(model.predict_columns({"text": np.array(texts[1::2], object)}))
    assert len(speed.made_up_rows(model, 0)["text"]) == 0


def test_work_of_models_side_by_side_is_that_of_each_on_its_own_rows():
    names = ["sentiment", "sentiment-zh"]
    model = load_model(",".join(names), threads=1)
    texts = {0: "works like a charm and it was here in two days", 1: "很好吃，下次还来"}
    encoded = model.task.encode({"text": np.array([texts[0], texts[1], texts[1]], object)})
    tensors = model.task.collate(encoded)
    bare = speed.BareCalls(model.runtime.run, [speed.Batch(tensors, 3)]).run(0)
    expected = {}
    for place, rows in ((0, 1), (1, 2)):
        a, b, c = speed.flops_by_length(names[place])
        width = len(encoded["input_ids"][place])
        expected[place] = len(bare.done) * rows * (a + b * width + c * width**2)
    assert bare._flops(names, apart=True) == pytest.approx(expected)
    limit = bare.limit(model, ",".join(names), 1)
    assert limit["gflops"] == pytest.approx(sum(expected.values()) / bare.cpu / 1e9, rel=0.01)


def test_numbers_stay_near_the_example():
    rows = speed.made_up_rows(load_model("fraud", threads=1), 20)
    assert rows["Time"].shape == (20,)
    assert (np.abs(rows["Time"] / 72027 - 1) <= 0.1001).all()


def test_pictures_are_few_and_whole(tflite_models):
    model = load_model(str(tflite_models / "described.tflite"), threads=1)
    count = speed.rows_that_fit(model, 512)
    assert 4 <= count < 512
    rows = speed.made_up_rows(model, count)
    assert len(model.predict(rows)["label"]) == count


def test_work_of_a_transformer_grows_with_the_square_of_its_tokens(bert):
    a, b, c = speed.flops_by_length(str(bert))
    # Each of two layers of width 32 has four products of 32 × 32 and two of 32 × 64, a token; the
    # second reads its queries and feeds forward for the first token alone.
    per_token = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * (2 * 32 * 32)
    assert b == pytest.approx(per_token + 2 * 2 * 32, rel=0.02)
    assert c == pytest.approx(2 * 2 * 32, rel=0.02)  # scores and their sums, in the first layer
    assert a > 0


def test_work_is_two_operations_a_weight_where_there_is_a_graph(churn_onnx, tmp_path):
    assert speed.flops_by_length(str(churn_onnx)) == (6, 0, 0)  # three weights
    (tmp_path / "x.onnx").write_bytes(b"no")
    assert speed.flops_by_length(str(tmp_path / "x.onnx")) is None


def test_speeds_are_positive_and_ordered(churn_onnx):
    model = load_model(str(churn_onnx), runtime="onnxruntime", threads=2)
    rows = speed.made_up_rows(model, 64)
    assert speed.rows_per_second(model, rows, 0.05) > 0
    one = speed.one_row(model, rows, 0.05)
    assert 0 < one["p50"] <= one["p99"]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_peak_is_measured(precision):
    assert speed.peak_flops(precision, streams=1, seconds=0.02) > 1e9
