"""What a TensorFlow graph tells of its model: how its outputs are made, what its input must be.

It is read from the operations themselves, so that it holds whoever built them: Keras' layers and
operations, a SavedModel's functions. Nothing is inferred from answers to made-up rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mlopsdeploy.columns import Array, Columns, Made, Written
from mlopsdeploy.model_files.graph_steps import ARITHMETIC, MOVES, PARTS, Part, made, pixels_for

_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "NoOp"}
_RESIZES = {
    "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "ReverseV2", "Pad",
    "PadV2", "CropAndResize", "ScaleAndTranslate",
}  # fmt: skip
_LOOKUPS = {"GatherV2": 1, "Gather": 1, "ResourceGather": 1, "OneHot": 0}  # which input is the ids
_LEFT_TO_KERNELS: dict[str, Callable[[Any], Any]] = {
    "Relu": np.isnan, "Relu6": np.isnan, "Softmax": np.isinf,
}  # fmt: skip
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
        outputs={name: made(_Step(tensor, reader)) for name, tensor in opened.outputs.items()},
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
    known = written.outputs[name]
    named = re.search("auto_?encoder|reconstruct", title, re.IGNORECASE)
    narrow = gives.shape.rank == 2 and _is_narrowed(opened, gives.shape[1])
    if known.kind == "values" and written.task == "regression" and (named or narrow):
        what = f"its name, {title}" if named else "an output like its input, narrower in between"
        return replace(
            written, task="reconstruction", task_source=f"{what}, and {written.task_source}"
        )
    doubtful = named or narrow or gives.shape.rank > 2
    if known.kind == "sigmoid" and gives.shape[1:].num_elements() != 1 and doubtful:
        why = f"{known.source}, of the shape of its input: that again, or probabilities?"
        return replace(written, outputs={name: Made("", why)}, task="", task_source="")
    return written


def widths_taken(opened: Opened) -> list[int]:
    """How many numbers its products with constants take, of which an input may be one side."""
    found = {
        one.inputs[1].shape[-2]
        for one in opened.graph.get_operations()
        if one.type.startswith(("MatMul", "BatchMatMul")) and one.inputs[1].shape.rank
    }
    return sorted(width for width in found if width)


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


def left_to_kernels(opened: Opened, columns: Columns, rows: int | None) -> str:
    """The kind of an operation that rows bring to what TensorFlow's kernels answer in several ways.

    Where the CPU has AVX-512 or the like, TensorFlow takes oneDNN's kernels: their ReLU behind a
    sum makes 0 of NaN, which TensorFlow's own keep, and their softmax of an infinite number has
    other zeros. So what the original answers there depends on the machine.

    Args:
        opened: see `open_graph`.
        columns: what comes in.
        rows: how many it takes at once, where that is fixed.
    """
    found = [one for one in opened.graph.get_operations() if one.type in _LEFT_TO_KERNELS]
    if not found or all(array.dtype.kind != "f" for array in columns.values()):
        return ""
    count = len(next(iter(columns.values())))
    step = rows or count
    try:
        with tf.compat.v1.Session(graph=opened.graph) as session:
            for start in range(0, count, step):
                places = np.arange(start, start + step) % count
                feed = {tensor.name: columns[name][places]
                        for name, tensor in opened.inputs.items()}  # fmt: skip
                given = session.run([one.inputs[0] for one in found], feed)
                for one, values in zip(found, given, strict=True):
                    if _LEFT_TO_KERNELS[one.type](values).any():
                        return str(one.type)
    except (ValueError, TypeError, tf.errors.OpError):  # such as variables that are written
        return str(found[0].type)
    return ""


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

    def pixels(
        self, graph: Any, tensor: Any
    ) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
        """What the pixels of a picture must be, from the arithmetic that it begins with."""
        sizes = [32 if size is None else size for size in tensor.shape.as_list()[1:]]
        steps = list(_first_steps(tensor))
        if not steps:
            return None
        edges = [np.full((1, *sizes), edge, tensor.dtype.as_numpy_dtype) for edge in (0, 1)]
        results = [step.outputs[0] for step in steps]
        try:
            with tf.compat.v1.Session(graph=graph) as session:
                zero, one = (session.run(results, {tensor.name: edge}) for edge in edges)
        except (ValueError, TypeError, tf.errors.OpError):
            return None
        offsets = [_per_channel(value) for value in zero]
        gains = [_per_channel(value) - offsets[at] for at, value in enumerate(one)]
        places = [self.place(step.name) for step in steps]
        return pixels_for(list(zip(places, gains, offsets, strict=True)))

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


class _Step:
    """An operation of TensorFlow's; see `Step`."""

    def __init__(self, tensor: Any, reader: _Reader) -> None:
        self._operation, self._index, self._reader = tensor.op, tensor.value_index, reader
        kind = self._operation.type
        self.type = "Placeholder" if kind.startswith("Placeholder") else kind
        self.place = reader.place(self._operation.name)
        self.shape = tensor.shape.as_list() if tensor.shape.rank is not None else None
        self.varies = not is_constant(tensor)
        self.value = None if self.varies else _value(tensor)
        self.is_bool = tensor.dtype == tf.bool
        self.key = tensor.name
        self.axis = None
        if kind == "Pack":
            self.axis = self._operation.get_attr("axis")
        elif kind == "ConcatV2":
            axis = _value(self._operation.inputs[-1])
            self.axis = None if axis is None else int(axis)
        self.places = _places(self._operation, self._index) if kind in PARTS else None

    @property
    def inputs(self) -> list[_Step]:
        given = list(self._operation.inputs)
        if self._operation.type == "ConcatV2":
            given = given[:-1]
        elif self._operation.type == "Split":  # its axis stands first
            given = given[1:]
        elif self._operation.type == "IdentityN":
            given = [given[self._index]]
        return [_Step(tensor, self._reader) for tensor in given]


