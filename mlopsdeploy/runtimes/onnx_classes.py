"""What an `.onnx` file says of its classes, read from its bytes.

The converters of scikit-learn, XGBoost and LightGBM leave the names of the classes in the node that
gives the label, and ONNX Runtime does not tell them. Of the file's protobuf (onnx.proto3) only the
graph's nodes and one small constant are looked at.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# What changes how a label is stored, and not which one it is.
_PASSING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_CLASS_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


@dataclass
class _Node:
    kind: str = ""
    takes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()


class Graph:
    """The nodes of an `.onnx` file.

    Args:
        file: one that ONNX Runtime has loaded, so that it is well formed.
    """

    def __init__(self, file: Path) -> None:
        self._makers: dict[str, _Node] = {}
        self._constants: dict[str, memoryview] = {}
        # Mapped: weights are stepped over, and so never read.
        with file.open("rb") as opened:
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        for number, graph in _fields(content):
            if number == 7:
                self._read(_bytes(graph))

    def classes(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """The names of the classes behind the first of these outputs that tells; else none."""
        for output in outputs:
            maker = self._maker(output)
            if maker.classes:
                return maker.classes
            if maker.kind == "ArrayFeatureExtractor" and maker.takes[0] in self._constants:
                return _texts(self._constants[maker.takes[0]])
        return ()

    @property
    def loses_nan(self) -> bool:
        """Whether it quantises values, which makes a number of NaN, and does not look for NaN."""
        kinds = {node.kind for node in self._makers.values()}
        return not {"IsNaN", "Imputer"} & kinds and any("QuantizeLinear" in k for k in kinds)

    def regressor(self, output: str) -> str:
        """The kind of the node that gives an output, if it is one for regression; else empty."""
        kind = self._maker(output).kind
        return kind if kind.endswith("Regressor") else ""

    def _maker(self, output: str) -> _Node:
        node = self._makers.get(output, _Node())
        while node.kind in _PASSING:
            node = self._makers.get(node.takes[0], _Node())
        return node

    def _read(self, graph: memoryview) -> None:
        for number, part in _fields(graph):
            if number == 1:
                node, gives = _Node(), []
                for place, value in _fields(_bytes(part)):
                    if place == 1:
                        node.takes.append(_text(value))
                    elif place == 2:
                        gives.append(_text(value))
                    elif place == 4:
                        node.kind = _text(value)
                    elif place == 5:
                        node.classes = node.classes or _class_labels(_bytes(value))
                self._makers.update(dict.fromkeys(gives, node))
            elif number == 5:
                names = [_text(value) for place, value in _fields(_bytes(part)) if place == 8]
                self._constants.update(dict.fromkeys(names, _bytes(part)))


def _class_labels(attribute: memoryview) -> tuple[str, ...]:
    fields = list(_fields(attribute))
    if not any(place == 1 and _text(value) in _CLASS_LABELS for place, value in fields):
        return ()
    numbers = [str(n) for place, value in fields if place == 8 for n in _whole_numbers(value)]
    return tuple(numbers or [_text(value) for place, value in fields if place == 9])


def _texts(tensor: memoryview) -> tuple[str, ...]:
    """The values of a constant of words or whole numbers; none of another type."""
    fields = list(_fields(tensor))
    kind = next((value for place, value in fields if place == 2), 0)
    raw = next((_bytes(value) for place, value in fields if place == 9), None)
    if kind in (6, 7) and raw is not None:  # int32 and int64
        return tuple(str(n) for n in np.frombuffer(raw, "<i4" if kind == 6 else "<i8").tolist())
    if kind in (6, 7):
        held = [value for place, value in fields if place == (5 if kind == 6 else 7)]
        return tuple(str(n) for value in held for n in _whole_numbers(value))
    return tuple(_text(value) for place, value in fields if place == 6 and kind == 8)


# ---------------------------------------------------------------- protobuf's wire format


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values: an int, or the bytes of a text, a message or a packed list."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 0:
            number, place = _varint(message, place)
            yield key >> 3, number
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, place = _varint(message, place)
        yield key >> 3, message[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _whole_numbers(value: int | memoryview) -> Iterator[int]:
    """One number or a packed list of them, in two's complement of 64 bits."""
    packed = []
    if isinstance(value, int):
        packed = [value]
    else:
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            packed.append(number)
    yield from (number - (1 << 64) if number >> 63 else number for number in packed)


def _bytes(value: int | memoryview) -> memoryview:
    assert isinstance(value, memoryview)
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")
