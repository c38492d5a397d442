"""A Keras model or a SavedModel to LiteRT, once, in a process of its own.

TensorFlow is needed to read the format, never to run it. Beside the file stands the proof that it
answers as the original does; what LiteRT can't take, or answers differently, becomes a SavedModel
that TensorFlow runs.

What runs its author's code, or reads and writes more than itself, is compiled only where that is
trusted: see `convert.keras_file` and `runtimes.saved_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mlopsdeploy.convert import child, keras_file
from mlopsdeploy.errors import ModelError
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
_WRITES = 4
_TRUSTED = "-trusted"


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
    folder = _find(digest, kind, tools, trusted=trust_model)
    if folder is None and kind == "tensorflow":  # where LiteRT was tried and could not
        tried = _find(digest, "litert", tools, trusted=trust_model)
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
        form = "saved_model" if source.is_dir() else keras_file.check(source, trusted=trust_model)
        folder = cache_folder() / kind / _entry(digest, tools, trusted=trust_model)

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


def _find(digest: str, kind: str, tools: str | None, *, trusted: bool) -> Path | None:
    """What was compiled before; without the tools, by whichever version was there last.

    What was made of a file that was trusted is found only where it is trusted again.
    """
    found = [
        folder
        for with_trust in ((False, True) if trusted else (False,))
        for folder in (cache_folder() / kind).glob(
            _entry(digest, tools or f"*-{_WRITES}", trusted=with_trust)
        )
        if with_trust or not folder.name.endswith(_TRUSTED)
    ]
    latest = sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next(filter(use, latest), None)


def _entry(digest: str, tools: str, *, trusted: bool) -> str:
    return f"{digest[:32]}-{tools}{_TRUSTED if trusted else ''}"


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
    if aside := [what for what in ("NaN", "infinity") if what not in proof.get("answers", ())]:
        rows = f"rows with {' or '.join(aside)}"
        line += (
            f"; {rows} are answered as TensorFlow does in each batch"
            if proof["not_litert"]
            else f"; {rows} have no answer, where {proof['reference']} may have one"
        )
    return line
