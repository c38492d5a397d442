"""What is here, and what of it can go."""

import json
import os
import time

import pytest

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.models import find_model
from mlopsdeploy.models.files import built_in
from mlopsdeploy.models_command.catalogue import (
    accuracy_line,
    list_models,
    prune,
    show_list,
    show_prune,
)


@pytest.fixture
def full_cache(tmp_path, monkeypatch):
    """Two compiled models, the first of them of the built-in fraud, and what a kill left."""
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    known = find_model("fraud").digest[:32]
    proof = {"largest_difference": 1e-7, "label_flips": 0, "rows": 14}
    for kind, key, days in (("litert", f"{known}-keras", 1), ("onnx", "abcd" * 8, 40)):
        folder = tmp_path / "cache" / kind / key
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"x" * 1000)
        (folder / "parity.json").write_text(json.dumps(proof), "utf-8")
        then = time.time() - days * 86_400
        os.utime(folder, (then, then))
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
    assert by_name["detector"]["accuracy"] == "We don't know."
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
    assert found["hub"] == [{"name": "org/name", "bytes": 2000}]
    text = shown(show_list, found)
    assert "40 days" in text
    assert "org/name" in text


def test_prune_deletes_by_key_by_age_and_all(full_cache, shown):
    with pytest.raises(ConfigError, match="say what to delete"):
        prune()
    with pytest.raises(ConfigError, match="zzz: no compiled model has this key"):
        prune(["zzz"])
    pretended = prune(["all"], pretend=True)
    assert len(pretended["deleted"]) == 3
    assert "3 compiled models" in shown(show_prune, pretended)
    assert len(list_models(cache=True)["compiled"]) == 3
    assert [entry["key"] for entry in prune(older_than_days=30)["deleted"]] == ["abcd" * 8]
    assert len(prune(["onnx"], pretend=True)["deleted"]) == 1  # a kind
    prune(["building"])
    left = list_models(cache=True)["compiled"]
    assert [entry["kind"] for entry in left] == ["litert"]
    assert prune([left[0]["key"][:6]])["bytes"] == left[0]["bytes"]
    assert list_models(cache=True)["compiled"] == []


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
