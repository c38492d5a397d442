"""What an `.onnx` file says of itself, read from its protobuf (onnx.proto3) without `onnx`."""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import Array
from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "str",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
"""TensorProto.DataType."""
_SMALL = 1 << 16  # bytes: of a constant that is read


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
_DAMAGED = (OSError, IndexError, ValueError, TypeError, KeyError, OverflowError, MemoryError)


class Port(NamedTuple):
    """An input or output of the graph; `sizes` has -1 where they are free, or unknown.

    `kind` is "tensor", "sequence", "map" or "optional", and `dtype` empty for all but a tensor.
    """

    name: str
    kind: str
    dtype: str = ""
    sizes: tuple[int, ...] | None = None


class Plain(NamedTuple):
    """An array that an output is made of: the `name` it has outside, and the `value` in the graph.

    `classes` says how many classes it has a number for, where its maker tells; else 0.
    """

    name: str
    value: str
    classes: int = 0


class Node:
    """One operator: its `kind`, the values that it `takes` and `gives`, its attributes."""

    def __init__(self, part: memoryview) -> None:
        fields = _message(part)
        self.takes = tuple(map(_text, fields[1]))
        self.gives = tuple(map(_text, fields[2]))
        self.kind = _text(fields[4][0]) if fields[4] else ""
        self._part, self._attributes = part, fields[5]

    def with_text(self, name: str, text: str) -> bytes:
        """The node as it is written, with this attribute."""
        kept = b"".join(
            whole
            for number, whole, value in _slices(self._part)
            if number != 5 or _first_text(value) != name
        )
        # AttributeProto of type STRING.
        written = _field(1, name.encode()) + _field(4, text.encode()) + b"\xa0\x01\x03"
        return kept + _field(5, written)

    def attribute(self, name: str) -> Any:
        """An int, a float, a str, a bytes-like graph, or an array or tuple of them; None if absent.

        Read when asked for: those of a forest are long.
        """
        for part in self._attributes:
            # Its name comes first, wherever it was written by a protobuf library.
            if _first_text(part) == name:
                return _attribute(_message(part))
        return None

    @property
    def classes(self) -> tuple[str, ...]:
        """What a classifier or ZipMap calls its classes, in the order of its scores."""
        for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
            found = self.attribute(name)
            if found is not None and len(found):
                return tuple(map(str, found))
        return ()


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
    with reading(file), file.open("rb") as opened:
        yield mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Around what looks into a file that may be damaged: one line says so."""
    try:
        yield
    except _DAMAGED as error:
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


def metadata_of(file: Path) -> dict[str, str]:
    """What the author of an `.onnx` file wrote into it, by key.

    Raises:
        ModelError: it can't be read.
    """
    with _opened(file) as content:
        return dict(map(_entry, _message(memoryview(content))[14]))


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
        with _opened(file) as content:
            self._read(memoryview(content))

    def _read(self, content: memoryview) -> None:
        model = _message(content)
        self._content, self._graph = content, model[7][0]
        graph = _message(self._graph)
        self.producer = _text(model[2][0]) if model[2] else ""
        self.name = _text(graph[2][0]) if graph[2] else ""
        self.metadata: Mapping[str, str] = dict(map(_entry, model[14]))
        self.nodes = tuple(map(Node, graph[1]))
        self._constants: dict[str, memoryview] = {}
        for part in graph[5]:
            self._constants.update(dict.fromkeys(map(_text, _message(part)[8]), part))
        ports = tuple(map(_port, graph[11]))
        self.inputs = tuple(port for port in ports if port.name not in self._constants)
        self.outputs = tuple(map(_port, graph[12]))
        self._ports = {port.name: port for port in (*ports, *self.outputs)}
        self._described = graph[13]
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

    def rank(self, value: str) -> int | None:
        """How many axes a value has; None where the file doesn't tell."""
        port = self._ports.get(value) or self._inner.get(value)
        return None if port is None or port.sizes is None else len(port.sizes)

    @cached_property
    def _inner(self) -> Mapping[str, Port]:
        """What exporters write of the values within, by name."""
        return {port.name: port for port in map(_port, self._described)}

    def sizes(self, value: str) -> tuple[int, ...] | None:
        """The shape of a constant of any length; None where the value is none."""
        part = self._constants.get(value)
        return None if part is None else _whole_numbers(_message(part)[1])

    def plain(self, output: str) -> tuple[Plain, ...]:
        """The arrays behind an output: its own, that of a ZipMap's dicts, or those of a sequence.

        Of a sequence only of one that is put together in the graph.
        """
        maker = self._behind(output)
        if maker is not None and maker.kind == "ZipMap":
            return (self._plain(output, maker.takes[0], maker.classes),)
        if maker is None or maker.kind != "SequenceConstruct":
            return (Plain(output, output),)
        return tuple(
            self._plain(f"{output}_{place}", value) for place, value in enumerate(maker.takes)
        )

    def _plain(self, name: str, value: str, classes: tuple[str, ...] = ()) -> Plain:
        maker = self._behind(value)
        return Plain(name, value, len(classes or (maker.classes if maker else ())))

    def _behind(self, value: str) -> Node | None:
        maker = self.makers.get(value)
        while maker is not None and maker.kind == "Identity":
            maker = self.makers.get(maker.takes[0])
        return maker

    def numbered(self, output: str) -> Plain | None:
        """The scores whose largest names a label that ONNX Runtime gives the number of instead.

        So it does with whole numbers as names of two classes that leaves have scores for each of:
        0 and 1 come in place of what stands in the file.
        """
        maker: Node | None = None
        while (made := self.makers.get(output)) is not None:
            maker = made
            if made.kind not in ("Cast", "Identity", "Reshape"):
                break
            output = made.takes[0]
        if maker is None or maker.kind != "TreeEnsembleClassifier" or output != maker.gives[0]:
            return None
        names = maker.attribute("classlabels_int64s")
        if names is None or len(names) != 2 or tuple(names) == (0, 1) or len(maker.gives) < 2:
            return None
        return Plain(output, maker.gives[1], 2)

    @property
    def own_rule(self) -> str:
        """The operator by which it has an answer where a value is missing (NaN); else empty.

        Every way that an input goes must lead through one: a column that an Imputer doesn't see
        stays NaN. Converters of XGBoost, LightGBM and CatBoost write these trees' own rule.
        scikit-learn's trees come without one: there NaN goes wherever a comparison happens to end.
        """
        return self._ended_by(lambda node: self._fills(node) or self._has_rule(node))

    @property
    def takes_infinity(self) -> bool:
        """Whether infinite numbers come to nothing but trees with a rule of their own."""
        return bool(self._ended_by(self._has_rule))

    def _ended_by(self, ends: Callable[[Node], bool]) -> str:
        """The operator that each way from an input comes to, past what only moves numbers.

        Empty where one way doesn't; where several end in different ones, the first.
        """
        found = ""
        floats = [port.name for port in self.inputs if port.dtype.startswith("float")]
        pending, seen = floats or [port.name for port in self.inputs], set[str]()
        given = {port.name for port in self.outputs}
        while pending:
            value = pending.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in given:
                return ""
            for node in self._takers.get(value, ()):
                if ends(node):
                    found = found or node.kind
                elif node.kind in _CARRIES:
                    pending.extend(node.gives)
                elif node.kind != "Shape":
                    return ""
        return found

    @cached_property
    def _takers(self) -> Mapping[str, Sequence[Node]]:
        found: defaultdict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for value in node.takes:
                found[value].append(node)
        return found

    def _fills(self, node: Node) -> bool:
        """Whether it tells missing values apart, or puts something in their place."""
        if node.kind == "Imputer":
            replaced = node.attribute("replaced_value_float")
            return replaced is None or bool(np.isnan(replaced))
        if node.kind == "Where":  # its other way is that to IsNaN
            value = node.takes[0]
            while (maker := self.makers.get(value)) and maker.kind in ("Not", "Cast", "Identity"):
                value = maker.takes[0]
            return maker is not None and maker.kind == "IsNaN"
        return node.kind == "IsNaN"

    def _has_rule(self, node: Node) -> bool:
        if not node.kind.startswith("TreeEnsemble"):
            return False
        tracks = node.attribute("nodes_missing_value_tracks_true")
        return self.producer.startswith(_RULED) or (tracks is not None and bool(np.any(tracks)))

    def edited(self, outputs: Iterable[Plain], locale: str = "") -> bytes:
        """The file with these arrays as its outputs, and perhaps another locale for lower case.

        ONNX Runtime makes a dict in Python of each row of a ZipMap, sorts their keys, and has none
        of float64.
        """
        given = {one.value for one in outputs}
        graph = b""
        dropped: set[str] = set()
        for number, whole, value in _slices(self._graph):
            if number == 1:
                node = Node(value)
                wraps = node.kind in ("ZipMap", "SequenceConstruct")
                if (wraps or dropped.intersection(node.takes)) and not given.intersection(
                    node.gives
                ):
                    dropped.update(node.gives)
                    continue
                if locale and node.kind == "StringNormalizer":
                    graph += _field(1, node.with_text("locale", locale))
                    continue
            if number != 12:
                graph += whole
            elif (port := _text(_message(value)[1][0])) in given:
                graph += whole
                given.discard(port)
        for value in sorted(given):  # of the type that it is found to have
            graph += _field(12, _field(1, value.encode()))
        head = b"".join(bytes(whole) for number, whole, _ in _slices(self._content) if number != 7)
        return head + _field(7, graph)


_RULED = ("OnnxMLTools", "CatBoost")
# Of which a number comes out that is NaN, or infinite, where one that went in is.
_CARRIES = {
    "Add", "ArrayFeatureExtractor", "Cast", "Concat", "Div", "FeatureVectorizer", "Flatten",
    "Gather", "Identity", "Mul", "Reshape", "Scaler", "Slice", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip
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


def _slices(data: memoryview) -> Iterator[tuple[int, memoryview, Any]]:
    """Each field's number, its bytes with the key, and its value, as in `_message`."""
    place = 0
    while place < len(data):
        start = place
        key, place = _varint(data, place)
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 != 5 and key & 7 != 1:
            size, place = _varint(data, place)
        value: Any = size if key & 7 == 0 else data[place : place + size]
        place += 0 if key & 7 == 0 else size
        yield key >> 3, data[start:place], value


def _field(number: int, content: bytes) -> bytes:
    """A text or message as a field."""
    return _written(number << 3 | 2) + _written(len(content)) + content


def _written(number: int) -> bytes:
    """A varint."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


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
