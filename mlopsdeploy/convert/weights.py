"""Weights of an ONNX file: as int8 with scales, and back to a checkpoint's parameters.

An initializer that is a checkpoint's parameter bears its name; `.T` is added where it is stored
transposed, as matrix products want it. Packed, it becomes `<name>.int8`, `<name>.scale` and a
DequantizeLinear in front of its readers: a quarter of the size, the same graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Floats = npt.NDArray[np.float32]

SMALLEST = 4096  # numbers; below it a weight costs nothing and stays float


def name_after(model: onnx.ModelProto, parameters: Mapping[str, Floats]) -> int:
    """Give initializers the names of the parameters whose values they hold. In place.

    Returns:
        How many parameters were found.
    """
    by_value: dict[bytes, str] = {}
    for name, value in parameters.items():
        by_value.setdefault(_key(value), name)
        if value.ndim == 2:
            by_value.setdefault(_key(np.ascontiguousarray(value.T)), f"{name}.T")
    renamed: dict[str, str] = {}
    for initializer in model.graph.initializer:
        found = by_value.get(_key(numpy_helper.to_array(initializer)))
        if found and found not in renamed.values():
            renamed[initializer.name] = found
            initializer.name = found
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    return len(renamed)


def pack_int8(model: onnx.ModelProto) -> int:
    """Store large two-dimensional weights as int8, symmetric, in place.

    One scale per output channel of a matrix product, one per row of an embedding.

    Returns:
        How many weights were packed.
    """
    readers = {name: node for node in model.graph.node for name in node.input}
    kept, nodes = [], []
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        reader = readers.get(initializer.name)
        if reader is None or value.ndim != 2 or value.size < SMALLEST or value.dtype != np.float32:
            kept.append(initializer)
            continue
        name = initializer.name
        axis = 1 if reader.op_type == "MatMul" else 0  # MatMul: (in, out); Gemm, Gather: (out, in)
        scale = np.abs(value).max(axis=1 - axis) / np.float32(127)
        scale[scale == 0] = 1
        packed = np.rint(value / np.expand_dims(scale, 1 - axis)).astype(np.int8)
        kept.append(numpy_helper.from_array(packed, f"{name}.int8"))
        kept.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        nodes.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis
            )
        )
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return len(nodes)


def read_state(file: Path) -> dict[str, Floats]:
    """The checkpoint's parameters by name, float32, from a file whose weights bear their names."""
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


def _key(value: npt.NDArray[np.generic]) -> bytes:
    return repr(value.shape).encode() + value.tobytes()
