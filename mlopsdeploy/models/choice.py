"""Which file a model runs from, on what, in which precision, and why these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.core import plugins
from mlopsdeploy.core.loading import preferred_runtimes
from mlopsdeploy.core.model import Model
from mlopsdeploy.model_files.cache import cache_folder
from mlopsdeploy.models.tables import proof_line


def choice(files: ModelFiles, model: Model, graph: Path, asked: str) -> dict[str, Any]:
    """What runs and why.

    Args:
        files: the model's.
        model: as it was loaded.
        graph: the file that its runtime opened.
        asked: the runtime that was asked for, or "auto".

    Returns:
        `runs`: the file and what it is of; `compiled`: its proof, if it was compiled here;
        `runtime_why`, `precision_why`.
    """
    name = type(model.runtime).__name__.lower()
    compiled = graph.is_relative_to(cache_folder())
    proof = _parity(graph) if compiled else {}
    form = next((form for form, path in files.graphs.items() if path == graph), "")
    made = next(iter(files.graphs)) if compiled else form
    return {
        "runs": f"{graph.name}, compiled here from {_NAMES.get(made, made)}"
        if compiled
        else graph.name,
        "compiled": proof,
        "runtime_why": _runtime_why(files, name, asked, proof),
        "precision_why": _precision_why(files, model, name),
    }


_NAMES = {"keras": "Keras", "saved_model": "a SavedModel", "checkpoint": "a checkpoint"}


def _parity(graph: Path) -> dict[str, Any]:
    try:
        proof = json.loads(graph.with_name("parity.json").read_text("utf-8"))
    except (OSError, ValueError):  # unpacked, which changes nothing
        return {}
    return proof if isinstance(proof, dict) else {}


def _runtime_why(files: ModelFiles, name: str, asked: str, proof: dict[str, Any]) -> str:
    if asked != "auto":
        return "asked for"
    if reason := proof.get("not_litert"):
        return f"LiteRT can't take it ({reason})"
    preferred = preferred_runtimes(files)
    before = [other for other in preferred[: preferred.index(name)] if other != name]
    if name not in preferred or not before:
        form = "text classifiers" if files.task == "text_classification" else "its format"
        return f"the first choice for {form}"
    missing = [other for other in before if not plugins.installed(other)]
    return f"{', '.join(missing)} is not installed"


def _precision_why(files: ModelFiles, model: Model, name: str) -> str:
    precision = model.runtime.precision
    if name in ("litert", "tflite", "tensorflow"):
        return "as the file is"
    if files.precision == precision:
        by = "; a float graph decides close calls" if files.float32 else ""
        proven = f": {proof_line(files.yaml.proof)}" if files.yaml.proof else ""
        return f"model.yaml says so{proven}{by}"
    choices = model.runtime.precisions
    if len(choices) < 2:
        return f"{name} runs files as they are"
    return "this CPU has it" if precision == "bfloat16" else "this CPU has no bfloat16"
