"""The machine's matrix-multiply peak as OpenVINO reaches it: float32, bfloat16 and int8, all cores.

A chain of square products, so that what happens between them weighs little. For int8 every
product's input and weights pass a FakeQuantize, which OpenVINO turns into 8-bit kernels; a chain
that ran in float32 after all would show as int8 no faster than float32. Prints one JSON line,
precision -> GFLOP/s, the best of several repeats.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from common import module

SIDE = 2048
LAYERS = 6
SECONDS = 3.0


def chain(quantised: bool) -> Any:
    numpy: Any = module("numpy")
    openvino: Any = module("openvino")
    ops: Any = module("openvino.opset13")
    rng = numpy.random.default_rng(0)
    value = source = ops.parameter([SIDE, SIDE], numpy.float32)
    for _ in range(LAYERS):
        weights = rng.uniform(-1, 1, (SIDE, SIDE)).astype(numpy.float32) / SIDE**0.5
        weight = ops.constant(weights)
        if quantised:
            limit = numpy.float32(abs(weights).max())
            low, high = ops.constant(-limit), ops.constant(limit)
            weight = ops.fake_quantize(weight, low, high, low, high, 255)
            low, high = ops.constant(numpy.float32(-1.28)), ops.constant(numpy.float32(1.27))
            value = ops.fake_quantize(value, low, high, low, high, 256)
        value = ops.matmul(value, weight, transpose_a=False, transpose_b=True)
    return openvino.Model([ops.reduce_max(value, ops.constant([0, 1]))], [source], "chain")


def peak(precision: str) -> float:
    numpy: Any = module("numpy")
    openvino: Any = module("openvino")
    hint = "bf16" if precision == "bfloat16" else "f32"
    request = (
        openvino.Core()
        .compile_model(chain(precision == "int8"), "CPU", {"INFERENCE_PRECISION_HINT": hint})
        .create_infer_request()
    )
    data = numpy.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE)).astype(numpy.float32)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        request.infer([data])
        best = min(best, time.perf_counter() - start)
    return 2 * LAYERS * SIDE**3 / best / 1e9


if __name__ == "__main__":
    figures = {name: peak(name) for name in ("float32", "bfloat16", "int8")}
    sys.stdout.write(json.dumps(figures) + "\n")
