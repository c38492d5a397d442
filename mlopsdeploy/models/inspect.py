"""`mlopsdeploy models inspect`: what was understood about a model, and why."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy.bench import speed
from mlopsdeploy.columns import ModelFiles, Runtime, Task
from mlopsdeploy.convert.checkpoint import why_not_exported
from mlopsdeploy.core import plugins
from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.core.loading import load_model, preferred_runtimes, prepare_model
from mlopsdeploy.core.machine import core_count, resident_memory
from mlopsdeploy.core.model import Model
from mlopsdeploy.core.references import several
from mlopsdeploy.errors import ConfigError, DoubtError, MlopsDeployError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import cache_folder
from mlopsdeploy.model_files.folder import proof_in, weight_files
from mlopsdeploy.model_files.huggingface import TASKS
from mlopsdeploy.models.tables import bytes_of, proof_line, size

BATCH_SECONDS, ROW_SECONDS = 1.0, 0.4
ROWS = 256  # made up for the measurement
SHOWN = 8  # labels, and fields of one kind
_READING = ("yaml", "meaning")


def inspect_model(
    reference: str,
    *,
    runtime: str = "auto",
    speed: bool = False,
    all_runtimes: bool = False,
    trust_model: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Everything that is known of a model without data, ready for JSON.

    Args:
        reference: see `find_model`.
        runtime: see `load_model`.
        speed: measure it here, in under three seconds; see `measure_speed`.
        all_runtimes: the same on every runtime that is installed and can run it.
        trust_model: see `load_model`.
        log: called with a line about each slow step (a compilation).

    Returns:
        `name`, `version`, `digest`, `task`, `data` (what its rows are), `threshold` (None without
        one), `labels`, `labels_from`; `inputs` and `outputs`, the columns, and `tensors`, those of
        the file: name, dtype, shape of a row; `runtime` and `runtime_why`, `precision` and
        `precision_why`; of tables `missing_values`, what becomes of a row with one;
        `runs`, the file, and `compiled`, its proof if it was made here; `files` (bytes by name),
        `bytes`, `loaded_in_seconds`, `speed`; `task_from` and `facts`: what was understood, and
        why; `doubts`: what can be read in several ways, the first of which is shown. Of texts
        `languages` (empty where nobody says) and `languages_from`. Of models side by side `parts`:
        all this of each, and of them all `name`, `version`, `digest`, `task`, `data` and
        `languages`.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    files = find_model(reference)
    if files.parts:
        parts = [
            inspect_model(
                part,
                runtime=runtime,
                speed=speed,
                all_runtimes=all_runtimes,
                trust_model=trust_model,
                log=log,
            )
            for part in several(reference)
        ]
        return {
            "name": files.name,
            "version": files.version,
            "digest": files.digest,
            "task": files.task,
            "data": parts[0]["data"],
            "languages": [one for part in parts for one in part["languages"]],
            "parts": parts,
        }
    graph = prepare_model(reference, runtime=runtime, trust_model=trust_model, log=log).file
    started = time.perf_counter()
    doubts: list[DoubtError] = []
    model = load_model(
        reference, runtime=runtime, threads=1, trust_model=trust_model, doubts=doubts
    )
    loaded_in = round(time.perf_counter() - started, 3)
    speeds = []
    if all_runtimes and not doubts:
        speeds = _on_all_runtimes(reference, trust_model)
    elif speed and not doubts:
        speeds = [_apart(reference, runtime, trust_model)]
    weights = weight_files(files)
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "digest_covers": dict(files.digest_covers),
        "task": model.task_name,
        "task_from": model.task_from,
        "data": model.task.data,
        "runtime": model.runtime.name,
        "precision": model.runtime.precision,
        **_choice(files, model, graph, runtime),
        "loaded_in_seconds": loaded_in,
        "files": {path.name: path.stat().st_size for path in weights},
        "bytes": bytes_of(weights),
        "speed": speeds,
        "tensors": _inputs_and_outputs(model.runtime),
        **_inputs_and_outputs(model.task),
        "labels": list(model.task.labels),
        "labels_from": _labels_from(files, model),
        "languages": list(files.yaml.languages or ()),
        "languages_from": files.languages_from,
        "threshold": model.task.threshold,
        "facts": [fact._asdict() for fact in model.task.facts],
        "doubts": [
            {
                "what": doubt.what,
                "readings": [dict(zip(_READING, one, strict=True)) for one in doubt.readings],
            }
            for doubt in doubts
        ],
    }


def measure_speed(reference: str, runtime: str, trust_model: bool = False) -> dict[str, Any]:
    """How fast a model is here, on made-up rows of natural length.

    Returns:
        `runtime`, `precision`; `rows_per_second` in batches on all cores; `row_ms`: p50 and p99
        from one row to its answer on one core; `memory`: bytes of a process that does this.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    model = load_model(reference, runtime=runtime, trust_model=trust_model)
    columns = speed.made_up_rows(model, speed.rows_that_fit(model, ROWS))
    rate = speed.rows_per_second(model, columns, BATCH_SECONDS)
    memory = resident_memory()
    alone = load_model(reference, runtime=runtime, threads=1, trust_model=trust_model)
    return {
        "runtime": model.runtime.name,
        "precision": model.runtime.precision,
        "cores": core_count(),
        "rows_per_second": round(rate, 1),
        "row_ms": speed.one_row(alone, columns, ROW_SECONDS),
        "memory": memory,
    }


