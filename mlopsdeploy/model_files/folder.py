"""A model as a folder that `--model` takes: its graph, what is needed beside it, `model.yaml`."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.cache import appearing
from mlopsdeploy.model_files.digest import graph_files, parts_of, sha256
from mlopsdeploy.model_files.huggingface import TASKS, TOKENIZER_SOURCES

# Of a text classifier: how texts become tokens, and what its outputs are called.
BESIDE_TEXT = ("config.json", "tokenizer.json", "tokenizer_config.json")
# What says where a model comes from goes where the model goes.
PAPERS = ("MODEL_CARD.md", "README.md", "LICENSE", "LICENSE.txt", "NOTICE")
# Of a model.yaml, what is not true of a model that is made of that one.
_MADE_ANEW = ("sha256", "precision", "float32")
PROOFS = ("proof.json", "parity.json")
NAMES = {"onnx": "model.onnx", "tflite": "model.tflite", "openvino": "openvino_model.xml"}


def home_of(files: ModelFiles) -> Path | None:
    """The model's own folder; None where it is a file that may lie anywhere."""
    if files.tokenizer is not None:
        return files.tokenizer.parent
    graph = next(iter(files.graphs.values()))
    folder = graph if graph.is_dir() else graph.parent
    if (folder / "config.json").is_file() and folder.name == "onnx":
        return folder.parent
    return folder if (folder / "model.yaml").is_file() else None


def weight_files(files: ModelFiles) -> list[Path]:
    """The files that hold the graphs and their weights; of several models those of all."""
    found = [part for form, graph in files.graphs.items() for part in graph_files(form, graph)]
    found += parts_of(files.float32)
    return found + [file for part in files.parts for file in weight_files(part)]


def origin(files: ModelFiles) -> dict[str, str]:
    """Which model another one is made from, for its `model.yaml`."""
    return {"name": files.name, "version": files.version, "digest": files.digest}


def write_folder(
    output: Path,
    files: ModelFiles,
    form: str,
    graph: Path,
    keys: Mapping[str, Any],
    *,
    floating: Path | None = None,
    prove: Callable[[Path], None] = lambda _: None,
) -> list[Path]:
    """Write a model so that `--model OUTPUT` runs it; whole or not at all.

    Args:
        output: a folder; one that is there is replaced, see `checked_output`.
        files: the model that it was made from: labels, features and tokenizer are its.
        form: "onnx", "tflite" or "openvino".
        graph: the file to run.
        keys: of `model.yaml`, over those that it had before, such as a proof.
        floating: of a quantised graph, the one in float32 that decides its close calls.
        prove: called with the folder before it is in its place; raises if it must not get there.

    Returns:
        The files written.
    """
    with appearing(output.resolve(), replace=True) as building:
        home = home_of(files)
        for part in parts_of(graph):
            # What another name goes by is named in the ONNX file, or has a name of its own.
            renamed = part == graph or (form != "onnx" and part.stem == graph.stem)
            name = Path(NAMES[form]).stem + part.suffix if renamed else None
            _copy(part, building, name or part.relative_to(graph.parent))
        if floating:
            keys = {**keys, "float32": floating.name}
            for part in parts_of(floating):
                _copy(part, building, part.relative_to(floating.parent))
        text = files.task in TASKS and files.tokenizer is not None
        beside: tuple[str, ...] = BESIDE_TEXT if text else ()
        if text and files.tokenizer and files.tokenizer.name != "tokenizer.json":
            beside += (*TOKENIZER_SOURCES, "merges.txt", "added_tokens.json")
        for name in (*beside, *PAPERS):
            if home and (paper := within(home, name)) and paper.is_file():
                shutil.copyfile(paper, building / name)
        made = [path for path in _all_in(building) if path.name not in PAPERS]
        sums = {path.relative_to(building).as_posix(): sha256(path) for path in made}
        document = {**_facts(files), **keys, "sha256": sums}
        (building / "model.yaml").write_text(
            "# Written by mlopsdeploy; the folder is what --model takes.\n"
            + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
            "utf-8",
        )
        building.chmod(0o755)  # others may run it
        prove(building)
    return _all_in(output)


def _copy(part: Path, folder: Path, name: str | Path) -> None:
    """A file into a new folder, unless there is one of that name that is another."""
    target = folder / name
    if target.exists() and not filecmp.cmp(part, target, shallow=False):
        raise ModelError(f"{part}: the model has two files called {name}; call one of them else")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(part, target)


def _all_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _facts(files: ModelFiles) -> dict[str, Any]:
    """The keys of the old `model.yaml`, and what was read elsewhere."""
    known: dict[str, Any] = {
        "name": files.name.rpartition("/")[2],
        "version": files.version,
        "task": files.task,
    }
    if files.tokenizer is None:  # else config.json names them
        known |= {"labels": list(files.labels), "features": list(files.features)}
    known = {key: value for key, value in known.items() if value}
    if files.threshold is not None:
        known["threshold"] = files.threshold
    kept = {key: value for key, value in files.yaml.written().items() if key not in _MADE_ANEW}
    return {**known, **kept, **{key: known[key] for key in ("labels",) if key in known}}


def proof_file(folder: Path) -> Path | None:
    """Where a compiler has written its proof into a folder."""
    return next((path for name in PROOFS if (path := folder / name).is_file()), None)


def proof_in(folder: Path) -> dict[str, Any]:
    """That proof; empty where there is none, or it is cut off."""
    file = proof_file(folder)
    try:
        proof = json.loads(file.read_text("utf-8")) if file else {}
    except (OSError, ValueError):  # the model is compiled again when it is used
        return {}
    return proof if isinstance(proof, dict) else {}
