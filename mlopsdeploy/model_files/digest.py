"""What a model's digest covers: everything that shapes an answer, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.json_file import read_json
from mlopsdeploy.model_files.onnx_file import external_files
from mlopsdeploy.model_files.openvino_written import described_in

# Of a text model: what says how a text becomes tokens, and outputs labels.
_TEXT_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model",
)  # fmt: skip

KERAS_2 = "keras_metadata.pb"
"""Beside the graph of a SavedModel: its layers, and how they were trained."""


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
        yield from ((_role(form, graph, part), part) for part in graph_files(form, graph))
    if files.float32:
        for part in parts_of(files.float32):
            alike = part.with_suffix("") == files.float32.with_suffix("")
            role = f"float32{part.suffix}" if alike else _role("float32", files.float32, part)
            yield role, part
    if text_folder:
        for pattern in _TEXT_FILES:
            yield from ((path.name, path) for path in sorted(text_folder.glob(pattern)))


def _role(form: str, graph: Path, part: Path) -> str:
    """What a file is to its graph, where that may be called as one likes; else its name."""
    if part == graph:
        return form
    if graph.suffix == ".xml":
        return f"{form}:{part.suffix}"
    home = graph if graph.is_dir() else graph.parent
    return f"{form}:{part.relative_to(home).as_posix()}"


def graph_files(form: str, graph: Path) -> list[Path]:
    """The files that hold a graph and its weights, external data and shards included.

    Raises:
        ModelError: one that the graph names is missing, or outside of the model's folder.
    """
    if form == "checkpoint":
        return _shards(graph)
    if form == "saved_model":
        found = [path for name in ("variables", "assets") for path in (graph / name).rglob("*")]
        parts = sorted(path for path in (graph / KERAS_2, *found) if path.is_file())
        for part in parts:
            if within(graph, str(part.relative_to(graph))) is None:
                raise ModelError(f"{part}: leads to a file outside of the model's folder")
        return [graph / "saved_model.pb", *parts]
    return parts_of(graph)


def _shards(checkpoint: Path) -> list[Path]:
    """The safetensors of a checkpoint; those beyond the first are named in an index."""
    index = checkpoint / "model.safetensors.index.json"
    named = read_json(index).get("weight_map", {})
    found = set(checkpoint.glob("model*.safetensors"))
    for name in sorted(set(map(str, named.values()))) if isinstance(named, dict) else ():
        place = within(checkpoint, name)
        if place is None:
            raise ModelError(f"{index}: names {name[:80]}, which lies outside of its folder")
        if not place.is_file():
            raise ModelError(f"{place}: missing; {index.name} names it")
        found.add(place)
    return sorted(found)


def parts_of(graph: Path | None) -> list[Path]:
    """A graph's file and those next to it that hold its weights and tell of it; none of none.

    Raises:
        ModelError: as `graph_files` does.
    """
    if graph is None:
        return []
    if graph.suffix == ".onnx":
        return [graph, *external_files(graph)]
    if graph.suffix != ".xml":
        return [graph]
    weights = graph.with_suffix(".bin")
    described = described_in(graph)
    return [graph, *[weights] * weights.is_file(), *([described] if described else [])]


class ChecksumError(ModelError):
    """A file is not the one that `model.yaml` has the sum of."""


def verify(yaml_file: Path, sums: Mapping[str, str]) -> None:
    """Check the files that a YAML has the sums of.

    Raises:
        ModelError: one is missing.
        ChecksumError: one is another file.
    """
    for name, expected in sums.items():
        path = within(yaml_file.parent, name)
        if path is None:
            raise ModelError(f"{yaml_file}: lists {name[:80]}, which lies outside of its folder")
        if not path.is_file():
            raise ModelError(f"{path}: missing; {yaml_file.name} lists it")
        if sha256(path) != expected.lower():
            raise ChecksumError(
                f"{path}: its SHA-256 is not the one in {yaml_file.name}; fetch it again"
            )


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits.

    Raises:
        ModelError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from error


def _of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
