"""The model as a package carries it: the one file that runs, its `model.yaml`, its sums.

What a training framework made is compiled here, so that none is needed there: a checkpoint to
ONNX, a Keras model to LiteRT with its parity proof. A text classifier that was calibrated here for
`precision: int8` goes as it is, with its proof and the float graph for close calls. A built-in
model stays in mlopsdeploy's wheel, which the lock file pins.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlopsdeploy.columns import ModelFiles, objects
from mlopsdeploy.convert import checkpoint, quantize
from mlopsdeploy.convert import from_keras as keras
from mlopsdeploy.convert.to_openvino import to_openvino
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.digest import parts_of, sha256
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.package.plan import PackedModel
from mlopsdeploy.settings import Running

FRAMEWORKS = {"torch", "tensorflow"}
# Next to a text model's weights: its labels and its tokenizer.
_TEXT_FILES = ("config.json", "tokenizer*", "vocab.*", "merges.txt", "*.model")
_WEIGHTS = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "openvino_model.xml"}


def pack(
    reference: str,
    name: str,
    running: Running,
    models: Path,
    log: Callable[[str], None],
    features: tuple[str, ...] = (),
) -> PackedModel:
    """Put a model into the package.

    Args:
        reference: as `find_model` takes it.
        name: of its folder in `models`.
        running: how it runs.
        models: the package's folder of models.
        log: called with a line about each slow step.
        features: of a tabular model whose files don't name them.

    Raises:
        ConfigError: it runs in a training framework, which no package carries, or in an int8 that
            nobody calibrated.
        ModelError: it can't be loaded, or would answer differently from its package.
    """
    files = find_model(reference)
    original = _load(reference, running, features, log)
    runtime = type(original.runtime).__module__.rpartition(".")[2]
    if runtime in FRAMEWORKS:
        raise ConfigError(
            f"{reference}: runs in {runtime}, a training framework, and a package has none; "
            "set 'runtime: onnxruntime', 'openvino' or 'litert', whichever can take it"
        )
    calibrated = _calibrated(files, original, running, reference)
    digest, size = files.digest, 0
    if reference not in built_in():
        folder = models / name
        folder.mkdir(parents=True)
        _copy(files, original, folder, log, running, calibrated)
        digest = find_model(str(folder)).digest  # which verifies the sums as well
        pinned = running.replace(runtime=runtime)
        _compare(original, _load(str(folder), pinned, features, log), reference)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return PackedModel(
        name, original.version, digest, source=reference, built_in=reference in built_in(),
        runtime=runtime, task=_task(original), bytes=size,
    )  # fmt: skip


def _load(
    reference: str, running: Running, features: tuple[str, ...], log: Callable[[str], None]
) -> Model:
    return load_model(
        reference, runtime=running.runtime, precision=running.precision, threads=1,
        threshold=running.threshold, long_text=getattr(running, "long_text", "head"),
        features=features, trust_model=running.trust_model, log=log,
    )  # fmt: skip


def _calibrated(
    files: ModelFiles, model: Model, running: Running, reference: str
) -> quantize.Quantized | None:
    """What was calibrated here, where that is what runs."""
    if model.proof:
        shaping = {
            "threshold": files.threshold if running.threshold is None else running.threshold,
            "long_text": getattr(running, "long_text", "head"),
        }
        return quantize.find(quantize.place(files.digest, shaping))
    if running.precision == model.runtime.precision == "int8" and files.precision != "int8":
        raise ConfigError(
            f"{reference}: 'precision: int8' is calibrated on your rows, which a package does not "
            f"have; run 'mlopsdeploy models quantise {reference} --data ROWS' and package the "
            "folder that it writes"
        )
    return None


def _task(model: Model) -> str:
    return type(model.task).__module__.rpartition(".")[2]


def _copy(
    files: ModelFiles,
    model: Model,
    folder: Path,
    log: Callable[[str], None],
    running: Running,
    calibrated: quantize.Quantized | None,
) -> None:
    format_, graph = _lean(files, model, log, running)
    description = _description(files, model)
    floating = files.float32
    if calibrated:
        floating = to_openvino(graph, folder / "float32.xml")
        format_, graph = "openvino", calibrated.file
        description |= {"precision": "int8", "proof": dict(calibrated.proof)}
    _copy_graph(graph, folder / _WEIGHTS[format_])
    if floating:
        description["float32"] = floating.name
        for part in parts_of(floating if floating.parent != folder else None):
            shutil.copyfile(part, folder / part.name)
    if files.task == "text_classification":
        graph = next(iter(files.graphs.values()))
        source = graph if graph.is_dir() else graph.parent
        if not (source / "config.json").is_file():
            source = source.parent
        for path in (path for pattern in _TEXT_FILES for path in source.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
    description["sha256"] = {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    text = "# Written by 'mlopsdeploy package'; the sums are verified at every start.\n"
    text += yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (folder / "model.yaml").write_text(text, "utf-8")


def _copy_graph(graph: Path, target: Path) -> None:
    """With its weights, and the proof of the compiler that wrote it."""
    for part in parts_of(graph):
        if part == graph:
            shutil.copyfile(part, target)
        elif graph.suffix == ".xml":
            shutil.copyfile(part, target.with_suffix(part.suffix))
        elif graph.name == target.name:
            shutil.copyfile(part, target.with_name(part.name))
        else:  # the ONNX file names the other one
            raise ModelError(
                f"{graph}: keeps its weights in a second file; call it model.onnx, in a folder of "
                "its own with a model.yaml, and package that folder"
            )
    proof = graph.with_name("parity.json")
    if proof.is_file():
        shutil.copyfile(proof, target.with_name(proof.name))


def _lean(
    files: ModelFiles, model: Model, log: Callable[[str], None], running: Running
) -> tuple[str, Path]:
    """The format and the file that the model's runtime opens, free of any framework."""
    formats = model.runtime.formats
    for format_ in formats:
        if format_ in files.graphs and format_ in _WEIGHTS:
            return format_, files.graphs[format_]
    if "onnx" in formats and "checkpoint" in files.graphs:
        source = files.graphs["checkpoint"]
        return "onnx", checkpoint.to_onnx(source, files.weights, log=log)
    if "tflite" in formats:
        source = files.graphs.get("keras") or files.graphs["saved_model"]
        trust = running.trust_model
        compiled = keras.compile_model(
            source, files.weights, target="tflite", trust_model=trust, log=log
        )
        return "tflite", compiled
    raise ModelError(f"{files.name}: none of {', '.join(files.graphs)} can be packaged")


def _description(files: ModelFiles, model: Model) -> dict[str, Any]:
    """`model.yaml`: the original's, and what was found in other files."""
    found = {
        "name": files.name, "version": files.version, "task": files.task or _task(model),
        "labels": list(files.labels), "threshold": files.threshold,
        "precision": files.precision, "features": list(files.features),
    }  # fmt: skip
    known = {key: value for key, value in found.items() if value not in (None, "", [])}
    return {**files.yaml.written(), **known}


def _compare(original: Model, packed: Model, reference: str) -> None:
    """Raise where their predictions for the same two rows differ."""
    row = {field.name: _values(field.dtype, field.shape) for field in original.task.inputs}
    ours, theirs = original.predict_columns(row), packed.predict_columns(row)
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
