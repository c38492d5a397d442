"""A model alone on a device: one row after another on one thread, in a process of its own.

`python -m mlopsdeploy.choose.device MODEL ROWS SECONDS`: prints a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.choose.processes import memory_mb
from mlopsdeploy.columns import Columns, objects
from mlopsdeploy.model import load_model

LEAST = 20  # rows, however long they take


def measure(reference: str, rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Times of single rows, in seconds; memory in MB, at its highest.

    Args:
        reference: the model.
        rows: values by the name of the task's fields.
        seconds: to go on for.
    """
    started = time.perf_counter()
    model = load_model(reference, threads=1, streams=1)
    ready = time.perf_counter() - started
    columns: list[Columns] = [
        {
            field.name: objects([row[field.name]])
            if field.dtype == "str"
            else np.array([row[field.name]], field.dtype)
            for field in model.task.inputs
        }
        for row in rows
    ]
    model.predict(columns[0])  # what is slow only once
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        model.predict(columns[len(times) % len(columns)])
        times.append(time.perf_counter() - start)
    return {
        "p50": float(np.percentile(times, 50)),
        "p99": float(np.percentile(times, 99)),
        "per_second": len(times) / sum(times),
        "rows": len(times),
        "start": ready,
        "memory_mb": memory_mb(),
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    sys.stdout.write(json.dumps(measure(sys.argv[1], given, float(sys.argv[3]))) + "\n")