def _places(operation: Any, index: int) -> Sequence[int] | None:
    """Of what takes a part: see `Step.places`."""
    kind = operation.type
    inputs = list(operation.inputs)
    given = inputs.pop(1 if kind == "Split" else 0)
    rank, width = given.shape.rank, _width(given)
    if not rank or width is None:
        return None
    numbers = [_constant(one) for one in inputs]
    axis: Any = None
    if kind == "Unpack":
        axis = operation.get_attr("axis")
    elif kind == "Gather":
        axis = 0
    elif kind in ("GatherV2", "Split", "SplitV"):
        axis = numbers.pop()
    if kind == "GatherV2" and operation.get_attr("batch_dims"):
        return None
    masks: dict[str, int] = {}
    if kind == "StridedSlice":
        names = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
        masks = {name: operation.get_attr(f"{name}_mask") for name in names}
    return Part(
        kind, rank, width, numbers, None if axis is None else int(axis), index,
        len(operation.outputs), masks,
    ).places  # fmt: skip


def _constant(tensor: Any) -> Any:
    """The numbers of what no input has a part in, such as places; None where it's unknown."""
    operation = tensor.op
    if operation.type == "SelectV2" and operation.inputs[0].op.type == "Less":
        tensor = operation.inputs[2]  # Keras counts negative indices from the end
    value = tf.get_static_value(tensor)
    if value is None and is_constant(tensor):  # as Keras computes them
        try:
            with tf.compat.v1.Session(graph=tensor.graph) as session:
                value = session.run(tensor)
        except (ValueError, TypeError, tf.errors.OpError):
            return None
    return value


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
        if operation.type in ARITHMETIC or normalises:
            yield operation
        elif operation.type not in ("Cast", "StridedSlice", *MOVES, *_RESIZES):
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


def _value(tensor: Any) -> Any:
    """A constant's value, if it is a single one."""
    while tensor.op.type in ("Identity", "Cast") and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    value = tf.get_static_value(tensor)
    return None if value is None or np.size(value) != 1 else np.asarray(value).reshape(())[()]


def _width(tensor: Any) -> int | None:
    rank = tensor.shape.rank
    return cast("int | None", tensor.shape[-1]) if rank else None


def _looked_up(ids: Any) -> Any:
    """The input that these indices are, as they came; None where they are made within."""
    while True:
        operation = ids.op
        if operation.type in ("Placeholder", "PlaceholderWithDefault"):
            return ids
        if operation.type in ("Cast", "StridedSlice", "Slice", *MOVES) and operation.inputs:
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
