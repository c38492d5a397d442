"""What the usual converters write is understood, and what can't be is said."""

import numpy as np
import pytest

from mlopsdeploy.columns import AnswerColumns, Field, TaskOptions
from mlopsdeploy.errors import DoubtError, ModelError
from mlopsdeploy.tasks.tabular_classification import TabularClassification

from ..described_models import NO_OPTIONS, files, runtime

ROWS = {"features": np.zeros((3, 2), np.float32)}
TWO = Field("p", "float32", (2,))
THREE = Field("p", "float32", (3,))
LABEL = Field("label", "int64")


def task(*outputs, made="", threshold=None, **known):
    made = made or ("softmax" if outputs else "sigmoid")
    outputs = outputs or ("p",)
    first = next(one if isinstance(one, str) else one.name for one in outputs)
    made = made if isinstance(made, dict) else {first: made}
    options = TaskOptions(threshold)
    return TabularClassification(files(made=made, **known), runtime(*outputs), options)


def test_one_sigmoid_is_the_second_class():
    found = task(made="sigmoid", labels=("stays", "leaves"))
    got = found.decode({"p": np.array([[0.2], [0.5], [0.9]])}, ROWS)
    assert got["label"].tolist() == ["stays", "leaves", "leaves"]
    np.testing.assert_allclose(got["score"], [0.8, 0.5, 0.9], atol=1e-6)
    assert found.answers == (AnswerColumns("label", "score", "scores", ("stays", "leaves")),)


def test_one_row_alone_is_as_it_is_among_others():
    found = task(made="sigmoid")
    alone = found.decode({"p": np.array([[0.2]], np.float32)}, {"features": np.zeros((1, 2))})
    assert (alone["label"].tolist(), alone["scores"].tolist()) == (
        ["0"], [[pytest.approx(0.8), pytest.approx(0.2)]],
    )  # fmt: skip


def test_a_threshold_moves_the_line_and_the_score_is_of_the_label_given():
    got = task(made="sigmoid", threshold=0.8).decode(
        {"p": np.array([[0.7], [0.8]])}, {"features": np.zeros((2, 2))}
    )
    assert got["label"].tolist() == ["0", "1"]
    np.testing.assert_allclose(got["score"], [0.3, 0.8], atol=1e-6)


def test_more_classes_below_the_threshold_get_no_label():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
    got = task(THREE, labels=("a", "b", "c"), threshold=0.5).decode({"p": scores}, ROWS)
    assert got["label"].tolist() == ["a", "c", ""]


@pytest.mark.parametrize("known", [{}, {"labels": ("a", "b")}, {"said": {"activation": "none"}}])
def test_classes_for_each_step_are_not_those_of_a_row(known):
    steps = Field("p", "float32", (3, 2))
    with pytest.raises(ModelError, match="'p' has classes for each step of a row.*task: tensors"):
        task(steps, **known)
    assert task(steps, labels=tuple("abcdef")).labels == tuple("abcdef")
    assert task(steps, made="sigmoid").multi_label


def test_several_sigmoids_are_several_labels():
    found = task(THREE, made="sigmoid", labels=("a", "b", "c"))
    got = found.decode({"p": np.array([[0.9, 0.6, 0.1], [0.1] * 3, [np.nan] * 3])}, ROWS)
    assert found.multi_label
    assert got["label"].tolist() == ["a|b", "", ""]
    np.testing.assert_allclose(got["score"], [0.9, 0.1, np.nan], atol=1e-6)
    np.testing.assert_allclose(got["scores"][0], [0.9, 0.6, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("width", "activation", "first"), [(2, "softmax", 0.880797), (1, "sigmoid", 0.119203)]
)
@pytest.mark.parametrize("how", ["logits", "the YAML"])
def test_logits_become_probabilities(width, activation, first, how):
    output = Field("p", "float32", (width,))
    said = {"activation": activation} if how == "the YAML" else {}
    made = "linear" if said else "logits"
    values = np.array([[2.0, 0.0][:width], [-3.0, 3.0][:width], [9.0, 1.0][:width]])
    got = task(output, made=made, said=said).decode({"p": values}, ROWS)["scores"]
    np.testing.assert_allclose(got[0, 0], first, atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)


def test_whether_values_are_logits_is_never_seen_in_the_values():
    like_probabilities = np.array([[0.25, 0.75]] * 3)
    got = task(TWO, made="logits").decode({"p": like_probabilities}, ROWS)["scores"]
    np.testing.assert_allclose(got[0], [0.377541, 0.622459], atol=1e-6)
    with pytest.raises(ModelError, match="answers with 3 where a probability from 0 to 1 is exp"):
        task(TWO).decode({"p": np.array([[3.0, -2.0]] * 3)}, ROWS)


def test_the_models_own_labels_are_kept():
    tensors = {
        "label": np.array([5, 7, 5]),
        "p": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32),
    }
    own = task(LABEL, TWO, made={"p": "softmax"}, classes={"label": ("5", "7")})
    got = own.decode(tensors, ROWS)
    assert got["label"].tolist() == ["5", "7", "5"]
    np.testing.assert_allclose(got["score"], [0.9, 0.8, 0.4], atol=1e-6)  # of the label given
    named = task(
        LABEL, TWO, made={"p": "softmax"}, classes={"p": ("5", "7")}, labels=("stays", "leaves")
    )
    assert named.decode(tensors, ROWS)["label"].tolist() == ["stays", "leaves", "stays"]


