"""OpenVINO: the fastest way through a transformer on a CPU.

One stream per core with one thread each: on two cores that is about 1.6 times as fast as two
threads on one stream, since nothing waits for anything.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import openvino as ov

from mlopsdeploy.columns import Columns, Field, Runtime, rows_of
from mlopsdeploy.core.once import once
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.model_files.onnx_file import OnnxFile
from mlopsdeploy.runtimes import openvino_graph
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

# Scales per 128 activations: the fastest group that runs int8 kernels. Groups of 0 and of the
# whole row silently run at float speed.
DYNAMIC_GROUP = 128

# One for all models, never freed. On a CPU with AMX each gives the thread a stack for signal
# handlers, and two that are freed in the order they were made leave it one that is gone: the next
# signal kills the process.
_core = once(ov.Core)


class OpenVino(Runtime):
    """A compiled model with one inference request per core.

    Args:
        file: an `.onnx` file or OpenVINO's own `.xml`.
        precision: "float32"; "bfloat16", which needs a CPU that has it; "int8": weights in int8
            per output channel, activations in int8 with a scale per token and 128 channels, so
            that no row depends on another (a file that was quantised with scales of its own runs
            by these); "auto": bfloat16 where the CPU has it, else float32.
        threads, streams: see `load_model`.

    Raises:
        ConfigError: the CPU lacks the precision asked for.
        ModelError: the file can't be loaded.
    """

    formats: ClassVar = ("onnx", "openvino")
    precisions: ClassVar = ("float32", "bfloat16", "int8")
    steady: ClassVar = True

    def __init__(
        self, file: Path, *, precision: str = "auto", threads: int = 1, streams: int | None = None
    ) -> None:
        core = _core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16 else "float32"
        if precision == "bfloat16" and not has_bfloat16:
            raise ConfigError("precision 'bfloat16': this CPU lacks it; use float32 or int8")
        self.precision = precision
        self.streams = min(streams or threads, threads)
        try:
            model = core.read_model(str(file))
            static = precision == "int8" and openvino_graph.has_scales(model)
            if not static:
                openvino_graph.keep_first_token(model)
                if precision == "int8":
                    openvino_graph.weights_to_int8(model)
            settings = _settings(precision, threads, self.streams, has_bfloat16, static=static)
            graph = OnnxFile(file) if file.suffix == ".onnx" else None
            names = [port.name for port in graph.inputs] if graph else []
            self.inputs = tuple(
                _field(port, _sizes(port)[1:], _name(port, names)) for port in model.inputs
            )
            sizes = {_name(port, names): _sizes(port) for port in model.inputs}
            self._rows = rows_at_a_time(file, sizes)
            names = [port.name for port in graph.outputs] if graph else []
            outputs: list[Field] = []
            self._places: list[int] = []
            self._axes: list[tuple[str, RowAxis]] = []
            for place, port, name in _outputs(model, names):
                axis, shape = row_axis(sizes.values(), _sizes(port))
                self._axes.append((name, axis))
                self._places.append(place)
                outputs.append(_field(port, shape, name))
            self.outputs = tuple(outputs)
            given = len(model.outputs)
            self._unmasked = takes_one_length(self.inputs)
            self._takes_nan = openvino_graph.looks_for_nan(model)
            self.missing_values = own_rule() if self._takes_nan else SET_ASIDE
            self._checked = given if openvino_graph.check_indices(model) else None
            # Given a width that its constants don't fit, it reads and writes beyond its memory.
            self._free = [
                field.name
                for field in self.inputs
                if field.shape == (-1,) and field.dtype.startswith("float")
            ]
            self._model = model.clone() if self._free else None
            self._widths: set[tuple[int, ...]] = set()
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:  # OpenVINO raises nothing finer
            other = "; --runtime onnxruntime may" if file.suffix == ".onnx" else ""
            raise ModelError(
                f"{file}: OpenVINO can't load it ({one_line(error, last=True)}){other}"
            ) from error
        self._requests: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._requests.put(compiled.create_infer_request())

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`; waits while all requests are busy."""
        return by_length(self._all, tensors) if self._unmasked else self._all(tensors)

    def _all(self, tensors: Columns) -> Columns:
        feed = {field.name: dense(field, tensors[field.name]) for field in self.inputs}
        if not rows_of(feed):
            return no_rows(self.outputs)
        for name, array in feed.items():
            if array.dtype == np.int64:  # which OpenVINO computes in 32 bits, and takes the lower
                dense(Field(name, "int32"), array)
        if self._model is not None:
            self._check_widths(self._model, tuple(feed[name].shape[1] for name in self._free))
        unknown = () if self._takes_nan else rows_not_finite(feed)
        return with_nan(rows_first(self._run, feed, self._axes, self._rows), unknown)

    def _check_widths(self, model: ov.Model, widths: tuple[int, ...]) -> None:
        if widths in self._widths:
            return
        sizes = dict(zip(self._free, widths, strict=True))
        trial = model.clone()
        ports = zip(self.inputs, trial.inputs, strict=True)
        shapes = {
            port: ov.PartialShape([-1, sizes[field.name]])
            for field, port in ports
            if field.name in sizes
        }
        try:
            trial.reshape(shapes)
        except RuntimeError as error:
            given = " and ".join(f"{width} for {name}" for name, width in sizes.items())
            raise RowError(f"the model takes another number of features than {given}") from error
        self._widths.add(widths)

    def _run(self, feed: Columns) -> list[object]:
        request = self._requests.get()
        try:
            # The inputs are ours until it returns, so they are shared; the outputs are copied,
            # since the request's own buffers are overwritten by its next caller.
            values = request.infer(dict(enumerate(feed.values())), share_inputs=True)
            outputs = [values[place] for place in self._places]
            beyond = self._checked is not None and bool(values[self._checked].any())
        except RuntimeError as error:
            reason = one_line(error, last=True)
            raise RowError(f"OpenVINO can't compute these values ({reason})") from error
        finally:
            self._requests.put(request)
        if beyond:
            raise RowError("OpenVINO can't compute these values (an index beyond a table's end)")
        return outputs


