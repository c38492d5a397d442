"""What a TensorFlow graph tells of its model: how its outputs are made, what its input must be.

It is read from the operations themselves, so that it holds whoever built them: Keras' layers and
operations, a SavedModel's functions. Nothing is inferred from answers to made-up rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mlopsdeploy.columns import Array, Made, MadeAs, Written

# What leaves numbers as they are, and only moves them or keeps some.
_MOVES = {
    "Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient",
    "Snapshot", "Transpose", "EnsureShape", "Placeholder", "PlaceholderWithDefault", "Tile",
    "BroadcastTo", "CheckNumerics",
}  # fmt: skip
_PARTS = {"StridedSlice", "Slice", "Split", "SplitV", "Unpack", "GatherV2", "Gather"}
_ACTIVATIONS: Mapping[str, MadeAs] = {
    "Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "logits",
    **dict.fromkeys(
        (
            "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Exp",
            "Expm1", "Log", "Log1p", "Abs", "Square", "Sqrt", "Rsqrt", "Floor", "Ceil",
            "SquaredDifference", "L2Loss", "Norm", "Erf", "Neg", "Pow",
        ),
        "values",
    ),
    **dict.fromkeys(
        (
            "ArgMax", "ArgMin", "Greater", "GreaterEqual", "Less", "LessEqual", "Round", "Rint",
            "LookupTableFindV2", "LookupTableFind",
        ),
        "label",
    ),
}  # fmt: skip
_SUMS = {
    "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "Conv3D",
    "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2", "FusedBatchNorm",
    "FusedBatchNormV2", "FusedBatchNormV3", "_FusedMatMul", "_FusedConv2D",
}  # fmt: skip
_ARITHMETIC = {"BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan"}
_POOLS = {"Mean", "Max", "AvgPool", "MaxPool"}
_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "NoOp"}
_RESIZES = {
    "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ReverseV2", "Pad",
    "PadV2", "CropAndResize", "ScaleAndTranslate",
}  # fmt: skip
_LOOKUPS = {"GatherV2": 1, "Gather": 1, "ResourceGather": 1, "OneHot": 0}  # which input is the ids
_RANGES = {(0.0, 1.0): "0 to 255", (0.0, 255.0): "0 to 1", (127.5, 127.5): "-1 to 1"}
_RANDOM = re.compile(r"(Stateless)?(Random|Truncated|Multinomial|Parameterized).*|RngReadAndSkip")
_STATE = re.compile(r"Assign(Add|Sub)?Variable.*|Assign|ResourceScatter.*|ResourceApply.*")


class Opened(NamedTuple):
    """A model's graph without functions and, where that can be, without variables."""

    graph: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    whole: Any  # the graph as it was


def open_graph(call: Callable[..., dict[str, Any]], specs: Mapping[str, Any]) -> Opened:
    """The graph of a function of tensors by name."""
    function = tf.function(lambda given: call(**given)).get_concrete_function(dict(specs))
    whole = function.graph
    inputs = dict(zip(sorted(specs), function.inputs, strict=False))
    outputs = dict(
        zip(sorted(function.structured_outputs), tf.nest.flatten(function.outputs), strict=True)
    )
    try:
        plain = convert_variables_to_constants_v2(function, lower_control_flow=False)
    except Exception:  # noqa: BLE001  # of every kind: where a variable is written, among others
        return Opened(whole, inputs, outputs, whole)
    names = {name: tensor.name for name, tensor in inputs.items()}
    held = {tensor.name: tensor for tensor in plain.inputs}
    return Opened(
        plain.graph,
        {name: held[at] for name, at in names.items() if at in held},
        dict(zip(outputs, plain.outputs, strict=True)),
        whole,
    )


