"""ONNX Runtime on the CPU: any `.onnx` file, tree ensembles included."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

# Releases from 1.32 on keep a telemetry session unless told not to, when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from mlopsdeploy.columns import Array, Columns, Field, Runtime, Written, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.model_files import onnx_written
from mlopsdeploy.model_files.onnx_file import OnnxFile
from mlopsdeploy.runtimes.common import dense, no_rows, rows_with_nan, with_nan


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
        self._loses_nan = OnnxFile(file).loses_nan
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
        """See `Runtime.run`. A ZipMap (a list of dicts) becomes an array of (rows, classes)."""
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
