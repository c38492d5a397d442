"""What LiteRT and its elder, tflite-runtime, have in common: the interpreter of `.tflite` files.

An interpreter serves one caller at a time, so there are as many as calls may run at once. They
all map the same file: a further interpreter costs its activations and nothing else.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Quantization, Runtime, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.model_files import tflite_metadata
from mlopsdeploy.runtimes.common import (
    SET_ASIDE,
    dense,
    in_steps,
    no_rows,
    own_rule,
    quietly,
    rows_not_finite,
    rows_with_nan,
    with_nan,
)


class TFLiteFile(Runtime):
    """A `.tflite` file with an interpreter per stream; a subclass names its package.

    Where the file leaves the number of rows open, all rows of a call run at once; where it fixes
    it, they run in steps of that size. Quantised tensors are real numbers to the outside; an
    input that already has the file's integer type (a uint8 picture) is taken as it is.

    A row with NaN has no answer, unless the graph itself looks for NaN; nor has one with infinite
    numbers, where the proof of a file that was compiled here shows that its original differs.

    Args:
        file: the `.tflite` file.
        precision: "auto": what the file was made in; another one can't be chosen at run time.
        threads, streams: see `load_model`.

    Raises:
        ConfigError: a precision is asked for.
        ModelError: the file can't be loaded.
    """

    formats: ClassVar = ("tflite",)
    steady: ClassVar = True
    package: str
    interpreter: Any

    def __init__(
        self, file: Path, *, precision: str = "auto", threads: int = 1, streams: int | None = None
    ) -> None:
        self.streams = min(streams or threads, threads)
        self._file = file
        self._threads = threads // self.streams
        first = self._open()
        # Where activations, and not only weights, are integers, some input is one.
        kinds = {(tensor.quantization or tensor.field).dtype for tensor in first.inputs}
        self.precision = "int8" if kinds & {"int8", "uint8"} else "float32"
        if precision not in ("auto", self.precision):
            raise ConfigError(
                f"precision {precision!r}: {file.name} was made in {self.precision}, and a .tflite "
                "file runs in the precision it was made in"
            )
        self.inputs = tuple(tensor.field for tensor in first.inputs)
        self._names = tuple(field.name for field in self.inputs)
        self.outputs = tuple(tensor.field for tensor in first.outputs)
        self.quantization = {
            tensor.field.name: tensor.quantization
            for tensor in (*first.inputs, *first.outputs)
            if tensor.quantization
        }
        self._set_aside, self.missing_values = _set_aside(file, first.interpreter)
        self._idle: queue.SimpleQueue[_Opened] = queue.SimpleQueue()
        self._idle.put(first)
        for _ in range(self.streams - 1):
            self._idle.put(self._open())

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`; waits while all interpreters are busy."""
        own = {name: tensors[name] for name in self._names}
        if not len(own[self._names[0]]):
            return no_rows(self.outputs)
        unknown = self._set_aside(own)
        opened = self._idle.get()
        try:
            outputs = opened.run(own)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = one_line(error)
            raise RowError(f"{self.package} can't compute these values ({reason})") from error
        finally:
            self._idle.put(opened)
        return with_nan(outputs, unknown) if unknown else outputs

    @contextmanager
    def native(self) -> Iterator[Any]:
        """The interpreter, which is for nobody else meanwhile."""
        opened = self._idle.get()
        try:
            yield opened.interpreter
        finally:
            self._idle.put(opened)

    def _open(self) -> _Opened:
        try:
            with quietly():  # LiteRT greets every process
                interpreter = self.interpreter(str(self._file), num_threads=self._threads)
                return _Opened(interpreter)
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(
                f"{self._file}: {self.package} can't load it ({one_line(error)})"
            ) from error


@dataclass(frozen=True)
class _Tensor:
    field: Field
    index: int
    quantization: Quantization | None


