"""What an `.onnx` file says of itself, read from its protobuf (onnx.proto3) without `onnx`."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import Array
from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError

_DAMAGED = (IndexError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "str",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""TensorProto.DataType."""
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
_SMALL = 1 << 16  # bytes: of a constant that is read


class Port(NamedTuple):
    """An input or output of the graph; `sizes` has -1 where they are free, or unknown.

    `kind` is "tensor", "sequence", "map" or "optional", and `dtype` empty for all but a tensor.
    """

    name: str
    kind: str
    dtype: str = ""
    sizes: tuple[int, ...] | None = None


class Node:
    """One operator: its `kind`, the values that it `takes` and `gives`, its attributes."""

    def __init__(self, part: memoryview) -> None:
        fields = _message(part)
        self.takes = tuple(map(_text, fields[1]))
        self.gives = tuple(map(_text, fields[2]))
        self.kind = _text(fields[4][0]) if fields[4] else ""
        self._attributes = fields[5]

    def attribute(self, name: str) -> Any:
        """An int, a float, a str, a bytes-like graph, or an array or tuple of them; None if absent.

        Read when asked for: those of a forest are long.
        """
        for part in self._attributes:
            # Its name comes first, wherever it was written by a protobuf library.
            if _first_text(part) == name:
                return _attribute(_message(part))
        return None


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
    """The graph of an `.onnx` file, of which weights are stepped over, and so never read.

    Attributes:
        name: the graph's.
        producer: what wrote the file.
        metadata: what the author wrote into it, by key.
        nodes: in the order in which they run.
        inputs, outputs: the graph's; inputs that have a default aren't listed.

    Raises:
        ModelError: the file is damaged, cut off, or no ONNX model.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._read(file)
        except _DAMAGED as error:
            raise ModelError(
                f"{file}: can't be read: it is damaged, cut off or no ONNX model"
            ) from error

    def _read(self, file: Path) -> None:
        with file.open("rb") as opened:  # an empty file is a ValueError
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        model = _message(content)
        graph = _message(model[7][0])
        self.producer = _text(model[2][0]) if model[2] else ""
        self.name = _text(graph[2][0]) if graph[2] else ""
        self.metadata: Mapping[str, str] = dict(map(_entry, model[14]))
        self.nodes = tuple(map(Node, graph[1]))
        self._constants: dict[str, memoryview] = {}
        for part in graph[5]:
            self._constants.update(dict.fromkeys(map(_text, _message(part)[8]), part))
        ports = map(_port, graph[11])
        self.inputs = tuple(port for port in ports if port.name not in self._constants)
        self.outputs = tuple(map(_port, graph[12]))
        self.functions = frozenset(
            _text(name) for part in model[25] for name in _message(part)[1][:1]
        )

    @cached_property
    def makers(self) -> Mapping[str, Node]:
        """The node that makes a value, by the value's name."""
        return {value: node for node in self.nodes for value in node.gives if value}

    def constant(self, value: str) -> Array | None:
        """A constant of up to 64 KiB, words as an object array; None where it is none of these."""
        part = self._constants.get(value)
        if part is None:
            maker = self.makers.get(value)
            if maker is None or maker.kind != "Constant":
                return None
            for name in ("value", *_SCALARS):
                found = maker.attribute(name)
                if found is not None:
                    return None if isinstance(found, memoryview) else np.asarray(found)
            return None
        return _tensor(part)

    def sizes(self, value: str) -> tuple[int, ...] | None:
        """The shape of a constant of any length; None where the value is none."""
        part = self._constants.get(value)
        return None if part is None else _whole_numbers(_message(part)[1])

    def parts(self, output: str) -> Mapping[str, str]:
        """The values behind an output, by the name that each has outside: of a sequence, several.

        What a sequence holds is told only of one that is put together in the graph.
        """
        maker = self.makers.get(output)
        while maker is not None and maker.kind == "Identity":
            maker = self.makers.get(maker.takes[0])
        if maker is None or maker.kind != "SequenceConstruct":
            return {output: output}
        return {f"{output}_{place}": value for place, value in enumerate(maker.takes)}

    @property
    def loses_nan(self) -> bool:
        """Whether it quantises values, which makes a number of NaN, and does not look for NaN."""
        kinds = {node.kind for node in self.nodes}
        return not {"IsNaN", "Imputer"} & kinds and any("QuantizeLinear" in k for k in kinds)


