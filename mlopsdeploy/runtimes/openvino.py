"""OpenVINO: the fastest way through a transformer on a CPU.

One stream per core with one thread each: on two cores that is about 1.6 times as fast as two
threads on one stream, since nothing waits for anything.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import ClassVar

import numpy as np
import openvino as ov

from mlopsdeploy.columns import Columns, Field, Runtime, rows_of
from mlopsdeploy.core.once import once
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.runtimes import openvino_graph
from mlopsdeploy.runtimes.common import (
    by_length,
    dense,
    no_rows,
    rows_with_nan,
    takes_one_length,
    with_nan,
)

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
            self.inputs = tuple(_field(port) for port in model.inputs)
            self.outputs = tuple(_field(port) for port in model.outputs)
            self._unmasked = takes_one_length(self.inputs)
            self._takes_nan = openvino_graph.looks_for_nan(model)
            self._checked = openvino_graph.check_indices(model)
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:  # OpenVINO raises nothing finer
            raise ModelError(
                f"{file}: OpenVINO can't load it ({one_line(error, last=True)})"
            ) from error
        self._requests: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._requests.put(compiled.create_infer_request())

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`; waits while all requests are busy."""
        return by_length(self._run, tensors) if self._unmasked else self._run(tensors)

    def _run(self, tensors: Columns) -> Columns:
        feed = {field.name: dense(field, tensors[field.name]) for field in self.inputs}
        if not rows_of(feed):
            return no_rows(self.outputs)
        for name, array in feed.items():
            if array.dtype == np.int64:  # which OpenVINO computes in 32 bits, and takes the lower
                dense(Field(name, "int32"), array)
        request = self._requests.get()
        try:
            # The inputs are ours until it returns, so they are shared; the outputs are copied,
            # since the request's own buffers are overwritten by its next caller.
            values = request.infer(feed, share_inputs=True)
            outputs = {field.name: values[index] for index, field in enumerate(self.outputs)}
            beyond = self._checked and bool(values[len(outputs)].any())
        except RuntimeError as error:
            reason = one_line(error, last=True)
            raise RowError(f"OpenVINO can't compute these values ({reason})") from error
        finally:
            self._requests.put(request)
        if beyond:
            raise RowError("OpenVINO can't compute these values (an index beyond a table's end)")
        return outputs if self._takes_nan else with_nan(outputs, rows_with_nan(feed))


def _field(port: ov.Output) -> Field:
    sizes = list(port.get_partial_shape())[1:]
    shape = tuple(size.get_length() if size.is_static else -1 for size in sizes)
    return Field(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)


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