def _outputs(model: ov.Model, names: Sequence[str]) -> list[tuple[int, ov.Output, str]]:
    """The outputs with their place and name; one port may be several outputs of an `.onnx` file."""
    ports = list(enumerate(model.outputs))
    named = {name: place for place, port in ports for name in port.get_names()}
    if names and all(name in named for name in names):
        return [(named[name], model.outputs[named[name]], name) for name in names]
    return [(place, port, _name(port, names)) for place, port in ports]


def _name(port: ov.Output, names: Sequence[str]) -> str:
    """What the `.onnx` file calls it, where it has several names."""
    found = port.get_names()
    known = [name for name in names if name in found]
    return next(iter(known), "") or min(found, default=port.get_node().get_friendly_name())


def _sizes(port: ov.Output) -> list[Size]:
    shape = port.get_partial_shape()
    if not shape.rank.is_static:
        return []
    return [size.get_length() if size.is_static else None for size in shape]


def _field(port: ov.Output, shape: Sequence[Size], name: str) -> Field:
    kind = np.dtype(port.get_element_type().to_dtype())
    sizes = tuple(size if isinstance(size, int) else -1 for size in shape)
    return Field(name, "str" if kind.kind in "OSU" else kind.name, sizes)


def _settings(
    precision: str, threads: int, streams: int, has_bfloat16: bool, *, static: bool
) -> dict[str, object]:
    # Left to itself OpenVINO computes in bfloat16 wherever the CPU has it, also when asked for
    # float, and quantises activations whenever weights are stored as int8.
    dynamic = precision == "int8" and not static
    # What static scales leave in float stays so: bfloat16 there gains a few per cent, and the
    # noise of neighbours, made steps by rounding, reaches 0.02 of a score.
    low = precision == "bfloat16" or (dynamic and has_bfloat16)
    return {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned, the first stream of two models would share a core while another core is idle.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": DYNAMIC_GROUP if dynamic else 0,
    }
