"""Folders without tokenizer.json get one, with the tokens that transformers gives."""

import json
import shutil
import sys

import pytest
import transformers

from mlopsdeploy.columns import objects
from mlopsdeploy.convert import child, tokenizer
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good", "cafe", "café", "很", ".",
         "##s"]  # fmt: skip
TEXTS = ["Good cafés.", "CAFÉ 很很 good"]


@pytest.fixture
def folder(bert_checkpoint, tmp_path, monkeypatch):
    """The tiny checkpoint with a vocab.txt in place of its tokenizer.json."""
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    made = shutil.copytree(bert_checkpoint, tmp_path / "model")
    (made / "tokenizer.json").unlink()
    (made / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    return made


def config(folder, **keys):
    (folder / "tokenizer_config.json").write_text(json.dumps(keys), "utf-8")


@pytest.mark.parametrize(
    "keys",
    [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False},
     {"tokenize_chinese_chars": False}],
)  # fmt: skip
def test_a_vocabulary_alone(folder, keys):
    config(folder, tokenizer_class="BertTokenizer", **keys)
    said = []
    model = load_model(str(folder), runtime="torch", threads=1, log=said.append)
    assert "making a tokenizer.json of vocab.txt, once" in said
    given = transformers.AutoTokenizer.from_pretrained(folder)
    ids = model.task.encode({"text": objects(TEXTS)})["input_ids"]
    assert [row.tolist() for row in ids] == [given(text)["input_ids"] for text in TEXTS]
    load_model(str(folder), runtime="torch", threads=1, log=said.append)
    assert len(said) == 1
    assert not (folder / "tokenizer.json").exists()


def test_another_configuration_is_another_tokenizer(folder):
    config(folder, tokenizer_class="BertTokenizer", do_lower_case=True)
    one = tokenizer.as_json(folder / "vocab.txt")
    config(folder, tokenizer_class="BertTokenizer", do_lower_case=False)
    assert tokenizer.as_json(folder / "vocab.txt") != one


def test_one_that_works_in_python_alone(folder):
    config(folder, tokenizer_class="CanineTokenizer")
    with pytest.raises(ModelError, match="can't make one of vocab.txt") as raised:
        tokenizer.as_json(folder / "vocab.txt")
    assert "\n" not in str(raised.value)


def test_one_that_is_broken(folder):
    config(folder, tokenizer_class="GPT2Tokenizer")
    (folder / "vocab.json").write_text("[]")
    with pytest.raises(ModelError, match="can't make one of vocab.json"):
        tokenizer.as_json(folder / "vocab.json")


def test_without_transformers_there_is_a_hint(folder, monkeypatch):
    monkeypatch.setattr(child, "installed", lambda name: False)
    with pytest.raises(ModelError, match=r"needs transformers: pip install 'mlopsdeploy\[torch\]'"):
        tokenizer.as_json(folder / "vocab.txt")


def test_nothing_to_make_one_of(folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match="nor what one could be made from"):
        load_model(str(folder), runtime="torch", threads=1)
    assert "transformers" in sys.modules
