"""A checkpoint is compiled once, with its proof beside it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from mlopsdeploy.columns import objects
from mlopsdeploy.convert import checkpoint
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ModelError

from ..conftest import POSITIONS


@pytest.fixture
def rows(tmp_path):
    """A CSV file of one row, in the folder where commands run."""
    (tmp_path / "r.csv").write_text("id,review_text\n1,good\n", "utf-8")
    return "r.csv"


def test_exports_once_and_keeps_the_proof(bert_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path))
    said = []
    file = checkpoint.to_onnx(bert_checkpoint, "a" * 64, POSITIONS, log=said.append)
    assert file == tmp_path / "onnx" / ("a" * 32) / "model.onnx"
    proof = json.loads((file.parent / "parity.json").read_text("utf-8"))
    assert proof["largest_difference"] <= checkpoint.LARGEST_DIFFERENCE
    assert proof["label_flips"] == 0
    assert proof["rows"] >= 4
    assert {"torch", "transformers"} <= set(proof)
    assert len(said) == 2
    assert "labels changed 0" in said[1]
    before = file.stat().st_mtime_ns
    assert checkpoint.to_onnx(bert_checkpoint, "a" * 64, POSITIONS, log=said.append) == file
    assert file.stat().st_mtime_ns == before
    assert len(said) == 2, "the second call has nothing to say"
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["a" * 32]


def test_the_command_exports_on_first_use(mlopsdeploy, checkpoints, rows, tmp_path):
    own = {"MLOPSDEPLOY_CACHE": str(tmp_path / "cache")}
    arguments = ("batch", rows, "--model", checkpoints["DistilBert"])
    first = mlopsdeploy(*arguments, env=own)
    assert first.code == 0, first
    assert "to ONNX, once" in first.err
    assert len(list((tmp_path / "cache").rglob("parity.json"))) == 1
    second = mlopsdeploy(*arguments, env=own)
    assert second.code == 0, second
    assert "ONNX, once" not in second.err


def test_a_model_with_few_positions(tmp_path, bert_checkpoint):
    """The rows of the proof may not be longer than the model takes."""
    import torch
    import transformers

    folder = shutil.copytree(bert_checkpoint, tmp_path / "short")
    config = transformers.AutoConfig.from_pretrained(bert_checkpoint)
    config.max_position_embeddings = 40
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    model = load_model(str(folder), runtime="onnxruntime", threads=1)
    result = model.predict_columns({"text": objects(["good " * 100, "bad"])})
    assert result["truncated"].tolist() == [True, False]


@pytest.mark.parametrize("package", ["torch", "transformers", "onnx"])
def test_without_the_framework_there_is_a_hint(mlopsdeploy, checkpoints, rows, tmp_path, package):
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n",
        "utf-8",
    )
    done = mlopsdeploy(
        "batch", rows, "--model", checkpoints["Roberta"],
        env={"MLOPSDEPLOY_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(hide)},
    )  # fmt: skip
    assert done.code == 2, done
    assert len(done.lines) == 1
    assert f"needs {package}: pip install 'mlopsdeploy[torch]'" in done.err


def test_a_checkpoint_that_cannot_be_exported(tmp_path, bert_checkpoint, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(bert_checkpoint, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="transformers can't load it") as raised:
        checkpoint.to_onnx(folder, "b" * 64, POSITIONS)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "cache" / "onnx").iterdir()) == []


def test_the_export_does_not_load_torch_into_the_process_that_scores(checkpoints, tmp_path):
    script = (
        "import sys; from mlopsdeploy.core.loading import load_model;"
        f"load_model({str(checkpoints['Bert'])!r}, threads=1);"
        "assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env={**os.environ})


def test_a_folder_as_it_lies_on_the_hub_needs_no_export(onnx_folders, tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    model = load_model(str(onnx_folders["Roberta"]), threads=1)
    assert model.task.labels == ("NEGATIVE", "POSITIVE")
    assert not (tmp_path / "cache").exists()


def test_a_hub_id_is_read_from_the_hubs_cache(mlopsdeploy, onnx_folders, rows, tmp_path):
    """As huggingface_hub lays it out; revision and blobs as links are the same to us."""
    snapshot = tmp_path / "hub" / "models--org--tiny-v1.5" / "snapshots" / ("0" * 40)
    shutil.copytree(onnx_folders["Bert"], snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    for reference in ("org/tiny-v1.5", "org/tiny-v1.5@main"):
        done = mlopsdeploy(
            "batch", rows, "--model", reference, "--json",
            env={"HF_HUB_CACHE": str(tmp_path / "hub")},
        )  # fmt: skip
        assert done.code == 0, done
        assert json.loads(done.out)["model"]["name"] == reference
