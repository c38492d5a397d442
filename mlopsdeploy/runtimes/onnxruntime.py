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

from mlopsdeploy.columns import Array, Columns, Field, Runtime
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.runtimes.onnx_classes import Graph


class OnnxRuntime(Runtime):
    """One session, called from several threads at once, by default with one thread each.

    It computes in float32 only: it has no bfloat16 kernels for CPUs, and its dynamic int8 lets a
    row's score depend on its neighbours, since the scales are computed over the whole batch
    (onnxruntime#10111).

    Args:
        file: the `.onnx` file.
        precision: "float32" ("auto" means the same).
        threads: CPU threads in all.
        streams: calls at the same time, each with its share of the threads; by default as many
            as there are threads.

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
        options.log_severity_level = 3
        # Weights stored as int8 are unpacked once, at load, and not at each call.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = ort.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a class per status code and no common base
            if newer := _TOO_NEW.search(str(error)):
                limit = f"target_opset={newer['opset']}" if newer["opset"] else "an older opset"
                raise ModelError(
                    f"{file}: made for a newer ONNX Runtime than {ort.__version__}; convert it "
                    f"with {limit}, or pip install -U onnxruntime"
                ) from error
            raise ModelError(
                f"{file}: ONNX Runtime can't load it ({_first_line(error)})"
            ) from error
        self.inputs = tuple(_field(node) for node in self._session.get_inputs())
        self.outputs = tuple(_field(node) for node in self._session.get_outputs())
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.metadata.update(self._said_by_the_graph(file))

    def _said_by_the_graph(self, file: Path) -> dict[str, str]:
        """`classes` (a JSON list) of a classifier's label, `regressor` of a lone number."""
        nodes = self._session.get_outputs()
        labels = [node.name for node in nodes if node.type not in _FLOATS]
        if labels:
            classes = Graph(file).classes(labels)
            return {"classes": json.dumps(classes)} if classes else {}
        kind = Graph(file).regressor(nodes[0].name) if len(nodes) == 1 else ""
        return {"regressor": kind} if kind else {}

    def run(self, tensors: Columns) -> Columns:
        """Outputs by name. A ZipMap (a list of dicts) becomes an array of (rows, classes)."""
        feed = {
            field.name: np.ascontiguousarray(
                tensors[field.name], dtype=object if field.dtype == "str" else field.dtype
            )
            for field in self.inputs
        }
        names = [field.name for field in self.outputs]
        try:
            values = self._session.run(names, feed)
        except Exception as error:  # a class per status code, without a common base
            raise RuntimeError(_first_line(error)) from error
        return {name: _dense(value) for name, value in zip(names, values, strict=True)}


_TOO_NEW = re.compile(
    r"support for domain \S+ is till opset (?P<opset>\d+)|Unsupported model IR version"
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
