"""`mlopsdeploy models compare`: where two models differ on the same rows, and who is right."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlopsdeploy.columns import Array, Columns, rows_of, take
from mlopsdeploy.core.console import facts, plain_table, print_line
from mlopsdeploy.core.images import decode
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model, counted, unread_in
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.folder import weight_files
from mlopsdeploy.models.data import Rows, as_labels, read_rows
from mlopsdeploy.models.significance import f1_interval, mcnemar, share
from mlopsdeploy.models.tables import bytes_of, size

LIMIT = 5000  # rows, unless told otherwise
STEP = 500  # rows after which the other model has its turn, so that both meet the same machine
BINS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
SHOWN = 5
MANY, PAIRS = 5, 10  # labels that still make a square table; pairs of them that are shown else
NEAR = 1.15  # times as fast; below it is no difference on a machine with other work


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
        second: another one, B, with the same labels.
        data: a CSV, JSON Lines or Parquet file with what both take; for models of pictures also a
            folder of them.
        text_column: see `mlopsdeploy batch`.
        label_column: what is right; see `data.as_labels`.
        limit: rows to read at most.
        runtime: see `load_model`; for both.
        precision: the same.
        log: called with a line about each slow step.

    Returns:
        `models`: name, runtime, precision, bytes, rows_per_second and, with labels, `accuracy` and
        `f1`, each with `low` and `high`; `unread`, texts that it doesn't read, by their language.
        `agreement`, `confusion` (A's labels by row),
        `score_change` (mean, largest, histogram), `most_different`; with labels `mcnemar`;
        `verdict`.

    Raises:
        ConfigError: the models have different labels, or find objects.
        InputError: the data can't be read, or lack a column.
    """
    models = [
        load_model(reference, runtime=runtime, precision=precision, log=log)
        for reference in (first, second)
    ]
    order, renamed = same_labels(models[0], models[1])
    rows = read_rows(
        data, models[0], text_column=text_column, label_column=label_column, limit=limit
    )
    both = [rows.columns, _columns_of(models[1], rows.columns, data, text_column, limit)]
    log(f"comparing on {rows_of(rows.columns):,} rows")
    (left, right), seconds, unread = _predict(models, both)
    labels = _labels(models[0])
    a, b = _places(left, labels), _places(right, _labels(models[1]), order)
    scores = right["scores"][:, order] if order else right["scores"]
    change = np.abs(left["scores"] - scores).max(axis=1)
    found: dict[str, Any] = {
        "data": data,
        "rows": len(change),
        "left_out": rows.left_out,
        "labels": list(labels),
        "matched_by_place": renamed,
        "models": [
            {**_about(model, reference, len(change) / taken), "unread": dict(texts.most_common())}
            for model, reference, taken, texts in zip(
                models, (first, second), seconds, unread, strict=True
            )
        ],
        "same_labels": int((a == b).sum()),
        "agreement": share(int((a == b).sum()), len(a)),
        "confusion": _confusion(a, b, len(labels)),
        "score_change": {
            "mean": float(change.mean()),
            "largest": float(change.max()),
            "histogram": _histogram(change),
        },
        "most_different": _most_different(rows, left, right, a, b, change),
    }
    if rows.truth is not None:
        truth, how = as_labels(rows.truth, labels, str(label_column))
        found |= _judged(truth, how, a, b, len(labels), found["models"])
    found["verdict"] = verdict(found)
    return found


def same_labels(first: Model, second: Model) -> tuple[list[int], dict[str, str]]:
    """How the labels of two models match: by name, in any case; else by place (LABEL_0).

    Returns:
        Where the second model has the first one's labels; empty if in the same places. And, where
        they have other names, the first one's labels with the second's.

    Raises:
        ConfigError: one has more labels than the other, or they give no scores.
    """
    ours, theirs = _labels(first), _labels(second)
    if not ours or len(ours) != len(theirs):
        raise ConfigError(
            f"{first.name} has {len(ours)} labels and {second.name} {len(theirs)}: only models "
            "with the same labels can be compared"
        )
    if first.task.data != second.task.data:
        kinds = [type(model.task).__name__ for model in (first, second)]
        raise ConfigError(
            f"{first.name} is a {kinds[0]}, {second.name} a {kinds[1]}: no rows are for both"
        )
    names = [label.casefold() for label in ours]
    other = [label.casefold() for label in theirs]
    if sorted(names) != sorted(other):
        return [], dict(zip(ours, theirs, strict=True))
    return [] if names == other else [other.index(name) for name in names], {}


def _labels(model: Model) -> tuple[str, ...]:
    finds = "finds any number of objects" if model.task.finds_objects else ""
    several = "gives several labels to a row" if model.task.multi_label else ""
    if finds or several:
        raise ConfigError(f"{model.name}: {finds or several}; compare works with one label a row")
    return model.task.labels


