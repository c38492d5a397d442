"""What a Hugging Face folder says of its model decides; what contradicts itself is one line."""

import json
import shutil
import struct

import pytest

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture
def folder(bert_checkpoint, tmp_path):
    """A copy of the tiny checkpoint to change: labels NEGATIVE and POSITIVE."""
    return shutil.copytree(bert_checkpoint, tmp_path / "model")


def change(folder, name="config.json", **keys):
    path = folder / name
    known = {**json.loads(path.read_text("utf-8")), **keys}
    path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}), "utf-8")


def weights_named(folder, *names):
    """Safetensors with weights of these names, each of two rows."""
    tensors = {
        name: {"dtype": "F32", "shape": [2, 1], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate(names)
    }
    header = json.dumps(tensors).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(8 * len(names))
    (folder / "model.safetensors").write_bytes(content)


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as raised:
        find_model(str(folder))
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    ("architecture", "does"),
    [
        ("BertForTokenClassification", "labels each token"),
        ("BertForQuestionAnswering", "finds an answer's place"),
        ("RobertaForMaskedLM", "fills in masked words"),
        ("GPT2LMHeadModel", "writes text"),
        ("LlamaForCausalLM", "writes text"),
        ("T5ForConditionalGeneration", "writes text"),
        ("BertModel", "is an encoder without a head"),
        ("ViTForImageClassification", "labels pictures"),
        ("SegformerForSemanticSegmentation", "labels the pixels"),
        ("Wav2Vec2ForCTC", "writes down speech"),
        ("Another", "answers in a way of its own"),
    ],
)
def test_other_architectures_are_named(folder, architecture, does):
    change(folder, architectures=[architecture])
    refused(folder, f"is a {architecture} .config.json., which {does}.*ForSequenceClassification")


def test_of_another_architecture_the_tensors_can_be_had(onnx_folders, tmp_path):
    folder = shutil.copytree(onnx_folders["Bert"], tmp_path / "tokens")
    change(folder, architectures=["BertForTokenClassification"])
    with pytest.raises(ModelError, match="labels each token.*'task: tensors'"):
        load_model(str(folder), runtime="onnxruntime", threads=1)
    (folder / "model.yaml").write_text("task: tensors\n", "utf-8")
    assert find_model(str(folder)).task == "tensors"


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (("bert.pooler.dense.weight", "classifier.weight"), ""),
        (("pre_classifier.weight", "classifier.weight"), ""),
        (("classifier.out_proj.weight",), ""),
        (("bert.encoder.weight", "classifier.weight"), "nothing tells which"),
        (("model.layers.weight", "score.weight"), "nothing tells which"),
        (("qa_outputs.weight",), "finds an answer's place"),
        (("cls.predictions.weight",), "fills in masked words"),
        (("lm_head.weight",), "a language model"),
        (("embeddings.weight",), "an encoder without a head"),
    ],
)
def test_without_architectures_the_weights_tell(folder, weights, match):
    change(folder, architectures=None)
    weights_named(folder, *weights)
    if not match:
        assert find_model(str(folder)).task == "text_classification"
        return
    refused(folder, f"no 'architectures'.*{match}.*'task: text_classification'")
    (folder / "model.yaml").write_text("task: text_classification\n", "utf-8")
    assert find_model(str(folder)).task == "text_classification"


def test_a_cross_encoder_takes_pairs(folder):
    change(folder, sentence_transformers={"version": "5"})
    refused(folder, "scores pairs of texts.*'task: text_regression'")


def test_a_classifier_of_sounds(folder):
    change(folder, architectures=["Wav2Vec2ForSequenceClassification"])
    (folder / "tokenizer.json").unlink()
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    refused(folder, "takes sounds")


# ---------------------------------------------------------------- what its numbers mean

ONE = {"id2label": {"0": "LABEL_0"}, "label2id": None}


@pytest.mark.parametrize(
    ("config", "said", "task", "multi_label"),
    [
        ({}, "", "text_classification", False),
        ({"problem_type": "single_label_classification"}, "", "text_classification", False),
        ({"problem_type": "multi_label_classification"}, "", "text_classification", True),
        ({"problem_type": "regression"}, "", "text_regression", False),
        (ONE, "", "text_regression", False),
        ({**ONE, "problem_type": "multi_label_classification"}, "", "text_classification", True),
        ({}, "task: text_regression", "text_regression", False),
        ({"problem_type": "regression"}, "task: text_classification", "text_classification", False),
        ({}, "activation: sigmoid", "text_classification", True),
        ({}, "multi_label: true", "text_classification", True),
        ({}, "activation: sigmoid\nmulti_label: false", "text_classification", False),
        ({"problem_type": "multi_label_classification"}, "activation: softmax",
         "text_classification", False),
        ({**ONE, "problem_type": "single_label_classification"}, "activation: sigmoid",
         "text_classification", False),
    ],
)  # fmt: skip
def test_the_problem_decides_and_a_yaml_over_it(folder, config, said, task, multi_label):
    change(folder, **config)
    if "id2label" in config:
        weights_named(folder, "bert.pooler.weight")
    (folder / "model.yaml").write_text(said, "utf-8")
    files = find_model(str(folder))
    assert (files.task, files.multi_label) == (task, multi_label)