_SCALARS = ("value_float", "value_int", "value_string", "value_floats", "value_ints")


def _entry(part: memoryview) -> tuple[str, str]:
    fields = _message(part)
    return _text(fields[1][0]), _text(fields[2][0]) if fields[2] else ""


def _port(part: memoryview) -> Port:
    """ValueInfoProto and TypeProto."""
    fields = _message(part)
    name = _text(fields[1][0])
    type_ = _message(fields[2][0]) if fields[2] else defaultdict(list)
    if not type_[1]:
        kinds = {4: "sequence", 5: "map", 9: "optional"}
        return Port(name, next((kinds[number] for number in kinds if type_[number]), ""))
    tensor = _message(type_[1][0])
    dtype = _DTYPES.get(tensor[1][0] if tensor[1] else 0, "")
    if not tensor[2]:
        return Port(name, "tensor", dtype)
    sizes = [_message(size) for size in _message(tensor[2][0])[1]]
    return Port(name, "tensor", dtype, tuple(size[1][0] if size[1] else -1 for size in sizes))


def _attribute(fields: Mapping[int, list[Any]]) -> Any:
    """AttributeProto. Numbers are arrays where there are several, a tensor is one too."""
    if fields[7]:
        return np.frombuffer(b"".join(map(bytes, fields[7])), "<f4")
    if fields[8]:
        return _whole_numbers(fields[8])
    if fields[9]:
        return tuple(map(_text, fields[9]))
    if fields[5]:
        return _tensor(fields[5][0])
    if fields[4]:
        return _text(fields[4][0])
    if fields[2]:
        return float(np.frombuffer(fields[2][0], "<f4")[0])
    if fields[3]:
        return _whole_numbers(fields[3])[0]
    return fields[6][0] if fields[6] else ()


def _tensor(part: memoryview) -> Array | None:
    """TensorProto, of up to 64 KiB that stand in this file."""
    fields = _message(part)
    dtype = _DTYPES.get(fields[2][0] if fields[2] else 0, "")
    if len(part) > _SMALL or fields[13] or dtype in ("", "bfloat16"):  # 13: in another file
        return None
    values: Any
    if dtype == "str":
        values = np.array([_text(word) for word in fields[6]], object)
    elif fields[9]:
        values = np.frombuffer(fields[9][0], np.dtype(dtype).newbyteorder("<"))
    elif fields[4] or fields[10]:
        raw, width = (fields[4], "<f4") if fields[4] else (fields[10], "<f8")
        values = np.frombuffer(b"".join(map(bytes, raw)), width)
    else:
        values = np.array(_whole_numbers(fields[5] or fields[7] or fields[11]))
        if dtype == "float16":
            values = values.astype(np.uint16).view(np.float16)
    return np.asarray(values).reshape(_whole_numbers(fields[1]))


# ---------------------------------------------------------------- protobuf's wire format


def _message(data: memoryview | int) -> defaultdict[int, list[Any]]:
    """Values by field number: ints, or the bytes of texts, messages and packed lists.

    Raises:
        ValueError, IndexError: it is no message.
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
                raise ValueError("no wire type of protobuf")
            size, place = _varint(data, place)
        if place + size > len(data):
            raise ValueError("cut off")
        fields[key >> 3].append(data[place : place + size])
        place += size
        if key & 7 == 5 and key < 128:
            # A forest has millions of floats, each with its key.
            rest = np.frombuffer(data[place : place + (len(data) - place) // 5 * 5], np.uint8)
            same = rest.reshape(-1, 5)[:, 0] == key
            count = len(same) if same.all() else int(same.argmin())
            if count:
                numbers = rest.reshape(-1, 5)[:count, 1:].tobytes()
                fields[key >> 3].append(memoryview(numbers))
                place += count * 5
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
            raise ValueError("no number of protobuf")


def _first_text(data: memoryview) -> str:
    size, place = _varint(data, 1)
    return _text(data[place : place + size]) if data[0] == 10 else _text(_message(data)[1][0])


def _whole_numbers(values: list[int | memoryview]) -> tuple[int, ...]:
    """Numbers and packed lists of them, in two's complement of 64 bits."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            numbers.append(number)
    return tuple(number - (1 << 64) if number >> 63 else number for number in numbers)


def _text(value: memoryview | int) -> str:
    if isinstance(value, int):
        raise ValueError("a number in place of a text")
    return bytes(value).decode("utf-8", "replace")