def test_whole_numbers_that_are_labels_and_no_places():
    tensors = {
        "label": np.array([3, 7, 5]),
        "p": np.array([[0.9, 0.1, 0], [0, 0.2, 0.8], [0.4, 0.6, 0]], np.float32),
    }
    got = task(LABEL, THREE, made={"p": "softmax"}).decode(tensors, ROWS)
    assert got["label"].tolist() == ["3", "7", "5"]
    named = task(LABEL, THREE, made={"p": "softmax"}, labels=("a", "b", "c"))
    assert named.decode(tensors, ROWS)["label"].tolist() == ["a", "c", "b"]  # of the scores
    unordered = task(LABEL, THREE, made={"p": "softmax"}, classes={"label": ("7", "3", "5")})
    got = unordered.decode(tensors, ROWS)
    assert got["label"].tolist() == ["3", "7", "5"]
    np.testing.assert_allclose(got["score"], [0.1, 0, 0], atol=1e-6)


def test_a_stack_goes_by_its_own_classes_and_not_by_those_within():
    tensors = {"label": np.array([7, 5, 7]), "p": np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])}
    classes = {"label": ("5", "7"), "p": ("0", "1")}
    found = task(LABEL, TWO, made={"p": "softmax"}, classes=classes)
    assert found.labels == ("5", "7")
    assert found.decode(tensors, ROWS)["label"].tolist() == ["7", "5", "7"]


def test_several_labels_a_row_are_never_cut_to_the_first():
    found = task(LABEL, TWO, made={"p": "softmax"}, classes={"label": ("0", "1")})
    with pytest.raises(ModelError, match="'label' has 3 labels for a row; say 'task: tensors'"):
        found.decode({"label": np.zeros((3, 3), int), "p": np.full((3, 2), 0.5)}, ROWS)
    with pytest.raises(ModelError, match=r"a shape of \(3, 2\) for a row, and not a number for"):
        found.decode({"label": np.zeros(3, int), "p": np.full((3, 3, 2), 0.5)}, ROWS)


def test_a_background_is_a_thing_of_pictures():
    with pytest.raises(ModelError, match=r"gives 3 classes, but m\.yaml names 2"):
        task(THREE, labels=("a", "b"))


def test_labels_in_another_order_than_the_models_own_are_refused():
    with pytest.raises(ModelError, match=r"m\.yaml names leave, stay, but .* order is stay, leave"):
        task(TWO, classes={"p": ("stay", "leave")}, labels=("leave", "stay"))


def test_an_output_for_each_class():
    names = {"stay": ("stay",), "leave": ("leave",)}
    each = [Field("stay", "float32"), Field("leave", "float32")]
    found = task(*each, made=dict.fromkeys(names, "softmax"), classes=names)
    got = found.decode(
        {"stay": np.array([0.9, 0.2, 0.6]), "leave": np.array([0.1, 0.8, 0.4])}, ROWS
    )
    assert got["label"].tolist() == ["stay", "leave", "stay"]