def _columns_of(
    second: Model, first: Columns, data: str, text_column: str | None, limit: int | None
) -> Columns:
    """The inputs of the second model in the rows of the first."""
    if {field.name for field in second.task.inputs} == set(first):
        return first
    columns = read_rows(data, second, text_column=text_column, limit=limit).columns
    if rows_of(columns) != rows_of(first):
        raise ConfigError(
            f"{data}: {rows_of(first):,} rows have what the first model takes and "
            f"{rows_of(columns):,} what the second does; compare on rows that have both"
        )
    return columns


def _predict(
    models: list[Model], columns: list[Columns]
) -> tuple[list[Columns], list[float], list[Counter[str]]]:
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
    names = ("label", "scores", "score")
    joined = [
        {name: np.concatenate([one[name] for one in some]) for name in names} for some in parts
    ]
    unread = [sum(map(unread_in, some), Counter[str]()) for some in parts]
    return joined, seconds, unread


def _as_taken(model: Model, rows: Columns) -> Iterator[Columns]:
    """What a model takes at once: rows together; pictures, each of its own size, one by one."""
    if model.task.data != "image":
        yield rows
        return
    for content in rows["image"]:
        yield {"image": decode(content)[np.newaxis]}


def _places(predictions: Columns, labels: tuple[str, ...], order: list[int] | None = None) -> Array:
    """The place of each row's label among the first model's; -1 for none."""
    if order:
        labels = tuple(labels[place] for place in order)
    known = {label: place for place, label in enumerate(labels)}
    return np.array([known.get(label, -1) for label in predictions["label"].tolist()])


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


def _confusion(a: Array, b: Array, count: int) -> list[list[int]]:
    """Rows: A's label; columns: B's. Rows without a label are left out."""
    table = np.zeros((count, count), int)
    known = (a >= 0) & (b >= 0)
    np.add.at(table, (a[known], b[known]), 1)
    counts: list[list[int]] = table.tolist()
    return counts


def _histogram(change: Array) -> list[dict[str, float]]:
    counts, _ = np.histogram(change, bins=[*BINS[:-1], 1.0000001])
    return [
        {"from": low, "to": high, "rows": int(count)}
        for low, high, count in zip(BINS, BINS[1:], counts, strict=False)
    ]


def _most_different(
    rows: Rows, left: Columns, right: Columns, a: Array, b: Array, change: Array
) -> list[dict[str, Any]]:
    """Rows with other labels first, by how far apart the scores are."""
    order = np.lexsort((-change, a == b))[:SHOWN]
    return [
        {
            "row": _excerpt(rows, place),
            "labels": [str(left["label"][place]), str(right["label"][place])],
            "scores": [float(left["score"][place]), float(right["score"][place])],
            "change": float(change[place]),
        }
        for place in order.tolist()
        if change[place] > 0
    ]


def _excerpt(rows: Rows, place: int) -> str:
    if rows.names is not None:
        return str(rows.names[place])
    texts = [values[place] for values in rows.columns.values() if values.dtype == object]
    if texts:
        text = " ".join(str(texts[0]).split())
        return f"{text[:117]}…" if len(text) > 118 else text
    pairs = [f"{name} {values[place]:.6g}" for name, values in rows.columns.items()]
    return ", ".join(pairs[:4]) + (", …" if len(pairs) > 4 else "")


def _judged(
    truth: Array, how: str, a: Array, b: Array, count: int, models: list[dict[str, Any]]
) -> dict[str, Any]:
    known = truth >= 0
    truth, a, b = truth[known], a[known], b[known]
    right = [(places == truth) for places in (a, b)]
    for model, places, good in zip(models, (a, b), right, strict=True):
        model["accuracy"] = share(int(good.sum()), len(good))
        model["f1"] = f1_interval(truth, places, count)
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return {
        "truth": {"rows": len(truth), "without": int((~known).sum()), "how": how},
        "mcnemar": {"only_a_right": only_a, "only_b_right": only_b, "p": mcnemar(only_a, only_b)},
    }


# ---------------------------------------------------------------- as people read it


