"""The machine's matrix-multiply peak as torch reaches it: float32 and bfloat16, all cores.

Prints one JSON line, precision -> GFLOP/s, the best of several repeats.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from common import module

SIDE = 4096
SECONDS = 3.0


def peak(torch: Any, dtype: Any) -> float:
    left = torch.rand(SIDE, SIDE).to(dtype)
    right = torch.rand(SIDE, SIDE).to(dtype)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.matmul(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best / 1e9


if __name__ == "__main__":
    library: Any = module("torch")
    names = ("float32", "bfloat16")
    sys.stdout.write(json.dumps({n: peak(library, getattr(library, n)) for n in names}) + "\n")
