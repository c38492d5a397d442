"""What the last steps of a graph tell of its outputs, and the first ones of its input.

The rules are the same for every format whose operations TensorFlow has names for; a format's
reader gives each of its operations as a `Step`, under TensorFlow's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from mlopsdeploy.columns import Array, Made, MadeAs

# What leaves numbers as they are, and only moves them.
MOVES = {
    "Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient",
    "Snapshot", "Transpose", "EnsureShape", "Tile", "BroadcastTo", "CheckNumerics",
}  # fmt: skip
ARITHMETIC = {"BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan"}
PARTS = {"StridedSlice", "Slice", "Split", "SplitV", "Unpack", "GatherV2", "Gather"}
_POOLS = {"Mean", "Max", "AvgPool", "MaxPool"}
_DIVISIONS = {"RealDiv", "Div", "DivNoNan"}
_ACTIVATIONS: Mapping[str, MadeAs] = {
    "Softmax": "softmax", "Sigmoid": "sigmoid",
    **dict.fromkeys(
        (
            "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Expm1",
            "Log1p", "Abs", "Square", "Sqrt", "Rsqrt", "Floor", "Ceil", "Gelu",
            "SquaredDifference", "Erf", "Pow", "Prelu", "HardSwish", "L2Normalization",
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
    "FusedBatchNormV2", "FusedBatchNormV3",
}  # fmt: skip
_HARD_SIGMOID_OF_KERAS_2 = (("Maximum", 0), ("Minimum", 1), ("AddV2", 0.5), ("Mul", 0.2))
_STEP = "its last step, "
_DEEPEST = 100  # steps between an output and the one that tells


@dataclass(frozen=True)
class _End:
    """What is known of a step's numbers.

    Attributes:
        kind, source: see `Made`.
        classes: how many a softmax has, while they are the last axis; None where that is unknown.
        exponent: of logarithms of probabilities, how those are made; None where they are none.
        rest: how what is left of 1 is made.
        unclear: whether it is made of probabilities and may not be read as such.
    """

    kind: MadeAs
    source: str
    classes: int | None = None
    exponent: MadeAs | None = None
    rest: MadeAs = ""
    unclear: bool = False


_Look = Callable[["Step"], _End]


class Step(Protocol):
    """One operation, of which one output is looked at."""

    type: str
    """TensorFlow's name for it; "Placeholder" for an input."""

    place: str
    """What it belongs to, such as a layer; "" where nothing says so."""

    shape: Sequence[int | None] | None
    """Of its output, with the rows; None where that is unknown."""

    varies: bool
    """Whether it depends on an input; else it is a constant."""

    value: float | None
    """Of a constant of one number."""

    is_bool: bool

    axis: int | None
    """Of what joins several, along which; None where that is unknown."""

    places: Sequence[int] | None
    """Of what takes a part: those of its input's last axis that it takes, in their order, a range
    where it is all of them; None where that is unknown. See `Part`."""

    key: object
    """The same for the same of its outputs."""

    @property
    def inputs(self) -> Sequence[Step]:
        """The steps before it, constants among them; of `Split` and the like the data alone."""
        ...


@dataclass(frozen=True)
class Part:
    """An operation that takes a part of its first input, as its file has it.

    Attributes:
        type: TensorFlow's name for it.
        rank, width: how many axes its input has, and places the last of them.
        numbers: begin, end and strides; begin and size; indices; sizes. None is not constant.
        axis: along which; None where it has none, or that is unknown.
        index: which of its outputs is looked at.
        count: how many outputs it has.
        masks: of a StridedSlice, by their names without `_mask`.
    """

    type: str
    rank: int
    width: int
    numbers: Sequence[Array | None]
    axis: int | None = None
    index: int = 0
    count: int = 1
    masks: Mapping[str, int] = field(default_factory=dict)

    @property
    def places(self) -> Sequence[int] | None:
        """See `Step.places`."""
        if not self.width:
            return None
        whole = range(self.width)
        sliced = self.type in ("StridedSlice", "Slice")
        if not sliced and (self.axis is None or self.axis % self.rank != self.rank - 1):
            return None if self.axis is None else whole
        if self.type == "Unpack":
            return (self.index,)
        if self.type == "Split":
            size = self.width // self.count
            return whole[self.index * size : (self.index + 1) * size]
        if any(number is None for number in self.numbers):
            return None
        numbers = [np.reshape(number, -1).tolist() for number in self.numbers if number is not None]
        if self.type == "StridedSlice":
            return self._strided(*numbers)
        if self.type == "Slice":
            begin, size = (number[-1] for number in numbers)
            return whole[begin:] if size < 0 else whole[begin : begin + size]
        if self.type == "SplitV":
            left = self.width - sum(size for size in numbers[0] if size >= 0)
            sizes = [left if size < 0 else size for size in numbers[0]]
            begin = sum(sizes[: self.index])
            return whole[begin : begin + sizes[self.index]]
        taken = [place % self.width for place in numbers[0]]
        return whole if len(taken) == self.width and taken == [*whole] else taken

    def _strided(self, begin: list[int], end: list[int], strides: list[int]) -> Sequence[int]:
        masks = {name: [mask >> at & 1 for at in range(len(begin))]
                 for name, mask in self.masks.items()}  # fmt: skip
        axis = 0
        for at, (first, last, stride) in enumerate(zip(begin, end, strides, strict=True)):
            if masks["ellipsis"][at]:
                axis = self.rank - masks["new_axis"][at + 1 :].count(0)
            elif not masks["new_axis"][at]:
                if axis == self.rank - 1:
                    if masks["shrink_axis"][at]:
                        return (first % self.width,)
                    start = None if masks["begin"][at] else first
                    return range(self.width)[start : None if masks["end"][at] else last : stride]
                axis += 1
        return range(self.width)