class _Opened:
    """One interpreter, and the shapes it is set up for."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter = interpreter
        # A signature bears the names that the model's author gave; the bare tensors have others.
        names_in, names_out = _signature(interpreter)
        given = interpreter.get_input_details()
        self.inputs = [_tensor(detail, names_in) for detail in given]
        self.outputs = [_tensor(detail, names_out) for detail in interpreter.get_output_details()]
        self._shapes = [tuple(int(size) for size in detail["shape"]) for detail in given]
        try:
            interpreter.allocate_tensors()
        except RuntimeError:
            # A size that is left open stands as 1, which may be too small for the model.
            if all(-1 not in tensor.field.shape for tensor in self.inputs):
                raise
            self._shapes = []
        first = given[0]["shape"]
        self._rows = int(first[0]) if len(first) else 1  # of a call, where it is fixed
        self._free = all(len(d["shape_signature"]) and d["shape_signature"][0] == -1 for d in given)

    def run(self, tensors: Columns) -> Columns:
        feed = {
            tensor.field.name: _prepared(tensor, tensors[tensor.field.name])
            for tensor in self.inputs
        }
        if self._free or rows_of(feed) == self._rows:
            return self._invoke(feed)
        return in_steps(self._invoke, feed, self._rows)

    def _invoke(self, feed: Columns) -> Columns:
        interpreter = self.interpreter
        shapes = [array.shape for array in feed.values()]
        if shapes != self._shapes:
            self._shapes = []  # till it is known that these can be
            for tensor, shape in zip(self.inputs, shapes, strict=True):
                interpreter.resize_tensor_input(tensor.index, shape, strict=True)
            interpreter.allocate_tensors()
            self._shapes = shapes
        for tensor, array in zip(self.inputs, feed.values(), strict=True):
            interpreter.set_tensor(tensor.index, array)
        interpreter.invoke()
        result = {}
        for tensor in self.outputs:
            value = interpreter.get_tensor(tensor.index)
            result[tensor.field.name] = (
                tensor.quantization.dequantize(value) if tensor.quantization else value
            )
        return result


def _prepared(tensor: _Tensor, array: Array) -> Array:
    if not tensor.quantization:
        plain = array.dtype == tensor.field.dtype and array.flags.c_contiguous
        return array if plain else dense(tensor.field, array)
    if array.dtype == tensor.quantization.dtype:
        return array
    return tensor.quantization.quantize(array)


def _signature(interpreter: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Tensor index -> name in the file's only signature; nothing where it has none or several."""
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        return {}, {}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    named = (runner.get_input_details(), runner.get_output_details())
    given, gives = ({detail["index"]: name for name, detail in part.items()} for part in named)
    return given, gives


def _tensor(detail: dict[str, Any], names: dict[int, str]) -> _Tensor:
    index = int(detail["index"])
    dtype = np.dtype(detail["dtype"]).name if detail["dtype"] is not np.bytes_ else "str"
    scale, zero_point = detail["quantization"]
    quantization = None
    if scale and np.issubdtype(detail["dtype"], np.integer):
        quantization = Quantization(dtype, float(scale), int(zero_point))
    shape = tuple(int(size) for size in detail["shape_signature"][1:])
    name = names.get(index, str(detail["name"]))
    return _Tensor(Field(name, "float32" if quantization else dtype, shape), index, quantization)


def _set_aside(file: Path, interpreter: Any) -> tuple[Callable[[Columns], list[int]], str]:
    """What gives the places of the rows that the file has no answer to, and that for people."""
    answers = tflite_metadata.read(file).get("answers", ("NaN", "infinity"))
    if "infinity" not in answers:
        return rows_not_finite, f"{SET_ASIDE}, nor one with an infinite one"
    if "NaN" in answers and _looks_for_nan(interpreter):
        return lambda _: [], own_rule()
    return rows_with_nan, SET_ASIDE


def _looks_for_nan(interpreter: Any) -> bool:
    """Whether the graph asks which values are NaN, as x != x, and so has an answer for them."""
    return any(
        operation["op_name"] == "NOT_EQUAL" and len(set(operation["inputs"].tolist())) == 1
        for operation in interpreter._get_ops_details()
    )
