"""Tokens before, numbers after."""

import numpy as np
import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.core import plugins
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.text_regression import TextRegression


@pytest.fixture(scope="module")
def tokenizer(bert_checkpoint):
    return bert_checkpoint / "tokenizer.json"


def decoded(task, logits, texts):
    rows = task.encode({"text": objects(texts)})
    return task.decode({"logits": np.array(logits, np.float32)}, rows)


def test_it_is_found_by_name():
    assert plugins.load("tasks", "text_regression") is TextRegression


def test_one_number_is_called_value(tokenizer):
    task = TextRegression(tokenizer, ("LABEL_0",), max_length=6)
    assert [field.name for field in task.outputs] == ["value", "truncated"]
    assert [(one.number, one.label, one.name) for one in task.answers] == [("value", "", "")]
    got = decoded(task, [[-3.5], [1e9]], ["good", "good " * 9])
    assert got["value"].tolist() == [-3.5, 1e9]
    assert got["value"].dtype == np.float32
    assert got["truncated"].tolist() == [False, True]
    assert got["lost_tokens"].tolist() == [0, 5]


def test_several_numbers_have_their_names(tokenizer):
    task = TextRegression(tokenizer, ("joy", "anger"))
    assert [field.name for field in task.outputs] == ["joy", "anger", "truncated"]
    assert [(one.number, one.name) for one in task.answers] == [("joy", "joy"), ("anger", "anger")]
    got = decoded(task, [[1, 2], [3, 4]], ["good", "bad"])
    assert (got["joy"].tolist(), got["anger"].tolist()) == ([1, 3], [2, 4])


@pytest.mark.parametrize("names", [("a", "a"), ("text", "b"), ("a", "truncated")])
def test_a_name_that_is_taken(tokenizer, names):
    with pytest.raises(ModelError, match="labels: .* in a model.yaml"):
        TextRegression(tokenizer, names)


def test_an_activation(tokenizer):
    task = TextRegression(tokenizer, ("one",), activation="sigmoid")
    assert decoded(task, [[0], [50]], ["good", "bad"])["value"].tolist() == [0.5, 1]


def test_windows_give_the_mean(tokenizer):
    task = TextRegression(tokenizer, ("one",), max_length=6, long_text="chunks")
    rows = task.encode({"text": objects(["good", "good bad " * 4])})
    assert rows["windows"].tolist() == [1, 2]
    got = task.decode({"logits": np.array([[1], [2], [4]], np.float32)}, rows)
    assert got["value"].tolist() == [1, 3]


def test_another_number_of_outputs(tokenizer):
    with pytest.raises(ModelError, match="has 1 labels"):
        decoded(TextRegression(tokenizer, ("one",)), [[1, 2]], ["good"])