def made(step: Step) -> Made:
    """How an output is made, back to what made its numbers what they are."""
    known: dict[object, _End] = {}
    depth = 0

    def look(step: Step) -> _End:
        nonlocal depth
        key = step.key, step.type
        if key not in known:
            known[key] = _said("", step)  # what a ring would find, which no graph has
            if depth < _DEEPEST:
                depth += 1
                known[key] = _made(step, look)
                depth -= 1
        return known[key]

    end = look(step)
    return Made(end.kind, end.source)


def _made(step: Step, look: _Look) -> _End:
    kind = step.type
    if kind == "Placeholder":
        return _said("", step, "its own input")
    if kind in _ACTIVATIONS:
        end = _said(_ACTIVATIONS[kind], step)
        return replace(end, classes=_width(step)) if kind == "Softmax" else end
    if kind in _SUMS:
        return _said("linear", step)
    if _goes_back_by(step, _HARD_SIGMOID_OF_KERAS_2):
        return _said("sigmoid", step, "a hard sigmoid")
    for kinds, read in (
        (PARTS, _part),
        ((*MOVES, "Cast", *_POOLS), _passed),
        (("Log", "LogSoftmax", "Exp"), _logarithm),
        (("ConcatV2", "Pack"), _joined),
        (("Maximum", "Minimum", "ClipByValue"), _bounded),
        (ARITHMETIC, _arithmetic),
    ):
        if kind in kinds:
            return read(step, look)
    return _said("", step)


def _said(kind: MadeAs, step: Step, what: str = "") -> _End:
    end = ", with no activation" if kind == "linear" else ""
    place = f" in {step.place}" if step.place else ""
    source = f"{_STEP}{what or step.type}{place}{end}"
    return _End(kind, source, rest="sigmoid" if kind == "sigmoid" else "")


def _logarithm(step: Step, look: _Look) -> _End:
    """Logarithms of probabilities, and what these are again."""
    if step.type == "LogSoftmax":
        return replace(_said("logits", step), classes=_width(step), exponent="softmax")
    before = look(step.inputs[0])
    if step.type == "Exp":
        if before.exponent is None:
            return _said("values", step)
        end = _said(before.exponent, step, f"Exp of {before.source.removeprefix(_STEP)}")
        unclear = not before.exponent
        return replace(end, classes=before.classes, rest=before.rest, unclear=unclear)
    if before.unclear:
        return _unclear(before, step.type, exponent="")
    if before.kind not in ("softmax", "sigmoid"):
        return _said("values", step)
    # A softmax gives these back; of single probabilities there is none that does.
    end = _said("logits" if before.kind == "softmax" else "", step, f"Log of a {before.kind}")
    return replace(end, classes=before.classes, exponent=before.kind, rest=before.rest)


def _bounded(step: Step, look: _Look) -> _End:
    inner = _varying(step)
    before = look(inner[0]) if len(inner) == 1 else None
    if before is None:
        return _said("values", step)
    if before.exponent is not None:
        return _unclear(before, step.type)
    keeps = before.unclear or before.kind in ("softmax", "sigmoid", "values")
    return before if keeps else _said("values", step)


