import json
import zipfile

import numpy as np
import pytest

from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model, tflite_metadata


def test_tflite_metadata_is_read(tflite_models):
    found = tflite_metadata.read(tflite_models / "described.tflite")
    assert (found["name"], found["color"]) == ("colours", "rgb")
    assert (found["mean"], found["std"]) == ([0.0], [255.0])
    assert found["labels"] == ("red", "green", "blue")
    assert found["labels_from"] == "colours.txt within the file"
    assert found["outputs"] == ["probability"]


def test_a_detector_s_anchors_are_read(tflite_models):
    found = tflite_metadata.read(tflite_models / "raw_described.tflite")
    assert (found["anchors"].shape, found["anchors"].dtype) == ((96, 4), np.float32)
    assert (found["coder"], found["sigmoid"]) == ((10, 10, 5, 5), True)
    assert found["threshold"] == pytest.approx(0.3)


def test_ultralytics_says_names_size_and_task(tflite_models):
    found = tflite_metadata.read(tflite_models / "yolo_ultralytics.tflite")
    assert found["labels"] == ("red", "green", "blue")
    assert (found["size"], found["task"]) == ((64, 64), "object_detection")
    assert found["objectness"] is False


@pytest.mark.parametrize("answers", [5, "NaN", ["other"], [["NaN"]], {"NaN": 1}])
def test_answers_that_a_file_carries_are_names(tflite_models, tmp_path, answers):
    file = tmp_path / "m.tflite"
    file.write_bytes((tflite_models / "row_linear.tflite").read_bytes())
    tflite_metadata.carry(file, {"answers": answers})
    with pytest.raises(ModelError, match="its metadata can't be read"):
        tflite_metadata.read(file)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("quantised_inside", (0, 1)), ("takes_pixels", None), ("zero_to_one", None)],
)
def test_what_the_graph_quantises_its_input_to(tflite_models, name, expected):
    found = tflite_metadata.read(tflite_models / f"{name}.tflite").get("quantises_to")
    assert (found and (found["low"], found["high"])) == (
        expected and pytest.approx(expected, abs=0.01)
    )


def test_the_post_process_operator_makes_a_detector(tflite_models):
    found = tflite_metadata.read(tflite_models / "post_process.tflite")
    assert found["operators"] == ("TFLite_Detection_PostProcess",)
    assert found["task"] == "object_detection"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coral", r"coral\.tflite: compiled for a Coral Edge TPU; take the file that it was"),
        ("flex", r"flex\.tflite: needs TensorFlow's own operator FlexErf; convert the model"),
    ],
)
def test_operators_that_no_interpreter_here_has_are_one_line(tflite_models, name, message):
    with pytest.raises(ModelError, match=message):
        find_model(str(tflite_models / f"{name}.tflite"))


def test_what_is_no_tflite_file_says_nothing(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"hello")
    assert tflite_metadata.read(tmp_path / "x.tflite") == {}


def test_damaged_metadata_is_one_line(tflite_models, tmp_path):
    whole = (tflite_models / "described.tflite").read_bytes()
    at = whole.index(b"M001") - 4
    (tmp_path / "x.tflite").write_bytes(whole[:at] + b"\xff" * 4 + whole[at + 4 :])
    with pytest.raises(ModelError, match=r"x\.tflite: its metadata can't be read"):
        tflite_metadata.read(tmp_path / "x.tflite")


@pytest.mark.parametrize(
    ("model", "yaml", "labels", "labels_from"),
    [
        ("described", "", ("red", "green", "blue"), "colours.txt within the file"),
        ("described", "labels: [x, y, z]", ("x", "y", "z"), "model.yaml"),
        ("described", "labels: labels.txt", ("a", "b", "c"), "labels.txt, which model.yaml names"),
        ("softmax", "", ("a", "b", "c"), "labels.txt next to the model"),
    ],
)
def test_where_labels_come_from(tflite_models, tmp_path, model, yaml, labels, labels_from):
    (tmp_path / "model.tflite").write_bytes((tflite_models / f"{model}.tflite").read_bytes())
    (tmp_path / "labels.txt").write_text("a\nb\nc")
    (tmp_path / "model.yaml").write_text(yaml)
    found = find_model(str(tmp_path / "model.tflite"))
    assert (found.labels, found.labels_from) == (labels, labels_from)


