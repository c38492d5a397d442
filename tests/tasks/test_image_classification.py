import shutil

import numpy as np
import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import DoubtError, ModelError

LABEL_FILE = "labels.txt"
THREE = ("softmax", "logits", "softmax_int8", "softmax_uint8", "softmax_float16", "takes_pixels")


@pytest.fixture(scope="session")
def pictures(rectangle):
    box = (0.1, 0.1, 0.9, 0.9)
    return np.stack([rectangle(color, box) for color in ("green", "red", "blue")])


def facts(model):
    return {entry.name: entry for entry in model.task.facts}


@pytest.mark.parametrize("name", THREE)
def test_the_colour_is_known(load, pictures, name):
    found = load(name, labels="red\ngreen\nblue").predict({"image": pictures})
    assert list(found["label"]) == ["green", "red", "blue"]
    assert found["scores"].shape == (3, 3)
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, atol=0.02)
    np.testing.assert_array_equal(found["score"], found["scores"].max(axis=1))
    assert (found["score"] > 0.95).all()


def test_every_kind_gives_the_same_probabilities(load, pictures):
    exact = load("softmax").predict({"image": pictures})["scores"]
    for name in THREE[1:]:
        other = load(name).predict({"image": pictures})["scores"]
        np.testing.assert_allclose(other, exact, atol=0.03)


@pytest.mark.parametrize(
    ("name", "what", "value", "why"),
    [
        ("softmax", "scores are", "probabilities", "its last step, Softmax"),
        ("logits", "scores are", "logits: a softmax follows", "the YAML"),
        ("softmax_int8", "scores are", "probabilities", "its last step, Softmax"),
        ("takes_pixels", "normalisation", "0 to 255", "its first steps make 0 to 1"),
        ("quantised_inside", "normalisation", "0 to 1", "first quantises"),
        ("softmax_uint8", "pixels become", "the pixels as they are", ""),
        ("softmax_int8", "normalisation", "-1 to 1", "quantisation"),
    ],
)
def test_what_was_understood_is_kept(load, name, what, value, why):
    entry = facts(load(name))[what]
    assert entry.value == value
    assert why in entry.source


@pytest.mark.parametrize("name", ["described", "labels_within"])
def test_the_file_itself_says_its_labels(tflite_models, pictures, name):
    model = load_model(str(tflite_models / f"{name}.tflite"), threads=1)
    assert list(model.predict({"image": pictures})["label"]) == ["green", "red", "blue"]
    assert model.task.labels == ("red", "green", "blue")
    if name == "described":
        assert facts(model)["normalisation"].source == "the file's metadata"


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("with_background", "background\nred\ngreen\nblue", "as many classes as labels"),
        ("with_background", "red\ngreen\nblue", "class 0 is the background"),
        ("softmax", "???\nred\ngreen\nblue", "has no class"),
        ("softmax", "red\ngreen\nblue", "as many classes as labels"),
    ],
)
def test_labels_with_and_without_a_background(load, pictures, name, labels, why):
    model = load(name, labels=labels)
    assert list(model.predict({"image": pictures})["label"]) == ["green", "red", "blue"]
    assert why in facts(model)["label of class 0"].source


def test_one_sigmoid_is_two_classes(load, pictures):
    model = load("sigmoid", labels="other\nred")
    found = model.predict({"image": pictures})
    assert list(found["label"]) == ["other", "red", "other"]
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, atol=1e-6)
    lenient = load("sigmoid", labels="other\nred", threshold=0.1)  # it gives the others 0.12
    assert list(lenient.predict({"image": pictures})["label"]) == ["red"] * 3


def test_a_threshold_leaves_unsure_pictures_without_a_label(load, pictures):
    model = load("softmax", labels="red\ngreen\nblue", threshold=0.9)
    black = np.zeros_like(pictures[:1])
    found = model.predict({"image": np.concatenate([pictures[:1], black])})
    assert list(found["label"]) == ["green", ""]


def test_classes_without_labels_are_numbers(load, pictures):
    assert list(load("softmax").predict({"image": pictures})["label"]) == ["1", "0", "2"]


def test_a_yaml_may_say_it_all(load, pictures):
    said = "labels: [r, g, b]\noutput: output_0\ninput: {color: bgr}"
    model = load("logits", said=said)
    assert list(model.predict({"image": pictures})["label"]) == ["g", "b", "r"]
    assert facts(model)["scores are"].source == "the YAML"


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("softmax", "labels: [a, b, c, d, e]", "gives 3 classes, but .* names 5"),
        (
            "softmax",
            "activation: relu",
            "activation: expected 'none', 'sigmoid' or 'softmax', not 'relu'",
        ),
        ("softmax", "label_offset: x", "label_offset: expected a whole number, not 'x'"),
        ("softmax", "output: nothing", "output is 'nothing', but it gives"),
        (
            "heads",
            "task: image_classification",
            "several outputs that may be the probabilities .* name one",
        ),
    ],
)
def test_what_can_not_be_understood_is_one_line(load, name, said, message):
    with pytest.raises(ModelError, match=message):
        load(name, said=said)


@pytest.mark.parametrize("name", ["logits", "with_background"])
def test_numbers_that_no_step_tells_of_are_a_doubt(tflite_models, tmp_path, name):
    shutil.copy(tflite_models / f"{name}.tflite", tmp_path)
    (tmp_path / f"{name}.yaml").write_text("task: image_classification")
    with pytest.raises(DoubtError, match=r"activation: none.*activation: softmax"):
        load_model(str(tmp_path / f"{name}.tflite"), threads=1)
