"""Weights of an ONNX file: named after a checkpoint's parameters, and stored as int8 with scales.

An initializer that is a checkpoint's parameter bears its name; `.T` is added where it is stored
transposed, as matrix products want it. Packed, it becomes `<name>.int8`, `<name>.scale` and a
DequantizeLinear in front of its readers: a quarter of the size, the same graph. The way back is
`mlopsdeploy.convert.checkpoint.read_state`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Floats = npt.NDArray[np.float32]


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


def pack_int8(model: onnx.ModelProto, smallest: int = 4096) -> int:
    """Store large two-dimensional weights as int8, symmetric, in place.

    One scale per output channel of a matrix product, one per row of an embedding. Weights of fewer
    than `smallest` numbers cost nothing and stay float.

    Returns:
        How many weights were packed.
    """
    readers = {name: node for node in model.graph.node for name in node.input}
    kept, nodes = [], []
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        reader = readers.get(initializer.name)
        if reader is None or value.ndim != 2 or value.size < smallest or value.dtype != np.float32:
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


def _key(value: npt.NDArray[np.generic]) -> bytes:
    return repr(value.shape).encode() + value.tobytes()
