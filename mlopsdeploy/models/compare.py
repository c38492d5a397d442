"""`mlopsdeploy models compare`: where two models differ on the same rows, and who is right.

Each answer of theirs is compared as its kind: `compare_labels`, `compare_numbers`, and, of models
that are run as they are, `compare_tensors`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy.columns import Columns, concat, rows_of, take
from mlopsdeploy.core.console import facts, plain_table, print_line
from mlopsdeploy.core.images import decode
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model, counted, unread_in
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.folder import weight_files
from mlopsdeploy.models import compare_labels, compare_numbers, compare_tensors
from mlopsdeploy.models.data import read_rows
from mlopsdeploy.models.pairs import check_tasks, outputs_of, pairs_of
from mlopsdeploy.models.tables import bytes_of, size

LIMIT = 5000  # rows, unless told otherwise
STEP = 500  # rows after which the other model has its turn, so that both meet the same machine
NEAR = 1.15  # times as fast; below it is no difference on a machine with other work
_KINDS: Mapping[str, ModuleType] = {
    "label": compare_labels, "number": compare_numbers, "tensors": compare_tensors,
}  # fmt: skip
_FIGURES = {**compare_labels.FIGURES, **compare_numbers.FIGURES}


def compare_models(
    first: str,
    second: str,
    *,
    data: str,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = LIMIT,
    runtime: str = "auto",
    precision: str = "auto",
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Both models' predictions for the same rows, compared.

    Args:
        first: a model, see `find_model`; it is called A.
        second: another one, B, with the same answers.
        data: a CSV, JSON Lines or Parquet file with what both take; for models of pictures also a
            folder of them.
        text_column: see `mlopsdeploy batch`.
        label_column: what is right, a label or a number; see `models.data`. Of several answers it
            is that of the answer which is called as the column is.
        limit: rows to read at most.
        runtime: see `load_model`; for both.
        precision: the same.
        log: called with a line about each slow step.

    Returns:
        `models`: name, runtime, precision, bytes, rows_per_second; `unread`, texts that it doesn't
        read, by their language; with the truth `accuracy` and `f1`, or `mae`, `rmse` and `r2`,
        each with `low` and `high`. `answers`, each with its `name` and what the comparison of its
        kind returns: see `compare_labels`, `compare_numbers`, `compare_tensors`. `verdict`.

    Raises:
        ConfigError: the models have different answers, or find objects.
        InputError: the data can't be read, or lack a column.
    """
    models = [
        load_model(reference, runtime=runtime, precision=precision, log=log)
        for reference in (first, second)
    ]
    check_tasks(models[0], models[1])
    if label_column is not None and not models[0].task.answers:
        raise ConfigError(
            f"--label-column: {models[0].name} answers with tensors, not with a label"
        )
    rows = read_rows(
        data, models[0], text_column=text_column, label_column=label_column, limit=limit
    )
    theirs = read_rows(data, models[1], text_column=text_column, limit=limit)
    if theirs.fields == rows.fields:
        theirs = rows
    rows, theirs = rows.among(theirs.numbers), theirs.among(rows.numbers)
    if not len(rows.numbers):
        raise ConfigError(f"{data}: no row has what both models take")
    both = [rows.columns, theirs.columns]
    total = rows_of(rows.columns)
    log(f"comparing on {total:,} rows")
    predictions, seconds, unread = _predict(models, both)
    about = [
        {**_about(model, reference, total / taken), "unread": dict(texts.most_common())}
        for model, reference, taken, texts in zip(
            models, (first, second), seconds, unread, strict=True
        )
    ]
    answers = []
    if not models[0].task.answers:
        tensors = outputs_of(models[0], models[1])
        answers.append({**compare_tensors.compare(tensors, *predictions), "rows": total})
    for pair in pairs_of(models, predictions, rows, label_column):
        found, figures = _KINDS["label" if pair.labelled else "number"].compare(pair)
        answers.append({"name": pair.name, "rows": total, **found})
        for place, judged in enumerate(figures):
            about[place] |= judged
    compared: dict[str, Any] = {
        "data": data,
        "rows": total,
        "left_out": rows.left_out,
        "models": about,
        "answers": answers,
    }
    return {**compared, "verdict": verdict(compared)}