@pytest.mark.parametrize("kind", [None, "decision", "values", "linear"])
def test_a_label_without_probabilities_has_no_score(kind):
    outputs = (LABEL, TWO) if kind else (LABEL,)
    found = task(*outputs, made={"p": kind or ""}, classes={"label": ("no", "yes")})
    assert [field.name for field in found.outputs] == ["label"]
    tensors = {"label": np.array(["yes", "no", "yes"], object), "p": np.zeros((3, 2))}
    tensors["p"][1] = np.nan  # of a row that was set aside
    expected = ["yes", "" if kind else "no", "yes"]
    assert found.decode(tensors, ROWS)["label"].tolist() == expected


def test_logits_that_are_each_their_own():
    found = task(THREE, made="sigmoid logits", labels=("a", "b", "c"))
    got = found.decode({"p": np.array([[2.0, 0.5, -3], [-1, -1, -1], [0, 0, 0]])}, ROWS)
    assert got["label"].tolist() == ["a|b", "", "a|b|c"]
    np.testing.assert_allclose(got["scores"][0], [0.880797, 0.622459, 0.047426], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "said", "labels"),
    [
        ("", {"multi_label": True}, ["a|b", ""]),
        ("", {"multi_label": True, "activation": "none"}, ["a|b", ""]),
        ("", {"activation": "none"}, ["a", "c"]),
        ("sigmoid", {"multi_label": False}, ["a", "c"]),
    ],
)
def test_several_labels_or_one_as_the_yaml_says(kind, said, labels):
    probabilities = np.array([[0.9, 0.6, 0.1], [0.2, 0.1, 0.3]])
    found = task(THREE, made={"p": kind}, labels=("a", "b", "c"), said=said)
    assert found.multi_label is ("a|b" in labels)
    got = found.decode({"p": probabilities}, {"features": ROWS["features"][:2]})
    assert got["label"].tolist() == labels
    np.testing.assert_allclose(got["scores"], probabilities, rtol=1e-6)


def test_several_labels_of_logits():
    found = task(THREE, made="linear", labels=("a", "b", "c"), said={"multi_label": True})
    got = found.decode({"p": np.array([[2.0, 0.5, -3]])}, {"features": ROWS["features"][:1]})
    assert got["label"].tolist() == ["a|b"]
    np.testing.assert_allclose(got["scores"][0], [0.880797, 0.622459, 0.047426], atol=1e-6)


def test_a_row_without_an_answer_does_not_touch_the_others():
    got = task(made="sigmoid").decode({"p": np.array([[0.9], [np.nan], [0.1]])}, ROWS)
    assert np.isnan(got["score"][1])
    assert [got["label"][0], got["label"][2]] == ["1", "0"]


@pytest.mark.parametrize(
    ("width", "readings"),
    [
        (1, ["activation: none", "activation: sigmoid"]),
        (
            2,
            ["activation: none", "multi_label: true", "activation: softmax", "activation: sigmoid"],
        ),
    ],
)
def test_an_output_that_nobody_describes_is_a_doubt(width, readings):
    output = Field("p", "float32", (width,))
    match = f"m: nothing tells what its output 'p' .*{'.*'.join(readings)}"
    with pytest.raises(DoubtError, match=match):
        TabularClassification(files(), runtime(output), NO_OPTIONS)
    doubts = []
    found = TabularClassification(files(), runtime(output), TaskOptions(doubts=doubts))
    assert [[yaml for yaml, _ in doubt.readings] for doubt in doubts] == [readings]
    assert any("guess" in fact.source for fact in found.facts)


def test_a_softmax_of_one_number_says_nothing():
    with pytest.raises(ModelError, match="a softmax of one number, which is always 1"):
        task(made="softmax")
    with pytest.raises(ModelError, match="a softmax of one number"):
        task(made="linear", said={"activation": "softmax"})
    assert task(made="softmax", said={"activation": "none"}).labels == ("0", "1")


def test_what_is_no_classifier_is_said():
    with pytest.raises(ModelError, match="answers with 153.2 where .*task: tabular_regression"):
        task(made="sigmoid").decode({"p": np.array([[153.2], [7.0], [1.0]])}, ROWS)
    with pytest.raises(ModelError, match="'p' is no probability .the graph.; .*task: tensors"):
        task(made="values")


def test_labels_and_probabilities_have_to_match():
    with pytest.raises(ModelError, match=r"gives 2 classes, but m\.yaml names 3"):
        task(labels=("a", "b", "c"))