def read_graph(opened: Opened, layers: Collection[str] = ()) -> Written:
    """How each output is made, what a picture's pixels must be, and how large its tables are.

    Args:
        opened: see `open_graph`.
        layers: the names of Keras' layers, which operations bear in their own.
    """
    reader = _Reader(frozenset(layers))
    pixels = None
    for tensor in opened.inputs.values():
        if tensor.shape.rank in (3, 4):
            pixels = pixels or reader.pixels(opened.graph, tensor)
    return Written(
        outputs={name: reader.made(tensor) for name, tensor in opened.outputs.items()},
        pixels=pixels,
        sizes=reader.sizes(opened),
    )


def as_reconstruction(written: Written, opened: Opened, title: str = "") -> Written:
    """What is written, where an output of its input's shape may be that input again.

    Args:
        written: what the graph and the losses tell.
        opened: see `open_graph`.
        title: what its author calls the model.
    """
    if len(opened.inputs) != 1 or len(opened.outputs) != 1:
        return written
    ((name, gives),) = opened.outputs.items()
    (takes,) = opened.inputs.values()
    if not gives.shape.rank or gives.shape[1:].as_list() != takes.shape[1:].as_list():
        return written
    made = written.outputs[name]
    named = re.search("auto_?encoder|reconstruct", title, re.IGNORECASE)
    narrow = gives.shape.rank == 2 and _is_narrowed(opened, gives.shape[1])
    if made.kind == "values" and written.task == "regression" and (named or narrow):
        what = f"its name, {title}" if named else "an output like its input, narrower in between"
        return replace(
            written, task="reconstruction", task_source=f"{what}, and {written.task_source}"
        )
    doubtful = named or narrow or gives.shape.rank > 2
    if made.kind == "sigmoid" and gives.shape[1:].num_elements() != 1 and doubtful:
        why = f"{made.source}, of the shape of its input: that again, or probabilities?"
        return replace(written, outputs={name: Made("", why)}, task="", task_source="")
    return written


def _is_narrowed(opened: Opened, width: int | None) -> bool:
    """Whether all goes through fewer numbers than that somewhere."""
    widths = [
        _width(one.outputs[0]) or 0
        for one in opened.graph.get_operations()
        if one.type == "MatMul" and not is_constant(one.outputs[0])
    ]
    return width is not None and any(0 < found < width for found in widths)


def what_changes(opened: Opened, layers: Collection[str] = ()) -> str:
    """What draws at random or keeps a state, if anything does: `random numbers (dropout)`."""
    reader = _Reader(frozenset(layers))
    found: dict[str, list[str]] = {}
    for kind, name in _all_operations(opened.whole):
        what = (
            "it draws random numbers"
            if _RANDOM.fullmatch(kind)
            else "it keeps a state from call to call"
            if _STATE.fullmatch(kind)
            else ""
        )
        if what:
            places = found.setdefault(what, [])
            place = reader.place(name)
            if place and place not in places:
                places.append(place)
    return " and ".join(
        f"{what} in {', '.join(places)}" if places else what for what, places in found.items()
    )


def _all_operations(graph: Any) -> Iterator[tuple[str, str]]:
    definition = graph.as_graph_def()
    for part in (definition.node, *(one.node_def for one in definition.library.function)):
        for node in part:
            yield node.op, node.name


