"""How far bare calls of a model are from what the machine gives, and whether it was ours."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mlopsdeploy.bench import measure
from mlopsdeploy.columns import Columns, rows_of
from mlopsdeploy.core.machine import resident_memory
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import cache_folder


class Bare:
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
        """These calls beside large matrix products, for JSON.

        Returns:
            `gflops`, `peak_gflops` and `share_of_peak`, None where the operations of the model's
            graph can't be counted; `cores_ours`, the share of the cores asked for that was there.
        """
        graph = _graph_of(reference)
        shape = measure.flops_by_length(graph) if graph else None
        gflops = peak = None
        if shape and self._cpu:
            a, b, c = shape
            flops = sum(
                rows * (a + b * width + c * width**2) for width, rows in self._widths.items()
            )
            # While it had a core: the peak, too, is that of undisturbed calls.
            gflops = flops / self._cpu * threads / 1e9
            peak = measure.peak_flops(precision, streams=threads)
        return {
            "gflops": gflops and round(gflops, 2),
            "peak_gflops": peak and round(peak / 1e9, 1),
            "share_of_peak": gflops and peak and round(gflops * 1e9 / peak, 3),
            "cores_ours": round(min(self._cpu / (sum(self.times) or 1) / threads, 1.0), 2),
        }


def show_limit(found: dict[str, Any], precision: str, console: Console) -> None:
    """The same for people."""
    soft = not console.is_terminal
    if found["share_of_peak"]:
        console.print(
            f"bare calls: {found['gflops']:,.1f} of {found['peak_gflops']:,.0f} GFLOP/s, "
            f"{found['share_of_peak']:.1%} of large {precision} matrix products here",
            soft_wrap=soft,
        )


def _graph_of(reference: str) -> Path | None:
    """The graph that a model runs or was made from, where it is one that can be read."""
    files = find_model(reference)
    if "checkpoint" in files.graphs and "onnx" not in files.graphs:
        made = cache_folder() / "onnx" / files.digest[:32] / "model.onnx"
        return made if made.is_file() else None
    return next(
        (files.graphs[kind] for kind in ("onnx", "openvino", "tflite") if kind in files.graphs),
        None,
    )


def memory_mb() -> float:
    """What this process holds now, in MB."""
    return round(resident_memory() / 1e6, 1)
