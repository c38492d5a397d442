"""A Hugging Face checkpoint to ONNX, once, in a process of its own.

PyTorch is needed to read the format, and to run it only where no graph gives the same answers.
Beside the file stands the proof that it gives them; without proof it is not used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlopsdeploy.convert import child
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.cache import USED, cache_folder, cached, delete, use

LARGEST_DIFFERENCE = 1e-3  # of a logit, relative where that is above 1, over the proof's rows
_AT_FAULT = 3  # the exit code of the child where the model itself is


_REFUSED = "refused.json"  # in place of the graph, so that nobody tries in vain each time
_TOOLS = ("torch", "transformers", "onnx", "onnxruntime")


class NotExportedError(ModelError):
    """A checkpoint that PyTorch runs and that has no graph of the same answers.

    Args:
        checkpoint: its folder.
        reason: why, as one line.
    """

    def __init__(self, checkpoint: Path, reason: str) -> None:
        super().__init__(f"{checkpoint}: can't be exported to ONNX ({reason}); use --runtime torch")
        self.reason = reason


def to_onnx(
    checkpoint: Path, digest: str, longest: int, log: Callable[[str], None] = lambda _: None
) -> Path:
    """The ONNX file of a checkpoint, exported on first use.

    Args:
        checkpoint: folder with config.json and safetensors.
        digest: SHA-256 of the checkpoint's content; its place in the cache.
        longest: the most tokens that the model takes.
        log: called with a line when an export starts, and one about its parity.

    Raises:
        NotExportedError: the export fails, or its answers differ.
        ModelError: PyTorch is not installed, or it can't run the model either.
    """
    folder = cache_folder() / "onnx" / digest[:32]
    file = folder / "model.onnx"
    if use(folder):
        if file.is_file():
            return file
        if (refusal := _refusal_in(folder)).get("tools") == _versions():
            raise NotExportedError(checkpoint, str(refusal.get("reason")))
        delete(folder)
    missing = [name for name in ("torch", "transformers", "onnx") if not child.installed(name)]
    if missing:
        raise ModelError(
            f"{checkpoint}: has no onnx/model.onnx, and exporting one needs {', '.join(missing)}: "
            "pip install 'mlopsdeploy[torch]' (once; it is not needed to run)"
        )

    def build(building: Path) -> None:
        log(f"exporting {checkpoint.name} to ONNX, once")
        if reason := _export(checkpoint, building, longest, log):
            for path in building.iterdir():
                if path.name != USED:
                    path.unlink()
            content = {"reason": reason, "tools": _versions()}
            (building / _REFUSED).write_text(json.dumps(content), "utf-8")

    cached(folder, build, log)
    if not file.is_file():
        raise NotExportedError(checkpoint, str(_refusal_in(folder).get("reason")))
    return file


def _export(checkpoint: Path, building: Path, longest: int, log: Callable[[str], None]) -> str:
    """Export and prove; why the graph can't be used, else empty."""
    env = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    code, reason = child.run("export_onnx.py", checkpoint, building, str(longest), env=env)
    if code == _AT_FAULT:
        raise ModelError(reason)
    if code < 0:  # killed, such as for want of memory: another time it may go well
        raise NotExportedError(checkpoint, reason)
    if code:
        return reason
    proof = json.loads((building / "parity.json").read_text("utf-8"))
    largest, flips = proof["largest_difference"], proof["label_flips"]
    if largest > LARGEST_DIFFERENCE or flips:
        return f"what was exported answers differently, by {largest:.2g}, {flips} labels"
    log(
        f"exported; against the checkpoint on {proof['rows']} rows: largest difference "
        f"{largest:.1e}, labels changed {flips}"
    )
    return ""


def why_not_exported(digest: str) -> str:
    """Why a checkpoint has no graph, where that was tried; else empty."""
    return str(_refusal_in(cache_folder() / "onnx" / digest[:32]).get("reason", ""))


def _refusal_in(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _REFUSED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _TOOLS if child.installed(name)}


def from_onnx(file: Path, digest: str) -> Path:
    """The checkpoint folder of a model that ships as ONNX only, unpacked on first use.

    Works where the file's initializers bear the names of the checkpoint's parameters, as those of
    the built-in models do.

    Raises:
        ModelError: a package is missing, or the file's weights have names of their own.
    """
    folder = cache_folder() / "checkpoint" / digest[:32]
    if use(folder):
        return folder
    missing = [name for name in ("onnx", "safetensors") if not child.installed(name)]
    if missing:
        raise ModelError(
            f"{file}: to run it in PyTorch, {', '.join(missing)} is needed: "
            "pip install 'mlopsdeploy[torch]'"
        )
    state = read_state(file)
    if not any("encoder" in name or "layer" in name for name in state):
        raise ModelError(
            f"{file}: its weights do not bear the checkpoint's names, so PyTorch can't load them; "
            "use --runtime openvino or onnxruntime, or a folder with model.safetensors"
        )
    from safetensors.numpy import save_file

    def build(building: Path) -> None:
        save_file(state, building / "model.safetensors", {"format": "pt"})
        home = file.parent.parent if file.parent.name == "onnx" else file.parent
        shutil.copy(home / "config.json", building)

    return cached(folder, build)


def read_state(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The checkpoint's parameters by name, float32, from an ONNX file that names its weights so.

    A name ends in `.T` where the weight is stored transposed; int8 weights are multiplied by the
    scales of their DequantizeLinear.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(file))
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays:
            packed, scale = arrays.pop(node.input[0]), arrays.pop(node.input[1])
            axis = next(item.i for item in node.attribute if item.name == "axis")
            arrays[node.output[0]] = packed.astype(np.float32) * np.expand_dims(scale, 1 - axis)
    return {
        name.removesuffix(".T"): np.ascontiguousarray(value.T if name.endswith(".T") else value)
        for name, value in arrays.items()
        if value.dtype == np.float32 and "." in name
    }
