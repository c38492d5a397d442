"""Rewrites of a graph, done in memory when it is loaded."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

_UNARY = {"Erf", "Gelu", "Relu", "Tanh", "Sigmoid", "Swish", "Exp", "Sqrt", "Convert", "HSwish"}
_BINARY = {"Add", "Subtract", "Multiply", "Divide", "Power", "SquaredDifference", "Maximum"}


def keep_first_token(model: ov.Model) -> bool:
    """Compute a sequence's first position alone, where only that is read. In place.

    No result changes. BERT-like classifiers read the last layer's output at its first token only;
    so its queries, attention rows, residuals and feed-forward network are needed for that token
    alone: one part in seven of a six-layer model. (Keys and values are needed for all tokens.)

    The request "only index 0 of axis a" travels from the reader back through every operation that
    treats positions one by one, as long as all readers of a value ask for the same. Where it can't
    go further a slice is put in.

    Returns:
        Whether anything was changed.
    """
    wanted, cuts = _trace_back(model)
    if not any(node.get_type_name() == "MatMul" for node in wanted):
        return False
    for target, axis in cuts:
        first = ops.gather(target.get_source_output(), np.array([0]), np.array(axis))
        target.replace_source_output(first.output(0))
    for node in wanted:
        if node.get_type_name() == "Reshape":
            shape = ops.constant(_kept_shape(node), dtype=np.int64)
            reshaped = ops.reshape(node.input_value(0), shape, special_zero=True)
            for target in node.output(0).get_target_inputs():
                target.replace_source_output(reshaped.output(0))
    model.validate_nodes_and_infer_types()
    return True


def _trace_back(model: ov.Model) -> tuple[list[ov.Node], list[tuple[ov.Input, int]]]:
    """The operations to compute at index 0 only, and the inputs to slice, with their axes."""
    wanted: list[ov.Node] = []
    cuts: list[tuple[ov.Input, int]] = []
    asked: dict[ov.Node, list[tuple[ov.Input, int]]] = defaultdict(list)
    for node in reversed(model.get_ordered_ops()):
        requests = asked.pop(node, [])
        if node.get_type_name() == "Gather" and _reads_first_token(node):
            asked[node.input_value(0).get_node()].append((node.input(0), 1))
        axes = {axis for _, axis in requests}
        sources = _sources(node, next(iter(axes))) if len(axes) == 1 else None
        if sources is None or len(node.output(0).get_target_inputs()) != len(requests):
            cuts.extend(requests)  # somebody needs all of it, or we don't know how to go on
            continue
        wanted.append(node)
        for source, axis in sources:
            asked[source.get_source_output().get_node()].append((source, axis))
    return wanted, cuts


def _constant(node: ov.Node, place: int) -> Any:
    """The values of an input that is constant; else None."""
    source = node.input_value(place).get_node()
    return source.data if source.get_type_name() == "Constant" else None


def _reads_first_token(gather: ov.Node) -> bool:
    """Whether this is `hidden[:, 0]` of (rows, positions, channels)."""
    index, axis = _constant(gather, 1), _constant(gather, 2)
    if index is None or axis is None or index.size != 1 or axis.size != 1:
        return False
    return (index.item(), axis.item(), _rank(gather.input_value(0))) == (0, 1, 3)


def _sources(node: ov.Node, axis: int) -> list[tuple[ov.Input, int]] | None:
    """Which inputs, along which axes, suffice for index 0 of `axis` of the node's output.

    None where the operation mixes positions, or is one we do not know.
    """
    kind = node.get_type_name()
    rank = _rank(node.output(0))
    if kind in _BINARY:
        return _broadcast_sources(node, axis, rank)
    if kind == "Transpose":
        order = _constant(node, 1)
        return None if order is None else [(node.input(0), int(order[axis]))]
    if (
        kind in _UNARY
        # Both along the last axis in a transformer.
        or (kind in ("MVN", "Softmax") and axis != rank - 1 and _is_along_last(node))
        or (kind == "MatMul" and axis == rank - 2 and _keeps_rows(node, rank))
        or (kind == "Reshape" and axis == 1 and _splits_or_merges_heads(node))
    ):
        return [(node.input(0), axis)]
    return None


def _keeps_rows(product: ov.Node, rank: int) -> bool:
    return _rank(product.input_value(0)) == rank and not product.get_attributes()["transpose_a"]


def _broadcast_sources(node: ov.Node, axis: int, rank: int) -> list[tuple[ov.Input, int]]:
    sources = []
    for position in range(2):
        shape = node.input_value(position).get_partial_shape()
        own = axis - (rank - len(shape))
        # An input that lacks the axis, or has one value along it, is the same for all positions.
        if own >= 0 and not (shape[own].is_static and shape[own].get_length() == 1):
            sources.append((node.input(position), own))
    return sources


def _is_along_last(node: ov.Node) -> bool:
    if node.get_type_name() == "Softmax":
        axis = int(node.get_attributes()["axis"])
        return axis in (-1, _rank(node.output(0)) - 1)
    axes = _constant(node, 1)
    if axes is not None:
        return axes.tolist() in ([-1], [_rank(node.output(0)) - 1])
    # ONNX's LayerNormalization arrives as Range(start, stop, 1): here -1 .. 0.
    range_ = node.input_value(1).get_node()
    bounds = [_constant(range_, place) for place in range(range_.get_input_size())]
    return range_.get_type_name() == "Range" and bounds == [-1, 0, 1]


def _splits_or_merges_heads(node: ov.Node) -> bool:
    """(rows, positions, channels) to (rows, positions, heads, width) or back."""
    ranks = (_rank(node.input_value(0)), _rank(node.output(0)))
    if ranks == (3, 4):
        return bool(node.output(0).get_partial_shape()[3].is_static)
    return ranks == (4, 3) and node.input_value(0).get_node().get_type_name() == "Transpose"


def _kept_shape(reshape: ov.Node) -> list[int]:
    """The reshape's target with rows and positions copied from its input (0), heads inferred."""
    shape = reshape.output(0).get_partial_shape()
    return [0, 0, -1] if len(shape) == 3 else [0, 0, -1, shape[3].get_length()]