def _unclear(before: _End, what: str, exponent: MadeAs | None = None) -> _End:
    """Of probabilities or their logarithms, numbers that may not be read as those."""
    if before.exponent is not None:
        exponent = ""
    source = f"{before.source}, of which {what} is given"
    return _End("", source, exponent=exponent, unclear=True)


def _passed(step: Step, look: _Look) -> _End:
    before = step.inputs[0]
    found = look(before)
    if step.type == "Cast" and before.is_bool and found.kind != "label":
        return _said("label", step)
    if step.type in ("Max", "MaxPool") and "softmax" in (found.kind, found.exponent):
        return _unclear(found, step.type)
    if step.type in _POOLS and found.exponent is not None:
        return _unclear(found, step.type)
    turned = step.type == "Transpose" and (_rank(step) or 3) > 2
    return replace(found, classes=None) if turned or _width(step) != _width(before) else found


def _part(step: Step, look: _Look) -> _End:
    """Some classes of a softmax, or all of them of some steps; what has no classes as it is."""
    before = step.inputs[0]
    found = look(before)
    if "softmax" not in (found.kind, found.exponent):
        return found
    count, places = found.classes, step.places
    if count is None or count != _width(before) or places is None:
        return _unclear(found, "a part")
    if places == range(count):
        return found
    if len(places) != 1:
        return _unclear(found, "a part")
    # A probability alone is read as the second class's.
    first = places[0] % count == 0
    source = f"{found.source}, of which {'the first class' if first else 'a part'} is given"
    kind: MadeAs = "" if first else "sigmoid"
    rest: MadeAs = "sigmoid" if first and count == 2 else ""
    if found.exponent is not None:
        return _End("", source, exponent=kind, rest=rest, unclear=True)
    return _End(kind, source, rest=rest, unclear=first)


def _joined(step: Step, look: _Look) -> _End:
    found = [look(one) for one in step.inputs]
    kinds = {one.kind for one in found}
    if "sigmoid" in kinds and len(found) == 2:
        first, second = step.inputs
        if _is_rest(first, second) or _is_rest(second, first):
            end = _said("softmax", step, "a probability and what is left of 1")
            return replace(end, classes=_width(step))
    rank = _rank(step)
    last = step.axis is None or rank is None or step.axis % rank == rank - 1
    if len(kinds) == 1 and (found[0].kind in ("sigmoid", "linear", "values") or not last):
        return found[0]
    return _said("", step)


def _arithmetic(step: Step, look: _Look) -> _End:
    varying = _varying(step)
    if len(varying) == 2:
        return _of_two(step, varying, look)
    if len(varying) != 1:
        return _said("", step)
    before = look(varying[0])
    if _is_hard_sigmoid(step, varying[0]):
        return _said("sigmoid", step, "a hard sigmoid")
    of_probabilities = before.kind in ("softmax", "sigmoid") or before.exponent is not None
    if (of_probabilities or before.unclear) and (found := _of_shares(step, before)):
        return found
    if before.kind in ("sigmoid", "values"):
        return _said("values", step, f"{step.type} after {before.source.removeprefix(_STEP)}")
    if before.kind == "linear":
        return before
    if _behind(varying[0]).type in ("Exp", "Sum"):
        return _said("values", step)
    return _said("", step)


def _of_shares(step: Step, before: _End) -> _End | None:
    """Arithmetic with a constant after probabilities, which of single ones may make values."""
    if _is_neutral(step):
        return before
    if before.exponent is None and before.rest and _is_rest(step):
        return replace(before, kind=before.rest, rest=before.kind, unclear=False)
    if before.kind == "sigmoid" and (before.rest or not _is_rest(step)):
        return None
    return _unclear(before, step.type)


def _of_two(step: Step, varying: Sequence[Step], look: _Look) -> _End:
    if step.type in _DIVISIONS and [_behind(one).type for one in varying] == ["Exp", "Sum"]:
        return replace(_said("softmax", step, "a softmax written out"), classes=_width(step))
    if step.type == "Mul":  # x * sigmoid(x) and its like
        return _said("values", step, "a product")
    kinds = [look(one).kind for one in varying]
    if step.type not in _DIVISIONS and set(kinds) == {"linear"}:
        return _said("linear", step)
    names = " and ".join(kind or "something else" for kind in kinds)
    return _said("", step, f"{step.type} of {names}")


def _varying(step: Step) -> list[Step]:
    return [one for one in step.inputs if one.varies]


def _constant(step: Step) -> float | None:
    """The number that it computes with, if it is a single one."""
    return next((one.value for one in step.inputs if not one.varies), None)


