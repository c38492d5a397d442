"""How a graph makes its outputs, read backwards from them.

From an output back to the operator that tells: past what only changes a value's shape or type, and
through arithmetic, of which is kept what shows probabilities: within which bounds each number lies,
and what those of a row add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any, Protocol

import numpy as np

from mlopsdeploy.columns import Array, MadeAs


class Operator(Protocol):
    """One operator, in ONNX's words."""

    kind: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """What a classifier calls its classes, in the order of its scores."""
        ...

    def attribute(self, name: str) -> Any:
        """None if it has none of this name."""
        ...


class Graph(Protocol):
    """What is looked at of a file."""

    @property
    def makers(self) -> Mapping[str, Operator]:
        """The operator that makes a value, by the value's name."""
        ...

    def constant(self, value: str) -> Array | None:
        """The values of a small constant; None where it is none."""
        ...

    def rank(self, value: str) -> int | None:
        """How many axes a value has; None where the file doesn't tell."""
        ...


@dataclass(frozen=True)
class End:
    """What is known of a value.

    Attributes:
        kind: how it is made, see `MadeAs`.
        operator: the operator that tells.
        classes: names of classes, in the order of the last axis.
        low, high: the bounds of each number.
        total: what the numbers of a row add up to, where that is known.
        axes: the numbers that the axis of the classes has, as (1, -1), where that is known.
        root, scale, shift: another value that it is a multiple of, plus a number.
        exponent: of logarithms of probabilities, how those are made; None where they are none.
        rest: of one class's probability, how what is left of 1 is made; None of all else.
        chosen: of a label, the value whose largest (or with `smallest` the smallest) it is; of one
            that tells on which side of a number another value lies, with `sided`, that value.
        edge: with `sided`, that number, where it is known.
        trained: the kinds of operators of trained models that it comes from.
    """

    kind: MadeAs = ""
    operator: str = ""
    classes: tuple[str, ...] = ()
    low: float = -inf
    high: float = inf
    total: float | None = None
    axes: tuple[int, ...] = ()
    root: str = ""
    scale: float = 1
    shift: float = 0
    exponent: MadeAs | None = None
    rest: MadeAs | None = None
    chosen: str = ""
    smallest: bool = False
    sided: bool = False
    edge: float | None = None
    trained: frozenset[str] = frozenset()

    @property
    def is_share(self) -> bool:
        """Whether each number lies from 0 to 1."""
        return self.low >= -_ROUNDING and self.high <= 1 + _ROUNDING

    @property
    def is_distribution(self) -> bool:
        """Whether the numbers of a row add up to 1, as probabilities of exclusive classes do."""
        return self.total is not None and abs(self.total - 1) < _ROUNDING


_ROUNDING = 1e-4
_DEEPEST = 100  # operators between an output and the one that tells

# What changes how values are stored or arranged, and not which ones they are.
PASSING = {
    "Cast", "CastLike", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Identity",
    "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_MOVING = {"Expand", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_LINEAR = {
    "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "Einsum", "FusedConv",
    "FusedGemm", "FusedMatMul", "Gemm", "GroupConvolution", "MatMul", "MatMulInteger",
    "MatMulNBits", "QGemm", "QLinearConv", "QLinearMatMul", "DynamicQuantizeMatMul",
}  # fmt: skip
_SIDES = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_COMPARING = {"And", "Equal", "Not", "Or", *_SIDES}
_POSITIVE = {
    "Abs", "Exp", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Relu", "Softplus", "Sqrt",
}  # fmt: skip
_VALUES = {
    "Celu", "Elu", "Erf", "FastGelu", "GRU", "Gelu", "HardSwish", "Imputer",
    "InstanceNormalization", "LSTM", "LayerNormalization", "LeakyRelu", "Mish",
    "Mod", "OneHotEncoder", "PRelu", "Pow", "RNN", "Reciprocal", "Round", "Scaler", "Selu",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "Softsign", "Swish", "Tanh",
    "ThresholdedRelu", "Where",
}  # fmt: skip
_POOLS = {"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceMin", "MaxPool",
          "GlobalMaxPool", "ReduceSum"}  # fmt: skip


