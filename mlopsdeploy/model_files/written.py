"""What a model's author wrote of it, whatever format it came in."""

from __future__ import annotations

from pathlib import Path

from mlopsdeploy.columns import ModelFiles, Written
from mlopsdeploy.model_files import onnx_written, openvino_written


def read_written(files: ModelFiles, graph: Path) -> Written:  # noqa: ARG001
    """What the files tell of the graph that runs, or of the one that it was compiled from.

    Args:
        files: the model's.
        graph: the file, or the SavedModel's folder, that its runtime opens.

    Raises:
        ModelError: a file that a runtime may open can't be read all the same.
    """
    if graph.suffix == ".onnx":
        return onnx_written.read(graph)
    if graph.suffix == ".xml":
        return openvino_written.read(graph)
    return Written()
