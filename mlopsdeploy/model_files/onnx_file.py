"""What an `.onnx` file says of itself, read from its protobuf (onnx.proto3) without `onnx`."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError

# What changes how a label is stored, and not which one it is.
_PASSING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_CLASS_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
# By the kind of a message, what its fields hold; a tensor may stand in any of them.
_HOLDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# A location that is none: ONNX Runtime would read its own memory, at an address of the file's.
_MEMORY = "_ORT_MEM_ADDR_"


class _Node(NamedTuple):
    kind: str = ""
    takes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def external_files(file: Path) -> list[Path]:
    """The files beside an `.onnx` file that hold some of its weights.

    Raises:
        ModelError: it can't be read, or names one that is missing or outside of its folder.
    """
    with _opened(file) as content:
        found = sorted(set(_locations(content))) if content.find(b"location") >= 0 else []
    places = []
    for name in found:
        place = within(file.parent, name)
        if place is None or _MEMORY in name:
            raise ModelError(
                f"{file}: has weights in {name[:80]!r}, outside of its folder; a model's files are "
                "read from there alone, so copy that one next to it and save it again"
            )
        if not place.is_file():
            raise ModelError(f"{place}: missing; {file.name} has weights in it")
        places.append(place)
    return places


@contextmanager
def _opened(file: Path) -> Iterator[mmap.mmap]:
    """Mapped: weights are stepped over, and so never read."""
    try:
        with file.open("rb") as opened:
            yield mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file}: not an ONNX file, or cut off; fetch it again") from error


def _locations(content: mmap.mmap) -> Iterator[str]:
    pending = [("model", memoryview(content))]
    while pending:
        kind, part = pending.pop()
        fields = _message(part)
        if kind == "tensor":
            for entry in map(_message, fields[13]):
                if "location" in map(_text, entry[1]):
                    yield from map(_text, entry[2])
        for number, inner in _HOLDS.get(kind, {}).items():
            pending.extend((inner, value) for value in fields[number])


class OnnxFile:
    """The nodes of an `.onnx` file that ONNX Runtime has loaded, so that it is well formed.

    The converters of scikit-learn, XGBoost and LightGBM leave the names of the classes in the node
    that makes the label, and ONNX Runtime does not show them. Of the file's protobuf (onnx.proto3)
    only the graph's nodes and one small constant are looked at.
    """

    def __init__(self, file: Path) -> None:
        self._makers: dict[str, _Node] = {}
        self._constants: dict[str, memoryview] = {}
        with _opened(file) as content:
            graph = _message(_message(memoryview(content))[7][0])
            for part in graph[1]:
                fields = _message(part)
                classes = next(filter(None, map(_class_labels, fields[5])), ())
                node = _Node(_text(fields[4][0]), tuple(map(_text, fields[1])), classes)
                self._makers.update(dict.fromkeys(map(_text, fields[2]), node))
            for part in graph[5]:
                self._constants.update(dict.fromkeys(map(_text, _message(part)[8]), part))

    def classes(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """The names of the classes behind the first of these outputs that has any; else none."""
        for output in outputs:
            maker = self._maker(output)
            if maker.classes:
                return maker.classes
            if maker.kind == "ArrayFeatureExtractor" and maker.takes[0] in self._constants:
                return _values(self._constants[maker.takes[0]])
        return ()

    @property
    def loses_nan(self) -> bool:
        """Whether it quantises values, which makes a number of NaN, and does not look for NaN."""
        kinds = {node.kind for node in self._makers.values()}
        return not {"IsNaN", "Imputer"} & kinds and any("QuantizeLinear" in k for k in kinds)

    def regressor(self, output: str) -> str:
        """The kind of the node that makes an output, if it is one for regression; else empty."""
        kind = self._maker(output).kind
        return kind if kind.endswith("Regressor") else ""

    def _maker(self, output: str) -> _Node:
        node = self._makers.get(output, _Node())
        while node.kind in _PASSING:
            node = self._makers.get(node.takes[0], _Node())
        return node


def _class_labels(attribute: memoryview) -> tuple[str, ...]:
    fields = _message(attribute)
    if not {*map(_text, fields[1])} & {*_CLASS_LABELS}:
        return ()
    return _whole_numbers(fields[8]) or tuple(map(_text, fields[9]))


def _values(tensor: memoryview) -> tuple[str, ...]:
    """The values of a constant of words or whole numbers, as words; none of another type."""
    fields = _message(tensor)
    kind = fields[2][0] if fields[2] else 0
    if kind == 8:
        return tuple(map(_text, fields[6]))
    if kind not in (6, 7):  # int32 and int64
        return ()
    if fields[9]:
        numbers = np.frombuffer(fields[9][0], "<i4" if kind == 6 else "<i8")
        return tuple(map(str, numbers.tolist()))
    return _whole_numbers(fields[5 if kind == 6 else 7])


# ---------------------------------------------------------------- protobuf's wire format


def _message(data: memoryview | int) -> defaultdict[int, list[Any]]:
    """Values by field number: ints, or the bytes of texts, messages and packed lists.

    Raises:
        ValueError, IndexError: it is no such message, or cut off.
    """
    if isinstance(data, int):
        raise ValueError("a number in place of a message")
    fields: defaultdict[int, list[Any]] = defaultdict(list)
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        if key & 7 == 0:
            number, place = _varint(data, place)
            fields[key >> 3].append(number)
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            if key & 7 != 2:
                raise ValueError(f"a field of type {key & 7}")
            size, place = _varint(data, place)
        if place + size > len(data):
            raise ValueError("cut off")
        fields[key >> 3].append(data[place : place + size])
        place += size
    return fields


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _whole_numbers(values: list[int | memoryview]) -> tuple[str, ...]:
    """Numbers and packed lists of them, in two's complement of 64 bits, as words."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            numbers.append(number)
    return tuple(str(number - (1 << 64) if number >> 63 else number) for number in numbers)


def _text(value: memoryview | int) -> str:
    if isinstance(value, int):
        raise ValueError("a number in place of a text")
    return bytes(value).decode("utf-8", "replace")