def _predict(
    models: list[Model], columns: list[Columns]
) -> tuple[tuple[Columns, Columns], list[float], list[Counter[str]]]:
    """All predictions, the models in turns, the seconds of each, and the texts it didn't read."""
    total = rows_of(columns[0])
    parts: list[list[Columns]] = [[], []]
    seconds = [0.0, 0.0]
    for model, given in zip(models, columns, strict=True):  # what is slow only once
        for rows in _as_taken(model, take(given, slice(0, min(total, 64)))):
            model.predict_columns(rows)
    for start in range(0, total, STEP):
        for place, model in enumerate(models):
            chunk = take(columns[place], slice(start, start + STEP))
            for rows in _as_taken(model, chunk):
                started = time.perf_counter()
                parts[place].append(model.predict_columns(rows))
                seconds[place] += time.perf_counter() - started
    unread = [sum(map(unread_in, some), Counter[str]()) for some in parts]
    return (concat(parts[0]), concat(parts[1])), seconds, unread


def _as_taken(model: Model, rows: Columns) -> Iterator[Columns]:
    """What a model takes at once: rows together; pictures, each of its own size, one by one."""
    if model.task.data != "image":
        yield rows
        return
    for content in rows["image"]:
        yield {"image": decode(content)[np.newaxis]}


def _about(model: Model, reference: str, speed: float) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "runtime": model.runtime.name,
        "precision": model.runtime.precision,
        "bytes": bytes_of(weight_files(find_model(reference))),
        "rows_per_second": round(speed, 1),
    }


# ---------------------------------------------------------------- as people read it


def verdict(found: Mapping[str, Any]) -> str:
    """What a comparison comes to, in one sentence."""
    first, second = found["models"]
    speeds = [model["rows_per_second"] for model in (first, second)]
    ratio = max(speeds) / max(min(speeds), 1e-9)
    quick = "B" if speeds[1] > speeds[0] else "A"
    speed = f"{quick} is {ratio:.1f} times as fast" if ratio >= NEAR else "they are equally fast"
    parts = [
        (f"{answer['name']}: " if answer["name"] else "")
        + _KINDS[answer["kind"]].quality(answer, found["models"])
        for answer in found["answers"]
    ]
    return f"{'; '.join([*parts, speed])}."


def show_comparison(found: dict[str, Any], console: Console) -> None:
    """What `compare_models` found."""
    console.print(_models_table(found["models"]))
    console.print()
    left_out = found["left_out"]
    without = f", {left_out:,} left out: no value to score" if left_out else ""
    lines = [
        ("rows", f"{found['rows']:,}{without}"),
        *(
            (f"{name} doesn't read", counted(model["unread"]))
            for name, model in zip("AB", found["models"], strict=True)
            if model["unread"]
        ),
    ]
    console.print(facts(lines))
    for answer in found["answers"]:
        if answer["name"]:
            console.print()
            console.print(answer["name"], style="bold", markup=False)
        _KINDS[answer["kind"]].show(answer, console)
    console.print()
    print_line(console, found["verdict"])


def _models_table(models: list[dict[str, Any]]) -> Table:
    judged = [name for name in _FIGURES if name in models[0]]
    right = ("size", "rows/s", *(_FIGURES[name] for name in judged))
    table = plain_table("", "model", "runs on", *right, right=right)
    for name, model in zip("AB", models, strict=True):
        table.add_row(
            name, Text(model["name"]), f"{model['runtime']} {model['precision']}",
            size(model["bytes"]), f"{model['rows_per_second']:,.0f}",
            *(_figure(model[key]["value"]) for key in judged),
        )  # fmt: skip
        if judged:
            bounds = (f"{_figure(model[k]['low'])}–{_figure(model[k]['high'])}" for k in judged)
            table.add_row(*[""] * 5, *bounds, style="dim")
    return table


def _figure(value: float | None) -> str:
    """Three decimals of what is small, else four digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}"