class Ends:
    """Looks at the values of one graph; each once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, End] = {}
        self._depth = 0

    def of(self, value: str) -> End:
        """What is known of a value."""
        if value not in self._known:
            self._known[value] = End(root=value)  # what a ring would find, which no graph has
            if self._depth < _DEEPEST:
                self._depth += 1
                self._known[value] = self._look(value)
                self._depth -= 1
        return self._known[value]

    def start(self, value: str) -> str:
        """The value that another one is, but for its shape and type."""
        for _ in range(_DEEPEST):
            node = self._graph.makers.get(value)
            if node is None or node.kind not in PASSING or not node.takes:
                break
            value = node.takes[0]
        return value

    def squared(self, value: str) -> str:
        """The value that another one is the square root of, or that value itself."""
        node = self._graph.makers.get(value)
        return self.start(node.takes[0]) if node is not None and node.kind == "Sqrt" else value

    def _look(self, value: str) -> End:
        node = self._graph.makers.get(value)
        if node is None:
            return End(root=value)
        kind = node.kind
        rule = _RULES.get(kind)
        if rule is not None:
            end = rule(self, node, node.gives.index(value))
        elif kind in PASSING:
            end = self.of(node.takes[0])
            if kind in _MOVING:
                end = replace(end, axes=())
        elif kind in _LINEAR:
            end = _activated(node, End("linear", kind))
        elif kind in _COMPARING:
            end = self._compare(node)
        elif kind in _POSITIVE:
            end = End("values", kind, low=0)
        elif kind in _VALUES:
            end = End("values", kind)
        else:
            end = End(operator=kind)
        if not end.trained and kind not in PASSING:
            sources = [self._known[one].trained for one in node.takes if one in self._known]
            end = replace(end, trained=frozenset().union(*sources))
        return end if end.root else replace(end, root=value)

    # ------------------------------------------------------------ probabilities

    def _softmax(self, node: Operator, _: int) -> End:
        return End("softmax", node.kind, low=0, high=1, total=1, axes=self._axes(node))

    def _axes(self, node: Operator) -> tuple[int, ...]:
        """That of the classes; left out, it depends on the version of the operator."""
        axis, rank = node.attribute("axis"), self._graph.rank(node.gives[0])
        if axis is None:
            return ()
        maker = self._graph.makers.get(node.takes[0])
        if maker is not None and maker.kind == "Gemm":  # PyTorch's older exporter tells no shapes
            rank = 2
        return (int(axis) % rank, int(axis) % rank - rank) if rank else (int(axis),)

    def _sigmoid(self, node: Operator, _: int) -> End:
        return End("sigmoid", node.kind, low=0, high=1)

    def _log_softmax(self, node: Operator, _: int) -> End:
        return End("logits", node.kind, high=0, exponent="softmax", axes=self._axes(node))

    def _log(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        if inner.is_distribution:
            return End("logits", "Log", high=0, exponent="softmax", axes=inner.axes)
        if inner.kind == "sigmoid" or inner.rest is not None:  # which no softmax gives back
            kind = inner.kind
            return End("", f"Log of {inner.operator}", high=0, exponent=kind, rest=inner.rest)
        return End("values", "Log")

    def _exp(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        if inner.exponent == "softmax":
            return End("softmax", "Exp", low=0, high=1, total=1, axes=inner.axes)
        if inner.exponent is not None:
            what = f"Exp of {inner.operator}"
            return End(inner.exponent, what, low=0, high=1, rest=inner.rest)
        return End("values", "Exp", low=0)

    def _normalizer(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        adds_up = node.attribute("norm") == "L1" or node.attribute("p") == 1
        if adds_up and inner.low >= 0:
            return replace(inner, kind="softmax", high=1, total=1, root="", scale=1, shift=0)
        return End("values", node.kind)

    def _clip(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        if inner.kind in ("softmax", "sigmoid", "label") or inner.rest is not None:
            return inner
        if inner.exponent is not None:
            return replace(inner, kind="", exponent="", root="", scale=1, shift=0)
        bounds = [self._number(node, 1, "min"), self._number(node, 2, "max")]
        low, high = (
            (-inf if bounds[0] is None else bounds[0]),
            (inf if bounds[1] is None else bounds[1]),
        )
        return End("values", node.kind, low=max(low, inner.low), high=min(high, inner.high))

    def _number(self, node: Operator, place: int, name: str) -> float | None:
        given = node.attribute(name)
        if given is None:
            return self._one_number(node.takes[place]) if len(node.takes) > place else None
        return None if np.size(given) != 1 else float(np.reshape(given, ()))

    # ------------------------------------------------------------ labels

    def _arg(self, node: Operator, _: int) -> End:
        smallest = node.kind == "ArgMin"
        return End(
            "label", node.kind, low=0, chosen=self.start(node.takes[0]), smallest=smallest,
            trained=self.of(node.takes[0]).trained,
        )  # fmt: skip

    def _top(self, node: Operator, place: int) -> End:
        # The values are sorted: the first is that of another class in each row.
        self.of(node.takes[0])
        return End("label", node.kind, low=0) if place else End("values", node.kind)

    def _compare(self, node: Operator) -> End:
        inner = [self.of(one) for one in node.takes]
        sided = next((self.start(one) for one, end in zip(node.takes, inner, strict=True)
                      if self._graph.constant(one) is None and not end.sided), "")  # fmt: skip
        known = next((end for end in inner if end.sided), None)
        if known is not None:
            edge = known.edge if node.kind == "Not" else None
            return replace(known, kind="label", operator=node.kind, low=0, high=1, edge=edge)
        edge = None
        if node.kind in _SIDES:
            edges = (self._one_number(value) for value in node.takes)
            edge = next((number for number in edges if number is not None), None)
        return End("label", node.kind, low=0, high=1, chosen=sided, sided=True, edge=edge)

    def _one_number(self, value: str) -> float | None:
        given = self._graph.constant(value)
        return None if given is None or np.size(given) != 1 else float(np.reshape(given, ()))

    def _binarizer(self, node: Operator, _: int) -> End:
        self.of(node.takes[0])
        return End(
            "label", node.kind, low=0, high=1, chosen=self.start(node.takes[0]), sided=True,
            edge=node.attribute("threshold") or 0,
        )  # fmt: skip

    def _sign(self, node: Operator, _: int) -> End:
        self.of(node.takes[0])
        chosen = self.start(node.takes[0])
        return End("label", node.kind, low=-1, high=1, chosen=chosen, sided=True, edge=0)

    def _encoder(self, node: Operator, _: int) -> End:
        names = node.attribute("values_strings")
        names = node.attribute("values_int64s") if names is None else names
        return End("values", node.kind) if names is None else End("label", node.kind)

    def _pick(self, node: Operator, _: int) -> End:
        """Some places of the last axis; or names of classes, by their number."""
        names = self._graph.constant(node.takes[0])
        if names is not None:
            number = self.of(node.takes[1])
            if not number.chosen:  # a table of something else, such as the shares of leaves
                low = float(np.min(names, initial=0)) if names.dtype.kind in "fiu" else -inf
                return End("values", node.kind, low=low)
            return replace(
                number, kind="label", operator=number.operator or node.kind,
                classes=words(names) if names.dtype.kind in "iOU" else (), root="",
            )  # fmt: skip
        inner = self.of(node.takes[0])
        places = self._places(node)
        classes: tuple[str, ...] = ()
        if inner.classes and places is not None and places.size == 1:
            place = int(places.reshape(-1)[0])
            classes = inner.classes[place : place + 1]
        picked = replace(inner, classes=classes, axes=(), root="", scale=1, shift=0)
        if "softmax" not in (inner.kind, inner.exponent):
            return replace(picked, total=None)
        is_class = _same_axis(inner.axes, self._axis(node))
        if is_class is False:  # such as the first word's
            return replace(picked, classes=inner.classes)
        logs = inner.exponent is not None
        picked = replace(picked, kind="", total=None, exponent="" if logs else None)
        if not is_class or places is None or places.size != 1:
            return picked
        # Of two classes, a number alone is read as the second's. Counted from the end, all but the
        # last may be the first.
        place = int(places.item())
        kind: MadeAs = "sigmoid" if place > 0 or place == -1 or classes else ""
        what = "the first class" if place == 0 else "a class"
        picked = replace(picked, rest="", operator=f"{inner.operator}, of which {what} is given")
        return replace(picked, exponent=kind) if logs else replace(picked, kind=kind)

    def _axis(self, node: Operator) -> int | None:
        """Along which a part is taken."""
        if node.kind == "ArrayFeatureExtractor":
            return -1
        if node.kind == "Gather":
            axis = self._number(node, 2, "axis")  # OpenVINO has it as an input
            return 0 if axis is None else int(axis)
        axis = self._number(node, 3, "axes")
        return None if axis is None else int(axis)

    def _places(self, node: Operator) -> Array | None:
        if node.kind == "Slice":
            starts = self._number(node, 1, "starts")
            ends = self._number(node, 2, "ends")
            if starts is None or ends is None:
                return None
            return np.array([int(starts)]) if ends - starts == 1 else None
        return self._graph.constant(node.takes[1]) if len(node.takes) > 1 else None

    # ------------------------------------------------------------ trained models of ai.onnx.ml

    def _zip_map(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        return replace(
            inner, classes=node.classes or inner.classes, trained=inner.trained | {"ZipMap"}
        )

    def _classifier(self, node: Operator, place: int) -> End:
        classes, kind = node.classes, node.kind
        trained = frozenset({kind})
        if place == 0:
            return End("label", kind, classes, trained=trained)
        after = node.attribute("post_transform") or "NONE"
        title = f"{kind} with post_transform {after}"
        shares = End("sigmoid", title, classes, low=0, high=1, trained=trained)
        exclusive = replace(shares, kind="softmax", total=1.0, axes=(1, -1))
        if after in ("SOFTMAX", "SOFTMAX_ZERO"):
            return exclusive
        if after == "LOGISTIC":
            return exclusive if len(classes) == 2 else shares
        if kind == "SVMClassifier" and node.attribute("prob_a") is not None:
            return replace(exclusive, operator=f"{kind} with prob_a and prob_b")
        if (
            kind == "TreeEnsembleClassifier"
            and after == "NONE"
            and _leaves_are_shares(node, classes)
        ):
            return replace(exclusive, operator=f"{kind}, whose leaves hold shares of classes")
        return End("values", title, classes, trained=trained)

    def _regressor(self, node: Operator, _: int) -> End:
        return End("values", node.kind, trained=frozenset({node.kind}))

    # ------------------------------------------------------------ arithmetic

    def _affine(self, node: Operator, _: int) -> End:
        """A sum, difference, product or quotient."""
        values = [self._graph.constant(value) for value in node.takes]
        known = [
            value is not None and value.size > 0 and value.dtype.kind in "fiu" for value in values
        ]
        if len(node.takes) == 2 and any(known):
            place = known.index(False) if False in known else 1
            constant = values[1 - place]
            assert constant is not None
            return self._with_constant(node.kind, self.of(node.takes[place]), constant, place)
        if node.kind == "Neg":
            return self._with_constant("Mul", self.of(node.takes[0]), np.array(-1.0), 0)
        ends = [self.of(value) for value in node.takes]
        if node.kind in ("Add", "Sum"):
            totals = [end.total for end in ends]
            whole = None if None in totals else sum(total for total in totals if total is not None)
            low, high = sum(end.low for end in ends), sum(end.high for end in ends)
            return _kept(_mixed(ends), low, high, whole)
        if node.kind == "Div" and ends[0].low >= 0 and self._is_total(node.takes[1], node.takes[0]):
            return End("softmax", "numbers divided by their sum", low=0, high=1, total=1)
        if node.kind == "Sub" and self._is_log_total(node.takes[1], node.takes[0]):
            return End("logits", "ReduceLogSumExp", high=0, exponent="softmax")
        if node.kind == "Mul" and all(end.is_share for end in ends):
            return _kept(_mixed(ends), 0, 1, None)
        if node.kind == "Sub":
            if any(end.exponent is not None for end in ends):
                return End("", "Sub of logarithms of probabilities")
            return End("linear" if "linear" in {end.kind for end in ends} else "values", "Sub")
        return End("values", node.kind)

    def _with_constant(self, kind: str, end: End, constant: Array, place: int) -> End:
        lowest, highest = float(np.min(constant)), float(np.max(constant))
        even = lowest == highest
        if kind in ("Add", "Sum"):
            scale, shifts = 1.0, (lowest, highest)
        elif kind == "Sub":
            scale, shifts = (1.0, (-highest, -lowest)) if place == 0 else (-1.0, (lowest, highest))
        elif (
            even
            and isfinite(lowest)
            and (kind == "Mul" or (kind == "Div" and place == 0 and lowest))
        ):
            scale, shifts = (lowest if kind == "Mul" else 1 / lowest), (0.0, 0.0)
        elif kind == "Div" and place == 1 and lowest >= 0 and end.low > 0:
            logistic = even and lowest == end.shift == 1 and end.operator == "Exp"
            high = highest / end.low
            return End("sigmoid" if logistic else "values", "1 / (1 + exp)", low=0, high=high)
        else:
            return End("linear" if end.kind == "linear" and place == 0 else "values", kind)
        bounds = sorted((end.low * scale, end.high * scale)) if scale else [0.0, 0.0]
        low, high = bounds[0] + shifts[0], bounds[1] + shifts[1]
        total = end.total * scale if end.total is not None and not any(shifts) else None
        made = _kept(replace(end, scale=end.scale * scale), low, high, total)
        if not even or not isfinite(lowest):
            return replace(made, root="", scale=1, shift=0)
        made = replace(made, shift=end.shift * scale + shifts[0])
        if end.rest is not None and (made.scale, made.shift) == (-1, 1):
            return replace(made, kind=end.rest, operator=f"1 minus {end.operator}")
        return made

    def _is_total(self, value: str, of: str) -> bool:
        """Whether a value is the sum of another's numbers; both with what keeps it from being 0."""
        numbers = {self.start(of)}
        node = self._graph.makers.get(self.start(of))
        if node is not None and node.kind == "Add":
            numbers.add(self.start(node.takes[0]))
        for _ in range(_DEEPEST):
            node = self._graph.makers.get(value)
            if node is None:
                return False
            if node.kind in ("ReduceSum", "ReduceL1"):
                return self._positive(node.takes[0]) in numbers
            if node.kind in PASSING or node.kind in ("Add", "Max", "Clip"):
                value = node.takes[0]
            elif node.kind == "Where":
                value = node.takes[2 if self._graph.constant(node.takes[1]) is not None else 1]
            else:
                return False
        return False

    def _positive(self, value: str) -> str:
        value = self.start(value)
        node = self._graph.makers.get(value)
        return self.start(node.takes[0]) if node is not None and node.kind == "Abs" else value

    def _is_log_total(self, value: str, of: str) -> bool:
        """Whether a value is the logarithm of the sum of another's exponents."""
        node = self._graph.makers.get(self.start(value))
        if node is None:
            return False
        if node.kind == "ReduceLogSumExp":
            return self.start(node.takes[0]) == self.start(of)
        if node.kind == "Add":  # the largest is taken out before, and added again
            return any(self._is_log_total(one, of) for one in node.takes)
        found = [node.kind]
        while found[-1] in ("Log", "ReduceSum", "Exp") and node.takes:
            value = self.start(node.takes[0])
            node = self._graph.makers.get(value)
            if node is None:
                return False
            found.append(node.kind)
        if found[:3] != ["Log", "ReduceSum", "Exp"]:
            return False
        inner = node.takes[0] if node.kind == "Sub" else value
        return self.start(of) in (value, self.start(inner))

    def _concat(self, node: Operator, _: int) -> End:
        ends = [self.of(value) for value in node.takes]
        kinds = {end.kind for end in ends}
        low, high = min(end.low for end in ends), max(end.high for end in ends)
        made = replace(_mixed(ends), low=low, high=high, total=None, classes=())
        first, last = ends[0], ends[-1]
        totals = {end.total for end in ends}
        if len(ends) == 2 and first.root == last.root and first.scale == -last.scale:
            total = first.shift + last.shift
            made = replace(made, total=total)
            if abs(total - 1) < _ROUNDING:  # p and 1 - p
                return replace(made, kind="softmax", operator="a probability and 1 minus it")
        elif node.attribute("axis") == 0 and len(totals) == 1:
            made = replace(made, total=totals.pop())
        if "" in kinds or (len(kinds) > 1 and not kinds <= {"softmax", "sigmoid"}):
            return replace(made, kind="values" if kinds <= {"values", "linear"} else "")
        if len(kinds) > 1 or (kinds == {"softmax"} and made.total != 1):
            return replace(made, kind="sigmoid")
        return made

    def _pool(self, node: Operator, _: int) -> End:
        inner = self.of(node.takes[0])
        if node.kind == "ReduceSum":
            low = 0.0 if inner.low >= 0 else -inf
            return End("values" if inner.kind != "linear" else "linear", "ReduceSum", low=low)
        if node.kind in ("GlobalAveragePool", "AveragePool"):
            axes: Any = (2, 3, 4)
        else:
            axes = node.attribute("axes")
            if axes is None and len(node.takes) > 1:
                axes = self._graph.constant(node.takes[1])
            axes = None if axes is None else np.reshape(axes, -1).tolist()
        whole = replace(inner, axes=(), root="", scale=1, shift=0)
        if inner.kind != "softmax":
            return _kept(whole, inner.low, inner.high, None)
        keeps = axes is not None and (
            axes == [0] or all(_same_axis(inner.axes, axis) is False for axis in axes)
        )
        if keeps and node.kind in ("GlobalAveragePool", "AveragePool", "ReduceMean"):
            return whole
        return replace(whole, kind="", total=None)


