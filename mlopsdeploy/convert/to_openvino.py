"""A graph as OpenVINO's own file, which opens sooner than ONNX and needs no other file."""

from __future__ import annotations

import json
from pathlib import Path

from mlopsdeploy.convert import child
from mlopsdeploy.errors import ModelError, one_line
from mlopsdeploy.model_files import onnx_written
from mlopsdeploy.model_files.written import RT_INFO, to_json


def to_openvino(graph: Path, file: Path, *, half: bool = False) -> Path:
    """Write `graph` as OpenVINO's `.xml` with its `.bin`; it still computes in float32.

    What the author of an `.onnx` wrote of it, such as how its outputs are made, goes along.

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
        model = ov.Core().read_model(str(graph))
        if graph.suffix == ".onnx":
            model.set_rt_info(json.dumps(to_json(onnx_written.read(graph))), [*RT_INFO])
        ov.save_model(model, str(file), compress_to_fp16=half)
    except RuntimeError as error:  # OpenVINO raises nothing finer
        reason = one_line(error, last=True)
        raise ModelError(f"{graph}: OpenVINO can't read it ({reason})") from error
    return file
