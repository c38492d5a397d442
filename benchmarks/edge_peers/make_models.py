"""The models that all contestants run, made from the built-in fast detector's. Run by the product.

- `detect.tflite`: with TFLite_Detection_PostProcess behind it, as Coral's and most published
  detectors have: boxes, classes, scores, count. So none has to decode boxes by itself.
- `slow.tflite`: the same network 30 times over in one file. All copies are computed and the last
  one answers: the same answer 30 times slower, in every tool alike.
- `labels.txt`.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import yaml
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

import mlopsdeploy
from mlopsdeploy.tasks.ssd import Ssd

COPIES = 30
BUILT_IN = Path(mlopsdeploy.__file__).parent / "builtin" / "detector-fast"
# What the Object Detection API exports, but for the least score: with its 1e-8 the operator sorts
# all 1,917 anchors and takes as long as the network.
POST_PROCESS: dict[str, int | float | bool] = {
    "max_detections": 10,
    "max_classes_per_detection": 1,
    "detections_per_class": 100,
    "use_regular_nms": False,
    "nms_score_threshold": 0.05,
    "nms_iou_threshold": 0.5,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = yaml.safe_load((BUILT_IN / "model.yaml").read_text("utf-8"))
    for name, copies in (("slow.tflite", COPIES), ("detect.tflite", 1)):
        model = schema.ModelT.InitFromPackedBuf((BUILT_IN / "model.tflite").read_bytes(), 0)
        repeat(model.subgraphs[0], copies)
        post_process(model, said)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        (folder / name).write_bytes(bytes(builder.Output()))
    (folder / "labels.txt").write_text("\n".join(said["labels"]) + "\n", "utf-8")


def repeat(graph: Any, copies: int) -> None:
    """Append the graph's operators, each time with intermediate tensors of their own."""
    operators = list(graph.operators)
    made = {int(index) for operator in operators for index in operator.outputs}
    for _ in range(copies - 1):
        place = {}
        for index in made:
            place[index] = len(graph.tensors)
            graph.tensors.append(copy.copy(graph.tensors[index]))
        for operator in operators:
            again = copy.copy(operator)
            again.inputs = [place.get(int(index), int(index)) for index in operator.inputs]
            again.outputs = [place[int(index)] for index in operator.outputs]
            graph.operators.append(again)
        outputs = [place[int(index)] for index in graph.outputs]
    if copies > 1:
        graph.outputs = outputs


def post_process(model: Any, said: dict[str, Any]) -> None:
    """Put sigmoid, anchors and TFLite_Detection_PostProcess behind the raw outputs."""
    graph = model.subgraphs[0]
    model.signatureDefs = []  # they name the raw outputs
    by_name = {graph.tensors[index].name.decode(): int(index) for index in graph.outputs}
    boxes = next(index for name, index in by_name.items() if said["outputs"]["boxes"] in name)
    logits = next(index for name, index in by_name.items() if said["outputs"]["scores"] in name)
    scores = _tensor(graph, "scores", graph.tensors[logits].shape)
    _operator(model, [logits], [scores], builtinCode=schema.BuiltinOperator.LOGISTIC)
    known = Ssd(**said["boxes"])
    anchors = _tensor(graph, "anchors", known.anchors.shape)
    buffer = schema.BufferT()
    buffer.data = np.ascontiguousarray(known.anchors, np.float32).reshape(-1).view(np.uint8)
    graph.tensors[anchors].buffer = len(model.buffers)
    model.buffers.append(buffer)
    most = int(POST_PROCESS["max_detections"])
    shapes = {"boxes": (1, most, 4), "classes": (1, most), "scores": (1, most), "count": (1,)}
    graph.outputs = [
        _tensor(graph, f"TFLite_Detection_PostProcess:{name}", shape)
        for name, shape in shapes.items()
    ]
    operator = _operator(
        model,
        [boxes, scores, anchors],
        graph.outputs,
        builtinCode=schema.BuiltinOperator.CUSTOM,
        customCode=b"TFLite_Detection_PostProcess",
    )
    scales = dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), known.coder, strict=True))
    options = {**POST_PROCESS, **{name: float(scale) for name, scale in scales.items()}}
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in sorted({**options, "num_classes": len(said["labels"])}.items()):
            {bool: builder.Bool, int: builder.Int, float: builder.Float}[type(value)](key, value)
    operator.customOptions = list(builder.Finish())


def _tensor(graph: Any, name: str, shape: Any) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type = name.encode(), schema.TensorType.FLOAT32
    tensor.shape = [int(size) for size in shape]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, inputs: list[int], outputs: list[int], **code: Any) -> Any:
    kind = schema.OperatorCodeT()
    kind.version = 1
    kind.deprecatedBuiltinCode = code["builtinCode"]
    for name, value in code.items():
        setattr(kind, name, value)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = list(inputs), list(outputs)
    model.operatorCodes.append(kind)
    model.subgraphs[0].operators.append(operator)
    return operator


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    command.add_argument("folder", type=Path)
    main(command.parse_args().folder)
