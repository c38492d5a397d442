"""`mlopsdeploy models compile`: what first use does, on purpose, into a folder.

A server image or a device that gets the folder needs no framework in which models are trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.columns import ModelFiles
from mlopsdeploy.convert import checkpoint
from mlopsdeploy.convert import from_keras as keras
from mlopsdeploy.convert.to_openvino import to_openvino
from mlopsdeploy.core.console import facts
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.data.overwriting import Protected
from mlopsdeploy.errors import ConfigError, ModelError, one_line
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.folder import origin, proof_in, write_folder
from mlopsdeploy.models.agreement import agreement, answers, rows_for
from mlopsdeploy.models.tables import bytes_of, proof_line, size

TARGETS = ("onnx", "litert", "openvino")
_FORMS = {"onnx": "onnx", "litert": "tflite", "openvino": "openvino"}
_RUNTIMES = {"onnx": "onnxruntime", "litert": "litert", "openvino": "openvino"}


def compile_model(
    reference: str,
    *,
    to: str | None = None,
    output: str | None = None,
    overwrite: bool = False,
    trust_model: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Compile a model, prove it, write it as a folder that `--model` takes.

    Args:
        reference: see `find_model`.
        to: "onnx", "litert" or "openvino"; by default what first use would choose.
        output: the folder; by default `NAME-TO` in the current one.
        trust_model: see `load_model`.
        overwrite: replace a folder that is there, unless it holds the model.
        log: called with a line about each slow step.

    Returns:
        `model`, `made_from` (name, version, digest, format), `to`, `output`, `bytes`, `digest`,
        `proof`.

    Raises:
        ConfigError: the target is unknown, or the output is there.
        ModelError: the model can't be found or compiled, or answers differently then.
    """
    files = find_one(reference, "compile")
    target = to or _default(files)
    if target not in TARGETS:
        raise ConfigError(f"--to {target}: expected {', '.join(TARGETS)}")
    folder = checked_output(output, files, target, reference, overwrite=overwrite)
    graph, came_as, proof = _graph(files, target, trust_model=trust_model, log=log)
    source = {**origin(files), "format": came_as}
    with tempfile.TemporaryDirectory() as apart:
        if target == "openvino" and came_as != "openvino":
            log(f"converting {files.name} to OpenVINO's own format")
            graph = to_openvino(graph, Path(apart) / "model.xml")
        made_in = "onnx" if target == "openvino" and came_as != "openvino" else target
        original = _load(reference, _RUNTIMES[made_in], trust_model=trust_model)
        loaded: dict[str, Any] = {}

        def prove(building: Path) -> None:
            rows = rows_for(original)
            compiled = _load(str(building), _RUNTIMES[target])
            loaded.update(agreement(answers(original, rows), answers(compiled, rows), "float32"))
            if not loaded["agrees"]:
                raise ModelError(
                    f"{files.name}: as {target} it answers differently, by "
                    f"{loaded['largest_change']:.2g}; nothing was written"
                )

        known = {"precision": files.precision, "made_from": source, "proof": proof}
        written = write_folder(
            folder, _named(files, original), _FORMS[target], graph,
            {key: value for key, value in known.items() if value},
            floating=files.float32 if came_as == target else None, prove=prove,
        )  # fmt: skip
    return {
        "model": files.name,
        "made_from": source,
        "to": target,
        "output": str(folder),
        "files": [path.name for path in written],
        "bytes": bytes_of(written),
        "digest": find_model(str(folder)).digest,
        "proof": proof,
        "loaded_from_there": loaded,
    }


def find_one(reference: str, verb: str) -> ModelFiles:
    """A model that stands alone, for what makes another of it.

    Raises:
        ConfigError: it is several side by side.
    """
    if parts := several(reference):
        raise ConfigError(
            f"{reference}: is {len(parts)} models; {verb} each by itself, then name what comes out "
            "with commas between, as in --model A,B"
        )
    return find_model(reference)


