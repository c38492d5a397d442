"""The model as a package carries it: the one file that runs, its `model.yaml`, its sums.

What a training framework made is compiled here, so that none is needed there: a checkpoint to
ONNX, a Keras model to LiteRT with its parity proof. A built-in model stays in mlopsdeploy's wheel,
which the lock file pins.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlopsdeploy.columns import ModelFiles, objects
from mlopsdeploy.compile import checkpoint, keras
from mlopsdeploy.config import Running
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model import Model, load_model
from mlopsdeploy.models import find_model
from mlopsdeploy.models.cache import cache_folder
from mlopsdeploy.models.files import built_in
from mlopsdeploy.package.plan import PackedModel

FRAMEWORKS = {"torch", "tensorflow"}
# Beside a text model's weights: what says its labels and how it reads.
_TEXT_FILES = ("config.json", "tokenizer*", "vocab.*", "merges.txt", "*.model")
_WEIGHTS = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "openvino_model.xml"}


def pack(
    reference: str,
    name: str,
    running: Running,
    models: Path,
    say: Callable[[str], None],
    features: tuple[str, ...] = (),
) -> PackedModel:
    """Put a model into the package.

    Args:
        reference: as `find_model` takes it.
        name: of its folder in `models`.
        running: how it runs.
        models: the package's folder of models.
        say: told what takes long.
        features: of a tabular model whose files don't name them.

    Raises:
        ConfigError: it runs in a training framework, which no package carries.
        ModelError: it can't be loaded, or would answer differently from its package.
    """
    files = find_model(reference)
    original = _load(reference, running, features, say)
    runtime = type(original.runtime).__module__.rpartition(".")[2]
    if runtime in FRAMEWORKS:
        raise ConfigError(
            f"{reference}: runs in {runtime}, a training framework, and a package has none; "
            "set 'runtime: onnxruntime', 'openvino' or 'litert', whichever can take it"
        )
    if reference in built_in():
        folder, size = Path(reference), 0
        digest = files.digest
    else:
        folder = models / name
        folder.mkdir(parents=True)
        _copy(files, original, folder, say, running)
        digest = find_model(str(folder)).digest  # which verifies the sums as well
        pinned = running.model_copy(update={"runtime": runtime})
        _same_answers(original, _load(str(folder), pinned, features, say), reference)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return PackedModel(
        name=name,
        version=original.version,
        digest=digest,
        source=reference,
        built_in=reference in built_in(),
        runtime=runtime,
        task=_task(original),
        bytes=size,
    )


def _load(
    reference: str, running: Running, features: tuple[str, ...], say: Callable[[str], None]
) -> Model:
    return load_model(
        reference,
        runtime=running.runtime,
        precision=running.precision,
        threads=1,
        features=features,
        trust_model=running.trust_model,
        say=say,
    )


def _task(model: Model) -> str:
    return type(model.task).__module__.rpartition(".")[2]


def _copy(
    files: ModelFiles,
    model: Model,
    folder: Path,
    say: Callable[[str], None],
    running: Running,
) -> None:
    format_, graph = _lean(files, model, say, running)
    target = folder / _WEIGHTS[format_]
    shutil.copyfile(graph, target)
    if format_ == "openvino":
        shutil.copyfile(graph.with_suffix(".bin"), target.with_suffix(".bin"))
    for weights in (graph.with_name(f"{graph.name}_data"), graph.with_name(f"{graph.name}.data")):
        if not weights.is_file():
            continue
        if graph.name != target.name:  # the ONNX file names the other one
            raise ModelError(
                f"{graph}: keeps its weights in a second file; call it model.onnx, in a folder of "
                "its own with a model.yaml, and package that folder"
            )
        shutil.copyfile(weights, folder / weights.name)
    proof = graph.with_name("parity.json")
    if proof.is_file():
        shutil.copyfile(proof, folder / proof.name)
    if files.task == "text_classification":
        source = _home(files)
        for pattern in _TEXT_FILES:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, folder / path.name)
    said = _description(files, model)
    said["sha256"] = {
        str(path.relative_to(folder)): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    text = "# Written by 'mlopsdeploy package'; the sums are verified at every start.\n"
    text += yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
    (folder / "model.yaml").write_text(text, "utf-8")


def _lean(
    files: ModelFiles, model: Model, say: Callable[[str], None], running: Running
) -> tuple[str, Path]:
    """The format and the file that the model's runtime opens, free of any framework."""
    formats = getattr(type(model.runtime), "formats", ())
    for format_ in formats:
        if format_ in files.graphs and format_ in _WEIGHTS:
            return format_, files.graphs[format_]
    if "onnx" in formats and "checkpoint" in files.graphs:
        source = files.graphs["checkpoint"]
        return "onnx", checkpoint.to_onnx(source, cache_folder(), files.digest, say=say)
    if "tflite" in formats:
        source = files.graphs.get("keras") or files.graphs["saved_model"]
        compiled = keras.compile_model(
            source,
            cache_folder(),
            files.digest,
            target="tflite",
            trust_model=running.trust_model,
            say=say,
        )
        return "tflite", compiled
    raise ModelError(f"{files.name}: none of {', '.join(files.graphs)} can be packaged")


def _home(files: ModelFiles) -> Path:
    """The folder of a text model."""
    graph = next(iter(files.graphs.values()))
    folder = graph if graph.is_dir() else graph.parent
    return folder if (folder / "config.json").is_file() else folder.parent


def _description(files: ModelFiles, model: Model) -> dict[str, Any]:
    """`model.yaml`: what the original's says, and what was found out beside it."""
    found = {
        "name": files.name,
        "version": files.version,
        "task": files.task or _task(model),
        "labels": list(files.labels),
        "threshold": files.threshold,
        "precision": files.precision,
        "features": list(files.features),
    }
    known = {key: value for key, value in found.items() if value not in (None, "", [])}
    return {**files.said, **known}


def _same_answers(original: Model, packed: Model, reference: str) -> None:
    """Ask both about the same two rows."""
    row = {field.name: _values(field.dtype, field.shape) for field in original.task.inputs}
    ours, theirs = original.predict(row), packed.predict(row)
    for name, values in ours.items():
        alike = (
            np.allclose(values.astype(float), theirs[name].astype(float), atol=1e-6, equal_nan=True)
            if values.dtype.kind in "fiub"
            else str(values.tolist()) == str(theirs[name].tolist())
        )
        if not alike:
            raise ModelError(
                f"{reference}: as packaged it answers differently ({name}); this is a mistake of "
                "ours, please report it"
            )


def _values(dtype: str, shape: tuple[int, ...]) -> Any:
    """Two rows that any model takes."""
    if dtype == "str":
        return objects(["It works.", "It broke after two days and nobody answers."])
    sides = [size if size > 0 else 64 for size in shape]
    generator = np.random.default_rng(7)
    return generator.uniform(0, 255 if dtype == "uint8" else 1, (2, *sides)).astype(dtype)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
