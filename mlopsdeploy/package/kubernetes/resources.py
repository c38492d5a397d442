"""How much CPU and memory a container asks for, from measurement where there is one."""

from __future__ import annotations

import math
from typing import Any

from mlopsdeploy.core.images import MAX_PIXELS
from mlopsdeploy.package.plan import Plan
from mlopsdeploy.package.sizing import MIB
from mlopsdeploy.settings import MAX_BODY, MAX_BODY_OF_PICTURES

_PICTURES = ("image_classification", "object_detection")


def resources(plan: Plan) -> dict[str, Any]:
    """Requests and limits. No limit of CPU: it would throttle a pod whose node has time."""
    requested, limit = memory(plan)
    cpu = plan.workers if plan.strategy == "serve" else int(plan.settings.get("threads") or 1)
    return {
        "requests": {"cpu": str(cpu), "memory": f"{requested // MIB}Mi"},
        "limits": {"memory": f"{limit // MIB}Mi"},
    }


def memory(plan: Plan) -> tuple[int, int]:
    """Bytes to request and to allow.

    Measured: a fifth more than was seen. Not measured: half a GiB and four times the model, for
    each worker. On top, in the limit, of a server what its threads can hold of the largest bodies
    (twice: raw and parsed) and of the largest picture, decoded; of a batch as much again.
    """
    measured = plan.measured
    if measured is None:
        model = sum(model.bytes for model in plan.models)
        requested = plan.workers * (512 * MIB + 4 * model)
    else:
        requested = int(1.2 * (measured.memory + (plan.workers - 1) * measured.worker))
    bodies = 0
    if plan.strategy == "serve":
        threads = int(plan.settings.get("request_threads", 16))
        pictures = any(model.task in _PICTURES for model in plan.models)
        largest = plan.settings.get("max_body") or (MAX_BODY_OF_PICTURES if pictures else MAX_BODY)
        bodies = plan.workers * (2 * threads * int(largest) + 3 * MAX_PIXELS * pictures)
    return _round_up(requested), _round_up(requested + (bodies or requested))


def _round_up(size: int) -> int:
    return math.ceil(size / (64 * MIB)) * 64 * MIB


def resources_head(plan: Plan) -> str:
    """Where the numbers come from."""
    measured = plan.measured
    if measured is None:
        return (
            "Memory is a careful guess: half a GiB and four times the model for each worker.\n"
            "'mlopsdeploy package --measure' puts in what a run takes."
        )
    took = f"{measured.memory / MIB:.0f} MiB"
    unit = "requests/s" if plan.strategy == "serve" else "rows/s"
    return (
        f"Measured: {took}, {measured.per_second:,.0f} {unit}\n({measured.how}).\n"
        "Memory: a fifth more than that is requested; the limit leaves room for the largest input."
    )
