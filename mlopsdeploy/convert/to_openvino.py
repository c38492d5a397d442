"""A graph as OpenVINO's own file, which opens sooner than ONNX and needs no other file."""

from __future__ import annotations

from pathlib import Path

from mlopsdeploy.convert import child
from mlopsdeploy.errors import ModelError, one_line


def to_openvino(graph: Path, file: Path, *, half: bool = False) -> Path:
    """Write `graph` as OpenVINO's `.xml` with its `.bin`; it still computes in float32.

    Args:
        graph: an `.onnx` or `.xml` file.
        file: the `.xml` to write.
        half: keep weights in 16 bits, in half of the space, where they fit.

    Raises:
        ModelError: OpenVINO is not installed, or can't read the graph.
    """
    if not child.installed("openvino"):
        raise ModelError(f"{graph}: OpenVINO is needed: pip install 'mlopsdeploy[openvino]'")
    import openvino as ov

    try:
        ov.save_model(ov.Core().read_model(str(graph)), str(file), compress_to_fp16=half)
    except RuntimeError as error:  # OpenVINO raises nothing finer
        reason = one_line(error, last=True)
        raise ModelError(f"{graph}: OpenVINO can't read it ({reason})") from error
    return file
