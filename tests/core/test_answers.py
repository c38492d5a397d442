"""Answers of every kind, as tables, JSON and people have them."""

from typing import Any

import numpy as np
import pytest

from mlopsdeploy.columns import AnswerColumns, Field, Task, objects
from mlopsdeploy.core import answers


class _Declared(Task):
    """A task that is nothing but what it outputs."""

    def __init__(self, *outputs: Field, labels: tuple[str, ...] = (), **more: Any) -> None:
        self.outputs = outputs
        self.labels = labels
        for name, value in more.items():
            setattr(self, name, value)


Declared: Any = _Declared  # what it does with data is of no matter here
LABEL, SCORE = Field("label", "str"), Field("score", "float32")
CLASSIFIER = Declared(LABEL, SCORE, Field("scores", "float32", (2,)), labels=("no", "yes"))
REGRESSION = Declared(Field("value", "float32"))
TENSORS = Declared(Field("embedding", "float32", (3,)))
DETECTOR = Declared(Field("boxes", "float32", (-1, 4)), Field("label", "str", (-1,)), SCORE)


def test_what_is_an_answer_follows_from_the_outputs() -> None:
    assert CLASSIFIER.answers == (AnswerColumns("label", "score", "scores", ("no", "yes")),)
    assert REGRESSION.answers == (AnswerColumns(number="value"),)
    assert TENSORS.answers == ()
    assert DETECTOR.finds_objects


@pytest.mark.parametrize(("task", "bounded"), [(CLASSIFIER, True), (REGRESSION, False)])
def test_only_probabilities_have_bounds(task: Task, bounded: bool) -> None:
    assert task.answers[0].is_probability is bounded


def test_a_row_without_a_finite_number_has_no_answer() -> None:
    predictions = {"label": objects(["no", "yes"]), "score": np.array([0.75, np.nan])}
    assert answers.answered(CLASSIFIER, predictions).tolist() == [True, False]
    answers.blank(CLASSIFIER, predictions)
    assert predictions["label"].tolist() == ["no", ""]


def test_counting() -> None:
    predictions = {"value": np.array([1.5, np.inf, -2.0], np.float32)}
    found = answers.counted(REGRESSION, REGRESSION.answers[0], predictions)
    assert found.rows.tolist() == [0, 2]
    assert found.labels == ["", ""]
    assert found.numbers is not None
    assert found.numbers.tolist() == [1.5, -2.0]


def test_several_labels_a_row_are_counted_one_by_one() -> None:
    several = Declared(
        LABEL, SCORE, Field("scores", "float32", (2,)), labels=("a", "b"), multi_label=True
    )
    predictions = {
        "label": objects(["a|b", "", "b"]),
        "score": np.array([0.9, 0.25, 0.75]),
        "scores": np.array([[0.5, 0.9], [0.25, 0.1], [0.0, 0.75]]),
    }
    rows = np.arange(3)
    found = answers.counted_each(several, several.answers[0], predictions, rows)
    assert found.rows.tolist() == [0, 0, 1, 2]
    assert found.labels == ["a", "b", "", "b"]
    assert found.numbers is not None
    assert found.numbers.tolist() == [0.5, 0.9, 0.25, 0.75]
    one = answers.counted_each(CLASSIFIER, CLASSIFIER.answers[0], predictions, rows)
    assert one.labels == ["a|b", "", "b"]


def test_counting_objects() -> None:
    predictions = {
        "label": objects([objects(["cat", "dog"]), objects([])]),
        "score": objects([np.array([0.9, 0.8]), np.zeros(0)]),
        "boxes": objects([np.zeros((2, 4)), np.zeros((0, 4))]),
    }
    found = answers.counted(DETECTOR, DETECTOR.answers[0], predictions)
    assert (found.rows.tolist(), found.labels) == ([0, 0], ["cat", "dog"])