def test_a_label_file_that_is_not_there_is_one_line(tflite_models, tmp_path):
    (tmp_path / "model.tflite").write_bytes((tflite_models / "softmax.tflite").read_bytes())
    (tmp_path / "model.yaml").write_text("labels: names.txt")
    with pytest.raises(ModelError, match=r"names\.txt: not a label file"):
        find_model(str(tmp_path / "model.tflite"))


def test_a_folder_with_one_tflite_file_is_a_model(tflite_models, tmp_path):
    (tmp_path / "detect.tflite").write_bytes((tflite_models / "named.tflite").read_bytes())
    (tmp_path / "labelmap.txt").write_text("???\nred\ngreen\nblue\n")
    found = find_model(str(tmp_path))
    assert found.graphs == {"tflite": tmp_path / "detect.tflite"}
    assert found.labels == ("???", "red", "green", "blue")


def appended(tflite_models, folder, content):
    """A model with Ultralytics' metadata zipped to its end."""
    file = folder / "model.tflite"
    file.write_bytes((tflite_models / "zero_to_one.tflite").read_bytes())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.json", content)
    return file


@pytest.mark.parametrize(
    "content",
    ["[1]", "3", "null", '"a"', '{"names": 3}', '{"names": "ab"}', '{"names": {"a": "b"}}', "{",
     "x + 1", b"\xff\xfe", "[" * 100_000],
)  # fmt: skip
def test_appended_metadata_that_is_no_object_is_one_line(tflite_models, tmp_path, content):
    with pytest.raises(ModelError, match="its metadata can't be read"):
        tflite_metadata.read(appended(tflite_models, tmp_path, content))


def test_appended_metadata_may_be_indented(tflite_models, tmp_path):
    content = json.dumps({"task": "classify", "names": {"0": "a", "1": "b"}}, indent=2)
    found = tflite_metadata.read(appended(tflite_models, tmp_path, content))
    assert (found["task"], found["labels"]) == ("image_classification", ("a", "b"))


# ---------------------------------------------------------------- label files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("\ufeffcat\r\ndog\r\n\r\n", ("cat", "dog")),
        ("???\ncat\n\ndog", ("???", "cat", "", "dog")),
        ("0  person\n1  bicycle\n", ("person", "bicycle")),
        ("0: person\n3: car", ("person", "???", "???", "car")),
        ("1 person\n2 bicycle", ("???", "person", "bicycle")),
        ("7 up\n8 ball", ("7 up", "8 ball")),
        ("0 coins\nzero", ("0 coins", "zero")),
        (
            "item {\n  id: 1\n  name: '/m/01g317'\n  display_name: 'person'\n}\n"
            'item { name: "car" id: 3 }',
            ("???", "person", "???", "car"),
        ),
    ],
)
def test_label_files_of_every_kind(text, expected):
    assert tflite_metadata.parse_labels(text) == expected


@pytest.mark.parametrize("name", ["detect.txt", "detect_labels.txt", "labelmap.txt", "labels.txt"])
def test_a_label_file_beside_the_model_is_found(tmp_path, name):
    (tmp_path / name).write_text("cat")
    assert tflite_metadata.find_labels(tmp_path / "detect.tflite") == tmp_path / name


def test_the_model_s_own_label_file_comes_first(tmp_path):
    for name in ("labels.txt", "detect.txt"):
        (tmp_path / name).write_text("cat")
    assert tflite_metadata.find_labels(tmp_path / "detect.tflite") == tmp_path / "detect.txt"
    assert tflite_metadata.find_labels(tmp_path / "other.tflite") == tmp_path / "labels.txt"
    assert tflite_metadata.find_labels(tmp_path / "elsewhere" / "other.tflite") is None
