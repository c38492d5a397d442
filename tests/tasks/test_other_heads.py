"""Regression, clustering, anomalies, several answers, and tensors as they are."""

import numpy as np
import pytest

from mlopsdeploy.columns import AnswerColumns, Field, TaskOptions, objects
from mlopsdeploy.errors import DoubtError, ModelError, RowError
from mlopsdeploy.tasks.anomaly_detection import AnomalyDetection
from mlopsdeploy.tasks.clustering import Clustering
from mlopsdeploy.tasks.multi_output import MultiOutput
from mlopsdeploy.tasks.tabular_regression import TabularRegression
from mlopsdeploy.tasks.tensors import Tensors

from ..described_models import NO_OPTIONS, files, runtime

ROWS = {"features": np.array([[0, 1], [2, 3]], np.float32)}
LABEL = Field("label", "int64", (1,))


def test_one_value():
    found = TabularRegression(files(made={"y": "values"}), runtime("y"), NO_OPTIONS)
    got = found.decode({"y": np.array([[153.2], [np.nan]], np.float32)}, ROWS)
    np.testing.assert_array_equal(got["value"], np.float32([153.2, np.nan]))
    assert found.answers == (AnswerColumns(number="value"),)
    assert found.labels == ()


@pytest.mark.parametrize("labels", [(), ("low", "high")])
def test_several_values(labels):
    two = Field("y", "float64", (2,))
    found = TabularRegression(files(labels=labels), runtime(two), NO_OPTIONS)
    names = labels or ("value_0", "value_1")
    assert found.outputs == tuple(Field(name, "float64") for name in names)
    assert [answer.name for answer in found.answers] == list(names)
    got = found.decode({"y": np.array([[1.0, 2.0], [3.0, 4.0]])}, ROWS)
    assert {name: column.tolist() for name, column in got.items()} == {
        names[0]: [1, 3], names[1]: [2, 4],
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"gives 2 values, but m\.yaml names 3"):
        TabularRegression(files(labels=("a", "b", "c")), runtime(two), NO_OPTIONS)


@pytest.mark.parametrize("labels", [(), ("a", "b", "c")])
def test_clusters(labels):
    distances = Field("scores", "float32", (3,))
    found = Clustering(files(labels=labels), runtime(LABEL, distances), NO_OPTIONS)
    tensors = {
        "label": np.array([[2], [0]]),
        "scores": np.array([[3, 2, 1], [0.5, 2, 9]], np.float32),
    }
    got = found.decode(tensors, ROWS)
    assert got["label"].tolist() == (["c", "a"] if labels else ["2", "0"])
    assert got["distance"].tolist() == [1, 0.5]
    nearest = Clustering(files(labels=labels), runtime(distances), NO_OPTIONS)
    assert nearest.decode(tensors, ROWS)["label"].tolist() == got["label"].tolist()
    alone = Clustering(files(), runtime(LABEL), NO_OPTIONS)
    assert alone.decode(tensors, ROWS)["label"].tolist() == ["2", "0"]
    assert alone.answers[0].number == ""


def test_outliers():
    known = files(made={"scores": "decision"})
    tensors = {"label": np.array([-1, 1]), "scores": np.array([[-0.2], [0.1]], np.float32)}
    found = AnomalyDetection(known, runtime(LABEL, "scores"), NO_OPTIONS)
    got = found.decode(tensors, ROWS)
    assert got["label"].tolist() == ["anomaly", "normal"]
    np.testing.assert_allclose(got["decision"], [-0.2, 0.1])
    strict = AnomalyDetection(known, runtime(LABEL, "scores"), TaskOptions(threshold=0.15))
    assert strict.decode(tensors, ROWS)["label"].tolist() == ["anomaly", "anomaly"]


