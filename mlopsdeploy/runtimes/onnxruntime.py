"""ONNX Runtime on the CPU: any `.onnx` file, tree ensembles included."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

# Releases from 1.32 on keep a telemetry session unless told not to, when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from mlopsdeploy.columns import Array, Columns, Field, Runtime, Written, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.model_files import onnx_written
from mlopsdeploy.model_files.onnx_file import OnnxFile, Plain, external_files, reading
from mlopsdeploy.runtimes.common import (
    by_length,
    dense,
    in_steps,
    no_rows,
    rows_not_finite,
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
        graph = OnnxFile(file)
        with reading(file):
            plain = [part for port in graph.outputs for part in graph.plain(port.name)]
            self._own_rule = graph.own_rule
        try:
            self._session = _session(file, graph, plain, options)
        except _FAILURES as error:
            raise ModelError(f"{file}: {_why(error)}") from error
        inputs, given = self._session.get_inputs(), self._session.get_outputs()
        self._rows = _rows_at_a_time(file, inputs)
        self.inputs = tuple(_field(file, node) for node in inputs)
        outputs = {node.name: node for node in given}
        self._outputs = [_output(file, one, outputs[one.value], inputs) for one in plain]
        self.outputs = tuple(one.field for one in self._outputs)
        self._unmasked = takes_one_length(self.inputs)
        self.metadata = {
            **self._session.get_modelmeta().custom_metadata_map,
            **self._from_nodes(onnx_written.read(file)),
        }

    def _from_nodes(self, written: Written) -> dict[str, str]:
        """`classes` (a JSON list) of a classifier's label, `regressor` of a lone number."""
        labels = [node.name for node in self._session.get_outputs() if node.type not in _FLOATS]
        if classes := next(filter(None, map(written.classes.get, labels)), ()):
            return {"classes": json.dumps(classes)}
        made = list(written.outputs.values())
        is_regressor = written.task == "regression" and len(made) == 1
        return {"regressor": made[0].source.split()[-1]} if is_regressor else {}

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`. A ZipMap is an array of (rows, classes), in the order of its classes.

        Of a sequence `x` each array is an output, `x_0`, `x_1` and so on. A model made for a fixed
        number of rows is given as many at a time.

        Raises:
            ModelError: an output has no axis for the rows.
        """
        return by_length(self._all, tensors) if self._unmasked else self._all(tensors)

    def _all(self, tensors: Columns) -> Columns:
        feed = {field.name: dense(field, tensors[field.name]) for field in self.inputs}
        rows = rows_of(feed)
        if not rows:
            return no_rows(self.outputs)
        unknown = () if self._own_rule else rows_not_finite(feed)
        if self._rows and rows != self._rows:
            outputs = in_steps(self._run, feed, self._rows)
        else:
            outputs = self._run(feed)
        return with_nan(outputs, unknown)

    def _run(self, feed: Columns) -> Columns:
        rows = rows_of(feed)
        # As many rows as such an output has of something else would hide that these are no rows.
        hidden = not self._rows and any(one.fixed == rows for one in self._outputs)
        if hidden:
            feed = {name: np.concatenate([array, array[-1:]]) for name, array in feed.items()}
        try:
            values = self._session.run([one.value for one in self._outputs], feed)
        except _FAILURES as error:
            reason = one_line(error, last=True).rpartition("Status Message: ")[2]
            raise RowError(f"ONNX Runtime can't compute these values ({reason})") from error
        return {
            one.field.name: one.rows_of(value, rows + hidden)[:rows]
            for one, value in zip(self._outputs, values, strict=True)
        }


class _Output(NamedTuple):
    """An array of the graph, and what of it is rows.

    `axis` is that of the rows, or None where all of it belongs to the one row that it takes; and
    `fixed` how long the first axis is, where the file says that it doesn't follow the rows.
    """

    field: Field
    value: str
    axis: int | None
    fixed: int

    def rows_of(self, value: object, rows: int) -> Array:
        array = np.asarray(value)
        if self.axis is None:
            return array[None]
        if array.ndim <= self.axis or array.shape[self.axis] != rows:
            raise ModelError(
                f"output {self.field.name!r} has the shape {array.shape} for {rows} rows: it "
                "can't be told which of it belongs to which row; export the model with rows "
                "as the first axis of each output"
            )
        return np.moveaxis(array, self.axis, 0) if self.axis else array


def _session(
    file: Path, graph: OnnxFile, plain: Sequence[Plain], options: ort.SessionOptions
) -> ort.InferenceSession:
    def session(model: str | bytes) -> ort.InferenceSession:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    wrapped = [one.value for one in plain] != [port.name for port in graph.outputs]
    if wrapped and not external_files(file):
        model: str | bytes = graph.edited(plain)
    else:
        model = str(file)
    try:
        return session(model)
    except _FAILURES as error:
        # Texts are made lower case by a locale, en_US unless the file says another, which many
        # machines lack. All but these languages' have the same small letters.
        locale = _LOCALE.search(str(error))
        if locale is None or locale["name"].startswith(_OTHER_LETTERS) or external_files(file):
            raise
        return session(graph.edited(plain, _ANY_LOCALE))


_LOCALE = re.compile(r"construct locale with name:(?P<name>\S+?):")
_OTHER_LETTERS = ("tr", "az", "lt")  # Turkish, Azerbaijani, Lithuanian
_ANY_LOCALE = "C.UTF-8"


def _why(error: BaseException) -> str:
    """Why ONNX Runtime can't load a file, and what to do; nothing but its text says so."""
    text = str(error)
    if newer := _TOO_NEW.search(text):
        limit = f"target_opset={newer['opset']}" if newer["opset"] else "an older opset"
        return (
            f"made for a newer ONNX Runtime than {ort.__version__}; convert it with {limit}, or "
            "pip install -U onnxruntime"
        )
    if locale := _LOCALE.search(text):
        return (
            f"makes texts lower case by the locale {locale['name']}, which this machine lacks; "
            "add it (Debian: apt-get install locales && dpkg-reconfigure locales)"
        )
    return f"ONNX Runtime can't load it ({one_line(type(error)(_PREFIX.sub('', text)))})"


_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:|Exception during "
    r"initialization: )?(/onnxruntime_src/\S+ )?"
)


def _rows_at_a_time(file: Path, inputs: Sequence[ort.NodeArg]) -> int:
    """How many rows the file takes at a time; 0: any number."""
    for node in inputs:
        first = node.shape[0] if node.shape else None
        if isinstance(first, int) and len(node.shape) == 1 and first > 1:
            raise ModelError(
                f"{file}: input {node.name!r} takes {first} numbers and has no axis for rows; "
                "export the model with rows as the first axis of each input"
            )
    found = {node.shape[0] for node in inputs if node.shape and isinstance(node.shape[0], int)}
    if len(found) > 1:
        raise ModelError(
            f"{file}: its inputs take {' and '.join(map(str, sorted(found)))} rows; export the "
            "model with rows as the first axis of each input"
        )
    return found.pop() if found else 0


def _output(file: Path, one: Plain, node: ort.NodeArg, inputs: Sequence[ort.NodeArg]) -> _Output:
    sizes: list[object] = list(node.shape)
    if not sizes and one.value != one.name:  # nobody has written down its shape
        sizes = [None, one.classes or None]
    dtype = _dtype(file, node)
    first = sizes[0] if sizes else None
    firsts = {one.shape[0] for one in inputs if one.shape}
    fixed = first if isinstance(first, int) and first > 1 else 0
    axis: int | None = 0
    if firsts == {1} and sizes and first != 1:
        axis = None  # one row at a time, and all of this is its
    elif firsts and not any(isinstance(size, int) for size in firsts) and fixed:
        # A name that inputs have for their rows, or the only size that can follow them.
        free = [place for place, size in enumerate(sizes) if not isinstance(size, int)]
        named = [
            place for place in free if isinstance(sizes[place], str) and sizes[place] in firsts
        ]
        others = [size for one in inputs for size in one.shape[1:] if not isinstance(size, int)]
        axis = next(iter(named or ([] if others or len(free) != 1 else free)), 0)
    rest = [size for place, size in enumerate(sizes) if place != axis]
    shape = tuple(size if isinstance(size, int) else -1 for size in rest)
    return _Output(Field(one.name, dtype, shape), one.value, axis, 0 if axis is None else fixed)


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
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


def _field(file: Path, node: ort.NodeArg) -> Field:
    sizes = node.shape[1:]
    shape = tuple(size if isinstance(size, int) else -1 for size in sizes)
    return Field(node.name, _dtype(file, node), shape)


def _dtype(file: Path, node: ort.NodeArg) -> str:
    """`tensor(float)` -> `float32`.

    Raises:
        ModelError: it is no array of what NumPy has.
    """
    name: str = node.type.removeprefix("tensor(").removesuffix(")")
    name = {"float": "float32", "double": "float64", "string": "str"}.get(name, name)
    try:
        np.dtype(name)
    except TypeError as error:
        raise ModelError(
            f"{file}: {node.name!r} is a {node.type}, and no array that NumPy has; export the "
            "model with tensors of float32 at its ends"
        ) from error
    return name