def _behind(step: Step) -> Step:
    """What was there before casts, and before a small number was added to keep off zero."""
    for _ in range(_DEEPEST):
        varying = _varying(step)
        if step.type not in ("Cast", "Maximum", "AddV2", *MOVES) or len(varying) != 1:
            break
        step = varying[0]
    return step


def _is_rest(step: Step, of: Step | None = None) -> bool:
    """Whether it is 1 - x, of this x if one is given."""
    step = _unmoved(step)
    if step.type != "Sub" or step.inputs[0].value != 1:
        return False
    return of is None or _unmoved(step.inputs[1]).key == _unmoved(of).key


def _unmoved(step: Step) -> Step:
    for _ in range(_DEEPEST):
        if step.type not in MOVES or not step.inputs:
            break
        step = step.inputs[0]
    return step


def _is_neutral(step: Step) -> bool:
    """Whether it multiplies or divides by 1, or adds 0 or what keeps off it."""
    if step.type in ("Sub", *_DIVISIONS) and not step.inputs[0].varies:
        return False
    number = _constant(step)
    if number is None:
        return False
    return number == 1 if step.type in ("Mul", *_DIVISIONS) else abs(number) < 1e-5


def _is_hard_sigmoid(step: Step, varying: Step) -> bool:
    """Whether it is relu6(x + 3) / 6."""
    wanted = {"RealDiv": 6, "Mul": 1 / 6}.get(step.type)
    factor = _constant(step)
    alike = wanted is not None and factor is not None and abs(factor - wanted) < 1e-3
    return alike and varying.type == "Relu6"


def _goes_back_by(step: Step, path: Sequence[tuple[str, float]]) -> bool:
    """Whether its last steps are these, backwards, each with its number."""
    for kind, number in path:
        constant, varying = _constant(step), _varying(step)
        if step.type != kind or len(varying) != 1 or constant is None:
            return False
        if abs(constant - number) > 1e-3:
            return False
        step = varying[0]
    return True


def _width(step: Step) -> int | None:
    return step.shape[-1] if step.shape else None


def _rank(step: Step) -> int | None:
    return None if step.shape is None else len(step.shape)


# ---------------------------------------------------------------- pixels

RANGES = {(0.0, 1.0): "0 to 255", (0.0, 255.0): "0 to 1", (127.5, 127.5): "-1 to 1"}
"""By the `mean` and `std` that make them of pixels."""


def pixels_for(
    steps: Sequence[tuple[str, Array, Array]],
) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
    """What a picture's pixels must be, as `Written.pixels`; None where its first steps don't tell.

    Args:
        steps: of each, the place, and the gain and offset by channel of it and all before it.
    """
    # All steps together first: a Rescaling to 0..1 and then a Normalization of that.
    for count in range(len(steps), 0, -1):
        _, gain, offset = steps[count - 1]
        if found := _range_of(gain, offset):
            mean, std, low, high = found
            places = ", ".join(filter(None, dict.fromkeys(place for place, _, _ in steps[:count])))
            what = f"its first steps{f', in {places},' if places else ''}"
            return (mean,), (std,), f"{what} make {low:.3g} to {high:.3g} of {RANGES[mean, std]}"
    return None


def _range_of(gain: Array, offset: Array) -> tuple[float, float, float, float] | None:
    """What pixels must be for `pixel * gain + offset` to be what networks take.

    Returns:
        `mean` and `std` by which pixels of 0 to 255 become what the model takes, and the range
        that its first steps make of them; None where they don't show it.
    """
    if np.allclose(gain, 1, atol=0.1) and np.all(np.abs(offset) < 0.1):
        return None
    best: tuple[float, tuple[float, float, float, float]] | None = None
    for mean, std in RANGES:
        low, high = ((edge - mean) / std for edge in (0, 255))
        ends = np.stack([gain * low + offset, gain * high + offset])
        spread = float(np.mean(np.abs(ends[1] - ends[0])))
        centre = float(np.mean(np.abs(ends.mean(axis=0))))
        is_small = 0.4 <= spread <= 8 and centre <= 0.75 * spread
        is_pixels = 240 <= spread <= 270 and (std != 1 or bool(np.all(np.abs(offset) > 50)))
        if not np.isfinite(spread) or not (is_small or is_pixels):
            continue
        if best is None or centre / spread < best[0]:
            best = centre / spread, (mean, std, float(ends.min()), float(ends.max()))
    return best[1] if best else None