class _Reader:
    def __init__(self, layers: frozenset[str]) -> None:
        self._layers = layers

    def place(self, name: str) -> str:
        """The layer that an operation belongs to, by its name; "" where it has none."""
        scopes = name.split("/")[:-1]
        for scope in reversed(scopes):
            for choice in (scope, re.sub(r"_\d+$", "", scope)):
                if choice in self._layers:
                    return choice
        own = scopes[-1] if scopes and not self._layers else ""
        return "" if "PartitionedCall" in own else own

    def _said(self, kind: MadeAs, operation: Any, what: str = "") -> Made:
        place = self.place(operation.name)
        step = what or operation.type
        end = ", with no activation" if kind == "linear" else ""
        return Made(kind, f"its last step, {step}{f' in {place}' if place else ''}{end}")

    # ------------------------------------------------------------ outputs

    def made(self, tensor: Any) -> Made:
        """How an output is made, back to what made its numbers what they are."""
        operation = tensor.op
        kind = operation.type
        if kind in _MOVES or kind in ("Cast", *_PARTS, *_POOLS):
            return self._passed(tensor)
        if kind in _ACTIVATIONS:
            return self._said(_ACTIVATIONS[kind], operation)
        if kind in _SUMS:
            return self._said("linear", operation)
        if kind in ("ConcatV2", "Pack"):
            return self._joined(operation)
        if kind in ("Maximum", "Minimum", "ClipByValue"):
            inner = self._varying(operation)
            before = self.made(inner[0]) if len(inner) == 1 else None
            keeps = before and before.kind in ("softmax", "sigmoid", "values")
            return before if before and keeps else self._said("values", operation)
        if kind in _ARITHMETIC:
            return self._arithmetic(operation)
        return self._said("", operation)

    def _passed(self, tensor: Any) -> Made:
        operation = tensor.op
        if operation.type.startswith("Placeholder"):
            return self._said("", operation, "its own input")
        index = tensor.value_index if operation.type == "IdentityN" else 0
        index = 1 if operation.type == "Split" else index
        before = operation.inputs[index]
        made = self.made(before)
        if operation.type == "Cast" and before.dtype == tf.bool and made.kind != "label":
            return self._said("label", operation)
        if operation.type in _PARTS and made.kind == "softmax" and _width(tensor) != _width(before):
            # One class's probability of several: no longer all of those that add up to 1.
            one = _width(tensor) in (None, 1) or tensor.shape.rank != before.shape.rank
            return Made("sigmoid" if one else "", f"{made.source}, of which a part is given")
        if operation.type in ("Max", "MaxPool") and made.kind == "softmax":
            return self._said("", operation)
        return made

    def _joined(self, operation: Any) -> Made:
        data = list(operation.inputs)
        axis = operation.get_attr("axis") if operation.type == "Pack" else _value(data.pop())
        made = [self.made(one) for one in data]
        if {one.kind for one in made} == {"sigmoid"} and len(data) == 2:
            first, second = data
            if any(_is_rest(a, b) for a, b in ((first, second), (second, first))):
                return self._said("softmax", operation, "a probability and what is left of 1")
        rank = operation.outputs[0].shape.rank
        last = axis is None or rank is None or int(axis) % rank == rank - 1
        alike = len({one.kind for one in made}) == 1
        if alike and (made[0].kind in ("sigmoid", "linear", "values") or not last):
            return made[0]
        return self._said("", operation)

    def _arithmetic(self, operation: Any) -> Made:
        kind = operation.type
        varying = self._varying(operation)
        if len(varying) == 2:
            a, b = (_behind(one).op for one in varying)
            if kind in ("RealDiv", "Div", "DivNoNan") and a.type == "Exp" and b.type == "Sum":
                return self._said("softmax", operation, "a softmax written out")
            if kind == "Mul":  # x * sigmoid(x) and its like
                return self._said("values", operation, "a product")
            return self._said("linear", operation)
        if len(varying) != 1:
            return self._said("", operation)
        before = self.made(varying[0])
        if _is_hard_sigmoid(operation, varying[0]):
            return self._said("sigmoid", operation, "a hard sigmoid")
        if before.kind == "sigmoid" and (
            _is_rest(operation.outputs[0], None) or _is_one(operation)
        ):
            return before
        if before.kind in ("sigmoid", "values"):
            return self._said("values", operation, f"{kind} after {_step(before)}")
        if before.kind in ("linear", "logits"):
            return before
        if _behind(varying[0]).op.type in ("Exp", "Sum", "Mean", *_POOLS):
            return self._said("values", operation)
        return self._said("linear" if kind == "BiasAdd" else "", operation)

    def _varying(self, operation: Any) -> list[Any]:
        return [one for one in operation.inputs if not is_constant(one)]

    # ------------------------------------------------------------ pixels

    def pixels(
        self, graph: Any, tensor: Any
    ) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
        """What the pixels of a picture must be, from the arithmetic that it begins with."""
        sizes = [32 if size is None else size for size in tensor.shape.as_list()[1:]]
        steps = list(_first_steps(tensor))
        if not steps:
            return None
        edges = [np.full((1, *sizes), edge, tensor.dtype.as_numpy_dtype) for edge in (0, 1)]
        try:
            with tf.compat.v1.Session(graph=graph) as session:
                at_zero, at_one = (
                    session.run([step.outputs[0] for step in steps], {tensor.name: edge})
                    for edge in edges
                )
        except (ValueError, TypeError, tf.errors.OpError):
            return None
        # All steps together first: a Rescaling to 0..1 and then a Normalization of that.
        for count in range(len(steps), 0, -1):
            offset = _per_channel(at_zero[count - 1])
            gain = _per_channel(at_one[count - 1]) - offset
            if found := pixel_range(gain, offset):
                mean, std, low, high = found
                named = dict.fromkeys(self.place(step.name) for step in steps[:count])
                places = ", ".join(filter(None, named))
                what = f"its first steps{f', in {places},' if places else ''}"
                return (
                    (mean,),
                    (std,),
                    f"{what} make {low:.3g} to {high:.3g} of {_RANGES[mean, std]}",
                )
        return None

    # ------------------------------------------------------------ tables

    def sizes(self, opened: Opened) -> dict[str, int]:
        """Of inputs that are looked up in tables, the size of the smallest."""
        found: dict[str, int] = {}
        names = {id(tensor.op): name for name, tensor in opened.inputs.items()}
        for operation in opened.graph.get_operations():
            if operation.type not in _LOOKUPS:
                continue
            ids = _looked_up(operation.inputs[_LOOKUPS[operation.type]])
            name = names.get(id(ids.op)) if ids is not None else None
            size = _table_size(operation)
            if name is not None and size:
                found[name] = min(size, found.get(name, size))
        return found