def _apart(reference: str, runtime: str, trust_model: bool) -> dict[str, Any]:
    """In a process of its own, so that the memory is that of one model and one runtime."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(measure_speed, (reference, runtime, trust_model))
        return found


def _on_all_runtimes(reference: str, trust_model: bool) -> list[dict[str, Any]]:
    found = []
    for name in filter(plugins.installed, plugins.names("runtimes")):
        try:
            found.append(_apart(reference, name, trust_model))
        except (ConfigError, ModelError):
            continue  # it runs other formats
        except MlopsDeployError as error:
            found.append({"runtime": name, "failed": str(error)})
    return found


def _choice(files: ModelFiles, model: Model, graph: Path, asked: str) -> dict[str, Any]:
    """What runs, its proof if it was compiled here, and why on that runtime in that precision."""
    name = model.runtime.name
    compiled = graph.is_relative_to(cache_folder())
    proof = proof_in(graph.parent) if compiled else {}
    source = next(iter(files.graphs))
    made = f", compiled here from {_NAMES.get(source, source)}" if compiled else ""
    return {
        "runs": f"{graph.name}{made}",
        "compiled": proof,
        "runtime_why": _runtime_why(files, name, asked, proof),
        "precision_why": _precision_why(files, model, name),
        "missing_values": model.runtime.missing_values if model.task.data == "table" else "",
    }


_NAMES = {"keras": "Keras", "saved_model": "a SavedModel", "checkpoint": "a checkpoint"}


def _runtime_why(files: ModelFiles, name: str, asked: str, proof: dict[str, Any]) -> str:
    if asked != "auto":
        return "asked for"
    if reason := proof.get("not_litert"):
        return f"LiteRT can't take it ({reason})"
    preferred = preferred_runtimes(files)
    before = preferred[: preferred.index(name)] if name in preferred else ()
    if not before:
        form = "texts" if files.task in TASKS else "its format"
        return f"the first choice for {form}"
    if name == "torch" and (reason := why_not_exported(files.weights)):
        return f"it can't be exported to ONNX ({reason})"
    missing = [other for other in before if not plugins.installed(other)]
    return f"{', '.join(missing)} is not installed"


def _precision_why(files: ModelFiles, model: Model, name: str) -> str:
    precision = model.runtime.precision
    if name in ("litert", "tflite", "tensorflow"):
        return "as the file is"
    if files.precision == precision:
        by = "; a float graph decides close calls" if files.float32 else ""
        proven = f": {proof_line(files.yaml.proof)}" if files.yaml.proof else ""
        return f"model.yaml says so{proven}{by}"
    choices = model.runtime.precisions
    if len(choices) < 2:
        return f"{name} runs files as they are"
    return "this CPU has it" if precision == "bfloat16" else "this CPU has no bfloat16"


def _labels_from(files: ModelFiles, model: Model) -> str:
    if files.labels_from:
        return files.labels_from
    if files.labels:
        return "config.json" if files.tokenizer else "the model's files"
    return "the model's own file" if model.task.labels else ""


def show(report: dict[str, Any], console: Console) -> None:
    """The report as people read it."""
    if "parts" in report:
        _show_several(report, console)
        return
    title = f"{report['version']}: {report['task'].replace('_', ' ')} on {report['runtime']} "
    title += f"{report['precision']}, ready in {report['loaded_in_seconds']:.2f} s"
    space = " " if report["version"] else ""
    console.print(Text(report["name"], style="bold").append(f"{space}{title}", style="not bold"))
    console.print(facts(_facts(report)))
    if report["facts"]:
        console.print()
        table = plain_table("what", "understood as", "because of")
        for entry in report["facts"]:
            cells = [Text(entry[key]) for key in ("name", "value", "source")]  # no markup in them
            table.add_row(*cells, style="yellow" if "guess" in entry["source"] else "")
        console.print(table)
    for doubt in report["doubts"]:
        console.print()
        console.print(Text(f"to be decided: {doubt['what']}", style="yellow"))
        for reading in doubt["readings"]:
            console.print(
                Text(f"  {reading['yaml']}", style="bold").append(
                    f"  # {reading['meaning']}", style="not bold"
                )
            )
    if report["speed"]:
        console.print()
        console.print(_speed_table(report["speed"]))


def _show_several(report: dict[str, Any], console: Console) -> None:
    parts = report["parts"]
    title = f" {report['version']}: {len(parts)} models, each for the texts in its languages"
    console.print(Text(report["name"], style="bold").append(title, style="not bold"))
    reads = [f"{', '.join(part['languages'])} by {part['name']}" for part in parts]
    others = f"any other by {parts[0]['name']}, marked as not read"
    console.print(facts([("reads", "; ".join([*reads, others])), ("digest", report["digest"])]))
    for part in parts:
        console.print()
        show(part, console)


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    tensors = report["tensors"]
    stated = {entry["name"] for entry in report["facts"]}
    threshold = None if "threshold" in stated else report["threshold"]
    files = report["files"]
    named = f" ({', '.join(f'{name} {size(count)}' for name, count in files.items())})"
    return [
        ("task", f"{report['task']} ({report['task_from']})"),
        ("inputs", _fields(report["inputs"])),
        ("outputs", _fields(report["outputs"])),
        ("labels", "" if "labels" in stated else _labels(report)),
        ("languages", _languages(report)),
        ("threshold", "" if threshold is None else f"{threshold:g}"),
        ("tensors", f"{_fields(tensors['inputs'])} → {_fields(tensors['outputs'])}"),
        ("runs", report["runs"]),
        ("proof", proof_line(report["compiled"])),
        ("runtime", f"{report['runtime']}: {report['runtime_why']}"),
        ("precision", f"{report['precision']}: {report['precision_why']}"),
        ("missing values", report["missing_values"]),
        ("size", size(report["bytes"]) + (named if len(files) > 1 else "")),
        ("digest", report["digest"]),
        ("covers", ", ".join(name for part in report["digest_covers"].values() for name in part)),
    ]


def _languages(report: dict[str, Any]) -> str:
    if report["languages"]:
        return f"{', '.join(report['languages'])} (from {report['languages_from']})"
    return "nothing names them" if report["task"] in TASKS else ""


def _labels(report: dict[str, Any]) -> str:
    if not report["labels"]:
        return ""
    more = ", …" if len(report["labels"]) > SHOWN else ""
    shown = f"{', '.join(report['labels'][:SHOWN])}{more}"
    if report["labels"] == [str(place) for place in range(len(report["labels"]))]:
        return f"{shown}: nothing names them"
    return f"{shown} (from {report['labels_from']})"


def _fields(fields: list[dict[str, Any]]) -> str:
    """`text str`; of many of one kind the names alone: `30 float32: Time, V1, …`."""
    kinds = {_shape(field) for field in fields}
    if len(fields) > SHOWN and len(kinds) == 1:
        names = ", ".join(field["name"] for field in fields[: SHOWN - 2])
        return f"{len(fields)} × {kinds.pop()}: {names}, … {fields[-1]['name']}"
    return ", ".join(f"{field['name']} {_shape(field)}" for field in fields)


def _speed_table(speeds: list[dict[str, Any]]) -> Table:
    right = ("rows/s", "one row, ms", "p99", "memory")
    table = plain_table("here, on", *right, right=right)
    for row in speeds:
        if "failed" in row:
            table.add_row(row["runtime"], row["failed"])
            continue
        table.add_row(
            f"{row['runtime']} {row['precision']}",
            f"{row['rows_per_second']:,.0f}",
            f"{row['row_ms']['p50']:.3g}",
            f"{row['row_ms']['p99']:.3g}",
            size(row["memory"]),
        )
    return table


def _shape(field: dict[str, Any]) -> str:
    sizes = "×".join("?" if size < 0 else str(size) for size in field["shape"])
    return f"({sizes}) {field['dtype']}" if sizes else field["dtype"]


def _inputs_and_outputs(part: Task | Runtime) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {"name": field.name, "dtype": field.dtype, "shape": list(field.shape)}
            for field in fields
        ]
        for name, fields in (("inputs", part.inputs), ("outputs", part.outputs))
    }
