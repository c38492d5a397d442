"""What a model's digest covers: everything that shapes an answer, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.errors import ModelError

# Of a text model: what says how a text becomes tokens, and outputs labels.
_TEXT_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model",
)  # fmt: skip


def with_digest(files: ModelFiles, text_folder: Path | None = None) -> ModelFiles:
    """The files with `digest`, `weights` and `digest_covers`.

    `weights` covers the files alone. It is the key of what is compiled from them, so that another
    threshold or label makes another model and yet nothing is compiled anew.

    Args:
        files: all else is known of it.
        text_folder: of a text model, where its tokenizer and its configuration are.
    """
    sums: dict[str, str] = {}  # by role, so that a file may be called as one likes
    shown: dict[str, str] = {}
    for role, path in _files(files, text_folder):
        sums[role] = sha256(path)
        shown[role if role not in files.graphs else path.name] = sums[role]
    given = {
        "task": files.task,
        "labels": list(files.labels),
        "threshold": files.threshold,
        "features": list(files.features),
        "precision": files.precision,
        **files.yaml.answer_keys(),
    }
    keys = {name: value for name, value in given.items() if value not in (None, "", [])}
    return replace(
        files,
        weights=_of_json(sums),
        digest=_of_json({"files": sums, "keys": keys}),
        digest_covers={"files": shown, "keys": keys},
    )


def digest_of_several(parts: Sequence[ModelFiles]) -> str:
    """That of models which stand side by side: each, and the languages for which it is asked."""
    return _of_json([[files.digest, files.yaml.languages] for files in parts])


def _files(files: ModelFiles, text_folder: Path | None) -> Iterator[tuple[str, Path]]:
    for form, graph in files.graphs.items():
        for part in graph_files(form, graph):
            named = part.relative_to(graph if graph.is_dir() else graph.parent).as_posix()
            yield (form if part == graph else f"{form}:{named.removeprefix(graph.stem)}"), part
    for part in parts_of(files.float32):
        yield f"float32{part.suffix}", part
    if text_folder:
        for pattern in _TEXT_FILES:
            yield from ((path.name, path) for path in sorted(text_folder.glob(pattern)))


def graph_files(form: str, graph: Path) -> list[Path]:
    """The files that hold a graph and its weights, external data and shards included."""
    if form == "checkpoint":
        return sorted(graph.glob("model*.safetensors"))
    if form == "saved_model":
        parts = [path for name in ("variables", "assets") for path in (graph / name).rglob("*")]
        return [graph / "saved_model.pb", *sorted(path for path in parts if path.is_file())]
    return parts_of(graph)


def parts_of(graph: Path | None) -> list[Path]:
    """A graph's file and those next to it that hold its weights; none of none."""
    if graph is None:
        return []
    if graph.suffix == ".xml":
        others = [graph.with_suffix(".bin")]
    else:
        others = [graph.with_name(f"{graph.name}_data"), graph.with_name(f"{graph.name}.data")]
    return [graph, *(path for path in others if path.is_file())]


class ChecksumError(ModelError):
    """A file is not the one that `model.yaml` has the sum of."""


def verify(yaml_file: Path, sums: Mapping[str, str]) -> None:
    """Check the files that a YAML has the sums of.

    Raises:
        ModelError: one is missing.
        ChecksumError: one is another file.
    """
    for name, expected in sums.items():
        path = yaml_file.parent / name
        if not path.is_file():
            raise ModelError(f"{path}: missing; {yaml_file.name} lists it")
        if sha256(path) != expected.lower():
            raise ChecksumError(
                f"{path}: its SHA-256 is not the one in {yaml_file.name}; fetch it again"
            )


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
