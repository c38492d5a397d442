"""What the usual converters write is understood, and what can't be is said."""

import numpy as np
import pytest

from mlopsdeploy.columns import Field
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.tabular_classification import TabularClassification

MATRIX = (Field("features", "float32", (2,)),)
ROWS = {"features": np.zeros((3, 2), np.float32)}


def task(**options):
    return TabularClassification(MATRIX, features=("age", "visits"), **options)


def test_one_sigmoid_is_the_second_class():
    got = task(labels=("stays", "leaves")).decode({"p": np.array([[0.2], [0.5], [0.9]])}, ROWS)
    assert got["label"].tolist() == ["stays", "leaves", "leaves"]
    np.testing.assert_allclose(got["score"], [0.8, 0.5, 0.9], atol=1e-6)


def test_a_threshold_moves_the_line_and_the_score_is_of_the_label_given():
    got = task(threshold=0.8).decode(
        {"p": np.array([[0.7], [0.8]])}, {"features": np.zeros((2, 2))}
    )
    assert got["label"].tolist() == ["0", "1"]
    np.testing.assert_allclose(got["score"], [0.3, 0.8], atol=1e-6)


def test_more_classes_below_the_threshold_get_no_label():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
    got = task(labels=("a", "b", "c"), threshold=0.5).decode({"p": scores}, ROWS)
    assert got["label"].tolist() == ["a", "c", ""]


def test_logits_become_probabilities():
    got = task().decode({"logits": np.array([[2.0, 0.0], [-3.0, 3.0], [9.0, 1.0]])}, ROWS)
    np.testing.assert_allclose(got["scores"].sum(axis=1), 1, atol=1e-6)
    assert got["label"].tolist() == ["0", "1", "0"]


def test_whether_scores_are_logits_is_decided_once():
    """A row of logits may look like probabilities, and the other way round."""
    like_probabilities, plainly = np.array([[0.25, 0.75]] * 3), np.array([[3.0, -3.0]] * 3)
    decided = task()
    decided.decode({"scores": plainly}, ROWS)
    got = decided.decode({"scores": like_probabilities}, ROWS)["scores"]
    np.testing.assert_allclose(got[0], [0.377541, 0.622459], atol=1e-6)
    asked = task(activation="none")
    np.testing.assert_allclose(
        asked.decode({"scores": like_probabilities}, ROWS)["scores"], like_probabilities
    )
    lone = task(activation="sigmoid").decode({"scores": np.array([[0.0], [2.0], [-2.0]])}, ROWS)
    np.testing.assert_allclose(lone["scores"][:, 1], [0.5, 0.880797, 0.119203], atol=1e-6)


def test_the_models_own_labels_are_kept():
    tensors = {
        "label": np.array(["no", "yes", "no"], object),
        "probabilities": np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32),
    }
    assert task().decode(tensors, ROWS)["label"].tolist() == ["no", "yes", "no"]


def test_a_row_without_an_answer_does_not_touch_the_others():
    got = task().decode({"p": np.array([[0.9], [np.nan], [0.1]])}, ROWS)
    assert np.isnan(got["score"][1])
    assert [got["label"][0], got["label"][2]] == ["1", "0"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.array([[153.2], [7.0], [1.0]])}, "regression is not supported"),
        ({"y": np.array([1, 2, 3])}, "gives no probabilities"),
    ],
)
def test_what_is_no_classifier_is_said(outputs, message):
    with pytest.raises(ModelError, match=message):
        task().decode(outputs, ROWS)


def test_labels_and_probabilities_have_to_match():
    with pytest.raises(ModelError, match="2 probabilities per row, but 3 labels"):
        task(labels=("a", "b", "c")).decode({"p": np.full((3, 1), 0.5)}, ROWS)


def test_features_have_to_be_named_and_counted():
    with pytest.raises(ModelError, match="does not name them"):
        TabularClassification((Field("features", "float32", (-1,)),))
    with pytest.raises(ModelError, match="takes 2 features, but 3 are named"):
        TabularClassification(MATRIX, features=("a", "b", "c"))
    with pytest.raises(ModelError, match="a row of numbers"):
        TabularClassification((Field("image", "float32", (3, 8, 8)),), features=("a",))


def test_rows_of_numbers_need_no_names():
    nameless = TabularClassification(MATRIX)
    assert nameless.inputs == (nameless.matrix,) == (Field("features", "float32", (2,)),)
    rows = np.array([[30.0, 1.0], [40.0, 2.0]])
    for taken in (nameless, task()):
        encoded = taken.encode({"features": rows})["features"]
        assert encoded.dtype == np.float32
        assert encoded.tolist() == rows.tolist()


@pytest.mark.parametrize("said", ['["age", "visits"]', "age, visits"])
def test_names_in_the_file(said):
    found = TabularClassification(MATRIX, metadata={"feature_names": said})
    assert [field.name for field in found.inputs] == ["age", "visits"]


def test_encode_puts_features_in_the_models_order():
    columns = {"visits": np.array([1.0, 2.0]), "age": np.array([30.0, 40.0])}
    encoded = task().encode(columns)["features"]
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[30, 1], [40, 2]]


def test_a_single_feature_takes_its_name_from_the_file_or_the_tensor():
    one = (Field("x", "float32", (1,)),)
    assert TabularClassification(one).inputs[0].name == "x"
    named = TabularClassification(one, metadata={"feature_names": "age"})
    assert named.inputs[0].name == "age"
    assert named.encode({"age": np.array([3.0])})["x"].tolist() == [[3]]


TWO = (Field("p", "float32", (2,)), Field("embedding", "float32", (8,)))


def test_one_of_several_outputs_has_to_be_named():
    with pytest.raises(ModelError, match="gives p and embedding; name the one with the probab"):
        task(gives=TWO)
    with pytest.raises(ModelError, match="output is 'q', but it gives p, embedding"):
        task(gives=TWO, output="q")
    tensors = {"p": np.array([[0.9, 0.1]] * 3), "embedding": np.ones((3, 8))}
    got = task(gives=TWO, output="p").decode(tensors, ROWS)
    assert got["label"].tolist() == ["0", "0", "0"]


def test_rounding_is_no_reason_to_see_logits():
    scores = np.array([[1.0000001, -1.2e-7], [0.25, 0.75], [0.5, 0.5]], np.float32)
    got = task().decode({"p": scores}, ROWS)
    np.testing.assert_allclose(got["scores"], [[1, 0], [0.25, 0.75], [0.5, 0.5]], atol=1e-6)
    assert got["scores"].max() == 1
    one = task().decode({"p": np.array([[1.0000001], [-1e-7], [0.5]], np.float32)}, ROWS)
    assert one["score"].tolist() == [1, 1, 0.5]


def test_classes_that_the_file_names():
    named = task(metadata={"classes": '["no", "yes"]'}, threshold=0.7)
    assert named.labels == ("no", "yes")
    got = named.decode({"p": np.array([[0.6], [0.8], [0.1]])}, ROWS)
    assert got["label"].tolist() == ["no", "yes", "no"]
    renamed = task(metadata={"classes": '["no", "yes"]'}, labels=("stays", "leaves"))
    assert renamed.labels == ("stays", "leaves")
