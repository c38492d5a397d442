"""ONNX Runtime on the CPU: any `.onnx` file, tree ensembles included."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

# Releases from 1.32 on keep a telemetry session unless told not to, when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from mlopsdeploy.columns import Columns, Field, Runtime, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.model_files.onnx_file import OnnxFile, Plain, external_files, reading
from mlopsdeploy.runtimes.common import (
    SET_ASIDE,
    RowAxis,
    Size,
    by_length,
    dense,
    no_rows,
    own_rule,
    row_axis,
    rows_at_a_time,
    rows_first,
    rows_not_finite,
    takes_one_length,
    with_nan,
)  # fmt: skip


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
    steady: ClassVar = True

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
            rule, self._takes_infinity = graph.own_rule, graph.takes_infinity
            self._takes_nan = bool(rule)
            self.missing_values = own_rule(rule) if rule else SET_ASIDE
            named = {one.value: graph.numbered(one.value) for one in plain}
            self._named = {
                label: (scores.value, np.array(graph.makers[scores.value].classes, np.int64))
                for label, scores in named.items()
                if scores is not None
            }
        try:
            fetched = [*plain, *filter(None, named.values())]
            self._session = _session(file, graph, fetched, options)
        except _FAILURES as error:
            raise ModelError(f"{file}: {_why(error)}") from error
        inputs, given = self._session.get_inputs(), self._session.get_outputs()
        shapes: dict[str, Sequence[Size]] = {node.name: node.shape for node in inputs}
        self._rows = rows_at_a_time(file, shapes)
        self.inputs = tuple(_field(file, node) for node in inputs)
        outputs = {node.name: node for node in given}
        known = [_output(file, one, outputs[one.value], shapes) for one in plain]
        self.outputs = tuple(field for field, _ in known)
        self._values = [one.value for one in plain]
        self._axes = [(field.name, axis) for field, axis in known]
        self._unmasked = takes_one_length(self.inputs)
        self.metadata = self._session.get_modelmeta().custom_metadata_map

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
        if not rows_of(feed):
            return no_rows(self.outputs)
        unknown = () if self._takes_infinity else rows_not_finite(feed, nan=not self._takes_nan)
        return with_nan(rows_first(self._run, feed, self._axes, self._rows), unknown)

    def _run(self, feed: Columns) -> list[object]:
        try:
            names = [*self._values, *(scores for scores, _ in self._named.values())]
            values = dict(zip(names, self._session.run(names, feed), strict=True))
        except _FAILURES as error:
            reason = str(error).rpartition("Status Message: ")[2].rpartition(" was false. ")[2]
            reason = one_line(RuntimeError(_PREFIX.sub("", reason)), last=True)
            raise RowError(f"ONNX Runtime can't compute these values ({reason})") from error
        for label, (scores, classes) in self._named.items():
            chosen = classes[np.argmax(values[scores], axis=1)]
            values[label] = chosen.astype(values[label].dtype).reshape(values[label].shape)
        return [values[name] for name in self._values]


def _session(
    file: Path, graph: OnnxFile, plain: Sequence[Plain], options: ort.SessionOptions
) -> ort.InferenceSession:
    def session(model: str | bytes) -> ort.InferenceSession:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    wrapped = not {one.value for one in plain} <= {port.name for port in graph.outputs}
    model: str | bytes = graph.edited(plain) if wrapped else str(file)
    if external_files(file):  # of bytes nobody knows where they lay
        options.add_session_config_entry(_WEIGHTS_IN, str(file.parent))
    try:
        return session(model)
    except _FAILURES as error:
        # Texts are made lower case by a locale, en_US unless the file says another, which many
        # machines lack. All but these languages' have the same small letters.
        locale = _LOCALE.search(str(error))
        if locale is None or locale["name"].startswith(_OTHER_LETTERS):
            raise
        return session(graph.edited(plain, _ANY_LOCALE))


_WEIGHTS_IN = "session.model_external_initializers_file_folder_path"
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
    reason = _PREFIX.sub("", text.rpartition(" was false. ")[2])
    return f"ONNX Runtime can't load it ({one_line(RuntimeError(reason))})"


_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:|Exception during "
    r"initialization: )?(/onnxruntime_src/\S+ )?"
)


def _output(
    file: Path, one: Plain, node: ort.NodeArg, inputs: Mapping[str, Sequence[Size]]
) -> tuple[Field, RowAxis]:
    """An array of the graph, and what of it is rows."""
    sizes: list[Size] = list(node.shape)
    if not sizes and one.value != one.name:  # nobody has written down its shape
        sizes = [None, one.classes or None]
    axis, shape = row_axis(inputs.values(), sizes)
    return Field(one.name, _dtype(file, node), shape), axis


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
