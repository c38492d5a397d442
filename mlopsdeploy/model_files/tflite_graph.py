"""What the operators of a `.tflite` file tell of its outputs and of its input.

The numbers of the fields and of the operators are those of TensorFlow's `schema.fbs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlopsdeploy.columns import Array, Made, Written
from mlopsdeploy.model_files import graph_steps
from mlopsdeploy.model_files.flat_buffers import NO_FIELDS, Table

# BuiltinOperator, by TensorFlow's names for what they do.
OPERATORS = {
    0: "AddV2", 1: "AvgPool", 2: "ConcatV2", 3: "Conv2D", 4: "DepthwiseConv2dNative",
    6: "Identity", 7: "EmbeddingLookup", 8: "Floor", 9: "MatMul", 11: "L2Normalization",
    14: "Sigmoid", 17: "MaxPool", 18: "Mul", 19: "Relu", 20: "Relu", 21: "Relu6", 22: "Reshape",
    23: "ResizeBilinear", 25: "Softmax", 28: "Tanh", 34: "Pad", 36: "GatherV2", 39: "Transpose",
    40: "Mean", 41: "Sub", 42: "RealDiv", 43: "Squeeze", 45: "StridedSlice", 47: "Exp",
    49: "Split", 50: "LogSoftmax", 53: "Cast", 54: "Prelu", 55: "Maximum", 56: "ArgMax",
    57: "Minimum", 58: "Less", 60: "PadV2", 61: "Greater", 62: "GreaterEqual", 63: "LessEqual",
    65: "Slice", 67: "Conv2DBackpropInput", 69: "Tile", 70: "ExpandDims", 73: "Log", 74: "Sum",
    75: "Sqrt", 76: "Rsqrt", 77: "Shape", 78: "Pow", 79: "ArgMin", 82: "Max", 83: "Pack",
    85: "OneHot", 88: "Unpack", 92: "Square", 97: "ResizeNearestNeighbor", 98: "LeakyRelu",
    99: "SquaredDifference", 101: "Abs", 102: "SplitV", 104: "Ceil", 105: "ReverseV2", 111: "Elu",
    114: "Identity", 116: "Round", 117: "HardSwish", 123: "SelectV2", 126: "BatchMatMulV3",
    130: "BroadcastTo", 132: "Conv3D", 144: "AssignVariableOp", 146: "RandomStandardNormal",
    148: "RandomUniform", 149: "Multinomial", 150: "Gelu",
}  # fmt: skip
_CUSTOM = 32
_FUSED = {1: "Relu", 2: "Relu", 3: "Relu6", 4: "Tanh"}  # ActivationFunctionType
_FUSED_AT = {0: 0, 1: 5, 2: 1, 3: 3, 4: 4, 9: 0, 11: 0, 17: 5, 18: 0, 41: 0, 42: 0}
_FLOATS = {0: "<f4", 1: "<f2"}  # TensorType
_WHOLE = {2: "<i4", 4: "<i8"}
_BOOL = 6
_MOVED = {
    "Cast", "ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2", "Pad", "PadV2", "StridedSlice",
    *graph_steps.MOVES,
}  # fmt: skip


@dataclass(frozen=True)
class _Operator:
    number: int
    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Table

    @property
    def fused(self) -> str:
        """The activation that it ends with, of those that were made one with it."""
        place = _FUSED_AT.get(self.number)
        return "" if place is None else _FUSED.get(self.options.number(place, "<b"), "")


@dataclass
class _Step:
    """See `graph_steps.Step`."""

    type: str
    shape: Sequence[int | None] | None
    varies: bool
    key: object
    before: Callable[[], Sequence[_Step]] = field(default=lambda: ())
    value: float | None = None
    is_bool: bool = False
    axis: int | None = None
    places: Sequence[int] | None = None
    place: str = ""

    @property
    def inputs(self) -> Sequence[_Step]:
        return self.before()


class _Graph:
    """The main graph of a file."""

    def __init__(self, model: Table) -> None:
        main = next(model.tables(2), NO_FIELDS)
        self._tensors, self._buffers = list(main.tables(0)), list(model.tables(4))
        self.inputs: list[int] = main.array(1, "<i4").tolist()
        self.outputs: list[int] = main.array(2, "<i4").tolist()
        codes = [
            (max(code.number(0, "<b"), code.number(3)), code.text(1)) for code in model.tables(1)
        ]
        self.operators = [_operator(one, codes) for one in main.tables(3)]
        self._makers = {made: one for one in self.operators for made in one.outputs}
        signatures = list(model.tables(7))
        self._names: dict[bool, dict[int, str]] = {True: {}, False: {}}
        if len(signatures) == 1:  # its names are the runtime's, too
            for given, at in ((True, 0), (False, 1)):
                pairs = signatures[0].tables(at)
                self._names[given] = {one.number(1, "<I"): one.text(0) for one in pairs}

    def name(self, tensor: int, *, given: bool) -> str:
        """Of an input, or else of an output, as the runtime has it."""
        return self._names[given].get(tensor) or self._tensors[tensor].text(3)

    def shape(self, tensor: int) -> list[int | None]:
        """With the rows; None for a size that is free."""
        held = self._tensors[tensor]
        sizes = held.array(7, "<i4")
        sizes = sizes if sizes.size else held.array(0, "<i4")
        return [None if size < 0 else size for size in sizes.tolist()]

    def constant(self, tensor: int) -> Array | None:
        """The values of a constant of real numbers."""
        maker = self._makers.get(tensor)
        if maker is not None:
            return self.constant(maker.inputs[0]) if maker.name == "Identity" else None
        values = self._held(tensor, _FLOATS)
        return None if values is None else values.astype(np.float64)

    def _held(self, tensor: int, dtypes: Mapping[int, str]) -> Array | None:
        maker = self._makers.get(tensor)
        if maker is not None and maker.name == "SelectV2":
            tensor = maker.inputs[2]  # Keras counts negative indices from the end
        held = self._tensors[tensor]
        dtype = dtypes.get(held.number(1, "<b"))
        content = self._buffers[held.number(2, "<I")].array(0, "u1")
        return content.view(dtype) if dtype and content.size else None

    def _places(self, maker: _Operator, tensor: int) -> Sequence[int] | None:
        """Of what takes a part: see `graph_steps.Step`."""
        kind, inputs = maker.name, list(maker.inputs)
        shape = self.shape(inputs.pop(1 if kind == "Split" else 0))
        width = shape[-1] if shape else None
        if width is None:
            return None
        numbers = [self._held(one, _WHOLE) for one in inputs]
        axis: int | None = None
        masks: dict[str, int] = {}
        if kind in ("Split", "SplitV"):
            held = numbers.pop()
            axis = None if held is None else int(held[0])
        elif kind == "GatherV2":
            axis = None if maker.options.number(1) else int(maker.options.number(0))
        elif kind == "Unpack":
            axis = int(maker.options.number(1))
        elif kind == "StridedSlice":
            names = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
            masks = {name: maker.options.number(at) for at, name in enumerate(names)}
        outputs = maker.outputs
        return graph_steps.Part(
            kind, len(shape), width, numbers, axis, list(outputs).index(tensor), len(outputs), masks
        ).places

    def varies(self, tensor: int) -> bool:
        """Whether an input has a part in it."""
        pending, seen = [tensor], set()
        while pending:
            one = pending.pop()
            if one in self.inputs:
                return True
            maker = self._makers.get(one)
            if maker is not None and one not in seen:
                pending.extend(place for place in maker.inputs if place >= 0)
            seen.add(one)
        return False

    def step(self, tensor: int) -> _Step:
        """What makes a tensor."""
        shape, varies = self.shape(tensor), self.varies(tensor)
        is_bool = self._tensors[tensor].number(1, "<b") == _BOOL
        maker = self._makers.get(tensor)
        if maker is None:
            held = None if varies else self.constant(tensor)
            value = float(held[0]) if held is not None and held.size == 1 else None
            kind = "Placeholder" if varies else "Const"
            return _Step(kind, shape, varies, tensor, value=value, is_bool=is_bool)
        inputs = [one for one in maker.inputs if one >= 0]
        if maker.name == "Split":  # its axis stands first
            inputs = inputs[1:]
        axis = None
        if maker.name in ("ConcatV2", "Pack"):
            axis = int(maker.options.number(0 if maker.name == "ConcatV2" else 1))
        places = self._places(maker, tensor) if maker.name in graph_steps.PARTS else None
        step = _Step(
            maker.name, shape, varies, tensor, lambda: [self.step(one) for one in inputs],
            is_bool=is_bool, axis=axis, places=places,
        )  # fmt: skip
        if maker.fused:
            return _Step(maker.fused, shape, varies, (tensor, "fused"), lambda: [step])
        return step

    def pixels(self, tensor: int) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
        """What the pixels of a picture must be, from the arithmetic that it begins with."""
        return graph_steps.pixels_for(list(self._first_steps(tensor)))

    def _first_steps(self, tensor: int) -> Iterator[tuple[str, Array, Array]]:
        gain, offset = np.ones(1), np.zeros(1)
        while True:
            users = [one for one in self.operators if tensor in one.inputs and one.name != "Shape"]
            if len(users) != 1 or len(users[0].outputs) != 1:
                return
            (user,) = users
            if user.name in graph_steps.ARITHMETIC and len(user.inputs) == 2 and not user.fused:
                first = user.inputs[0] == tensor
                by = self.constant(user.inputs[1 if first else 0])
                channels = (self.shape(tensor) or [1])[-1]
                if by is None or by.size not in (1, channels):
                    return
                if user.name in ("Mul", "RealDiv"):
                    if user.name == "RealDiv" and not first:
                        return
                    by = by if user.name == "Mul" else 1 / by
                    gain, offset = gain * by, offset * by
                elif user.name == "Sub":
                    gain, offset = (gain, offset - by) if first else (-gain, by - offset)
                else:
                    offset = offset + by
                yield "", gain, np.broadcast_to(offset, np.broadcast_shapes(gain.shape, by.shape))
            elif user.name not in _MOVED or user.inputs[0] != tensor:
                return
            tensor = user.outputs[0]

    def sizes(self) -> dict[str, int]:
        """Of inputs that are looked up in tables, the size of the smallest."""
        found: dict[str, int] = {}
        for one in self.operators:
            if one.name not in ("GatherV2", "EmbeddingLookup") or len(one.inputs) < 2:
                continue
            table, ids = one.inputs[0], one.inputs[1]
            if one.name == "EmbeddingLookup":
                table, ids = ids, table
            given = self._looked_up(ids)
            size = self.shape(table)[0] if self.shape(table) else None
            if given is None or size is None or self.varies(table) or one.options.number(0):
                continue  # field 0 of GatherOptions is the axis
            name = self.name(given, given=True)
            found[name] = min(size, found.get(name, size))
        return found

    def _looked_up(self, tensor: int) -> int | None:
        """The input that these indices are, as they came; None where they are made within."""
        while tensor not in self.inputs:
            maker = self._makers.get(tensor)
            if maker is None:
                return None
            if maker.name in ("Cast", "StridedSlice", "Slice", *graph_steps.MOVES):
                tensor = maker.inputs[0]
            elif maker.name == "SelectV2":  # Keras counts negative indices from the end
                tensor = maker.inputs[2]
            else:
                return None
        return tensor

    def changing(self) -> str:
        """What draws at random or keeps a state from call to call, if anything does."""
        names = {one.name for one in self.operators}
        if drawn := sorted(name for name in names if name.startswith(("Random", "Multinomial"))):
            return f"it draws random numbers ({drawn[0]})"
        return "it keeps a state from call to call" if "AssignVariableOp" in names else ""


def _operator(operator: Table, codes: Sequence[tuple[int, str]]) -> _Operator:
    number, custom = codes[operator.number(0, "<I")]
    name = custom if number == _CUSTOM else OPERATORS.get(number, f"operator {number}")
    inputs, outputs = operator.array(1, "<i4").tolist(), operator.array(2, "<i4").tolist()
    return _Operator(number, name, inputs, outputs, operator.table(4))


def read_graph(model: Table) -> Written:
    """How each output is made, what a picture's pixels must be, how large its tables are.

    Args:
        model: the root of the file.

    Raises:
        struct.error, IndexError, ValueError, TypeError, RecursionError: it is damaged.
    """
    graph = _Graph(model)
    pixels = None
    for tensor in graph.inputs:
        if len(graph.shape(tensor)) in (3, 4):
            pixels = pixels or graph.pixels(tensor)
    made: dict[str, Made] = {
        graph.name(one, given=False): graph_steps.made(graph.step(one)) for one in graph.outputs
    }
    return Written(outputs=made, pixels=pixels, sizes=graph.sizes(), changing=graph.changing())
