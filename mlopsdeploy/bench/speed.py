"""How fast a model is here, and how fast it could be: what the benches and `models` share.

Speeds are those of this machine at this moment. Each is taken over many calls, and a figure that
is compared with another is measured next to it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mlopsdeploy.columns import Columns, Field, objects, rows_of, take
from mlopsdeploy.core.console import print_line
from mlopsdeploy.core.model import Model
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import cache_folder

WORDS = 27  # of the median text that is made up; its spread is that of product reviews
SPREAD = 0.7
LARGEST = 50_000  # numbers of a row of arrays, before fewer rows are made
SEED = 3
ALONE = 0.85  # of the cores asked for: below it others are at work, and figures say less


def seconds_of(call: Callable[[], object], seconds: float, *, least: int = 3) -> list[float]:
    """How long each of many calls takes, for so many seconds. The first, a warm-up, is left out."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def show_others(cores_ours: float, console: Console) -> None:
    """A line about other programs, where they had part of the cores that were asked for.

    Args:
        cores_ours: the share that this process had.
        console: where it goes.
    """
    if cores_ours < ALONE:
        text = (
            f"other programs had {1 - cores_ours:.0%} of the cores meanwhile: measure again when "
        )
        print_line(console, text + "the machine is idle", "yellow")


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """`p50` and `p99` in milliseconds."""
    middle, high = np.percentile(times, (50, 99)) * 1000
    return {"p50": round(float(middle), 4), "p99": round(float(high), 4)}


def made_up_rows(model: Model, rows: int) -> Columns:
    """Rows that a model takes, the same every time, for speed and agreement and not for accuracy.

    Texts are the words of the model's example, or plain ones, in natural lengths; numbers are the
    example's, each moved by up to a tenth; what has no example is drawn from a normal
    distribution, pictures from all values.
    """
    draw = np.random.default_rng(SEED)
    example = model.yaml.example
    columns: Columns = {}
    for place, field in enumerate(model.task.inputs):
        if field.dtype == "str":
            text = example if isinstance(example, str) else ""
            columns[field.name] = _texts(text, rows, draw)
        else:
            value = _value(example, field.name, place)
            columns[field.name] = _numbers(field, value, rows, draw)
    return columns


def _texts(example: str, rows: int, draw: np.random.Generator) -> Any:
    plain = "this was not at all what we had hoped for but the price is fair and it works"
    words = sorted({*example.lower().replace(".", "").split(), *plain.split()})
    lengths = np.clip(draw.lognormal(np.log(WORDS), SPREAD, rows), 1, 300).astype(int)
    return objects([" ".join(draw.choice(words, length)) for length in lengths.tolist()])


def _value(example: Any, name: str, place: int) -> Any:
    if isinstance(example, dict):
        return example.get(name)
    if isinstance(example, list) and place < len(example):
        return example[place] if not isinstance(example[place], list) else None
    return None


def _numbers(field: Field, example: Any, rows: int, draw: np.random.Generator) -> Any:
    shape = tuple(max(size, 1) for size in field.shape)
    if field.name == "image":
        shape = (*(size if size > 1 else 320 for size in field.shape[:2]), 3)
    kind = np.dtype(field.dtype)
    if kind == np.uint8:
        return draw.integers(0, 256, (rows, *shape), np.uint8)
    if isinstance(example, int | float):
        values = example * draw.uniform(0.9, 1.1, (rows, *shape))
    else:
        values = draw.normal(size=(rows, *shape))
    return values.astype(kind)