def checked_output(
    path: str | None, files: ModelFiles, suffix: str, reference: str, *, overwrite: bool
) -> Path:
    """The folder to write, by default `NAME-SUFFIX`; refused, before the work, where it can't be.

    Raises:
        ConfigError: the folder holds something, the model among it, or is a mount point, or the
            one above it does not exist or can't be written.
    """
    output = Path(path or f"{files.name.rpartition('/')[2]}-{suffix}")
    shown = f"--output {output}"
    try:
        place = output.resolve()
        if place.is_symlink():  # to itself; before Python 3.13 that is a RuntimeError above
            place.stat()
        empty = output.is_dir() and not any(output.iterdir())
        protected = Protected(models=(reference,), overwrite=overwrite)
        protected.check(output, shown, ours=empty, folder=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{shown}: can't be looked into ({one_line(error)})") from error
    if not place.parent.is_dir():
        raise ConfigError(f"{shown}: the folder {place.parent} does not exist")
    try:
        Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent)).rmdir()
    except OSError as error:
        raise ConfigError(
            f"{shown}: {place.parent} can't be written ({error.strerror}); name another"
        ) from error
    return output


def _load(reference: str, runtime: str, *, trust_model: bool = False) -> Model:
    """In float32, to compare; a `.tflite` runs in what it was made in."""
    precision = "auto" if runtime == "litert" else "float32"
    return load_model(
        reference, runtime=runtime, precision=precision, threads=1, trust_model=trust_model
    )


def _default(files: ModelFiles) -> str:
    if {"keras", "saved_model", "tflite"} & set(files.graphs):
        return "litert"
    return "onnx" if "checkpoint" in files.graphs and "onnx" not in files.graphs else "openvino"


def _graph(
    files: ModelFiles, target: str, *, trust_model: bool, log: Callable[[str], None]
) -> tuple[Path, str, dict[str, Any]]:
    """The file to ship (for OpenVINO: to convert), the format it is in or came from, its proof."""
    graphs = files.graphs
    if target == "litert":
        for form in ("keras", "saved_model"):
            if form in graphs:
                graph = keras.compile_model(
                    graphs[form], files.weights, target="tflite",
                    trust_model=trust_model, log=log,
                )  # fmt: skip
                return graph, form, proof_in(graph.parent)
        if "tflite" in graphs:
            return graphs["tflite"], "tflite", {}
    else:
        if target == "openvino" and "openvino" in graphs:
            return graphs["openvino"], "openvino", {}
        if "onnx" in graphs:
            return graphs["onnx"], "onnx", {}
        if "checkpoint" in graphs:
            graph = checkpoint.to_onnx(graphs["checkpoint"], files.weights, files.max_length, log)
            return graph, "checkpoint", proof_in(graph.parent)
    ways = "a checkpoint or ONNX" if target != "litert" else "Keras, a SavedModel or .tflite"
    raise ModelError(
        f"{files.name}: has {', '.join(graphs)}; {target} is made from {ways}, try another --to"
    )


def _named(files: ModelFiles, model: Model) -> ModelFiles:
    """With the names that stand in the graph's own file: other formats have no place for them."""
    if files.tokenizer is not None:
        return files
    names = tuple(field.name for field in model.task.inputs if not field.shape)
    features = files.features or (names if len(model.runtime.inputs) == 1 else ())
    return replace(files, task=files.task or model.task_name, features=features)


def show_compiled(found: dict[str, Any], console: Console) -> None:
    """What `compile_model` did, as people read it."""
    loaded, source, output = found["loaded_from_there"], found["made_from"], found["output"]
    proof = proof_line(found["proof"])
    if not proof and found["to"] != "openvino":
        proof = f"nothing was rewritten: it is {found['to']} already"
    again = f"{loaded['rows']} made-up rows: largest change of an answer "
    again += f"{loaded['largest_change']:.1e}, labels changed {loaded['label_flips']}"
    lines = [
        ("model", f"{found['model']}, from {source['format']}"),
        ("proof", proof),
        ("read again", again),
        ("size", size(found["bytes"])),
        ("digest", found["digest"]),
        ("written to", f"{output}/ ({', '.join(found['files'])})"),
        ("use it", f"--model {'' if Path(output).is_absolute() else './'}{output}"),
    ]
    console.print(facts(lines))
