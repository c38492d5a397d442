"""Tokens before, labels after."""

import numpy as np
import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.text_classification import TextClassification


@pytest.fixture(scope="module")
def tokenizer(bert_checkpoint):
    return bert_checkpoint / "tokenizer.json"


def encoded(task, *texts):
    return task.encode({"text": objects(list(texts))})


def test_longer_texts_are_cut_and_marked(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"), max_length=8)
    rows = encoded(task, "good battery", "good " * 30)
    assert rows["truncated"].tolist() == [False, True]
    assert task.cost(rows).tolist() == [4, 8]
    assert rows["input_ids"][1][-1] == rows["input_ids"][0][-1], "the last token is still [SEP]"


@pytest.mark.parametrize(("side", "mask"), [("right", [1, 1, 1, 0]), ("left", [0, 1, 1, 1])])
def test_shorter_rows_are_padded_on_the_models_side(tokenizer, side, mask):
    task = TextClassification(tokenizer, ("A", "B"), pad_id=7, pad_side=side)
    tensors = task.collate(encoded(task, "good", "good battery"))
    assert tensors["attention_mask"][0].tolist() == mask
    assert tensors["input_ids"][0][mask.index(0)] == 7
    assert tensors["input_ids"].shape == tensors["token_type_ids"].shape == (2, 4)


def decoded(tokenizer, logits, **options):
    logits = np.array(logits, np.float32)
    names = tuple("ABC"[: logits.shape[1]])
    task = TextClassification(tokenizer, names, **options)
    return task.decode({"logits": logits}, encoded(task, *["good"] * len(logits)))


def test_two_labels(tokenizer):
    got = decoded(tokenizer, [[2, 0], [0, 2]])
    assert got["label"].tolist() == ["A", "B"]
    np.testing.assert_allclose(got["score"], 1 / (1 + np.exp(-2)), rtol=1e-5)
    strict = decoded(tokenizer, [[0, 2], [0, 4]], threshold=0.9)
    assert strict["label"].tolist() == ["A", "B"]
    np.testing.assert_allclose(strict["score"][0], 1 - 1 / (1 + np.exp(-2)), rtol=1e-5)


def test_three_labels_and_a_threshold(tokenizer):
    got = decoded(tokenizer, [[3, 0, 0], [0.1, 0, 0]], threshold=0.6)
    assert got["label"].tolist() == ["A", ""]


def test_multi_label(tokenizer):
    got = decoded(tokenizer, [[3, -3, 3], [-3, -3, -3]], multi_label=True)
    assert got["label"].tolist() == ["A|C", ""]
    np.testing.assert_allclose(got["score"], [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))], rtol=1e-4)


@pytest.mark.parametrize(
    ("logits", "options", "margin"),
    [
        ([[0.0, 0.0]], {}, 0.0),
        ([[0.0, 0.0]], {"threshold": 0.8}, 0.3),
        ([[0.0, 0.0, 0.0]], {}, 0.0),
        ([[0.0, 0.0, 0.0]], {"multi_label": True, "threshold": 0.9}, 0.4),
    ],
)
def test_margin_is_the_way_to_another_label(tokenizer, logits, options, margin):
    assert decoded(tokenizer, logits, **options)["margin"][0] == pytest.approx(margin, abs=1e-6)


def test_extreme_logits_do_not_overflow(tokenizer):
    assert np.isfinite(decoded(tokenizer, [[1e4, -1e4]])["scores"]).all()
    assert np.isfinite(decoded(tokenizer, [[1e4, -1e4]], multi_label=True)["scores"]).all()


def test_a_model_that_is_no_classifier(tokenizer):
    task = TextClassification(tokenizer, ("A", "B"))
    with pytest.raises(ModelError, match="is it a text classifier"):
        task.decode({"hidden": np.zeros((1, 4, 32), np.float32)}, encoded(task, "good"))


def test_a_broken_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="not a tokenizer that can be read"):
        TextClassification(tmp_path / "tokenizer.json", ("A", "B"))