def test_features_have_to_be_named_and_counted():
    free = runtime("p", inputs=(Field("features", "float32", (-1,)),))
    with pytest.raises(ModelError, match="does not name them.*or say 'task: tensors'"):
        TabularClassification(files(made={"p": "sigmoid"}, features=()), free, NO_OPTIONS)
    with pytest.raises(ModelError, match="takes 2 features, but 3 are named"):
        task(features=("a", "b", "c"))


def test_rows_of_numbers_need_no_names():
    nameless = task(features=())
    assert nameless.inputs == (nameless.matrix,) == (Field("features", "float32", (2,)),)
    rows = np.array([[30.0, 1.0], [40.0, 2.0]])
    for taken in (nameless, task()):
        encoded = taken.encode({"features": rows})["features"]
        assert encoded.dtype == np.float32
        assert encoded.tolist() == rows.tolist()


@pytest.mark.parametrize("said", ['["age", "visits"]', "age, visits"])
def test_names_in_the_file(said):
    found = TabularClassification(
        files(made={"p": "sigmoid"}, features=()), runtime("p", feature_names=said), NO_OPTIONS
    )
    assert [field.name for field in found.inputs] == ["age", "visits"]


def test_encode_puts_features_in_the_models_order():
    columns = {"visits": np.array([1.0, 2.0]), "age": np.array([30.0, 40.0])}
    encoded = task().encode(columns)["features"]
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [[30, 1], [40, 2]]


def test_a_single_feature_takes_its_name_from_the_file_or_the_tensor():
    one = (Field("x", "float32", (1,)),)
    known = files(made={"p": "sigmoid"}, features=())
    assert TabularClassification(known, runtime("p", inputs=one), NO_OPTIONS).inputs[0].name == "x"
    named = runtime("p", inputs=one, feature_names="age")
    named = TabularClassification(known, named, NO_OPTIONS)
    assert named.inputs[0].name == "age"
    assert named.encode({"age": np.array([3.0])})["x"].tolist() == [[3]]


def test_several_wide_inputs_and_windows():
    wide = (Field("num", "float32", (4,)), Field("city", "str", (1,)))
    known = files(made={"p": "sigmoid"}, features=())
    found = TabularClassification(known, runtime("p", inputs=wide), NO_OPTIONS)
    assert found.inputs == (Field("num", "float32", (4,)), Field("city", "str"))
    columns = {"num": np.ones((2, 4)), "city": np.array(["a", "b"], object)}
    assert {name: array.shape for name, array in found.encode(columns).items()} == {
        "num": (2, 4), "city": (2, 1),
    }  # fmt: skip
    window = (Field("x", "float32", (3, 2)),)
    found = TabularClassification(known, runtime("p", inputs=window), NO_OPTIONS)
    assert found.inputs == window
    assert found.encode({"x": np.ones((5, 3, 2))})["x"].shape == (5, 3, 2)
    named = files(made={"p": "sigmoid"}, features=tuple("abcdef"))
    found = TabularClassification(named, runtime("p", inputs=window), NO_OPTIONS)
    columns = {name: np.array([float(place)]) for place, name in enumerate("abcdef")}
    assert found.encode(columns)["x"].tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_one_of_several_outputs_has_to_be_named():
    both = (TWO, Field("embedding", "float32", (8,)))
    unknown = {"p": "", "embedding": ""}
    with pytest.raises(ModelError, match=r"may be the probabilities \(p and embedding\); name one"):
        task(*both, made=unknown)
    with pytest.raises(ModelError, match="output is 'q', but it gives p, embedding"):
        task(*both, made=unknown, said={"output": "q"})
    tensors = {"p": np.array([[0.9, 0.1]] * 3), "embedding": np.ones((3, 8))}
    got = task(*both, made=unknown, said={"output": "p", "activation": "none"})
    assert got.decode(tensors, ROWS)["label"].tolist() == ["0", "0", "0"]


def test_rounding_is_cut_off():
    scores = np.array([[1.0000001, -1.2e-7], [0.25, 0.75], [0.5, 0.5]], np.float32)
    got = task(TWO).decode({"p": scores}, ROWS)
    np.testing.assert_allclose(got["scores"], [[1, 0], [0.25, 0.75], [0.5, 0.5]], atol=1e-6)
    assert got["scores"].max() == 1
    one = task(made="sigmoid")
    one = one.decode({"p": np.array([[1.0000001], [-1e-7], [0.5]], np.float32)}, ROWS)
    assert one["score"].tolist() == [1, 1, 0.5]
