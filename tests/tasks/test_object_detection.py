"""Detectors of every kind find the same rectangle, and say how they were understood."""

import json
import zipfile

import numpy as np
import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError

BOX = (0.25, 0.25, 0.75, 0.5)
LABEL_FILE = "labelmap.txt"
DETECTORS = (
    *("post_process", "tf1_order", "tf2_order", "maker_order", "named", "listed_described"),
    *("misnamed", "listed_uint8", "best_class", "corners", "raw_ssd", "yolo_v5", "yolo_v8"),
    *("yolo_v8_int8", "yolo_v8_pixels", "yolo_v8_channels_first", "yolo_v10"),
)


@pytest.fixture(scope="session")
def pictures(rectangle):
    """Green, red elsewhere, nothing, blue: in one column."""
    return np.stack(
        [
            rectangle("green", BOX),
            rectangle("red", (0, 0.5, 0.5, 1)),
            np.zeros((480, 640, 3), np.uint8),
            rectangle("blue", BOX),
        ]
    )


def facts(model):
    return {entry.name: entry for entry in model.task.facts}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_rectangle_is_found_and_its_colour_known(load, pictures, name):
    model = load(name, labels="red\ngreen\nblue\n")
    found = model.predict({"image": pictures})
    assert [list(labels) for labels in found["label"]] == [["green"], ["red"], [], ["blue"]]
    expected = (BOX, (0, 0.5, 0.5, 1), None, BOX)
    for row, box in enumerate(expected):
        boxes, scores = found["boxes"][row], found["score"][row]
        assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)
        assert boxes.shape == (len(scores), 4)
        if box is not None:
            np.testing.assert_allclose(boxes[0], box, atol=0.035)  # two pixels of 64
            assert scores[0] > 0.85


@pytest.mark.parametrize("name", DETECTORS)
def test_one_picture_is_answered_as_among_others(load, pictures, name):
    model = load(name)
    together = model.predict({"image": pictures})
    for row in (0, 1):
        alone = model.predict({"image": pictures[row : row + 1]})
        np.testing.assert_array_equal(alone["boxes"][0], together["boxes"][row])
        np.testing.assert_array_equal(alone["label"][0], together["label"][row])


@pytest.mark.parametrize("name", ["yolo_v5", "yolo_v8", "post_process", "raw_ssd"])
def test_boxes_are_relative_to_the_picture_whatever_its_shape(load, rectangle, name):
    model = load(name)
    for size in ((480, 480), (640, 320), (128, 512), (64, 64)):
        picture = rectangle("green", BOX, size)
        found = model.predict({"image": picture[None]})
        np.testing.assert_allclose(found["boxes"][0][0], BOX, atol=0.07)


def test_each_order_of_outputs_is_told_by_names_or_values(load):
    assert "the name" in facts(load("named"))["scores"].source
    for name in ("tf1_order", "tf2_order", "maker_order"):
        assert "classes are whole numbers" in facts(load(name))["scores"].source
    said = facts(load("post_process"))
    assert said["a box is"].value == "y1 x1 y2 x2"
    assert "TFLite_Detection_PostProcess" in said["a box is"].source


@pytest.mark.parametrize(
    ("name", "what", "value"),
    [
        ("yolo_v5", "objectness", "column 4"),
        ("yolo_v8", "objectness", "none"),
        ("yolo_v8", "coordinates", "relative"),
        ("yolo_v8_pixels", "coordinates", "pixels of the input"),
        ("yolo_v8", "resizing", "letterbox"),
        ("post_process", "resizing", "stretch"),
        ("raw_ssd", "scores are", "logits: a sigmoid follows"),
        ("yolo_v8_int8", "pixels become", "pixel - 128"),
        ("listed_uint8", "pixels become", "the pixels as they are"),
        ("best_class", "overlaps", "non-maximum suppression here"),
    ],
)
def test_what_was_understood_is_kept(load, name, what, value):
    assert facts(load(name))[what].value == value


@pytest.mark.parametrize(
    ("name", "labels", "first", "why"),
    [
        ("post_process", "???\nred\ngreen\nblue", "red", "stands for no object"),
        ("post_process", "background\nred\ngreen\nblue", "red", "stands for no object"),
        ("post_process", "red\ngreen\nblue", "red", "no background"),
        ("yolo_v8", "red\ngreen\nblue", "red", "as many classes as labels"),
        ("raw_ssd", "???\nred\ngreen\nblue\nwhite", "red", "stands for no object"),
        ("raw_ssd", "red\ngreen\nblue\nwhite", "red", "as many classes as labels"),
        ("post_process", "1 red\n2 green\n3 blue", "red", "stands for no object"),
    ],
)
def test_the_label_offset_is_found(load, pictures, name, labels, first, why):
    model = load(name, labels=labels)
    entry = facts(model)["label of class 0"]
    assert entry.value == repr(first)
    assert why in entry.source
    assert list(model.predict({"image": pictures[:1]})["label"][0]) == ["green"]


def test_metadata_name_outputs_unless_the_values_belie_them(load):
    said = facts(load("listed_described"))
    assert said["scores"].source == "the name in the metadata 'score' and the shape"
    assert said["a box is"].source == "the file's metadata"
    assert "classes are whole numbers" in facts(load("misnamed"))["scores"].source