def _rank(output: ov.Output) -> int:
    shape = output.get_partial_shape()
    return len(shape) if shape.rank.is_static else -1


def check_indices(model: ov.Model) -> bool:
    """Add an output, the last: whether an index is beyond what it looks up. In place.

    OpenVINO itself outputs zeros there, and for GatherND whatever lies in memory.

    Returns:
        Whether there is anything to look at: a table of known size, and indices that come in.
    """
    found: ov.Node | None = None
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if not kind.startswith(("Gather", "Embedding")) or node.get_input_size() < 2:
            continue
        sizes = _sizes(node, kind)
        if sizes is None or _constant(node, 1) is not None:
            continue
        indices = ops.convert(node.input_value(1), "i64")
        beyond = ops.logical_or(
            ops.less(indices, ops.constant(-sizes)), ops.greater_equal(indices, ops.constant(sizes))
        )
        if kind != "Gather":  # which else stop half-way in silence, or read what lies beyond
            within = ops.minimum(
                ops.maximum(indices, ops.constant(-sizes)), ops.constant(sizes - 1)
            )
            type_ = node.input_value(1).get_element_type()
            node.input(1).replace_source_output(ops.convert(within, type_).output(0))
        any_is = ops.reduce_logical_or(ops.reshape(beyond, [-1], special_zero=False), np.array([0]))
        found = any_is if found is None else ops.logical_or(found, any_is)
    if found is None:
        return False
    model.add_outputs([found.output(0)])
    return True


def _sizes(node: ov.Node, kind: str) -> np.ndarray[Any, Any] | None:
    """How long the looked up axis is, or for GatherND the axes; None where it isn't known."""
    shape, attributes = node.input_value(0).get_partial_shape(), node.get_attributes()
    if not shape.rank.is_static:
        return None
    if kind == "GatherND":
        first = int(attributes["batch_dims"])
        width = node.input_value(1).get_partial_shape()[-1]
        axes = list(range(first, first + width.get_length())) if width.is_static else []
    elif kind == "Gather":
        axis = _constant(node, 2)
        axes = [] if axis is None else [int(axis.item()) % len(shape)]
    else:
        axes = [int(attributes.get("axis", 0)) % len(shape)]
    if not axes or not all(shape[axis].is_static for axis in axes):
        return None
    return np.array([shape[axis].get_length() for axis in axes], np.int64)


def looks_for_nan(model: ov.Model) -> bool:
    """Whether the graph asks which values are NaN, and so has an answer for them."""
    for node in model.get_ops():
        kind = node.get_type_name()
        compares = kind in ("Equal", "NotEqual")
        if kind == "IsNaN" or (compares and node.input_value(0) == node.input_value(1)):
            return True
    return False


def has_scales(model: ov.Model) -> bool:
    """Whether the graph quantises activations by scales that it carries."""
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def weights_to_int8(model: ov.Model, smallest: int = 4096) -> int:
    """Store float weights of matrix products as int8, symmetric, one scale per output channel.

    In place. Weights of fewer than `smallest` numbers stay: they cost nothing and steer much.

    Returns:
        How many weights were changed.
    """
    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() == "Convert":  # float16 on disk
            source = source.input_value(0).get_node()
        if source.get_type_name() != "Constant" or len(source.shape) != 2:
            continue
        weights = np.asarray(source.data)
        if weights.dtype.kind != "f" or weights.size < smallest:
            continue
        channels = 0 if node.get_attributes()["transpose_b"] else 1
        scale = np.abs(weights).max(axis=1 - channels, keepdims=True).astype(np.float32) / 127
        scale[scale == 0] = 1
        packed = ops.constant(np.clip(np.rint(weights / scale), -127, 127).astype(np.int8))
        unpacked = ops.multiply(ops.convert(packed, "f32"), ops.constant(scale))
        node.input(1).replace_source_output(unpacked.output(0))
        changed += 1
    return changed