def _same_axis(axes: tuple[int, ...], axis: int | None) -> bool | None:
    """Whether this is the axis that has these numbers; None where that can't be known."""
    if axis is None or axis in axes:
        return None if axis is None else True
    return False if any((one < 0) == (axis < 0) for one in axes) else None


_RULES: dict[str, Callable[[Ends, Operator, int], End]] = {
    **dict.fromkeys(("Softmax", "SoftMax"), Ends._softmax),
    **dict.fromkeys(("Sigmoid", "HardSigmoid"), Ends._sigmoid),
    **dict.fromkeys(("ArgMax", "ArgMin"), Ends._arg),
    **dict.fromkeys(("ArrayFeatureExtractor", "Gather", "Slice"), Ends._pick),
    **dict.fromkeys(
        ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"), Ends._classifier
    ),
    **dict.fromkeys(
        ("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor", "TreeEnsemble"),
        Ends._regressor,
    ),
    **dict.fromkeys(("Add", "Div", "Mul", "Neg", "Sub", "Sum"), Ends._affine),
    **dict.fromkeys(_POOLS, Ends._pool),
    "LogSoftmax": Ends._log_softmax,
    "Log": Ends._log,
    "Exp": Ends._exp,
    "Normalizer": Ends._normalizer,
    "LpNormalization": Ends._normalizer,
    "Clip": Ends._clip,
    "TopK": Ends._top,
    "Binarizer": Ends._binarizer,
    "Sign": Ends._sign,
    "LabelEncoder": Ends._encoder,
    "ZipMap": Ends._zip_map,
    "Concat": Ends._concat,
}