def pixel_range(gain: Array, offset: Array) -> tuple[float, float, float, float] | None:
    """What pixels must be for `pixel * gain + offset`, by channel, to be what networks take.

    Returns:
        `mean` and `std` by which pixels of 0 to 255 become what the model takes, and the range
        that its first steps make of them; None where they don't show it.
    """
    if np.allclose(gain, 1, atol=0.1) and np.all(np.abs(offset) < 0.1):
        return None
    best: tuple[float, tuple[float, float, float, float]] | None = None
    for mean, std in _RANGES:
        low, high = ((edge - mean) / std for edge in (0, 255))
        ends = np.stack([gain * low + offset, gain * high + offset])
        spread = float(np.mean(np.abs(ends[1] - ends[0])))
        centre = float(np.mean(np.abs(ends.mean(axis=0))))
        is_small = 0.4 <= spread <= 8 and centre <= 0.75 * spread
        is_pixels = 240 <= spread <= 270 and (std != 1 or bool(np.all(np.abs(offset) > 50)))
        if not np.isfinite(spread) or not (is_small or is_pixels):
            continue
        off = centre / spread
        if best is None or off < best[0]:
            best = off, (mean, std, float(ends.min()), float(ends.max()))
    return best[1] if best else None


def _per_channel(values: Array) -> Array:
    """Of each channel the mean: the last axis, or the first where that has one or three."""
    values = np.asarray(values, np.float64)
    if values.ndim == 4 and values.shape[1] in (1, 3) and values.shape[-1] not in (1, 3):
        return np.asarray(values.mean(axis=(0, 2, 3)))
    return np.asarray(values.reshape(-1, values.shape[-1]).mean(axis=0))


