"""What the figures of a bench come to, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mlopsdeploy.bench import measure
from mlopsdeploy.serve.bench.cores import Cores
from mlopsdeploy.serve.bench.loads import EMPTY_CONNECTIONS
from mlopsdeploy.serve.bench.parts import Parts

MOSTLY = 0.5  # of a request's time: what takes that much sets the pace
CLIENT_BUSY = 0.9  # of a core: then the client was measured and not the server


def report(
    parts: Parts,
    cores: Cores,
    workers: int,
    inside: Mapping[str, float],
    empty: Mapping[str, Any],
    closed: Sequence[Mapping[str, Any]],
    opened: Mapping[str, Any],
    memory: Sequence[int],
) -> dict[str, Any]:
    """All of it, ready for JSON."""
    model = parts.model
    best = max(closed, key=lambda load: load["requests_per_second"])
    most = best["requests_per_second"]
    # Time of the processor, where it is known, is the same whatever other programs do.
    taken, of_empty = (
        load["server_us"] or 1e6 * workers / load["requests_per_second"] for load in (best, empty)
    )
    in_parallel = min(workers, len(cores.server))
    calls = 1e6 / inside["model"] * max(in_parallel, min(model.runtime.streams, len(cores.server)))
    said: dict[str, Any] = {
        "model": parts.name,
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "route": parts.path,
        "body_bytes": len(parts.body),
        "workers": workers,
        "cores": {
            "server": len(cores.server),
            "client": len(cores.client),
            "shared": not cores.apart,
        },
        "closed": [_rounded(load) for load in closed],
        "open": _rounded(opened),
        "limit": {
            "model_calls_per_second": round(calls, 1),
            "empty_requests_per_second": round(empty["requests_per_second"], 1),
        },
        "most": {"connections": best["connections"], "requests_per_second": round(most, 1)},
        "request_us": round(taken, 1),
        "empty_us": round(of_empty, 1),
        "ratio": round(most / calls, 3),
        "parts_us": where(inside, taken),
        # Of the server's cores: with less than all of it something else was waited for.
        "server_busy": round(min(most * taken / 1e6 / in_parallel, 1.0), 2),
        "memory": list(memory),
        "client_busy": round(max(load["busy"] for load in (*closed, empty)), 2),
    }
    said["bottleneck"] = max(said["parts_us"], key=said["parts_us"].__getitem__)
    said["verdict"] = verdict(said)
    return said


def where(inside: Mapping[str, float], whole: float) -> dict[str, float]:
    """A request's microseconds of processor time, by what they are spent on.

    Args:
        inside: as measured in process, see `Parts.measure`.
        whole: what the server spends on a request under load.
    """
    parts = {k: v for k, v in inside.items() if k not in ("endpoint", "application")}
    parts["checks, metrics"] = inside["endpoint"] - sum(parts.values())
    parts["application"] = inside["application"] - inside["endpoint"]
    parts["server, HTTP"] = whole - inside["application"]
    return {name: round(max(value, 0.0), 1) for name, value in parts.items()}


def verdict(said: Mapping[str, Any]) -> str:
    """What a report of `bench_serve` comes to, in one sentence."""
    most, parts = said["most"], said["parts_us"]
    whole = sum(parts.values()) or 1.0
    part = said["bottleneck"]
    share = parts[part] / whole
    speed = f"{most['requests_per_second']:,.0f} requests/s with "
    speed += _count(most["connections"], "connection")
    half = f"at half of that {said['open']['p99_ms']:.1f} ms is the 99th percentile"
    if part == "model" and share >= MOSTLY:
        return (
            f"The model sets the pace with {share:.0%} of a request: {speed}, so a smaller model, "
            f"a lower precision or more cores are what helps; {half}."
        )
    if part == "server, HTTP":
        return (
            f"HTTP sets the pace with {share:.0%} of a request: {speed}; each takes "
            f"{said['request_us']:,.0f} µs, with an empty application {said['empty_us']:.0f}; "
            f"more cores or several rows a request are what helps; {half}."
        )
    return (
        f"{part} takes the most, {share:.0%} of a request: {speed}; each takes "
        f"{said['request_us']:,.0f} µs, and {said['empty_us']:.0f} µs with an empty application; "
        f"{half}."
    )


def _rounded(load: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "connections",
        "rate",
        "requests_per_second",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "unanswered",
    )
    return {
        name: round(load[name], 3) if isinstance(load[name], float) else load[name]
        for name in kept
        if name in load
    }


def show(said: Mapping[str, Any], console: Console) -> None:
    """A report for people."""
    table = _table("load", "requests/s", "p50", "p99, ms")
    empty = said["limit"]["empty_requests_per_second"]
    table.add_row(
        f"empty application, {EMPTY_CONNECTIONS} connections", f"{empty:,.0f}", style="dim"
    )
    for load in said["closed"]:
        best = load["connections"] == said["most"]["connections"]
        one = "connection" if load["connections"] == 1 else "connections"
        table.add_row(
            f"{load['connections']} {one}, each waits for its answer",
            f"{load['requests_per_second']:,.0f}",
            f"{load['p50_ms']:.2f}",
            f"{load['p99_ms']:.2f}",
            style="green" if best else "",
        )
    half = said["open"]
    table.add_row(
        "at random moments, half of the most",
        f"{half['requests_per_second']:,.0f}",
        f"{half['p50_ms']:.2f}",
        f"{half['p99_ms']:.2f}",
    )
    console.print(table)
    console.print()
    table = _table("a request", "µs", "share")
    whole = sum(said["parts_us"].values()) or 1
    for name, value in said["parts_us"].items():
        table.add_row(name, f"{value:,.1f}", f"{value / whole:.0%}")
    table.add_row("of an empty application", f"{said['empty_us']:,.1f}", "", style="dim")
    console.print(table)
    console.print()
    cores = said["cores"]
    if cores["shared"]:
        place = "server and client share the cores, so figures are lower than they could be"
    else:
        place = f"server on {_count(cores['server'], 'core')}, client on another one"
    memory = [f"{size / 1e6:.0f} MB" for size in said["memory"]]
    line = f"{said['model']} on {said['runtime']} {said['precision']}, "
    line += f"{_count(said['workers'], 'worker')} of {' and '.join(sorted(set(memory)))}; {place}"
    console.print(line, soft_wrap=not console.is_terminal, markup=False, style="dim")
    if said["client_busy"] >= CLIENT_BUSY:
        console.print(
            "the client was as busy as its core allows: the server may answer more than this",
            style="yellow",
            soft_wrap=not console.is_terminal,
        )
    elif said["server_busy"] < measure.ALONE:
        console.print(
            f"at its most the server had {said['server_busy']:.0%} of its cores: it waited, "
            "most likely for other programs, so measure again when the machine is idle",
            style="yellow",
            soft_wrap=not console.is_terminal,
        )
    console.print(said["verdict"], soft_wrap=not console.is_terminal, markup=False)


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table