def rows_that_fit(model: Model, wanted: int) -> int:
    """How many rows to make up: fewer of large arrays, such as pictures."""
    size = sum(int(np.prod(np.maximum(field.shape, 320))) for field in model.task.inputs)
    arrays = any(len(field.shape) > 1 for field in model.task.inputs)
    return max(min(wanted, 16 * LARGEST // max(size, 1)), 4) if arrays else wanted


def rows_per_second(model: Model, columns: Columns, seconds: float) -> float:
    """Through encoding, model and decoding, with all streams busy."""
    encoded = model.task.encode(columns)
    batches = model.plan(encoded)

    def work(calls: list[int]) -> None:
        while time.perf_counter() < end:
            batch = batches[len(calls) % len(batches)]
            part = take(columns, batch)
            model.predict_columns(part)
            calls.append(len(batch))

    done: list[list[int]] = [[] for _ in range(model.runtime.streams)]
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(len(done)) as pool:
        for batch in batches:  # each has a shape of its own, which runtimes prepare for
            if time.perf_counter() < end:
                pool.submit(model.predict_batch, encoded, batch)
    started = time.perf_counter()
    end = started + seconds
    with ThreadPoolExecutor(len(done)) as pool:
        list(pool.map(work, done))
    return sum(map(sum, done)) / (time.perf_counter() - started)


def one_row(model: Model, columns: Columns, seconds: float) -> dict[str, float]:
    """Milliseconds from one row to its answer, `p50` and `p99`, over rows of all kinds in turn."""
    count = rows_of(columns)
    turn = iter(range(sys.maxsize))

    def call() -> None:
        row = next(turn) % count
        model.predict_columns(take(columns, slice(row, row + 1)))

    return percentiles(seconds_of(call, seconds))


# ---------------------------------------------------------------- how fast it could be


class BareCalls:
    """Calls of a model and nothing else, one after the other.

    Attributes:
        times: seconds of each call.
        rows: in all of them.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.rows = 0
        self._cpu = 0.0
        self._widths: Counter[int] = Counter()

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / sum(self.times) if self.times else 0.0

    def run(
        self, call: Callable[[Columns], object], batches: Sequence[Columns], seconds: float
    ) -> None:
        """Call with one batch of tensors after the other for so many seconds."""
        end, turn = time.perf_counter() + seconds, 0
        while turn < 3 or time.perf_counter() < end:
            tensors = batches[turn % len(batches)]
            turn += 1
            started, cpu = time.perf_counter(), time.process_time()
            call(tensors)
            self.times.append(time.perf_counter() - started)
            self._cpu += time.process_time() - cpu
            rows = rows_of(tensors)
            self.rows += rows
            self._widths[next(iter(tensors.values())).shape[-1]] += rows

    def limit(self, reference: str, precision: str, threads: int) -> dict[str, Any]:
        """These calls next to large matrix products, for JSON.

        Returns:
            As `share_of_peak`, and `cores_ours`, the share of the cores asked for that was there.
        """
        shape = flops_by_length(reference)
        flops = 0.0
        if shape:
            a, b, c = shape
            flops = sum(
                rows * (a + b * width + c * width**2) for width, rows in self._widths.items()
            )
        return {
            **share_of_peak(flops, self._cpu, precision, threads),
            "cores_ours": round(min(self._cpu / (sum(self.times) or 1) / threads, 1.0), 2),
        }


def share_of_peak(flops: float, cpu: float, precision: str, streams: int) -> dict[str, Any]:
    """Operations next to the most that this machine gives, for JSON.

    Args:
        flops: floating-point operations, 0 where they can't be counted.
        cpu: processor seconds that they took: the peak, too, is that of undisturbed calls.
        precision: of the model.
        streams: threads that computed at the same time.

    Returns:
        `gflops` and `peak_gflops` a second, `share_of_peak`; None where unknown.
    """
    gflops = flops / cpu * streams / 1e9 if flops and cpu else None
    peak = peak_flops(precision, streams=streams) if gflops else None
    return {
        "gflops": gflops and round(gflops, 2),
        "peak_gflops": peak and round(peak / 1e9, 1),
        "share_of_peak": gflops and peak and round(gflops * 1e9 / peak, 3),
    }


def show_share_of_peak(limit: Mapping[str, Any], precision: str, console: Console) -> None:
    """The same for people."""
    if limit["share_of_peak"]:
        text = f"bare calls: {limit['gflops']:,.1f} of {limit['peak_gflops']:,.0f} GFLOP/s, "
        text += f"{limit['share_of_peak']:.1%} of large {precision} matrix products here"
        print_line(console, text)


def graph_of(reference: str) -> Path | None:
    """The graph that a model runs or was made from, where it is one that can be read."""
    files = find_model(reference)
    if "checkpoint" in files.graphs and "onnx" not in files.graphs:
        made = cache_folder() / "onnx" / files.weights[:32] / "model.onnx"
        return made if made.is_file() else None
    return next(
        (files.graphs[kind] for kind in ("onnx", "openvino", "tflite") if kind in files.graphs),
        None,
    )


def flops_by_length(reference: str) -> tuple[float, float, float] | None:
    """Floating-point operations of a row of n tokens: a + b n + c n², as the three numbers.

    Counted in the graph as it runs, a multiplication and an addition each as one, in matrix
    products and convolutions, which are nearly all of the work. A network without tokens has a
    constant only. None where the graph can't be read or has loops.
    """
    graph = graph_of(reference)
    if graph is None:
        return None
    try:
        import openvino as ov

        from mlopsdeploy.runtimes import openvino_graph
    except ModuleNotFoundError:
        return None
    try:
        model = ov.Core().read_model(str(graph))
        if not openvino_graph.has_scales(model):
            openvino_graph.keep_first_token(model)
        if all(port.get_partial_shape().rank.get_length() == 2 for port in model.inputs) and any(
            port.get_partial_shape()[1].is_dynamic for port in model.inputs
        ):
            lengths = np.array([16, 32, 64])
            counts = [_flops(model, length) for length in lengths.tolist()]
            a, b, c = np.linalg.solve(np.vander(lengths, increasing=True), counts)
            return float(a), float(b), float(c)
        return _flops(model, None), 0.0, 0.0
    except (RuntimeError, ValueError):  # shapes that stay open
        return None


def _flops(model: Any, length: int | None) -> float:
    """Of one row with so many tokens."""
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        sizes = [1, *(size for size in list(shape)[1:])]
        if length is not None:
            sizes = [1, length]
        shapes[port.get_any_name()] = sizes
    model.reshape(shapes)
    return sum(map(_operations, model.get_ordered_ops()))


def _operations(node: Any) -> float:
    kind = node.get_type_name()
    if kind not in ("MatMul", "Convolution", "GroupConvolution"):
        return 0.0
    outputs = float(np.prod(list(node.output(0).get_shape())))
    if kind == "MatMul":
        left = list(node.input(0).get_shape())
        summed = left[-2] if node.get_attributes()["transpose_a"] else left[-1]
        return 2 * outputs * float(summed)
    weights = list(node.input(1).get_shape())
    # (out, in, …) or, in groups, (groups, out, in, …): the sums run over all but the outputs.
    return 2 * outputs * float(np.prod(weights[2 if kind == "GroupConvolution" else 1 :]))


def peak_flops(precision: str, *, streams: int, seconds: float = 0.4) -> float | None:
    """Operations per second of large matrix products, the most that this machine gives.

    A chain of square products, so that what happens between them weighs little, on as many
    streams as a model has, of one thread each. None where OpenVINO is not there.
    """
    try:
        import openvino as ov
        from openvino import opset13 as ops
    except ModuleNotFoundError:
        return None
    side, layers = 1024, 4
    draw = np.random.default_rng(SEED)
    value = source = ops.parameter([side, side], np.float32)
    for _ in range(layers):
        array = draw.uniform(-1, 1, (side, side)).astype(np.float32) / side**0.5
        weight = ops.constant(array)
        if precision == "int8":  # 8-bit kernels where both sides are on a grid of 8 bits
            limit = float(np.abs(array).max())
            weight = _on_a_grid(ops, weight, -limit, limit, 255)
            value = _on_a_grid(ops, value, -1.28, 1.27, 256)
        value = ops.matmul(value, weight, transpose_a=False, transpose_b=True)
    chain = ov.Model([ops.reduce_max(value, ops.constant([0, 1]))], [source], "chain")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = ov.Core().compile_model(chain, "CPU", settings)
    values = draw.uniform(-1, 1, (side, side)).astype(np.float32)

    def best(_: int) -> float:
        request = compiled.create_infer_request()
        return min(seconds_of(lambda: request.infer([values]), seconds))

    with ThreadPoolExecutor(streams) as pool:
        times = list(pool.map(best, range(streams)))
    return float(sum(2 * layers * side**3 / time_ for time_ in times))


def _on_a_grid(ops: Any, value: Any, low: float, high: float, levels: int) -> Any:
    least, most = ops.constant(np.float32(low)), ops.constant(np.float32(high))
    return ops.fake_quantize(value, least, most, least, most, levels)
