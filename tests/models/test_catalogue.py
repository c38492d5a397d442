"""What is here, and what of it can go."""

import json
import os
import time

import pytest
from typer.testing import CliRunner

from mlopsdeploy.cli import app
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.models.catalogue import accuracy_line, list_models, prune, show_list, show_prune
from mlopsdeploy.settings import units


@pytest.fixture
def full_cache(tmp_path, monkeypatch):
    """Two compiled models, the first of them of the built-in fraud, and what a kill left."""
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    known = find_model("fraud").digest[:32]
    proof = {"largest_difference": 1e-7, "label_flips": 0, "rows": 14, "keras": "3.15.1"}
    for kind, key, days in (("litert", f"{known}-keras", 1), ("onnx", "abcd" * 8, 40)):
        folder = tmp_path / "cache" / kind / key
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"x" * 1000)
        (folder / "parity.json").write_text(json.dumps(proof), "utf-8")
        then = time.time() - days * 86_400
        for path in (folder / "parity.json", folder):
            os.utime(path, (then, then))
    (tmp_path / "cache" / "onnx" / ".building-xyz").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    blobs = tmp_path / "hub" / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "weights").write_bytes(b"x" * 2000)


def test_the_built_in_models_with_what_their_cards_say(shown):
    found = list_models()
    assert [model["name"] for model in found["built_in"]] == list(built_in())
    by_name = {model["name"]: model for model in found["built_in"]}
    assert by_name["sentiment"]["accuracy"].startswith("SST-2 dev (872): float32 0.9")
    assert by_name["detector"]["accuracy"].startswith("AP50 0.75 on 60 photographs")
    languages = {name: model["languages"] for name, model in by_name.items()}
    assert languages == {
        "detector": [],
        "detector-fast": [],
        "fraud": [],
        "sentiment": ["en"],
        "sentiment-zh": ["zh"],
    }
    assert by_name["fraud"]["digest"] == find_model("fraud").digest
    assert by_name["sentiment"]["bytes"] > 20_000_000
    text = shown(show_list, found)
    assert all(name in text for name in built_in())
    assert "compiled here" not in text


def test_the_cache_says_what_was_made_from_what(full_cache, hub, shown):
    found = list_models(cache=True)
    entries = {
        entry["kind"]: entry for entry in found["compiled"] if "building" not in entry["key"]
    }
    assert entries["litert"]["made_from"] == "fraud"
    assert entries["onnx"]["made_from"] == ""
    assert entries["onnx"]["bytes"] > 1000
    assert entries["onnx"]["proof"]["rows"] == 14
    assert entries["onnx"]["age_seconds"] == pytest.approx(40 * 86_400, abs=60)
    assert entries["onnx"]["tools"] == {"keras": "3.15.1"}
    assert found["hub"] == [{"name": "org/name", "bytes": 2000}]
    text = shown(show_list, found)
    assert "40 days ago, with keras 3.15.1" in text
    assert "org/name" in text


def test_a_model_that_is_used_is_noted_by_its_name(bert_checkpoint, tmp_path, monkeypatch, shown):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    load_model(str(bert_checkpoint), runtime="onnxruntime", threads=1)
    (entry,) = list_models(cache=True)["compiled"]
    assert (entry["kind"], entry["made_from"]) == ("onnx", bert_checkpoint.name)
    assert entry["reference"] == str(bert_checkpoint)
    assert entry["unused_seconds"] < 60
    assert {"torch", "onnxruntime"} <= set(entry["tools"])
    folder = tmp_path / "cache" / "onnx" / entry["folder"]
    then = time.time() - 50 * 86_400
    for path in (folder, *folder.iterdir()):
        os.utime(path, (then, then))
    text = shown(show_list, list_models(cache=True))
    assert f"{bert_checkpoint.name} as onnx" in text
    assert "last used" not in text  # when it was made
    load_model(str(bert_checkpoint), runtime="onnxruntime", threads=1)
    (entry,) = list_models(cache=True)["compiled"]
    assert entry["unused_seconds"] < 60
    assert entry["age_seconds"] == pytest.approx(50 * 86_400, abs=60)
    assert "last used  now" in shown(show_list, list_models(cache=True))
    assert prune(unused_for=86_400)["deleted"] == []


def test_a_damaged_note_or_proof_hides_nothing(full_cache):
    folder = full_cache / "onnx" / ("abcd" * 8)
    (folder / "used.json").write_text('{"name": ', "utf-8")
    (folder / "parity.json").write_text("", "utf-8")
    entry = next(e for e in list_models(cache=True)["compiled"] if e["key"].startswith("abcd"))
    assert (entry["made_from"], entry["proof"], entry["tools"]) == ("", {}, {})


def test_prune_deletes_by_key_by_age_and_all(full_cache, shown):
    with pytest.raises(ConfigError, match="say what to delete"):
        prune()
    with pytest.raises(ConfigError, match="zzz: no compiled model has this key"):
        prune(["zzz"])
    pretended = prune(["all"], pretend=True)
    assert len(pretended["deleted"]) == 3
    assert "3 compiled models" in shown(show_prune, pretended)
    assert len(list_models(cache=True)["compiled"]) == 3
    assert [entry["key"] for entry in prune(unused_for=30 * 86_400)["deleted"]] == ["abcd" * 8]
    assert len(prune(["onnx"], pretend=True)["deleted"]) == 1  # a kind
    prune(["building"])
    left = list_models(cache=True)["compiled"]
    assert [entry["kind"] for entry in left] == ["litert"]
    assert prune([left[0]["key"][:6]])["bytes"] == left[0]["bytes"]
    assert list_models(cache=True)["compiled"] == []


def test_prune_to_a_size_keeps_what_was_used_last(full_cache):
    assert prune(max_size=10_000)["deleted"] == []
    assert [entry["key"] for entry in prune(max_size=1500)["deleted"]] == ["abcd" * 8]
    assert any(entry["kind"] == "litert" for entry in list_models(cache=True)["compiled"])


def test_how_times_and_sizes_are_said():
    assert [units.days(text) for text in ("12h", "30d", "2w", "1.5")] == [
        43_200, 2_592_000, 1_209_600, 129_600,
    ]  # fmt: skip
    assert [units.size(text) for text in ("2GB", "1.5 mb", "700")] == [2 * 10**9, 1_500_000, 700]
    for flag, value in (("--unused-for", "soon"), ("--max-size", "2 pints")):
        result = CliRunner().invoke(app, ["models", "prune", flag, value])
        assert isinstance(result.exception, ConfigError)
        assert str(result.exception).startswith(f"{flag}: '{value}': expected a ")


def test_the_command_takes_keys(full_cache):
    result = CliRunner().invoke(app, ["models", "prune", "onnx", "building"])
    assert result.exit_code == 0, result.exception
    assert "2 compiled models" in result.stdout
    assert [entry["kind"] for entry in list_models(cache=True)["compiled"]] == ["litert"]


def test_prune_follows_no_link_out_of_the_cache(full_cache, tmp_path):
    outside = tmp_path / "mine"
    outside.mkdir()
    (outside / "file").write_text("kept", "utf-8")
    (full_cache / "onnx" / "link").symlink_to(outside)
    prune(["all"])
    assert (outside / "file").read_text("utf-8") == "kept"


def test_a_card_without_a_table_is_quoted(tmp_path):
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("# x\n\n## How accurate it is\n\nGood enough. No more.\n\n## Else\n", "utf-8")
    assert accuracy_line(card) == "Good enough."
    assert accuracy_line(tmp_path / "none.md") == ""