def verdict(found: Mapping[str, Any]) -> str:
    """What a comparison comes to, in one sentence."""
    first, second = found["models"]
    speeds = [model["rows_per_second"] for model in (first, second)]
    ratio = max(speeds) / max(min(speeds), 1e-9)
    quick = "B" if speeds[1] > speeds[0] else "A"
    speed = f"{quick} is {ratio:.1f} times as fast" if ratio >= NEAR else "they are equally fast"
    if "mcnemar" not in found:
        same = found["agreement"]["value"]
        return f"A and B give the same label to {same:.1%} of {found['rows']:,} rows; {speed}."
    test = found["mcnemar"]
    gap = second["accuracy"]["value"] - first["accuracy"]["value"]
    if test["p"] < 0.05:
        better = "B" if gap > 0 else "A"
        quality = f"{better} is right more often, by {abs(gap):.1%} (p = {test['p']:.2g})"
    else:
        decided = test["only_a_right"] + test["only_b_right"]
        quality = f"{found['truth']['rows']:,} rows show no difference in accuracy "
        quality += f"(p = {test['p']:.2g}; exactly one is right on {decided:,})"
    return f"{quality}; {speed}."


def show_comparison(found: dict[str, Any], console: Console) -> None:
    """What `compare_models` found."""
    console.print(_models_table(found))
    console.print()
    same, change, left_out = found["agreement"], found["score_change"], found["left_out"]
    without = f", {left_out:,} left out: no value to score" if left_out else ""
    interval = f"95 %: {same['low']:.1%} to {same['high']:.1%}"
    lines = [
        ("rows", f"{found['rows']:,}{without}"),
        ("labels", ", ".join(f"A's {a} is B's {b}" for a, b in found["matched_by_place"].items())),
        ("same label", f"{found['same_labels']:,} ({same['value']:.2%}; {interval})"),
        *(
            (f"{name} doesn't read", counted(model["unread"]))
            for name, model in zip("AB", found["models"], strict=True)
            if model["unread"]
        ),
        ("scores", f"differ by {change['mean']:.4f} on average, {change['largest']:.4f} at most"),
    ]
    if "mcnemar" in found:
        test, truth = found["mcnemar"], found["truth"]
        none = f"; {truth['without']:,} rows have none" if truth["without"] else ""
        right = f"A {test['only_a_right']:,}, B {test['only_b_right']:,}; McNemar's exact test: "
        lines += [
            ("truth", f"{truth['how']}{none}"),
            ("only one right", f"{right}p = {test['p']:.3g}"),
        ]
    console.print(facts(lines))
    console.print()
    console.print(_histogram_table(change["histogram"], found["rows"]))
    if found["same_labels"] < found["rows"]:
        console.print()
        console.print(_confusion_table(found))
        console.print()
        for row in found["most_different"]:
            if row["labels"][0] != row["labels"][1]:
                both = zip("AB", row["labels"], row["scores"], strict=True)
                line = (f"{name} {label or 'none'} {score:.3f}" for name, label, score in both)
                console.print(", ".join(line), style="dim", markup=False)
                console.print(f"  {row['row']}", markup=False)
    console.print()
    print_line(console, found["verdict"])


def _models_table(found: dict[str, Any]) -> Table:
    judged = ("accuracy", "f1") if "mcnemar" in found else ()
    right = ("size", "rows/s", *(("accuracy", "F1") if judged else ()))
    table = plain_table("", "model", "runs on", *right, right=right)
    for name, model in zip("AB", found["models"], strict=True):
        table.add_row(
            name, model["name"], f"{model['runtime']} {model['precision']}", size(model["bytes"]),
            f"{model['rows_per_second']:,.0f}", *(f"{model[key]['value']:.3f}" for key in judged),
        )  # fmt: skip
        if judged:
            bounds = (f"{model[key]['low']:.3f}–{model[key]['high']:.3f}" for key in judged)
            table.add_row(*[""] * 5, *bounds, style="dim")
    return table


def _histogram_table(bins: list[dict[str, float]], rows: int) -> Table:
    table = plain_table("score differs by", "rows", "", right=("rows",))
    for bin_ in bins:
        bar = "█" * math.ceil(30 * bin_["rows"] / max(rows, 1))
        table.add_row(f"{bin_['from']:g} to {bin_['to']:g}", f"{bin_['rows']:,.0f}", bar)
    return table


def _confusion_table(found: dict[str, Any]) -> Table:
    """All labels by all; of more than fit, the pairs that are most often confused."""
    labels = found["labels"]
    rows = list(zip(labels, found["confusion"], strict=True))
    if len(labels) <= MANY:
        right = [f"B: {label}" for label in labels]
        table = plain_table("A says", *right, right=right)
        for label, counts in rows:
            table.add_row(label, *(f"{count:,}" for count in counts))
        return table
    table = plain_table("A says", "B says", "rows", right=("rows",))
    pairs = [
        (count, a, b)
        for a, counts in rows
        for b, count in zip(labels, counts, strict=True)
        if a != b and count
    ]
    for count, a, b in sorted(pairs, key=lambda pair: -pair[0])[:PAIRS]:
        table.add_row(a, b, f"{count:,}")
    return table
