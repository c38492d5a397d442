"""What a model is for follows from its tensors and from how its graph makes them."""

import pytest

from mlopsdeploy.columns import Field, TaskOptions
from mlopsdeploy.core.which_task import which_task
from mlopsdeploy.errors import DoubtError

from ..described_models import NO_OPTIONS, files, runtime

TABLE = (Field("x", "float32", (4,)),)
PICTURE = (Field("picture", "float32", (64, 64, 3)),)
LABEL = Field("label", "int64")


def field(width, name="y"):
    return Field(name, "float32", (width,))


@pytest.mark.parametrize(
    ("inputs", "outputs", "made", "task"),
    [
        (TABLE, [field(1)], "sigmoid", "tabular_classification"),
        (TABLE, [field(3)], "softmax", "tabular_classification"),
        (TABLE, [field(3)], "sigmoid", "tabular_classification"),
        (TABLE, [field(3)], "logits", "tabular_classification"),
        (TABLE, [LABEL], "label", "tabular_classification"),
        (PICTURE, [LABEL, field(3)], "softmax", "image_classification"),
        (PICTURE, [field(1), field(3, "z")], "softmax", "image_multi_output"),
        (TABLE, [field(1)], "values", "tabular_regression"),
        (TABLE, [LABEL, field(3)], "distances", "clustering"),
        (TABLE, [LABEL, field(1)], "decision", "anomaly_detection"),
        (TABLE, [field(1), field(3, "z")], "softmax", "multi_output"),
        (PICTURE, [field(3)], "softmax", "image_classification"),
        (PICTURE, [field(1)], "values", "image_regression"),
        (PICTURE, [Field("y", "float32", (84, 100))], "", "object_detection"),
        ((Field("x", "float32", (10, 3)),), [field(1)], "values", "tabular_regression"),
    ],
)
def test_what_the_graph_tells(inputs, outputs, made, task):
    known = files(made={output.name: made for output in outputs})
    assert which_task(known, runtime(*outputs, inputs=inputs), NO_OPTIONS).value == task


@pytest.mark.parametrize(
    ("known", "task"),
    [
        ({"kind": "regression"}, "tabular_regression"),
        ({"kind": "clustering"}, "clustering"),
        ({"kind": "reconstruction"}, "anomaly_detection"),
        ({"labels": ("a", "b", "c")}, "tabular_classification"),
        ({"said": {"activation": "softmax"}}, "tabular_classification"),
        ({"said": {"multi_label": True}}, "tabular_classification"),
        ({"said": {"output": "y"}, "labels": ("a", "b", "c")}, "tabular_classification"),
        ({"said": {"heads": {"y": {"task": "regression"}}}}, "multi_output"),
    ],
)
def test_what_its_author_tells_besides(known, task):
    known = files(made={"y": "linear"}, **known)
    assert which_task(known, runtime(field(3), inputs=TABLE), NO_OPTIONS).value == task


STEPS = Field("y", "float32", (5, 3))


@pytest.mark.parametrize("made", ["softmax", "logits"])
@pytest.mark.parametrize("sizes", [(5, 3), (-1, 3)])
def test_classes_for_each_step_of_a_row_are_left_as_they_are(made, sizes):
    known = files(made={"y": made}, kind="classification")
    found = which_task(known, runtime(Field("y", "float32", sizes), inputs=TABLE), NO_OPTIONS)
    assert found.value == "tensors"
    assert found.source == "its output 'y' has classes for each step of a row, not for the row"


@pytest.mark.parametrize(
    ("output", "known"),
    [
        (Field("y", "float32", (1, 3)), {"made": {"y": "softmax"}}),
        (STEPS, {"made": {"y": "sigmoid"}}),
        (STEPS, {"made": {"y": "softmax"}, "labels": ("a", "b", "c")}),  # refused by the task
        (STEPS, {"made": {"y": "softmax"}, "said": {"activation": "none"}}),
    ],
)
def test_classes_of_the_row_are_a_classifiers(output, known):
    tensors = runtime(output, inputs=TABLE)
    assert which_task(files(**known), tensors, NO_OPTIONS).value == "tabular_classification"


def test_how_pixels_become_numbers_makes_a_picture_of_a_window():
    window = (Field("x", "float32", (28, 28)),)
    for said, task in (({}, "tabular_classification"), ({"std": 255}, "image_classification")):
        known = files(made={"y": "softmax"}, said={"input": said} if said else {})
        assert which_task(known, runtime(field(10), inputs=window), NO_OPTIONS).value == task


def test_a_mixture_has_probabilities_and_no_distances():
    known = files(made={"y": "softmax"}, kind="clustering")
    found = which_task(known, runtime(LABEL, field(3), inputs=TABLE), NO_OPTIONS)
    assert found.value == "tabular_classification"


def test_a_classifier_of_several_answers():
    known = files(made={"y": "softmax", "z": "softmax"}, kind="classification")
    tensors = runtime(LABEL, field(2), field(2, "z"), inputs=TABLE)
    assert which_task(known, tensors, NO_OPTIONS).value == "multi_output"


@pytest.mark.parametrize(
    ("inputs", "outputs", "made", "readings"),
    [
        (TABLE, [field(1)], "linear", ["task: tabular_regression", "activation: sigmoid"]),
        (TABLE, [field(3)], "linear", ["task: tabular_regression", "activation: softmax"]),
        (TABLE, [field(3)], "linear", ["logits of several labels (activation: sigmoid)"]),
        (TABLE, [field(3)], "", ["probabilities of several labels (multi_label: true)"]),
        (TABLE, [field(1)], "", ["probabilities of classes (activation: none)"]),
        (TABLE, [field(4)], "linear", ["task: anomaly_detection"]),
        (TABLE, [field(4)], "sigmoid", ["activation: none", "task: anomaly_detection"]),
        (TABLE, [field(1), field(8, "z")], "linear", ["output: y", "heads: ", "task: tensors"]),
        (TABLE, [LABEL], "", ["task: tabular_classification", "task: tabular_regression"]),
        (PICTURE, [Field("y", "float32", (64, 64))], "", ["task: tensors", "task: object_det"]),
        (PICTURE, [Field("y", "float32", (32, 32, 21))], "softmax", ["task: tensors"]),
        (PICTURE, [field(512)], "linear", ["task: image_regression", "task: tensors"]),
    ],
)
def test_what_can_be_read_in_several_ways_is_a_doubt(inputs, outputs, made, readings):
    known = files(made={output.name: made for output in outputs})
    tensors = runtime(*outputs, inputs=inputs)
    with pytest.raises(DoubtError, match="^m: ") as error:
        which_task(known, tensors, NO_OPTIONS)
    for reading in readings:
        assert reading in str(error.value)
    doubts = []
    assert which_task(known, tensors, TaskOptions(doubts=doubts)).source == "nothing (a guess)"
    assert str(doubts[0]) == str(error.value)
