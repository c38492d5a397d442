"""ONNX Runtime on the CPU: any `.onnx` file, tree ensembles included."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

# Releases from 1.32 on keep a telemetry session unless told not to, when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from mlopsdeploy.columns import Array, Columns, Field, Runtime, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.runtimes.common import (
    by_length,
    dense,
    no_rows,
    rows_with_nan,
    takes_one_length,
    with_nan,
)


class OnnxRuntime(Runtime):
    """One session, called from several threads at once, by default with one thread each.

    It computes in float32 only: it has no bfloat16 kernels for CPUs, and its dynamic int8 lets a
    row's score depend on its neighbours, since the scales are computed over the whole batch
    (onnxruntime#10111).

    Args:
        file: the `.onnx` file.
        precision: "float32" ("auto" means the same).
        threads, streams: see `load_model`.

    Raises:
        ConfigError: another precision is asked for.
        ModelError: the file can't be loaded.
    """

    formats: ClassVar = ("onnx",)
    precisions: ClassVar = ("float32",)

    def __init__(
        self, file: Path, *, precision: str = "auto", threads: int = 1, streams: int | None = None
    ) -> None:
        if precision not in ("auto", "float32"):
            raise ConfigError(
                f"precision {precision!r}: onnxruntime computes in float32 only on a CPU; "
                "use --runtime openvino for bfloat16 and int8"
            )
        self.precision = "float32"
        self.streams = min(streams or threads, threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads // self.streams
        options.inter_op_num_threads = 1
        # Both keep buffers per shape, and every batch has a new one: memory would grow for ever.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 4  # what goes wrong is raised as well
        # Weights stored as int8 are unpacked once, at load, and not at each call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = ort.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except _FAILURES as error:
            # Nothing but the text says so.
            if newer := _TOO_NEW.search(str(error)):
                limit = f"target_opset={newer['opset']}" if newer["opset"] else "an older opset"
                raise ModelError(
                    f"{file}: made for a newer ONNX Runtime than {ort.__version__}; convert it "
                    f"with {limit}, or pip install -U onnxruntime"
                ) from error
            raise ModelError(f"{file}: ONNX Runtime can't load it ({one_line(error)})") from error
        self.inputs = tuple(_field(node) for node in self._session.get_inputs())
        self.outputs = tuple(_field(node) for node in self._session.get_outputs())
        self._unmasked = takes_one_length(self.inputs)
        graph = _Graph(file)
        self._loses_nan = graph.loses_nan
        self.metadata = {
            **self._session.get_modelmeta().custom_metadata_map,
            **self._from_nodes(graph),
        }

    def _from_nodes(self, graph: _Graph) -> dict[str, str]:
        """`classes` (a JSON list) of a classifier's label, `regressor` of a lone number."""
        nodes = self._session.get_outputs()
        labels = [node.name for node in nodes if node.type not in _FLOATS]
        if labels:
            classes = graph.classes(labels)
            return {"classes": json.dumps(classes)} if classes else {}
        kind = graph.regressor(nodes[0].name) if len(nodes) == 1 else ""
        return {"regressor": kind} if kind else {}

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`. A ZipMap (a list of dicts) becomes an array of (rows, classes)."""
        return by_length(self._run, tensors) if self._unmasked else self._run(tensors)

    def _run(self, tensors: Columns) -> Columns:
        feed = {field.name: dense(field, tensors[field.name]) for field in self.inputs}
        if not rows_of(feed):
            return no_rows(self.outputs)
        names = [field.name for field in self.outputs]
        try:
            values = self._session.run(names, feed)
        except _FAILURES as error:
            reason = one_line(error, last=True).rpartition("Status Message: ")[2]
            raise RowError(f"ONNX Runtime can't compute these values ({reason})") from error
        outputs = {name: _dense(value) for name, value in zip(names, values, strict=True)}
        return with_nan(outputs, rows_with_nan(feed)) if self._loses_nan else outputs


_TOO_NEW = re.compile(
    r"support for domain \S+ is till opset (?P<opset>\d+)|Unsupported model IR version"
)
# A class per status code, without a common base.
_FAILURES: tuple[type[Exception], ...] = (
    *(one for one in vars(status).values() if isinstance(one, type) and issubclass(one, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)")
# What changes how a label is stored, and not which one it is.
_PASSING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_CLASS_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def _field(node: ort.NodeArg) -> Field:
    """A tensor of the graph; a ZipMap's dicts have an unknown number of values per row."""
    sizes = node.shape[1:] if node.type.startswith("tensor") else [None]
    shape = tuple(size if isinstance(size, int) else -1 for size in sizes)
    return Field(node.name, _dtype(node.type), shape)


def _dense(value: object) -> Array:
    if isinstance(value, list):  # a ZipMap: one dict of class -> probability per row
        return np.array([list(row.values()) for row in value], np.float32)
    return np.asarray(value)


def _dtype(kind: str) -> str:
    """`tensor(float)` -> `float32`."""
    if kind.startswith("seq(map("):  # a ZipMap
        return "float32"
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64", "string": "str"}.get(name, name)


# ---------------------------------------------------------------- what a file says of its classes


class _Node(NamedTuple):
    kind: str = ""
    takes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


class _Graph:
    """The nodes of an `.onnx` file that ONNX Runtime has loaded, so that it is well formed.

    The converters of scikit-learn, XGBoost and LightGBM leave the names of the classes in the node
    that makes the label, and ONNX Runtime does not show them. Of the file's protobuf (onnx.proto3)
    only the graph's nodes and one small constant are looked at.
    """

    def __init__(self, file: Path) -> None:
        self._makers: dict[str, _Node] = {}
        self._constants: dict[str, memoryview] = {}
        # Mapped: weights are stepped over, and so never read.
        with file.open("rb") as opened:
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        graph = _message(_message(content)[7][0])
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


def _message(data: memoryview) -> defaultdict[int, list[Any]]:
    """Values by field number: ints, or the bytes of texts, messages and packed lists."""
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
            size, place = _varint(data, place)
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


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")
