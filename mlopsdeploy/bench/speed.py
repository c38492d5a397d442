"""How fast a model is here, and how fast it could be: what the benches and `models` share.

Speeds are those of this machine at this moment. Each is taken over many calls, and a figure that
is compared with another is measured next to it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from mlopsdeploy.columns import Columns, Field, concat, objects, rows_of, take
from mlopsdeploy.core.by_language import READER
from mlopsdeploy.core.console import print_line
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import cache_folder

WORDS = 27  # of the median text that is made up; its spread is that of product reviews
CHARACTERS = 45  # the same in a language that puts no space between words
UNSPACED = {"zh", "ja"}
_PLAIN_WORDS = "this was not at all what we had hoped for but the price is fair and it works"
_PLAIN_CHARACTERS = "这个东西不好用但是价格便宜质量也还可以下次再来买"
SPREAD = 0.7
LARGEST = 50_000  # numbers of a row of arrays, before fewer rows are made
SEED = 3
GOOD = 0.9  # of bare calls of the model: little around it costs time
ALONE = 0.85  # of the cores asked for: below it others are at work, and figures say less

T = TypeVar("T")


def seconds_of(call: Callable[[T], object], items: Sequence[T], seconds: float) -> list[float]:
    """How long each of many calls takes, with one item after the other, for so many seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        item = items[len(times) % len(items)]
        started = time.perf_counter()
        call(item)
        times.append(time.perf_counter() - started)
    return times


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """`p50` and `p99` in milliseconds."""
    middle, high = np.percentile(times, (50, 99)) * 1000
    return {"p50": round(float(middle), 4), "p99": round(float(high), 4)}


def made_up_rows(model: Model, rows: int) -> Columns:
    """Rows that a model takes, the same every time, for speed and agreement and not for accuracy.

    Texts are the words of the model's example, or plain ones, in natural lengths; of models side by
    side there is a row for each in turn. Numbers are the example's, each moved by up to a tenth;
    what has no example is drawn from a normal distribution, whole numbers from 0 and 1, pictures
    from all values.
    """
    if model.parts:
        return _in_turn(model.parts[: max(rows, 1)], rows)
    draw = np.random.default_rng(SEED)
    example = model.yaml.example
    columns: Columns = {}
    for place, column in enumerate(model.task.inputs):
        if column.dtype == "str":
            text = example if isinstance(example, str) else ""
            shape = (rows, *(max(size, 1) for size in column.shape))
            texts = _texts(text, model.task.languages, math.prod(shape), draw)
            columns[column.name] = texts.reshape(shape)
        else:
            value = _value(example, column.name, place)
            columns[column.name] = _numbers(column, value, rows, draw)
    return columns


def _in_turn(parts: Sequence[Callable[[], Model]], rows: int) -> Columns:
    """Rows for several models: one for the first, one for the second, and so on."""
    counts = [len(range(place, rows, len(parts))) for place in range(len(parts))]
    each = [made_up_rows(load(), count) for load, count in zip(parts, counts, strict=True)]
    order = np.argsort(np.concatenate([np.arange(count) for count in counts]), kind="stable")
    return take(concat(each), order)


def _texts(example: str, languages: Collection[str], rows: int, draw: np.random.Generator) -> Any:
    if languages and UNSPACED.issuperset(languages):
        between, median = "", CHARACTERS
        words = sorted({*filter(str.isalnum, example), *_PLAIN_CHARACTERS})
    else:
        between, median = " ", WORDS
        words = sorted({*example.lower().replace(".", "").split(), *_PLAIN_WORDS.split()})
    lengths = np.clip(draw.lognormal(np.log(median), SPREAD, rows), 1, 300).astype(int)
    return objects([between.join(draw.choice(words, length)) for length in lengths.tolist()])


def _value(example: Any, name: str, place: int) -> Any:
    if isinstance(example, dict):
        return example.get(name)
    if isinstance(example, list) and place < len(example):
        return example[place] if not isinstance(example[place], list) else None
    return None


def _numbers(column: Field, example: Any, rows: int, draw: np.random.Generator) -> Any:
    shape = tuple(max(size, 1) for size in column.shape)
    if column.name == "image":
        shape = (*(size if size > 1 else 320 for size in column.shape[:2]), 3)
    kind = np.dtype(column.dtype)
    if kind == np.uint8:
        return draw.integers(0, 256, (rows, *shape), np.uint8)
    if isinstance(example, int | float):
        values = example * draw.uniform(0.9, 1.1, (rows, *shape))
    elif kind.kind in "iu":  # a place in a table, however small
        values = draw.integers(0, 2, (rows, *shape)).astype(float)
    else:
        values = draw.normal(size=(rows, *shape))
    return values.astype(kind)