def words(values: Array) -> tuple[str, ...]:
    """Values as words, in their order."""
    return tuple(str(value) for value in values.reshape(-1).tolist())


def _activated(node: Operator, end: End) -> End:
    """What ONNX Runtime has fused with an activation."""
    activation = node.attribute("activation")
    if not activation:
        return end
    return End("sigmoid" if activation == "Sigmoid" else "values", str(activation))


def _mixed(ends: list[End]) -> End:
    """What several values have in common."""
    kinds = {end.kind for end in ends}
    first = ends[0]
    kind: MadeAs = "values"
    if any(end.exponent is not None for end in ends):
        kind = ""
    elif len(kinds) == 1:
        kind = first.kind
    elif kinds <= {"softmax", "sigmoid"}:
        kind = "sigmoid"
    elif kinds & {"linear", ""}:
        kind = "linear"
    operators = dict.fromkeys(end.operator for end in ends if end.operator)
    trained = frozenset().union(*(end.trained for end in ends))
    return End(kind, " and ".join(list(operators)[:2]), trained=trained)


def _kept(end: End, low: float, high: float, total: float | None) -> End:
    """A value after arithmetic: of probabilities, what the numbers still show."""
    made = replace(end, low=low, high=high, total=total)
    if end.exponent is not None:  # of sums and multiples of logarithms no softmax need be meant
        return replace(made, kind="", exponent="")
    if end.kind in ("softmax", "sigmoid", "values") and made.is_share and made.is_distribution:
        return replace(made, kind="softmax")
    if end.kind in ("softmax", "sigmoid") and total is None:
        return replace(made, kind="sigmoid" if made.is_share else "values")
    return made


def _leaves_are_shares(node: Operator, classes: tuple[str, ...]) -> bool:
    """Whether a forest's leaves hold shares of the classes, each tree's the same part of 1.

    A boosted forest's hold steps up and down instead.
    """
    weights = node.attribute("class_weights")
    if weights is None or not len(weights) or weights.min() < 0:
        return False
    if len(classes) == 2:
        return bool(weights.max() <= 1 + _ROUNDING)
    if len(weights) % len(classes):
        return False
    sums = weights.reshape(-1, len(classes)).sum(axis=1)
    trees = 1 / sums[0]
    return bool(np.ptp(sums) < _ROUNDING * sums[0] * 10 and abs(trees - round(trees)) < 0.01)
