import pytest

from mlopsdeploy.model_files.labels import find_labels, parse_labels


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
    assert parse_labels(text) == expected


@pytest.mark.parametrize("name", ["detect.txt", "detect_labels.txt", "labelmap.txt", "labels.txt"])
def test_a_label_file_beside_the_model_is_found(tmp_path, name):
    (tmp_path / name).write_text("cat")
    assert find_labels(tmp_path / "detect.tflite") == tmp_path / name


def test_the_model_s_own_label_file_comes_first(tmp_path):
    for name in ("labels.txt", "detect.txt"):
        (tmp_path / name).write_text("cat")
    assert find_labels(tmp_path / "detect.tflite") == tmp_path / "detect.txt"
    assert find_labels(tmp_path / "other.tflite") == tmp_path / "labels.txt"
    assert find_labels(tmp_path / "elsewhere" / "other.tflite") is None