def test_boxes_with_key_points_around_a_grid(load, pictures):
    """As MediaPipe finds faces: one class, boxes in pixels from points of a grid."""
    model = load("pointed", labels="thing")
    found = model.predict({"image": pictures})
    assert [list(labels) for labels in found["label"]] == [["thing"], ["thing"], [], ["thing"]]
    np.testing.assert_allclose(found["boxes"][0], [BOX], atol=0.02)
    assert facts(model)["grid"].value == "224 points, strides [8, 16]"
    assert facts(model)["resizing"].value == "letterbox"


@pytest.mark.parametrize(
    ("labels", "said", "row", "expected"),
    [
        ("x\ny\nred\ngreen\nblue", "label_offset: 2", 0, "green"),
        ("red\ngreen", None, 3, "2"),  # a class without a label is its number
    ],
)
def test_the_label_of_a_class(load, pictures, labels, said, row, expected):
    model = load("post_process", labels=labels, said=said)
    assert list(model.predict({"image": pictures[row : row + 1]})["label"][0]) == [expected]


def test_the_threshold_is_asked_for_or_said_or_a_half(load, tflite_models):
    assert load("yolo_v8").task.threshold == 0.5
    assert load("yolo_v8", said="threshold: 0.2").task.threshold == 0.2
    assert load("yolo_v8", threshold=0.7).task.threshold == 0.7
    described = load_model(str(tflite_models / "raw_described.tflite"), threads=1)
    assert described.task.threshold == pytest.approx(0.3)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
@pytest.mark.parametrize("name", ["yolo_v5", "raw_ssd", "post_process"])
def test_thresholds_at_the_ends(load, pictures, name, threshold):
    found = load(name, threshold=threshold).predict({"image": pictures[:1]})
    assert len(found["boxes"][0]) <= 100
    assert (len(found["boxes"][0]) > 0) == (threshold == 0)
    assert (np.diff(found["score"][0]) <= 0).all()


def test_metadata_say_labels_anchors_and_threshold(tflite_models, pictures):
    model = load_model(str(tflite_models / "raw_described.tflite"), threads=1)
    found = model.predict({"image": pictures})
    assert [list(labels) for labels in found["label"]] == [["green"], ["red"], [], ["blue"]]
    assert facts(model)["anchors"].source == "the file's metadata"
    ultralytics = load_model(str(tflite_models / "yolo_ultralytics.tflite"), threads=1)
    assert list(ultralytics.predict({"image": pictures[:1]})["label"][0]) == ["green"]


def test_what_ultralytics_writes_has_no_objectness(tflite_models, tmp_path):
    file = tmp_path / "m.tflite"
    file.write_bytes((tflite_models / "yolo_v8.tflite").read_bytes())
    with zipfile.ZipFile(file, "a") as archive:  # one name less than columns of classes
        said = {"names": {0: "red", 1: "green"}, "task": "detect"}
        archive.writestr("metadata.json", json.dumps(said))
    found = facts(load_model(str(file), threads=1))["objectness"]
    assert (found.value, found.source) == ("none", "the file's metadata")


def test_a_yaml_says_what_outputs_and_anchors_are(load, pictures):
    roles = "{boxes: output_0, classes: output_1, scores: output_2, count: output_3}"
    model = load("tf1_order", said=f"outputs: {roles}\nlabels: [red, green, blue]")
    assert facts(model)["scores"].source == "the YAML"
    assert list(model.predict({"image": pictures[:1]})["label"][0]) == ["green"]
    strides = "[16, 32, 64, 128, 256, 512]"
    model = load("raw_ssd", said=f"boxes: {{size: [64, 64], strides: {strides}}}")
    np.testing.assert_allclose(model.predict({"image": pictures[:1]})["boxes"][0], [BOX], atol=0.02)


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("heads", None, "gives raw feature maps .* its boxes decoded, or say 'task: tensors'"),
        ("masks", None, "gives an answer for each pixel .*64×64.*; 'task: tensors' in a YAML"),
        ("yolo_too_coarse", None, "quantised in steps of .*, too coarse for scores"),
        ("named", "outputs: {boxes: nothing}", "outputs.boxes is 'nothing', but it gives"),
        (
            "named",
            "outputs: {order: zyx}",
            "outputs.order: expected 'xyxy', 'yxyx' or 'xywh', not 'zyx'",
        ),
        (
            "yolo_v8",
            "outputs: {coordinates: pixel}",
            "outputs.coordinates: expected 'pixels' or 'relative', not 'pixel'",
        ),
        ("named", "label_offset: one", "label_offset: expected a whole number, not 'one'"),
        ("raw_ssd", "boxes: {size: [64, 64], strides: [32]}", "gives 96 boxes, but .* 12 anchors"),
        ("softmax", "task: object_detection", "can't be known which are boxes and scores"),
    ],
)
def test_what_can_not_be_understood_is_one_line(load, name, said, message):
    with pytest.raises(ModelError, match=message) as caught:
        load(name, said=said)
    assert "\n" not in str(caught.value)