def _first_steps(tensor: Any) -> Iterator[Any]:
    """The arithmetic with constants that an input goes through before all else."""
    while True:
        users = [one for one in tensor.consumers() if one.type not in _SHAPES]
        if len(users) != 1:
            return
        operation = users[0]
        varying = [one for one in operation.inputs if not is_constant(one)]
        if len(varying) != 1 or not operation.outputs:
            return
        normalises = operation.type.startswith("FusedBatchNorm")
        if operation.type in _ARITHMETIC or normalises:
            yield operation
        elif operation.type not in ("Cast", "StridedSlice", *_MOVES, *_RESIZES):
            return
        tensor = operation.outputs[0]


def is_constant(tensor: Any) -> bool:
    """Whether no input has a part in it."""
    pending, seen = [tensor], set()
    while pending:
        operation = pending.pop().op
        if operation.name in seen:
            continue
        seen.add(operation.name)
        if operation.type == "ReadVariableOp":
            continue
        if operation.type.startswith("Placeholder") or _RANDOM.fullmatch(operation.type):
            return False
        pending.extend(operation.inputs)
    return True


def _behind(tensor: Any) -> Any:
    """What was there before casts, and before a small number was added to keep off zero."""
    while tensor.op.type in ("Identity", "Cast", "Reshape", "Maximum", "AddV2"):
        varying = [one for one in tensor.op.inputs if not is_constant(one)]
        if len(varying) != 1:
            break
        tensor = varying[0]
    return tensor


def _value(tensor: Any) -> Any:
    """A constant's value, if it is a single one."""
    while tensor.op.type in ("Identity", "Cast") and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    value = tf.get_static_value(tensor)
    return None if value is None or np.size(value) != 1 else np.asarray(value).reshape(())[()]


def _width(tensor: Any) -> int | None:
    rank = tensor.shape.rank
    return cast("int | None", tensor.shape[-1]) if rank else None


def _is_rest(tensor: Any, of: Any) -> bool:
    """Whether it is 1 - x, of this x if one is given."""
    while tensor.op.type in _MOVES and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    if tensor.op.type != "Sub" or _value(tensor.op.inputs[0]) != 1:
        return False
    return of is None or _source(tensor.op.inputs[1]) is _source(of)


def _source(tensor: Any) -> Any:
    while tensor.op.type in _MOVES and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    return tensor.op


def _is_one(operation: Any) -> bool:
    """Whether it multiplies or divides by 1, or adds 0."""
    neutral = 1 if operation.type in ("Mul", "RealDiv", "Div", "DivNoNan") else 0
    return any(is_constant(one) and _value(one) == neutral for one in operation.inputs)


def _is_hard_sigmoid(operation: Any, varying: Any) -> bool:
    """Whether it is relu6(x + 3) / 6, or Keras' older clip(x / 5 + 0.5)."""
    if varying.op.type != "Relu6" or operation.type not in ("Mul", "RealDiv"):
        return False
    factor = next((_value(one) for one in operation.inputs if is_constant(one)), None)
    wanted = 6 if operation.type == "RealDiv" else 1 / 6
    return factor is not None and abs(float(factor) - wanted) < 1e-3


def _step(made: Made) -> str:
    return made.source.removeprefix("its last step, ")


def _looked_up(ids: Any) -> Any:
    """The input that these indices are, as they came; None where they are made within."""
    while True:
        operation = ids.op
        if operation.type in ("Placeholder", "PlaceholderWithDefault"):
            return ids
        if operation.type in ("Cast", "StridedSlice", "Slice", *_MOVES) and operation.inputs:
            ids = operation.inputs[0]
        elif operation.type == "SelectV2":  # Keras counts negative indices from the end
            ids = operation.inputs[2]
        else:
            return None


def _table_size(operation: Any) -> int | None:
    if operation.type == "OneHot":
        depth = _value(operation.inputs[1])
        return None if depth is None else int(depth)
    table = operation.inputs[0]
    if not is_constant(table) or not table.shape.rank:
        return None
    axis = _value(operation.inputs[2]) if len(operation.inputs) > 2 else 0
    return cast("int | None", table.shape[0]) if axis == 0 else None
