"""What the last steps of a graph tell of its outputs, and the first ones of its input.

The rules are the same for every format whose operations TensorFlow has names for; a format's
reader gives each of its operations as a `Step`, under TensorFlow's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from mlopsdeploy.columns import Array, Made, MadeAs

# What leaves numbers as they are, and only moves them.
MOVES = {
    "Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient",
    "Snapshot", "Transpose", "EnsureShape", "Tile", "BroadcastTo", "CheckNumerics",
}  # fmt: skip
ARITHMETIC = {"BiasAdd", "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan"}
_PARTS = {"StridedSlice", "Slice", "Split", "SplitV", "Unpack", "GatherV2", "Gather"}
_POOLS = {"Mean", "Max", "AvgPool", "MaxPool"}
_DIVISIONS = {"RealDiv", "Div", "DivNoNan"}
_ACTIVATIONS: Mapping[str, MadeAs] = {
    "Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "logits",
    **dict.fromkeys(
        (
            "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Exp",
            "Expm1", "Log", "Log1p", "Abs", "Square", "Sqrt", "Rsqrt", "Floor", "Ceil", "Gelu",
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
_Look = Callable[["Step"], Made]


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

    key: object
    """The same for the same operation."""

    @property
    def inputs(self) -> Sequence[Step]:
        """The steps before it, constants among them; of `Split` and the like the data alone."""
        ...


def made(step: Step) -> Made:
    """How an output is made, back to what made its numbers what they are."""
    known: dict[object, Made] = {}
    depth = 0

    def look(step: Step) -> Made:
        nonlocal depth
        # Parts of one operation differ in their shape at most.
        key = step.key, step.type, None if step.shape is None else tuple(step.shape)
        if key not in known:
            known[key] = _said("", step)  # what a ring would find, which no graph has
            if depth < _DEEPEST:
                depth += 1
                known[key] = _made(step, look)
                depth -= 1
        return known[key]

    return look(step)


def _made(step: Step, look: _Look) -> Made:
    kind = step.type
    if kind == "Placeholder":
        return _said("", step, "its own input")
    if kind in MOVES or kind in ("Cast", *_PARTS, *_POOLS):
        return _passed(step, look)
    if kind in _ACTIVATIONS:
        return _said(_ACTIVATIONS[kind], step)
    if kind in _SUMS:
        return _said("linear", step)
    if kind in ("ConcatV2", "Pack"):
        return _joined(step, look)
    if _goes_back_by(step, _HARD_SIGMOID_OF_KERAS_2):
        return _said("sigmoid", step, "a hard sigmoid")
    if kind in ("Maximum", "Minimum", "ClipByValue"):
        inner = _varying(step)
        before = look(inner[0]) if len(inner) == 1 else None
        keeps = before and before.kind in ("softmax", "sigmoid", "values")
        return before if before and keeps else _said("values", step)
    if kind in ARITHMETIC:
        return _arithmetic(step, look)
    return _said("", step)


def _said(kind: MadeAs, step: Step, what: str = "") -> Made:
    end = ", with no activation" if kind == "linear" else ""
    place = f" in {step.place}" if step.place else ""
    return Made(kind, f"{_STEP}{what or step.type}{place}{end}")


def _passed(step: Step, look: _Look) -> Made:
    before = step.inputs[0]
    found = look(before)
    if step.type == "Cast" and before.is_bool and found.kind != "label":
        return _said("label", step)
    if found.kind != "softmax":
        return found
    if step.type in ("Max", "MaxPool"):
        return _said("", step)
    if step.type in _PARTS and _width(step) != _width(before):
        # One class's probability of several: no longer all of those that add up to 1.
        one = _width(step) in (None, 1) or _rank(step) != _rank(before)
        return Made("sigmoid" if one else "", f"{found.source}, of which a part is given")
    return found


def _joined(step: Step, look: _Look) -> Made:
    found = [look(one) for one in step.inputs]
    kinds = {one.kind for one in found}
    if kinds == {"sigmoid"} and len(found) == 2:
        first, second = step.inputs
        if _is_rest(first, second) or _is_rest(second, first):
            return _said("softmax", step, "a probability and what is left of 1")
    rank = _rank(step)
    last = step.axis is None or rank is None or step.axis % rank == rank - 1
    if len(kinds) == 1 and (found[0].kind in ("sigmoid", "linear", "values") or not last):
        return found[0]
    return _said("", step)


def _arithmetic(step: Step, look: _Look) -> Made:
    varying = _varying(step)
    if len(varying) == 2:
        return _of_two(step, varying, look)
    if len(varying) != 1:
        return _said("", step)
    before = look(varying[0])
    if _is_hard_sigmoid(step, varying[0]):
        return _said("sigmoid", step, "a hard sigmoid")
    if before.kind == "sigmoid" and (_is_rest(step) or _is_neutral(step)):
        return before
    if before.kind in ("sigmoid", "values"):
        return _said("values", step, f"{step.type} after {before.source.removeprefix(_STEP)}")
    if before.kind in ("linear", "logits"):
        return before
    if _behind(varying[0]).type in ("Exp", "Sum"):
        return _said("values", step)
    return _said("", step)


def _of_two(step: Step, varying: Sequence[Step], look: _Look) -> Made:
    if step.type in _DIVISIONS and [_behind(one).type for one in varying] == ["Exp", "Sum"]:
        return _said("softmax", step, "a softmax written out")
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
    """Whether it multiplies or divides by 1, or adds 0."""
    return _constant(step) == (1 if step.type in ("Mul", *_DIVISIONS) else 0)


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
