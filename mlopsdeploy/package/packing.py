"""The model as a package carries it: the one file that runs, its `model.yaml`, its sums.

What a training framework made is compiled here, so that none is needed there: a checkpoint to
ONNX, a Keras model to LiteRT with its parity proof. A text classifier that was calibrated here for
`precision: int8` goes as it is, with its proof and the float graph for close calls. A built-in
model stays in mlopsdeploy's wheel, which the lock file pins.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from mlopsdeploy.bench.speed import made_up_rows
from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.convert import quantize
from mlopsdeploy.convert.to_openvino import to_openvino
from mlopsdeploy.core.loading import load_as_set, prepare_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.digest import digest_of_several
from mlopsdeploy.model_files.folder import proof_in, write_folder
from mlopsdeploy.model_files.resolve import built_in
from mlopsdeploy.package.plan import PackedModel
from mlopsdeploy.settings import Running, ServedModel

FRAMEWORKS = {"torch", "tensorflow"}
_FORMS = {".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}


def pack(
    reference: str,
    name: str,
    running: Running,
    models: Path,
    log: Callable[[str], None],
    features: tuple[str, ...] = (),
    taken: Collection[str] = (),
) -> PackedModel:
    """Put a model into the package; of several that stand side by side, each.

    Args:
        reference: as `find_model` takes it.
        name: of its folder in `models`.
        running: how it runs.
        models: the package's folder of models.
        log: called with a line about each slow step.
        features: of a tabular model whose files don't name them.
        taken: names that no part of it may have.

    Raises:
        ConfigError: it runs in a training framework, which no package carries, or in an int8 that
            nobody calibrated.
        ModelError: it can't be loaded, or would answer differently from its package.
    """
    files = find_model(reference)
    if references := several(reference):
        names = _names(references, taken)
        parts = tuple(
            pack(*part, running, models, log) for part in zip(references, names, strict=True)
        )
        packed = [find_model(part.reference(str(models))) for part in parts]
        return replace(
            parts[0], name=name, version=files.version, digest=digest_of_several(packed),
            source=reference, built_in=all(part.built_in for part in parts),
            bytes=sum(part.bytes for part in parts), parts=parts,
        )  # fmt: skip
    more = {"features": features, "threads": 1, "digest": None, "log": log}
    original = load_as_set(running, reference, **more)
    runtime = original.runtime.name
    if runtime in FRAMEWORKS:
        raise ConfigError(
            f"{reference}: runs in {runtime}, a training framework, and a package has none; "
            "set 'runtime: onnxruntime', 'openvino' or 'litert', whichever can take it"
        )
    calibrated = _calibrated(files, original, running, reference)
    digest, size = files.digest, 0
    if reference not in built_in():
        folder = models / name
        prepared = prepare_model(
            reference, runtime=runtime, trust_model=running.trust_model, log=log
        )
        _write(files, original, prepared.file, folder, calibrated)
        digest = find_model(str(folder)).digest  # which verifies the sums as well
        pinned = running.replace(runtime=runtime)
        _compare(original, load_as_set(pinned, str(folder), **more), reference)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return PackedModel(
        name, original.version, digest, source=reference, built_in=reference in built_in(),
        runtime=runtime, task=original.task_name, data=original.task.data, bytes=size,
    )  # fmt: skip


def _names(references: Sequence[str], taken: Collection[str]) -> list[str]:
    """What models that stand side by side are called in a package: each otherwise."""
    names: list[str] = []
    for reference in references:
        called = ServedModel(model=reference).called
        others = (f"{called}-{place}" for place in count(2))
        free = (name for name in chain([called], others) if name not in {*taken, *names})
        names.append(next(free))
    return names


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


def _write(
    files: ModelFiles,
    model: Model,
    graph: Path,
    folder: Path,
    calibrated: quantize.Quantized | None,
) -> None:
    """The folder; `graph` is what runs of the model, or what it was calibrated from."""
    form = _FORMS.get(graph.suffix)
    if form is None:
        raise ModelError(f"{files.name}: none of {', '.join(files.graphs)} can be packaged")
    files = replace(files, task=files.task or model.task_name)
    keys = {"precision": files.precision, "proof": proof_in(graph.parent)}
    with tempfile.TemporaryDirectory() as apart:
        floating = files.float32
        if calibrated:
            floating = to_openvino(graph, Path(apart) / "float32.xml")
            form, graph = "openvino", calibrated.file
            keys = {"precision": "int8", "proof": dict(calibrated.proof)}
        known = {key: value for key, value in keys.items() if value}
        write_folder(folder, files, form, graph, known, floating=floating)


def _compare(original: Model, packed: Model, reference: str) -> None:
    """Raise where their predictions for the same rows differ."""
    rows = made_up_rows(original, 2)
    ours, theirs = original.predict_columns(rows), packed.predict_columns(rows)
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
