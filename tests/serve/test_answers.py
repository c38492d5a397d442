"""Templates of answers."""

import jsonschema_rs
import msgspec
import numpy as np
import pytest

from mlopsdeploy.columns import Field, Task, objects
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.serve.answers import Answers


class Outputs(Task):
    """A task as far as its outputs go."""

    inputs = (Field("x", "float32"),)

    def __init__(self, labels=("stays", "leaves"), threshold=None, **more):
        self.labels, self.threshold = labels, threshold
        self.outputs = (
            Field("label", "str"),
            Field("score", "float32"),
            Field("scores", "float32", (len(labels) or -1,)),
            *(Field(name, dtype, shape) for name, (dtype, shape) in more.items()),
        )


PREDICTIONS = {
    "label": objects(["leaves", "stays"]),
    "score": np.array([0.9, 2 / 3], np.float32),
    "scores": np.array([[0.1, 0.9], [2 / 3, 1 / 3]], np.float32),
    "boxes": np.array([[1, 2], [3, 4]], np.float32),
    "truncated": np.array([True, False]),
    "tokens": np.array([7, 8]),
}
MORE = {"boxes": ("float32", (2,)), "truncated": ("bool", ()), "tokens": ("int64", ())}


def answers(template=None, **task):
    model = Model("shop", "3", "0" * 64, Outputs(**{**MORE, **task}), None)
    return Answers(model, "churn", template)


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("label", ["leaves", "stays"]),
        ("score", [0.9, 0.666667]),
        ("scores", [{"stays": 0.1, "leaves": 0.9}, {"stays": 0.666667, "leaves": 0.333333}]),
        ("scores.leaves", [0.9, 0.333333]),
        ("label == leaves", [True, False]),
        ("label==leaves", [True, False]),
        ("label == stays", [False, True]),
        ("threshold", [0.5, 0.5]),
        ("model", ["churn", "churn"]),
        ("version", ["3", "3"]),
        ("boxes", [[1.0, 2.0], [3.0, 4.0]]),
        ("truncated", [True, False]),
        ("tokens", [7, 8]),
    ],
)
def test_where_a_value_may_come_from(said, values):
    made = answers({"x": said})
    many = made.many(PREDICTIONS, 2)
    assert many == {
        "predictions": [{"x": pytest.approx(value)} for value in values],
        "model": "churn",
        "version": "3",
    }
    assert made.one(PREDICTIONS) == many["predictions"][0]
    for value in values:
        assert jsonschema_rs.is_valid(made.schemas["x"], value)
        assert value is not None
    assert not jsonschema_rs.is_valid(made.schemas["x"], [[{}]])
    msgspec.json.encode(many)


def test_the_answer_has_the_templates_keys_in_its_order():
    made = answers({"b": "label", "a": "score", "c d": "model"})
    assert list(made.one(PREDICTIONS, 1)) == ["b", "a", "c d"]
    assert made.one(PREDICTIONS, 1) == {
        "b": "stays", "a": pytest.approx(2 / 3, rel=1e-5), "c d": "churn",
    }  # fmt: skip


def test_the_threshold_that_counts():
    assert answers({"t": "threshold"}, threshold=0.31).one(PREDICTIONS) == {"t": 0.31}
    assert answers({"t": "threshold"}).one(PREDICTIONS) == {"t": 0.5}
    three = answers({"t": "threshold"}, labels=("a", "b", "c"))
    assert three.one(PREDICTIONS) == {"t": None}
    assert jsonschema_rs.is_valid(three.schemas["t"], None)


def test_a_model_whose_labels_nobody_knows():
    made = answers({"x": "scores", "y": "scores.1"}, labels=())
    assert made.one(PREDICTIONS) == {"x": pytest.approx([0.1, 0.9]), "y": pytest.approx(0.9)}
    with pytest.raises(ConfigError, match="no label 'one'; it has numbers"):
        answers({"x": "scores.one"}, labels=())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("lable", ["answer: x: 'lable'", "did you mean 'label'?"]),
        ("", ["answer: x: ''", "there are: label, score"]),
        ("scores.gone", ["no label 'gone'", "stays, leaves"]),
        ("label == gone", ["no label 'gone'", "stays, leaves"]),
        ("label ==", ["no label ''"]),
        ("score == leaves", ["'score == leaves'"]),
        ("label.leaves", ["'label.leaves'"]),
        ("score > 0.5", ["'score > 0.5'"]),
    ],
)
def test_a_template_that_asks_for_what_there_is_not(said, words):
    with pytest.raises(ConfigError) as raised:
        answers({"x": said})
    message = str(raised.value)
    assert message.startswith("answer: x: ")
    assert "\n" not in message
    for word in words:
        assert word in message