def test_one_label_of_a_single_label_problem_is_asked_about(folder):
    change(folder, problem_type="single_label_classification", **ONE)
    weights_named(folder, "bert.pooler.weight")
    refused(folder, "contradict.*'task: text_regression'.*'activation: sigmoid'")


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "numbers its 2 labels 0, 2, not 0 to 1"),
        ({"id2label": {"1": "a", "2": "b"}}, "numbers its 2 labels 1, 2, not 0 to 1"),
        ({"id2label": {"0": "a", "1": "a"}}, "two labels 'a'"),
        ({"id2label": {"0": "", "1": "a"}}, "without a name"),
        ({"id2label": {"0": ["a"], "1": "b"}}, "not a map of numbers to names"),
        ({"label2id": {"NEGATIVE": 1, "POSITIVE": 0}}, "'NEGATIVE' is number 0, by label2id 1"),
        ({"num_labels": 3}, "num_labels is 3, but id2label has 2"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "names 3 labels, but .* for 2"),
        ({"problem_type": "ranking"}, "problem_type: expected one of regression"),
        ({"architectures": 5}, "architectures: expected a list of names, not 5"),
        ({"max_position_embeddings": "512"}, "max_position_embeddings: expected a whole number"),
        ({"pad_token_id": True}, "pad_token_id: expected a whole number, not True"),
    ],
)  # fmt: skip
def test_what_contradicts_itself(folder, config, match):
    change(folder, **config)
    refused(folder, match)


def test_labels_of_a_yaml_win(folder):
    change(folder, id2label={"0": "a", "1": "a"})
    (folder / "model.yaml").write_text("labels: [bad, good]\n", "utf-8")
    assert find_model(str(folder)).labels == ("bad", "good")


def test_a_name_of_no_number_contradicts_nothing(folder):
    change(folder, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert find_model(str(folder)).labels == ("NEGATIVE", "POSITIVE")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"model_max_length": "long"}, "model_max_length: expected a number, not 'long'"),
        ({"padding_side": "up"}, "padding_side: expected left or right, not 'up'"),
    ],
)
def test_tokenizer_config(folder, keys, match):
    change(folder, "tokenizer_config.json", **keys)
    refused(folder, match)


# ---------------------------------------------------------------- what is there in place of a model


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_git_lfs_pointer(folder, name):
    (folder / name).write_text(POINTER)
    refused(folder, f"{name}: a Git LFS pointer, not the file; run 'git lfs pull'")


@pytest.mark.parametrize("name", ["a.onnx", "a.keras", "a.tflite", "a.h5", "a.xml", "a.bin"])
def test_a_pointer_in_place_of_one_file(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    refused(tmp_path / name, "a Git LFS pointer")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pytorch_model.bin", "a pickle, .*safe_serialization=True"),
        ("pytorch_model.bin.index.json", "pickles, .*safe_serialization=True"),
        ("tf_model.h5", "TensorFlow's form .*from_tf=True.*needs transformers 4"),
        ("flax_model.msgpack", "Flax's form .*from_flax=True"),
        ("adapter_config.json", "an adapter .*merge_and_unload"),
        ("tiny.gguf", "llama.cpp"),
    ],
)
def test_other_forms_of_a_checkpoint(folder, name, match):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("{}")
    refused(folder, match)


def test_parts_of_a_checkpoint_that_are_missing(folder):
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model-00002-of-00002.safetensors: missing; .* names it")


NESTED = (200_000).to_bytes(8, "little") + b"[" * 200_000


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 9, b"\x02" + bytes(7) + b"[]", NESTED],
    ids=["empty", "zeros", "too long", "a list", "nested"],
)  # fmt: skip
def test_weights_that_are_none(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "not safetensors, or cut off")


def test_a_token_for_padding_whose_number_is_a_word(folder):
    change(folder, pad_token_id=None)
    change(folder, "tokenizer_config.json", pad_token="[PAD]")
    change(folder, "tokenizer.json", added_tokens=[{"content": "[PAD]", "id": "none"}])
    refused(folder, r"tokenizer\.json: the token '\[PAD\]' has no number as its id")


def test_weights_that_are_cut_off(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    refused(folder, "not safetensors, or cut off")
