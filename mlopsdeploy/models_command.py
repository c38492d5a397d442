"""`mlopsdeploy models inspect`: what was understood about a model, and why."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy.columns import Field
from mlopsdeploy.model import load_model


def inspect_model(reference: str, *, runtime: str = "auto") -> dict[str, Any]:
    """Everything that can be said of a model without data: ready for JSON.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    started = time.perf_counter()
    model = load_model(reference, runtime=runtime, threads=1)
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "task": _snake_case(type(model.task).__name__),
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "loaded_in_seconds": round(time.perf_counter() - started, 3),
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
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("what", "understood as", "because of"):
        table.add_column(heading, overflow="fold")
    for entry in report["evidence"] or _plain(report):
        guess = "guess" in entry["why"]
        cells = [Text(entry[key]) for key in ("what", "value", "why")]  # no markup in them
        table.add_row(*cells, style="yellow" if guess else "")
    console.print(table, highlight=False)


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
