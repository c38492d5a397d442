"""What can be read about a model without running it."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml

from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import cache_folder


@pytest.fixture
def folder(tmp_path, bert):
    """A copy of the tiny BERT to change."""
    made = tmp_path / "model"
    (made / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"):
        (made / name).write_bytes((bert / name).read_bytes())
    return made


def change(folder, name="config.json", **keys):
    path = folder / name
    known = {**json.loads(path.read_text("utf-8")), **keys}
    path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}), "utf-8")


def test_a_hugging_face_folder(folder):
    files = find_model(str(folder))
    assert (files.name, files.task) == ("model", "text_classification")
    assert (files.labels, files.multi_label) == (("NEGATIVE", "POSITIVE"), False)
    assert (files.max_length, files.pad_id, files.pad_side) == (128, 0, "right")
    assert files.graphs == {"onnx": folder / "onnx" / "model.onnx"}
    assert len(files.digest) == 64


def test_a_checkpoint_and_its_onnx_file_side_by_side(folder, bert_checkpoint):
    (folder / "model.safetensors").write_bytes((bert_checkpoint / "model.safetensors").read_bytes())
    assert set(find_model(str(folder)).graphs) == {"onnx", "checkpoint"}


def test_multi_label(multi_label_bert):
    files = find_model(str(multi_label_bert))
    assert (files.labels, files.multi_label) == (("toxic", "insult", "threat"), True)


NUMBERED = {str(i): f"l{i}" for i in reversed(range(12))}


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": NUMBERED}, tuple(f"l{i}" for i in range(12))),
        ({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_are_sorted_as_numbers_and_may_lack_names(folder, config, labels):
    change(folder, **config)
    assert find_model(str(folder)).labels == labels


@pytest.mark.parametrize("wrong", [{"a": "x"}, ["x", "y"], "x"])
def test_labels_that_are_not_a_map(folder, wrong):
    change(folder, id2label=wrong)
    with pytest.raises(ModelError, match="id2label.* a map of numbers to names"):
        find_model(str(folder))


@pytest.mark.parametrize(
    ("kind", "positions", "limit", "expected"),
    [
        ("bert", 512, None, 512),
        ("bert", 512, 128, 128),
        ("bert", 64, 512, 64),
        ("roberta", 514, None, 512),
        ("xlm-roberta", 514, 512, 512),
        ("bert", 512, 1000000000000000019884624838656, 512),
        ("xlnet", None, None, 512),
        ("t5", None, 300, 300),
    ],
)
def test_the_longest_text(folder, kind, positions, limit, expected):
    pad = 1 if "roberta" in kind else 0  # positions are numbered from the one after it
    change(folder, model_type=kind, max_position_embeddings=positions, pad_token_id=pad)
    change(folder, "tokenizer_config.json", model_max_length=limit)
    assert find_model(str(folder)).max_length == expected


def test_padding_is_read_from_the_tokenizer_where_the_config_has_none(folder):
    change(folder, pad_token_id=None)
    change(folder, "tokenizer_config.json", pad_token="[SEP]", padding_side="left")
    files = find_model(str(folder))
    assert (files.pad_id, files.pad_side) == (3, "left")


def test_what_model_yaml_says_wins(folder):
    (folder / "model.yaml").write_text(
        "name: mine\nversion: 1.2.0\nthreshold: 0.7\nprecision: float32\n", "utf-8"
    )
    files = find_model(str(folder))
    assert (files.name, files.version) == ("mine", "1.2.0")
    assert (files.threshold, files.precision) == (0.7, "float32")


SUMMED = ["onnx/model.onnx", "config.json", "tokenizer.json"]


@pytest.mark.parametrize("name", SUMMED)
def test_checksums_are_verified(folder, name):
    sums = {part: hashlib.sha256((folder / part).read_bytes()).hexdigest() for part in SUMMED}
    (folder / "model.yaml").write_text(yaml.safe_dump({"sha256": sums}), "utf-8")
    find_model(str(folder))
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    with pytest.raises(ModelError, match="its SHA-256 is not the one in model.yaml"):
        find_model(str(folder))


def test_a_file_that_model_yaml_lists_is_missing(folder):
    (folder / "model.yaml").write_text("sha256: {extra.bin: " + "0" * 64 + "}", "utf-8")
    with pytest.raises(ModelError, match=r"extra\.bin: missing"):
        find_model(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", "[1]", "expected a JSON object"),
        ("model.yaml", "a: [", "not YAML"),
        ("model.yaml", "- a", "line 1: expected 'key: value' lines"),
    ],
)
def test_broken_descriptions(folder, name, content, message):
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(ModelError, match=message) as raised:
        find_model(str(folder))
    assert "\n" not in str(raised.value)


def test_one_onnx_file_may_be_called_as_one_likes(churn_onnx, tmp_path):
    files = find_model(str(churn_onnx))
    assert (files.name, files.task) == ("churn", "")  # the graph will tell
    copy = tmp_path / "other.onnx"
    copy.write_bytes(churn_onnx.read_bytes())
    assert find_model(str(copy)).digest == files.digest


def test_a_folder_of_a_tabular_model(churn_onnx, tmp_path):
    (tmp_path / "model.onnx").write_bytes(churn_onnx.read_bytes())
    (tmp_path / "model.yaml").write_text("name: churn\nlabels: [stays, leaves]\n", "utf-8")
    files = find_model(str(tmp_path))
    assert (files.task, files.labels) == ("", ("stays", "leaves"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("none", "no model called 'none'; .*'org/name' works too"),
        ("a/b/c", "no such file or folder"),
        ("none.onnx", "no such file or folder"),
        ("org/none.onnx", "no such file or folder"),
        ("", "no config.json and no model.yaml|no model called ''"),
    ],
)
def test_references_that_lead_nowhere(reference, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        find_model(reference)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MLOPSDEPLOY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mlopsdeploy"


def test_a_picture_as_example_is_read_from_beside_the_yaml(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "street.jpg").write_bytes(b"a picture")

    def example(graph, text):
        (tmp_path / graph).write_bytes(b"weights")
        keys = f"task: object_detection\nexample: {text}\n"
        (tmp_path / graph).with_suffix(".yaml").write_text(keys, "utf-8")
        return find_model(str(tmp_path / graph)).yaml.example

    assert example("finder.onnx", "street.jpg") == "data:image/jpeg;base64,YSBwaWN0dXJl"
    assert example("finder.onnx", "[1, 2]") == [1, 2]
    with pytest.raises(ModelError, match=r"inner/street.jpg: can't be read .*names it as example"):
        example("inner/model.onnx", "../street.jpg")


# ---------------------------------------------------------------- languages


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\nlicence: mit\n---\n# A model", ("en",)),
        ("\ufeff---\r\nlanguage:\r\n- zh-Hans\r\n- en\r\n- zh\r\n---\r\n", ("zh", "en")),
        ("---\nlanguage: no\n---\n", ("no",)),
        ("---\nlanguage: multilingual\n---\n", None),
        ("---\nlanguage: [en, multilingual]\n---\n", None),
        ("---\nlanguage: English\n---\n", None),
        ("---\nlanguage: []\n---\n", None),
        ("---\nlanguage: {en: yes}\n---\n", None),
        ("---\nlicence: mit\n---\nlanguage: en\n", None),
        ("---\nlanguage: [en\n---\n", None),
        ("# A model\n---\nlanguage: en\n---\n", None),
        ("---\n\x00\n---\n", None),
        ("", None),
    ],
)
def test_languages_that_a_card_of_the_hub_names(folder, card, languages):
    bare = find_model(str(folder))
    (folder / "README.md").write_bytes(card.encode())
    files = find_model(str(folder))
    assert files.yaml.languages == languages
    assert files.languages_from == ("README.md" if languages else "")
    assert files.digest == bare.digest


@pytest.mark.parametrize(
    ("said", "languages", "source"),
    [("[de]", ("de",), "model.yaml"), ("null", None, ""), ("[]", (), "")],
)
def test_what_model_yaml_says_of_languages_holds(folder, said, languages, source):
    (folder / "README.md").write_text("---\nlanguage: en\n---\n", "utf-8")
    (folder / "model.yaml").write_text(f"languages: {said}\n", "utf-8")
    files = find_model(str(folder))
    assert (files.yaml.languages, files.languages_from) == (languages, source)


@pytest.mark.parametrize("card", [b"---\nlanguage: en\n---\n", None])
def test_a_card_comes_from_the_hub_where_there_is_one(bert, tmp_path, monkeypatch, card):
    """The hub is a folder here; which of its files come is huggingface_hub's to say."""
    hub, cached = tmp_path / "hub", tmp_path / "cached"
    shutil.copytree(bert, hub)
    if card:
        (hub / "README.md").write_bytes(card)
    names = [path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()]

    def snapshot_download(name, *, allow_patterns, local_files_only, **_):
        if local_files_only:
            raise OSError("it is not in the cache")
        for one in huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns):
            (cached / one).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(hub / one, cached / one)
        return str(cached)

    siblings = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: siblings)
    files = find_model("org/tiny")
    assert files.yaml.languages == (("en",) if card else None)


def test_a_model_of_the_hub_without_weights_that_are_read(monkeypatch):
    def snapshot_download(*_, local_files_only, **__):
        assert local_files_only, "nothing travels"
        raise OSError("it is not in the cache")

    names = ("config.json", "pytorch_model.bin")
    siblings = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: siblings)
    with pytest.raises(ModelError, match=r"org/tiny: pytorch_model.bin is a pickle"):
        find_model("org/tiny")