@pytest.mark.parametrize(("threshold", "labels"), [(None, None), (0.4, ["normal", "anomaly"])])
def test_an_autoencoder(threshold, labels):
    same = Field("y", "float32", (2,))
    options = TaskOptions(threshold)
    found = AnomalyDetection(files(), runtime(same), options)
    got = found.decode({"y": np.array([[0, 1], [3, 3]], np.float32)}, ROWS)
    assert got["error"].tolist() == [0, 0.5]
    assert (got["label"].tolist() if "label" in got else None) == labels
    with pytest.raises(ModelError, match="no output has the input's 2 numbers"):
        AnomalyDetection(files(), runtime(Field("y", "float32", (3,))), options)


def test_several_answers():
    outputs = ("fraud", Field("kind", "float32", (3,)), "price")
    made = {"fraud": "sigmoid", "kind": "softmax", "price": "values"}
    said = {"heads": {"fraud": {}, "kind": {"labels": ["a", "b", "c"]}, "price": {}}}
    found = MultiOutput(files(made=made, said=said), runtime(*outputs), NO_OPTIONS)
    got = found.decode(
        {
            "fraud": np.array([[0.9], [0.2]], np.float32),
            "kind": np.array([[0, 0, 1], [1, 0, 0]], np.float32),
            "price": np.array([[9.5], [3]], np.float32),
        },
        ROWS,
    )
    assert got["fraud_label"].tolist() == ["1", "0"]
    assert got["kind_label"].tolist() == ["c", "a"]
    assert got["price"].tolist() == [9.5, 3]
    assert list(got) == [field.name for field in found.outputs]
    assert [answer.name for answer in found.answers] == ["fraud", "kind", "price"]


def test_several_labels_within_several_answers():
    heads = {"kind": {"multi_label": True, "labels": ["a", "b"]}, "price": {"task": "regression"}}
    two = Field("kind", "float32", (2,))
    found = MultiOutput(files(said={"heads": heads}), runtime(two, "price"), NO_OPTIONS)
    got = found.decode(
        {"kind": np.array([[0.9, 0.7], [0.2, 0.6]]), "price": np.array([[1.0], [2.0]])}, ROWS
    )
    assert got["kind_label"].tolist() == ["a|b", "b"]


def test_labels_beside_several_probabilities_are_no_answer():
    made = {"p_0": "softmax", "p_1": "softmax"}
    two = [Field(name, "float32", (2,)) for name in made]
    found = MultiOutput(files(made=made), runtime(LABEL, *two), NO_OPTIONS)
    assert [answer.name for answer in found.answers] == ["p_0", "p_1"]


def test_several_answers_of_which_one_is_not_known():
    with pytest.raises(DoubtError, match=r"'y' has no activation .*heads: \{y: \{task: regress"):
        MultiOutput(files(made={"p": "sigmoid", "y": "linear"}), runtime("p", "y"), NO_OPTIONS)
    said = {"heads": {"q": {}}}
    with pytest.raises(ModelError, match="heads names 'q', but it gives p"):
        MultiOutput(files(said=said), runtime("p"), NO_OPTIONS)


def test_tensors_are_as_they_are():
    inputs = (Field("ids", "int64", (-1,)), Field("scale", "float32"))
    outputs = (Field("y", "float16", (2, 2)), Field("word", "str"))
    found = Tensors(files(), runtime(*outputs, inputs=inputs), NO_OPTIONS)
    assert (found.inputs, found.outputs, found.answers) == (inputs, outputs, ())
    columns = {"ids": objects([[1, 2], [3, 4]]), "scale": np.array([1, 2])}
    encoded = found.encode(columns)
    assert found.cost(encoded).tolist() == [3, 3]
    tensors = found.collate(encoded)
    assert tensors["ids"].tolist() == [[1, 2], [3, 4]]
    assert (tensors["ids"].dtype, tensors["scale"].dtype) == (np.int64, np.float32)
    answers = {"y": np.ones((2, 2, 2), np.float16), "word": objects(["a", "b"])}
    assert found.decode(answers, encoded) == answers


def test_tensors_of_rows_that_differ_in_shape():
    found = Tensors(files(), runtime("y", inputs=(Field("x", "float32", (-1,)),)), NO_OPTIONS)
    with pytest.raises(RowError, match="rows differ in shape"):
        found.collate(found.encode({"x": objects([[1.0], [1.0, 2.0]])}))