def test_rendering() -> None:
    predictions = {
        "label": objects(["yes"]),
        "score": np.array([0.8123456789], np.float32),
        "scores": np.array([[0.1876, 0.8123]], np.float32),
    }
    assert answers.document(CLASSIFIER, predictions) == {"label": "yes", "score": 0.812346}
    assert answers.words(CLASSIFIER, predictions) == "yes 0.81"
    assert answers.words(REGRESSION, {"value": np.array([35.123456789])}) == "35.1235"
    embedding = {"embedding": np.array([[1, 2, np.nan]], np.float32)}
    assert answers.document(TENSORS, embedding) == {"embedding": [1.0, 2.0, None]}
    assert answers.score_columns(CLASSIFIER) == [
        ("score_no", "scores", 0), ("score_yes", "scores", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_exact_digits_are_few_and_give_the_number_back(dtype: str) -> None:
    draw = np.random.default_rng(0)
    values = (draw.normal(size=200) * 10.0 ** draw.uniform(-4, 4, 200)).astype(dtype)
    listed = answers.exact(values)
    np.testing.assert_array_equal(np.array(listed).astype(dtype), values)
    assert listed == [answers.exact(value) for value in values]
    assert [float(str(value)) for value in values] == pytest.approx(listed, rel=1e-15)
    odd = np.array([[np.nan, np.inf], [-0.0, 0.1]], dtype)
    assert answers.exact(odd) == [[None, None], [0.0, 0.1]]
    assert answers.exact(odd[0, 0]) is None


def test_a_number_that_is_no_probability_keeps_its_digits() -> None:
    price = {"value": np.array([1234567.0, np.nan], np.float32)}
    assert answers.documents(REGRESSION, price) == [{"value": 1234567.0}, {"value": None}]
    assert answers.document(REGRESSION, price) == {"value": 1234567.0}
    assert answers.words(REGRESSION, price, 1) == "–"


def test_all_documents_are_each_document() -> None:
    predictions = {
        "label": objects(["yes", "no"]),
        "score": np.array([1 / 3, np.nan], np.float32),
        "scores": np.zeros((2, 2), np.float32),
    }
    each = [answers.document(CLASSIFIER, predictions, row) for row in range(2)]
    assert answers.documents(CLASSIFIER, predictions) == each
    assert each == [{"label": "yes", "score": 0.333333}, {"label": "no", "score": None}]


def test_tensors_for_people() -> None:
    assert answers.words(TENSORS, {"embedding": np.ones((1, 3), np.float32)}) == "embedding 1, 1, 1"
    image = Declared(Field("mask", "float32", (28, 28)), answers=())
    assert answers.words(image, {"mask": np.zeros((1, 28, 28))}) == "mask 0, 0, 0, … (28×28)"


def test_what_answers_consist_of() -> None:
    assert answers.answer_columns(CLASSIFIER) == ["label", "score"]
    assert answers.answer_columns(REGRESSION) == ["value"]
    assert answers.answer_columns(TENSORS) == ["embedding"]


def test_labels_one_by_one() -> None:
    several = Declared(LABEL, SCORE, multi_label=True)
    assert [*answers.each_label(several, ["a|b", "", "a"])] == ["a", "b", "a"]
    assert [*answers.each_label(CLASSIFIER, ["a|b", ""])] == ["a|b"]


def test_rows_without_an_answer_the_fast_way() -> None:
    predictions = {
        "label": objects(["", "x", "y"]), "score": np.array([np.nan, 0.5, np.inf], np.float32),
    }  # fmt: skip
    assert answers.unanswered(CLASSIFIER.answers, predictions) == [0, 2]
    assert answers.unanswered((), predictions) == []
    assert answers.unanswered(Declared(LABEL).answers, predictions) == [0]


def test_an_answer_that_is_a_label_alone_is_none_without_it() -> None:
    clusters = Declared(LABEL)
    predictions = {"label": objects(["a", "", "b"])}
    assert answers.answered(clusters, predictions).tolist() == [True, False, True]
    assert answers.answered(TENSORS, {"embedding": np.zeros((2, 3))}).tolist() == [True, True]
