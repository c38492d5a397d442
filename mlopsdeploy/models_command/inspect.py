"""`mlopsdeploy models inspect`: what was understood about a model, and why."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy import measure, plugins
from mlopsdeploy.columns import Field
from mlopsdeploy.errors import ConfigError, MlopsDeployError, ModelError
from mlopsdeploy.model import core_count, load_model
from mlopsdeploy.models import find_model
from mlopsdeploy.models_command.folder import weight_files
from mlopsdeploy.models_command.tables import facts, plain_table, size

BATCH_SECONDS, ROW_SECONDS = 1.0, 0.4
ROWS = 256  # made up for the measurement


def inspect_model(
    reference: str, *, runtime: str = "auto", speed: bool = False, all_runtimes: bool = False
) -> dict[str, Any]:
    """Everything that can be said of a model without data: ready for JSON.

    Args:
        reference: see `find_model`.
        runtime: see `load_model`.
        speed: measure it here, in under three seconds; see `measure_speed`.
        all_runtimes: the same on every runtime that is installed and can run it.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    if all_runtimes:
        speeds = _on_all_runtimes(reference)
    elif speed:
        speeds = [_apart(reference, runtime)]
    else:
        speeds = []
    files = find_model(reference)
    started = time.perf_counter()
    model = load_model(reference, runtime=runtime, threads=1)
    weights = weight_files(files)
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "task": _snake_case(type(model.task).__name__),
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "loaded_in_seconds": round(time.perf_counter() - started, 3),
        "files": {path.name: path.stat().st_size for path in weights},
        "bytes": sum(path.stat().st_size for path in weights),
        "speed": speeds,
        "tensors": {
            "inputs": [_field(field) for field in model.runtime.inputs],
            "outputs": [_field(field) for field in model.runtime.outputs],
        },
        "inputs": [_field(field) for field in model.task.inputs],
        "outputs": [_field(field) for field in model.task.outputs],
        "labels": list(getattr(model.task, "labels", ())),
        "evidence": [
            {"what": what, "value": value, "why": why}
            for what, value, why in getattr(model.task, "evidence", ())
        ],
    }


def measure_speed(reference: str, runtime: str) -> dict[str, Any]:
    """How fast a model is here, on made-up rows of natural length.

    Returns:
        `runtime`, `precision`; `rows_per_second` in batches on all cores; `row_ms`: p50 and p99
        from one row to its answer on one core; `memory`: bytes of a process that does this.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    model = load_model(reference, runtime=runtime)
    columns = measure.made_up_rows(model, measure.rows_that_fit(model, ROWS))
    rate = measure.rows_per_second(model, columns, BATCH_SECONDS)
    memory = measure.resident_memory()
    alone = load_model(reference, runtime=runtime, threads=1)
    return {
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "cores": core_count(),
        "rows_per_second": round(rate, 1),
        "row_ms": measure.one_row(alone, columns, ROW_SECONDS),
        "memory": memory,
    }


def _apart(reference: str, runtime: str) -> dict[str, Any]:
    """In a process of its own, so that the memory is that of one model and one runtime."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(measure_speed, (reference, runtime))
        return found


def _on_all_runtimes(reference: str) -> list[dict[str, Any]]:
    found = []
    for name in plugins.names("runtimes"):
        if not plugins.installed(name):
            continue
        try:
            found.append(_apart(reference, name))
        except (ConfigError, ModelError):
            continue  # it runs other formats
        except MlopsDeployError as error:
            found.append({"runtime": name, "failed": str(error)})
    return found


def show(report: dict[str, Any], console: Console) -> None:
    """The report as people read it."""
    version = f" {report['version']}" if report["version"] else ""
    title = Text(report["name"], style="bold")
    title.append(
        f"{version}: {report['task'].replace('_', ' ')} on {report['runtime']} "
        f"{report['precision']}, ready in {report['loaded_in_seconds']:.2f} s",
        style="not bold",
    )
    console.print(title, highlight=False)
    table = plain_table("what", "understood as", "because of")
    for entry in report["evidence"] or _plain(report):
        guess = "guess" in entry["why"]
        cells = [Text(entry[key]) for key in ("what", "value", "why")]  # no markup in them
        table.add_row(*cells, style="yellow" if guess else "")
    console.print(table, highlight=False)
    console.print()
    console.print(
        facts([("size", size(report["bytes"])), ("digest", report["digest"])]), highlight=False
    )
    if report["speed"]:
        console.print()
        console.print(_speed_table(report["speed"]), highlight=False)


def _speed_table(speeds: list[dict[str, Any]]) -> Table:
    right = ("rows/s", "one row, ms", "p99", "memory")
    table = plain_table("here, on", *right, right=right)
    for speed in speeds:
        if "failed" in speed:
            table.add_row(speed["runtime"], speed["failed"])
            continue
        table.add_row(
            f"{speed['runtime']} {speed['precision']}",
            f"{speed['rows_per_second']:,.0f}",
            f"{speed['row_ms']['p50']:.3g}",
            f"{speed['row_ms']['p99']:.3g}",
            size(speed["memory"]),
        )
    return table


def _plain(report: dict[str, Any]) -> list[dict[str, str]]:
    """For tasks that leave nothing to find out."""
    rows = [
        {"what": kind[:-1], "value": f"{field['name']} {_shape(field)}", "why": "the file"}
        for kind in ("inputs", "outputs")
        for field in report["tensors"][kind]
    ]
    if report["labels"]:
        labels = ", ".join(report["labels"][:8]) + (", …" if len(report["labels"]) > 8 else "")
        rows.append({"what": "labels", "value": labels, "why": "the model's files"})
    return rows


def _shape(field: dict[str, Any]) -> str:
    sizes = "×".join("?" if size < 0 else str(size) for size in field["shape"])
    return f"({sizes}) {field['dtype']}" if sizes else field["dtype"]


def _field(field: Field) -> dict[str, Any]:
    return {"name": field.name, "dtype": field.dtype, "shape": list(field.shape)}


def _snake_case(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)[1:]
