"""A Keras model or a SavedModel to LiteRT, once, in a process of its own.

TensorFlow is needed to read the format, never to run it. Beside the file stands the proof that it
answers as the original does; what LiteRT can't take, or answers differently, becomes a SavedModel
that TensorFlow runs.

A Keras file may carry code (CVE-2025-1550, CVE-2025-8747, CVE-2025-9905): its layers are read
here, as data, before anything builds a model of them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from mlopsdeploy.convert import child
from mlopsdeploy.errors import ModelError, one_line
from mlopsdeploy.model_files.cache import cache_folder, cached, use
from mlopsdeploy.model_files.folder import proof_in

# The packages that hold `import tensorflow`.
_TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-intel",
    "tensorflow-macos",
    "tf-nightly",
)
# What a compilation writes; another number where that changes, so that it is made anew.
_WRITES = 2
# Layers and values that are their author's code, or load some from elsewhere.
_CODE = {
    "Lambda": "a Lambda layer, which runs",
    "__lambda__": "a Python lambda, which runs",
    "TorchModuleWrapper": "a pickled PyTorch module, which runs",
    "TFSMLayer": "a TFSMLayer, which loads another model and runs",
    "JaxLayer": "a JaxLayer, which runs",
    "FlaxLayer": "a FlaxLayer, which runs",
}
# Of Keras, what models are made of; others (keras.utils.get_file) fetch files.
_PARTS_OF_KERAS = {
    "activations", "constraints", "dtype_policies", "engine", "initializers", "layers", "losses",
    "metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random",
    "regularizers",
}  # fmt: skip


def compile_model(
    source: Path,
    digest: str,
    *,
    target: str = "auto",
    trust_model: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """The model in a form that runs lean, compiled on first use.

    Args:
        source: `.keras`, `.h5`, or the folder of a SavedModel.
        digest: SHA-256 of the source's content; its place in the cache.
        target: "tflite", "saved_model", or "auto": the first if it can be proven, else the second.
        trust_model: load a file that carries code.
        log: called with a line when a compilation starts, its parity, and why it
            runs in TensorFlow if it does.

    Returns:
        `model.tflite`, or a folder `saved_model`, each with `parity.json` beside it. Once made it
        needs no TensorFlow to be found.

    Raises:
        ModelError: TensorFlow is not installed, the file can't be read or carries code, or the
            model can't run as `target`.
    """
    kind = "tensorflow" if target == "saved_model" else "litert"
    tools = _tools()
    folder = _find(digest, kind, tools)
    if folder is None and kind == "tensorflow":  # where LiteRT was tried and could not
        tried = _find(digest, "litert", tools)
        folder = tried if tried and (tried / "saved_model").exists() else None
    if folder is None:
        if tools is None:
            raise ModelError(
                f"{source}: compiling it needs tensorflow: pip install 'mlopsdeploy[tensorflow]'  "
                "(once; it is not needed to run)"
            )
        if kind == "litert" and not child.installed("ai_edge_litert"):
            raise ModelError(
                f"{source}: proving what is compiled needs ai-edge-litert: "
                "pip install 'mlopsdeploy[litert]'"
            )
        form = _check(source, trusted=trust_model)
        folder = cache_folder() / kind / f"{digest[:32]}-{tools}"

        def build(building: Path) -> None:
            what = "LiteRT" if kind == "litert" else "a SavedModel"
            log(f"compiling {source.name} to {what}, once")
            _build(source, building, form, kind, trusted=trust_model)
            log(_agreement(proof_in(building)))

        cached(folder, build, log)
    if (folder / "model.tflite").exists():
        return folder / "model.tflite"
    reason = proof_in(folder).get("not_litert")
    if target == "tflite":
        raise ModelError(f"{source}: LiteRT can't take it ({reason}); --runtime tensorflow can")
    if reason and target == "auto":
        log(f"LiteRT can't take {source.name} ({reason}); it runs in TensorFlow")
    return folder / "saved_model"


def _tools() -> str | None:
    """What compiles, and so shapes the result; None where it is not installed."""
    if not child.installed("tensorflow"):
        return None
    for package in _TENSORFLOWS:
        try:
            versions = metadata.version(package), metadata.version("keras")
        except metadata.PackageNotFoundError:
            continue
        return f"tensorflow-{versions[0]}-keras-{versions[1]}-{_WRITES}"
    return f"tensorflow-{_WRITES}"


def _find(digest: str, kind: str, tools: str | None) -> Path | None:
    """What was compiled before; without the tools, by whichever version was there last."""
    found = (cache_folder() / kind).glob(f"{digest[:32]}-{tools or f'*-{_WRITES}'}")
    latest = sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next(filter(use, latest), None)


def _build(source: Path, folder: Path, form: str, kind: str, *, trusted: bool) -> None:
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    trust = "trusted" if trusted else "untrusted"
    arguments = (source, folder, form, trust)
    code, reason = child.run("export_litert.py", *arguments, kind, env=env)
    if code < 0 and kind == "litert":  # the converter is C++ and aborts on some models
        crash = f"its converter crashed, {reason}"
        (folder / "model.tflite").unlink(missing_ok=True)
        code, reason = child.run("export_litert.py", *arguments, "tensorflow", crash, env=env)
    if code:
        raise ModelError(f"{source}: {reason}")


def _agreement(proof: Mapping[str, Any]) -> str:
    if proof["largest_difference"] is None:
        return f"compiled without a proof: {proof['unproven']}"
    line = (
        f"compiled; against {proof['reference']} on {proof['rows']} rows: largest difference "
        f"{proof['largest_difference']:.1e}, labels changed {proof['label_flips']}"
    )
    if proof["fixed_rows"]:
        count = "1 row" if proof["fixed_rows"] == 1 else f"{proof['fixed_rows']} rows"
        line += f"; {count} per call, because {proof['fixed_because']}"
    return line


# ---------------------------------------------------------------- what a file holds


def _check(source: Path, *, trusted: bool) -> str:
    """Whether the source can be loaded, and may be. Loads nothing.

    Returns:
        "saved_model", "keras" or "h5": what it is, whatever it is called.
    """
    if source.is_dir():
        return "saved_model"
    with _readable(source), source.open("rb") as file:
        start = file.read(8)
    if not start:
        raise ModelError(f"{source}: is empty")
    if start.startswith(b"PK"):
        form, config = "keras", _zip_config(source)
    elif start == b"\x89HDF\r\n\x1a\n":
        form, config = "h5", _h5_config(source)
    else:
        raise ModelError(f"{source}: not a Keras model; it is neither a .keras zip nor HDF5")
    for refusal in () if trusted else _refusals(config):
        raise ModelError(f"{source}: {refusal}")
    return form


def _zip_config(source: Path) -> Any:
    with _readable(source), zipfile.ZipFile(source) as archive:
        names = set(archive.namelist())
        if "config.json" not in names:
            raise ModelError(f"{source}: a zip, but not a Keras model: it holds no config.json")
        if not names & {"model.weights.h5", "model.weights.npz"}:
            raise ModelError(f"{source}: its weights are missing; save it again with model.save")
        damaged = archive.testzip()
        if damaged:
            raise ModelError(f"{source}: damaged ({damaged} fails its checksum); fetch it again")
        config = json.loads(archive.read("config.json"))
    if isinstance(config, dict):
        config.pop("compile_config", None)  # how it was trained is not loaded
    return config


def _h5_config(source: Path) -> Any:
    import h5py

    with _readable(source), h5py.File(source, "r") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise ModelError(
                f"{source}: holds no model_config, so it is weights alone; save the whole model "
                "with model.save"
            )
        if "model_weights" not in file:
            raise ModelError(f"{source}: its weights are missing; save it again with model.save")
        return json.loads(config)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ModelError(
            f"{source}: damaged or cut off ({one_line(error)}); fetch it again"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{source}: its config is not a model's ({one_line(error)})") from error


def _refusals(config: Any) -> Iterator[str]:
    """Why a model of this config is not loaded, for each part that is a reason."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        if not isinstance(part, dict):
            continue
        pending.extend(part.values())
        trust = "its author's code; if you trust it: --trust-model"
        name = str(part.get("class_name", "")).rpartition(">")[2]
        if name in _CODE:
            yield f"holds {_CODE[name]} {trust}"
        if isinstance(part.get("vocabulary"), str):
            yield (
                f"names a file of this machine to read, {part['vocabulary'][:80]!r}; if you trust "
                "it: --trust-model"
            )
        if name and part.get("module", "builtins") != "builtins" and _is_foreign(part["module"]):
            if name == "function":
                name = str(part.get("config"))
            yield (
                f"needs {name!r}, which is neither a part of Keras nor in the file; where it was "
                "made, model.export('folder') makes a SavedModel that can be used"
            )


def _is_foreign(module: Any) -> bool:
    """Whether a part's class comes from elsewhere than the modules that models are made of."""
    package, *inner = str(module).split(".")
    inner = [part for part in inner if part != "src"]
    return package != "keras" or bool(inner and inner[0] not in _PARTS_OF_KERAS)
