"""`model.yaml` is a strict schema: each wrong key is one line that names it."""

import pytest

from mlopsdeploy.core.model_yaml import ModelYaml, read_model_yaml
from mlopsdeploy.errors import ModelError


def read(folder, text):
    file = folder / "model.yaml"
    file.write_text(text, "utf-8")
    return read_model_yaml(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tresh: 3", "unknown key 'tresh'; did you mean 'threshold'?"),
        ("input: {siz: 3}", "unknown key 'input.siz'; did you mean 'size'?"),
        ("labels: 5", "labels: expected a list of names, or a file's name, not 5"),
        ("labels: {0: a}", "labels: expected a list of names, or a file's name, not {0: 'a'}"),
        ("labels: [[a]]", "labels[0]: expected text, not ['a']"),
        ("labels: [a, true]", "labels[1]: true is no text in YAML; put it in quotes: 'true'"),
        ("labels: [null]", "labels[0]: null is no text in YAML; put it in quotes: 'null'"),
        (
            "heads: {price: {tsk: regression}}",
            "unknown key 'heads.price.tsk'; did you mean 'task'?",
        ),
        ("threshold: high", "threshold: expected a number, not 'high'"),
        ("threshold: true", "threshold: expected a number, not True"),
        ("threshold: .nan", "threshold: expected a number, not nan"),
        ("features: abc", "features: expected a list, not 'abc'"),
        ("features: [a, a]", "features: 'a' is named twice"),
        ("sha256: [a]", "sha256: expected a map of keys, not ['a']"),
        ("sha256: {a: b}", "sha256.a: expected 64 hexadecimal digits, not 'b'"),
        ("serve: x", "serve: expected a map of keys, not 'x'"),
        ("serve: {rout: /a}", "unknown key 'serve.rout'; did you mean 'route'?"),
        ("input: []", "input: expected a map of keys, not []"),
        ("input: {size: [1]}", "input.size[1]: missing"),
        ("input: {size: [0, 3]}", "input.size[0]: 0: should be greater than or equal to 1"),
        ("input: {color: cmyk}", "input.color: expected 'rgb', 'bgr' or 'gray', not 'cmyk'"),
        ("input: {resize: crop}", "input.resize: expected 'stretch' or 'letterbox', not 'crop'"),
        ("input: {mean: imagenet}", "input.mean: expected a list, not 'imagenet'"),
        ("input: {std: [1, 0, 1]}", "input.std: can't be 0"),
        ("outputs: {logits: maybe}", "outputs.logits: expected true or false, not 'maybe'"),
        ("outputs: {box: a}", "unknown key 'outputs.box'; did you mean 'boxes'?"),
        ("outputs: {order: z}", "outputs.order: expected 'xyxy', 'yxyx' or 'xywh', not 'z'"),
        (
            "outputs: {coordinates: x}",
            "outputs.coordinates: expected 'pixels' or 'relative', not 'x'",
        ),
        ("activation: relu", "activation: expected 'none', 'sigmoid' or 'softmax', not 'relu'"),
        ("boxes: {size: [3, 3]}", "boxes.strides: missing"),
        ("boxes: {size: [3, 3], strides: 3}", "boxes.strides: expected a list, not 3"),
        ("label_offset: 1.5", "label_offset: expected a whole number, not 1.5"),
        ("precision: int4", "precision: expected 'float32', 'bfloat16' or 'int8', not 'int4'"),
        ("proof: 3", "proof: expected a map of keys, not 3"),
        ("version: true", "version: true is no text in YAML; put it in quotes: 'true'"),
    ],
)
def test_a_wrong_key_is_one_line(tmp_path, text, message):
    with pytest.raises(ModelError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'model.yaml'}: {message}"


def test_text_stays_text_and_numbers_become_numbers(tmp_path):
    keys = read(
        tmp_path,
        "version: 1.10\nname: 007\nlabels: [no, yes, 1.0]\nthreshold: 1e-1\nlabel_offset: 01\n"
        "input: {mean: 3, std: [1, 2.5, 3]}\noutputs: {logits: yes, boxes: 12}\n",
    )
    assert (keys.version, keys.name, keys.labels) == ("1.10", "007", ("no", "yes", "1.0"))
    assert (keys.threshold, keys.label_offset) == (0.1, 1)
    assert keys.input
    assert keys.outputs
    assert (keys.input.mean, keys.input.std) == ((3.0,), (1.0, 2.5, 3.0))
    assert (keys.outputs.logits, keys.outputs.boxes) == (True, "12")
    assert ModelYaml.model_validate(keys.written()) == keys


def test_a_file_that_is_not_there_has_no_keys(tmp_path):
    assert read_model_yaml(tmp_path / "model.yaml") == ModelYaml()


def test_every_key_is_described_and_has_an_example():
    schema = ModelYaml.model_json_schema()
    for keys in (schema, *schema["$defs"].values()):
        for name, key in keys["properties"].items():
            assert key.get("description"), name
