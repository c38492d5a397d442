"""Objects of Kubernetes, filled into templates of YAML, and the numbers in them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from importlib import metadata
from itertools import islice, pairwise
from textwrap import wrap
from typing import Any

import yaml
from cronsim import CronSim

from mlopsdeploy.core.images import MAX_PIXELS
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.package.plan import TEMPLATES, Plan, render
from mlopsdeploy.package.sizing import MIB
from mlopsdeploy.settings import BODIES_HELD, MAX_BODY, MAX_BODY_OF_PICTURES

# Bytes that one of a body may take while it is parsed (`[],` is a list) or, where it is a word
# without end, tokenized; and that a pixel takes where another picture of a request is decoded.
_PARSED, _TOKENIZED, _DECODED = 32, 160, 9
# Seconds between "this pod goes" and SIGTERM, in which load balancers stop sending to it.
LEAVE = 5


class _Plain(yaml.SafeDumper):
    """What comes twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _quoted(value: Any) -> Any:
    """A value as YAML on one line, whatever is in it; what is `safe` is text of a template."""
    if hasattr(value, "__html__"):
        return value
    flow = yaml.dump(
        value, Dumper=_Plain, sort_keys=False, default_style='"', default_flow_style=True,
        width=math.inf,
    )  # fmt: skip
    return flow.strip()


_TEMPLATES = TEMPLATES.overlay(finalize=_quoted)


def manifests(plan: Plan) -> dict[str, str]:
    """Files of a cluster: `kubectl apply -f` takes the folder that is named like the target.

    Raises:
        ConfigError: for Ray, which is not installed here.
    """
    template = "serve" if plan.strategy == "serve" else "batch"
    found = filled(
        f"cluster/{template}.yaml.j2",
        plan,
        cpu=plan.workers if template == "serve" else int(plan.settings.get("threads") or 1),
        LEAVE=LEAVE,
        sizes=resources_head(plan),
        gap=shortest_gap(plan.schedule),
        ray_version=_ray_version() if plan.target == "ray" else "",
    )
    return {
        f"{plan.target}/{path}": dump(one, found["heads"].get(path, ""))
        for path, one in found["files"].items()
    }


def filled(template: str, plan: Plan, **values: Any) -> dict[str, Any]:
    """A template of YAML, parsed; it knows the memory to request and to allow, in MiB."""
    requested, limit = (size // MIB for size in memory(plan))
    text = render(template, plan, _TEMPLATES, requested=requested, limit=limit, **values)
    made: dict[str, Any] = yaml.safe_load(text)
    return made


def dump(one: dict[str, Any], head: str = "") -> str:
    """YAML under a few lines of comment."""
    lines = [part for line in head.splitlines() for part in wrap(line, 98)]
    comment = "".join(f"# {line}\n" for line in lines)
    return comment + yaml.dump(one, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)


def _ray_version() -> str:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError as error:
        raise ConfigError("batch --to ray needs Ray: pip install 'mlopsdeploy[ray]'") from error


def memory(plan: Plan) -> tuple[int, int]:
    """Bytes to request and to allow.

    Measured: a fifth more than was seen. Not measured: half a GiB and four times the model, for
    each worker. On top, in the limit, of a server `_largest`; of a batch as much again.
    """
    measured = plan.measured
    if measured is None:
        model = sum(model.bytes for model in plan.models)
        requested = plan.workers * (512 * MIB + 4 * model)
    else:
        requested = int(1.2 * (measured.memory + (plan.workers - 1) * measured.worker))
    more = plan.workers * _largest(plan) if plan.strategy == "serve" else requested
    return _round_up(requested), _round_up(requested + more)


def _largest(plan: Plan) -> int:
    """Bytes that the largest requests take in a worker.

    It holds so many bodies (twice: raw and as columns), one of them is parsed, and as many as the
    model has streams are computed.
    """
    streams = int(plan.settings.get("threads") or 1)
    kinds = {model.data for model in plan.models}
    by_default = MAX_BODY_OF_PICTURES if "image" in kinds else MAX_BODY
    body = int(plan.settings.get("max_body") or by_default)
    computed = {"image": _DECODED * MAX_PIXELS, "text": _TOKENIZED * body}
    each = max(computed.get(kind, 0) for kind in kinds)
    return (2 * BODIES_HELD + _PARSED) * body + streams * each


def _round_up(size: int) -> int:
    return math.ceil(size / (64 * MIB)) * 64 * MIB


def resources_head(plan: Plan) -> str:
    """Where the numbers come from."""
    if plan.measured is None:
        return (
            "Memory is a careful guess: half a GiB and four times the model for each worker.\n"
            "'mlopsdeploy package --measure' puts in what a run takes."
        )
    return (
        f"Measured: {plan.capacity}\n({plan.measured.how}).\n"
        "Memory: a fifth more than that is requested; the limit leaves room for the largest input."
    )


def shortest_gap(schedule: str) -> int:
    """Seconds between two runs: with `Forbid`, one that takes longer would stop the next."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = list(islice(CronSim(schedule, start), 50))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    shortest: timedelta = min(gaps, default=timedelta(days=1))
    return max(int(shortest.total_seconds()), 60)
