"""`mlopsdeploy models list` and `models prune`: what is here, and what of it can go."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mlopsdeploy.core.console import counted, facts
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import USED, cache_folder, delete, note_of
from mlopsdeploy.model_files.folder import home_of, proof_file, proof_in, weight_files
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.models.tables import ago, bytes_of, proof_line, size

KINDS = ("onnx", "litert", "tensorflow", "checkpoint", "int8")
# Of a proof, versions of what made the model.
TOOLS = ("torch", "transformers", "onnxruntime", "tensorflow", "keras", "nncf", "openvino")
DIGEST_SHOWN = 12


def list_models(*, cache: bool = False) -> dict[str, Any]:
    """What there is, ready for JSON.

    Args:
        cache: also what was compiled here, and what was downloaded from the hub.

    Returns:
        `built_in`: name, version, task, languages, bytes, digest, accuracy (the first line of the
        card's).
        With `cache`: its `folder`, `compiled`, last used first: kind, key, made_from and reference
        (empty where nobody knows), bytes, age_seconds, unused_seconds, tools (versions by name),
        proof; and `hub`: name, bytes.
    """
    built = [_built_in(name) for name in built_in()]
    found: dict[str, Any] = {"built_in": built}
    if cache:
        names = {model["digest"]: model["name"] for model in built}
        found |= {
            "folder": str(cache_folder()),
            "compiled": [_compiled(folder, names) for folder in _entries()],
            "hub": _hub(),
        }
    return found


def prune(
    keys: Sequence[str] = (),
    *,
    unused_for: float | None = None,
    max_size: int | None = None,
    pretend: bool = False,
) -> dict[str, Any]:
    """Delete compiled models. They are made again, and proven again, at their next use.

    Args:
        keys: beginnings of their keys or their kinds, as `models list --cache` shows them, or
            "all".
        unused_for: only what was not used for so many seconds; alone: of all.
        max_size: bytes that may stay, of all; what was not used for longest goes first.
        pretend: delete nothing, say what would be.

    Returns:
        `deleted`: as `compiled` of `list_models`; `kept`: what other processes use, likewise, or
        may not be deleted; `bytes`, `pretend`.

    Raises:
        ConfigError: nothing says what to delete, or no compiled model's key begins so.
    """
    if not keys and unused_for is None and max_size is None:
        raise ConfigError(
            "say what to delete: a key of 'models list --cache', all, --unused-for or --max-size"
        )
    entries = [_compiled(folder, {}) for folder in _entries()]
    for key in keys:
        if key != "all" and not any(_is_called(entry, key) for entry in entries):
            raise ConfigError(f"{key}: no compiled model has this key; see 'models list --cache'")
    chosen = [
        entry
        for entry in entries
        if (not keys or "all" in keys or any(_is_called(entry, key) for key in keys))
        and (unused_for is None or entry["unused_seconds"] > unused_for)
    ]
    if max_size is not None:  # as many, longest unused first, as bring all down to the size
        left = sum(entry["bytes"] for entry in entries)
        chosen.sort(key=lambda entry: -entry["unused_seconds"])
        before = itertools.accumulate((entry["bytes"] for entry in chosen), initial=0)
        chosen = [
            entry for entry, gone in zip(chosen, before, strict=False) if left - gone > max_size
        ]
    found: dict[str, Any] = {"deleted": [], "kept": []}
    for entry in chosen:
        gone = pretend or delete(cache_folder() / entry["kind"] / entry["folder"])
        found["deleted" if gone else "kept"].append(entry)
    freed = sum(entry["bytes"] for entry in found["deleted"])
    return {**found, "bytes": freed, "pretend": pretend}


def _is_called(entry: dict[str, Any], key: str) -> bool:
    return bool(key) and (entry["kind"] == key or entry["key"].startswith(key))


def _built_in(name: str) -> dict[str, Any]:
    try:
        files = find_model(name)
    except ModelError as error:  # a damaged file: the others are still there
        return {"name": name, "error": str(error), "digest": "", "bytes": 0}
    home = home_of(files)
    return {
        "name": files.name,
        "version": files.version,
        "task": files.task,
        "languages": list(files.yaml.languages or ()),
        "bytes": bytes_of(weight_files(files)),
        "digest": files.digest,
        "accuracy": accuracy_line(home / "MODEL_CARD.md") if home else "",
    }


def accuracy_line(card: Path) -> str:
    """The first thing that a model card says under "How accurate": a table's first row, or words.

    `SST-2 dev (872): float32 0.9037, int8 0.9037`.
    """
    try:
        text = card.read_text("utf-8")
    except OSError:
        return ""
    rest = text.partition("\n## How accurate")[2]
    lines = [line.strip() for line in rest.partition("\n## ")[0].splitlines()[1:] if line.strip()]
    if not lines:
        return ""
    if not lines[0].startswith("|"):
        first = re.split(r"(?<=[.!?])\W*\s", lines[0], maxsplit=1)[0]
        return first.replace("*", "").strip()
    head, row = (
        [cell.strip().replace("*", "") for cell in line.strip("|").split("|")]
        for line in (lines[0], lines[2] if len(lines) > 2 else lines[0])
    )
    values = [f"{name} {value}" for name, value in zip(head[1:], row[1:], strict=False)]
    return f"{row[0]}: {', '.join(values)}"


def _entries() -> list[Path]:
    """The folders of compiled models, and what a killed compiler left behind."""
    places = (cache_folder() / kind for kind in KINDS)
    found = [path for place in places if place.is_dir() for path in place.iterdir()]
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=_last_used, reverse=True)


def _made(folder: Path) -> float:
    """When; the proof is the last thing that a compiler writes."""
    return (proof_file(folder) or folder).stat().st_mtime


def _last_used(folder: Path) -> float:
    note = folder / USED
    return note.stat().st_mtime if note.is_file() else _made(folder)


def _compiled(folder: Path, names: dict[str, str]) -> dict[str, Any]:
    unfinished = folder.name.startswith(".building-")
    proof, note = proof_in(folder), note_of(folder)
    digest = folder.name.partition("-")[0]
    known = next((name for full, name in names.items() if full.startswith(digest)), "")
    now = time.time()
    return {
        "kind": folder.parent.name,
        "key": folder.name.lstrip("."),
        "folder": folder.name,
        "made_from": "an unfinished compilation" if unfinished else known or note.get("name", ""),
        "reference": note.get("reference", known),
        "bytes": _size(folder),
        "age_seconds": round(max(now - _made(folder), 0)),
        "unused_seconds": round(max(now - _last_used(folder), 0)),
        "tools": {name: proof[name] for name in TOOLS if name in proof},
        "proof": proof,
    }


def _hub() -> list[dict[str, Any]]:
    """Models that `huggingface_hub` has downloaded; it deletes them: `hf cache rm`."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    place = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    if not place.is_dir():
        return []
    return [
        {
            "name": folder.name.removeprefix("models--").replace("--", "/"),
            "bytes": _size(folder / "blobs"),
        }
        for folder in sorted(place.glob("models--*"))
    ]


def _size(folder: Path) -> int:
    return bytes_of(path for path in folder.rglob("*") if path.is_file())


def show_list(found: dict[str, Any], console: Console) -> None:
    """What `list_models` found, as people read it."""
    for model in found["built_in"]:
        console.print(f"[bold]{model['name']}[/] {model.get('version', '')}".rstrip())
        if "error" in model:
            console.print(f"  damaged: {model['error']}", style="red", markup=False)
            continue
        lines = [
            ("  task", model["task"].replace("_", " ")),
            ("  languages", ", ".join(model["languages"])),
            ("  size", size(model["bytes"])),
            ("  accuracy", model["accuracy"]),
            ("  digest", model["digest"][:DIGEST_SHOWN]),
        ]
        console.print(facts(lines))
    if "compiled" in found:
        _show_cache(found, console)


def _show_cache(found: dict[str, Any], console: Console) -> None:
    total = size(sum(entry["bytes"] for entry in found["compiled"]))
    console.print(f"\n[bold]compiled here[/], {total} in {found['folder']}", soft_wrap=True)
    for entry in found["compiled"]:
        made_from, tools = entry["made_from"] or "of an unknown model", entry["tools"]
        title = Text(f"{entry['key'][:DIGEST_SHOWN]}  ", style="bold")
        console.print(title.append(f"{made_from} as {entry['kind']}", "not bold"))
        made, used = ago(entry["age_seconds"]), ago(entry["unused_seconds"])
        versions = ", ".join(f"{name} {version}" for name, version in tools.items())
        lines = [
            ("  made from", entry["reference"] if entry["reference"] != entry["made_from"] else ""),
            ("  size", size(entry["bytes"])),
            ("  made", f"{made}, with {versions}" if versions else made),
            ("  last used", used if used != made else ""),
            ("  proof", proof_line(entry["proof"])),
        ]
        console.print(facts(lines))
    if found["compiled"]:
        console.print("delete with: mlopsdeploy models prune KEY…", style="dim")
    if found["hub"]:
        console.print("\n[bold]downloaded from the hub[/]")
        console.print(facts((model["name"], size(model["bytes"])) for model in found["hub"]))


def show_prune(found: dict[str, Any], console: Console) -> None:
    """What `prune` did."""
    for entry in found["deleted"]:
        console.print(f"{entry['kind']}/{entry['key']}  {size(entry['bytes'])}")
    for entry in found["kept"]:
        console.print(f"{entry['kind']}/{entry['key']}  kept: in use, or may not be deleted")
    word = "would be deleted" if found["pretend"] else "deleted"
    many = counted(len(found["deleted"]), "compiled model")
    console.print(f"{many}, {size(found['bytes'])}, {word}")