def rows_that_fit(model: Model, wanted: int) -> int:
    """How many rows to make up: fewer of large arrays, such as pictures."""
    shapes = [column.shape for column in model.task.inputs]
    size = sum(int(np.prod([320 if side < 0 else side for side in shape])) for shape in shapes)
    arrays = any(len(shape) > 1 for shape in shapes)
    return max(min(wanted, 16 * LARGEST // max(size, 1)), 4) if arrays else wanted


def rows_per_second(model: Model, columns: Columns, seconds: float) -> float:
    """Through encoding, model and decoding, with all streams busy."""
    plan = model.plan(model.task.encode(columns))
    batches = [Batch(take(columns, rows), len(rows)) for rows in plan]
    streams = model.runtime.streams
    # Each batch has a shape of its own, which runtimes prepare for.
    BareCalls(model.predict_columns, batches, streams).run(seconds / 2)
    return BareCalls(model.predict_columns, batches, streams).run(seconds).rate


def one_row(model: Model, columns: Columns, seconds: float) -> dict[str, float]:
    """Milliseconds from one row to its answer, `p50` and `p99`, over rows of all kinds in turn."""
    rows = [take(columns, slice(row, row + 1)) for row in range(rows_of(columns))]
    model.predict_columns(rows[0])
    return percentiles(seconds_of(model.predict_columns, rows, seconds))


# ---------------------------------------------------------------- how fast it could be


@dataclass(frozen=True)
class Batch:
    """Tensors as the model gets them; how many rows they stand for, at what cost of the task's."""

    tensors: Columns
    rows: float
    cost: int = 1


@dataclass
class BareCalls:
    """Calls of a model and nothing else.

    Attributes:
        call: runs a batch's tensors.
        batches: that it gets, in turn.
        streams: calls at the same time.
        done: the batches of all calls.
        times: seconds of each call.
        seconds: of all of them on the clock.
        cpu: the same of processor time.
    """

    call: Callable[[Columns], object]
    batches: Sequence[Batch]
    streams: int = 1
    done: list[Batch] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Rows per second."""
        return sum(batch.rows for batch in self.done) / (self.seconds or 1)

    @property
    def cost_rate(self) -> float:
        """Cost per second."""
        return sum(batch.cost for batch in self.done) / (self.seconds or 1)

    def run(self, seconds: float) -> BareCalls:
        """Call for so many seconds more, with each stream at least three times."""
        if not self.batches:
            return self
        turn = itertools.cycle(self.batches)

        def call(_: object) -> None:
            batch = next(turn)
            self.call(batch.tensors)
            self.done.append(batch)

        started, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self.streams) as pool:
            for times in pool.map(lambda _: seconds_of(call, [None], seconds), range(self.streams)):
                self.times += times
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - cpu
        return self

    def limit(self, model: Model, reference: str, threads: int) -> dict[str, Any]:
        """These calls next to large matrix products, for JSON.

        Args:
            model: that was called.
            reference: of it; of models side by side, each counts the operations of its own rows.
            threads: that computed at the same time.

        Returns:
            `gflops` and `peak_gflops` a second and `share_of_peak`, None where unknown: the peak,
            too, is that of undisturbed calls, and of models that compute in several precisions
            there is none. `cores_ours`, the share of the cores asked for that
            was there: less than 1 where other programs had part of them.
        """
        flops = self._flops(several(reference) or [reference], apart=bool(model.parts))
        precisions = {
            model.parts[place]().runtime.precision if model.parts else model.runtime.precision
            for place in flops
        }
        done = sum(flops.values()) if all(flops.values()) else 0.0
        gflops = done / self.cpu * threads / 1e9 if done and self.cpu else None
        alike = gflops and len(precisions) == 1
        peak = peak_flops(precisions.pop(), streams=threads) if alike else None
        return {
            "gflops": gflops and round(gflops, 2),
            "peak_gflops": peak and round(peak / 1e9, 1),
            "share_of_peak": gflops and peak and float(f"{gflops * 1e9 / peak:.3g}"),
            "cores_ours": round(min(self.cpu / (self.seconds or 1) / threads, 1.0), 2),
        }

    def _flops(self, references: Sequence[str], *, apart: bool) -> dict[int, float]:
        """The operations of all calls, by the place of the model; 0 where they are unknown."""
        flops: dict[int, float] = {}
        counts: dict[int, tuple[float, float, float]] = {}
        for batch in self.done:
            for place, rows, width in _shares(batch.tensors) if apart else [_all_of(batch.tensors)]:
                if place not in counts:
                    counts[place] = flops_by_length(references[place]) or (0.0, 0.0, 0.0)
                a, b, c = counts[place]
                work = rows * (a + b * width + c * width**2)
                flops[place] = flops.get(place, 0.0) + work
        return flops


def _all_of(tensors: Columns) -> tuple[int, int, int]:
    """Of tensors for one model, the first: its place, their rows, and how wide they are."""
    return 0, rows_of(tensors), next(iter(tensors.values())).shape[-1]


def _shares(tensors: Columns) -> Iterator[tuple[int, int, int]]:
    """The same of each of models side by side, whose rows are no wider than the longest of them."""
    for place in np.unique(tensors[READER]).tolist():
        mask = tensors["attention_mask"][tensors[READER] == place]
        yield place, len(mask), int(mask.any(axis=0).sum())


# ---------------------------------------------------------------- what it comes to


def about(model: Model) -> dict[str, Any]:
    """The part of a report that says what was measured on what."""
    return {
        "model": model.name,
        "runtime": model.runtime.name,
        "precision": model.runtime.precision,
        "cores": core_count(),
    }


def verdict(
    stage: str,
    rate: str,
    report: Mapping[str, Any],
    *,
    cores_busy: float,
    part: str,
    hint: str | None,
    faster: str,
    besides: str,
    good: float = GOOD,
) -> str:
    """What a report comes to, in one sentence: its slowest stage, its `ratio` to bare calls.

    `part` says how much is that stage's, and `hint` what makes it faster. `faster` ends the
    sentence where the model sets the pace, which is from the ratio `good` on; below it, `besides`
    takes the rest.
    """
    share = f"{report['ratio']:.0%} of bare calls of the model"
    if stage not in ("model", "infer"):
        return f"{stage} sets the pace{part}: {rate} are {share}; what helps is {hint}."
    if report["ratio"] >= good:
        return f"The model sets the pace: {rate} are {share}{faster}."
    busy = f"{cores_busy:.1f} of {report['cores']} cores busy"
    return f"The model is the slowest stage, but {rate} are only {share}: with {busy}, {besides}."


def show_verdict(report: Mapping[str, Any], cores_ours: float, console: Console) -> None:
    """The end of a report for people: the share of the peak, the verdict, a word on others."""
    limit = report["limit"]
    if limit["share_of_peak"]:
        text = f"bare calls: {limit['gflops']:,.1f} of {limit['peak_gflops']:,.0f} GFLOP/s, "
        text += f"{limit['share_of_peak']:.1%} of large {report['precision']} matrix products here"
        print_line(console, text)
    print_line(console, report["verdict"])
    if cores_ours < ALONE:
        text = f"other programs had {1 - cores_ours:.0%} of the cores meanwhile: "
        print_line(console, f"{text}measure again when the machine is idle", "yellow")


# ---------------------------------------------------------------- operations


def flops_by_length(reference: str) -> tuple[float, float, float] | None:
    """Floating-point operations of a row of n tokens: a + b n + c n², as the three numbers.

    Counted in the graph as it runs, a multiplication and an addition each as one, in matrix
    products and convolutions, which are nearly all of the work. A network without tokens has a
    constant only. None where the graph can't be read or has loops.
    """
    files = find_model(reference)
    known = {form: files.graphs.get(form) for form in ("onnx", "openvino", "tflite")}
    if "checkpoint" in files.graphs and known["onnx"] is None:
        known = {"onnx": cache_folder() / "onnx" / files.weights[:32] / "model.onnx"}
    graph = next((path for path in known.values() if path and path.is_file()), None)
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
    model.reshape(
        {
            port.get_any_name(): [
                1,
                *(list(port.get_partial_shape())[1:] if length is None else [length]),
            ]
            for port in model.inputs
        }
    )
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
        return min(seconds_of(request.infer, [[values]], seconds))

    with ThreadPoolExecutor(streams) as pool:
        times = list(pool.map(best, range(streams)))
    return float(sum(2 * layers * side**3 / time_ for time_ in times))


def _on_a_grid(ops: Any, value: Any, low: float, high: float, levels: int) -> Any:
    least, most = ops.constant(np.float32(low)), ops.constant(np.float32(high))
    return ops.fake_quantize(value, least, most, least, most, levels)
