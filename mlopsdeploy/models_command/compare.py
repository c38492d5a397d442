"""`mlopsdeploy models compare`: where two models differ on the same rows, and who is right."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlopsdeploy.columns import Array, Columns, rows_of, take
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model import Model, load_model
from mlopsdeploy.models import find_model
from mlopsdeploy.models_command.data import Rows, as_labels, read_rows
from mlopsdeploy.models_command.folder import weight_files
from mlopsdeploy.models_command.tables import facts, plain_table, size

LIMIT = 5000  # rows, unless told otherwise
STEP = 500  # rows after which the other model has its turn, so that both meet the same machine
BINS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
SHOWN = 5
Z = 1.959964  # of 95 % of a normal distribution
DRAWS = 1000  # of the bootstrap
SEED = 1
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
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Both models' predictions for the same rows, compared.

    Args:
        first: a model, see `find_model`; it is called A.
        second: another one, B, with the same labels.
        data: a CSV, JSON Lines or Parquet file with what both take.
        text_column: see `mlopsdeploy batch`.
        label_column: what is right; see `data.as_labels`.
        limit: rows to read at most.
        runtime: see `load_model`; for both.
        precision: the same.
        say: told, in one line each, what takes long.

    Returns:
        `models`: name, runtime, precision, bytes, rows_per_second and, with labels, `accuracy` and
        `f1`, each with `low` and `high`. `agreement`, `confusion` (A's labels by row),
        `score_change` (mean, largest, histogram), `most_different`; with labels `mcnemar`;
        `verdict`.

    Raises:
        ConfigError: the models have different labels, or take pictures.
        InputError: the data can't be read, or lack a column.
    """
    models = [
        load_model(reference, runtime=runtime, precision=precision, say=say)
        for reference in (first, second)
    ]
    order = same_labels(models[0], models[1])
    rows = read_rows(
        data, models[0], text_column=text_column, label_column=label_column, limit=limit
    )
    both = [rows.columns, _columns_of(models[1], rows, data, text_column, limit)]
    say(f"comparing on {rows_of(rows.columns):,} rows")
    (left, right), seconds = _predict(models, both)
    labels = _labels(models[0])
    a, b = _places(left, labels), _places(right, _labels(models[1]), order)
    scores = right["scores"][:, order] if order else right["scores"]
    change = np.abs(left["scores"] - scores).max(axis=1)
    found: dict[str, Any] = {
        "data": data,
        "rows": len(change),
        "left_out": rows.left_out,
        "labels": list(labels),
        "matched_by_place": _unlike(models),
        "models": [
            _about(model, reference, len(change) / taken)
            for model, reference, taken in zip(models, (first, second), seconds, strict=True)
        ],
        "same_labels": int((a == b).sum()),
        "agreement": _share(int((a == b).sum()), len(a)),
        "confusion": _confusion(a, b, len(labels)),
        "score_change": {
            "mean": float(change.mean()),
            "largest": float(change.max()),
            "histogram": _histogram(change),
        },
        "most_different": _most_different(rows, left, right, a, b, change),
    }
    if rows.truth is not None:
        assert label_column is not None
        truth, how = as_labels(rows.truth, labels, label_column)
        found |= _judged(truth, how, a, b, len(labels), found["models"])
    found["verdict"] = verdict(found)
    return found


def same_labels(first: Model, second: Model) -> list[int]:
    """Where the second model has the first one's labels; empty if in the same places.

    Labels are matched by name, in any case; where names differ (LABEL_0), by place.

    Raises:
        ConfigError: one has more labels than the other, or they give no scores.
    """
    ours, theirs = ([label.casefold() for label in _labels(model)] for model in (first, second))
    if not ours or len(ours) != len(theirs):
        raise ConfigError(
            f"{first.name} has {len(ours)} labels and {second.name} {len(theirs)}: only models "
            "with the same labels can be compared"
        )
    if type(first.task) is not type(second.task):
        kinds = [type(model.task).__name__ for model in (first, second)]
        raise ConfigError(
            f"{first.name} is a {kinds[0]}, {second.name} a {kinds[1]}: no rows are for both"
        )
    if ours != theirs and set(ours) == set(theirs):
        return [theirs.index(label) for label in ours]
    return []


def _unlike(models: list[Model]) -> dict[str, str]:
    """A's labels and B's in their places, where they are not called alike; else nothing."""
    ours, theirs = (_labels(model) for model in models)
    if sorted(map(str.casefold, ours)) == sorted(map(str.casefold, theirs)):
        return {}
    return dict(zip(ours, theirs, strict=True))


def _labels(model: Model) -> tuple[str, ...]:
    if any(len(field.shape) > 1 for field in model.task.inputs):
        raise ConfigError(
            f"{model.name}: takes pictures; compare works on texts and on tables of numbers"
        )
    if getattr(model.task, "multi_label", False):
        raise ConfigError(
            f"{model.name}: gives several labels to a row; compare works with one label a row"
        )
    return tuple(getattr(model.task, "labels", ()))


def _columns_of(
    second: Model, rows: Rows, data: str, text_column: str | None, limit: int | None
) -> Columns:
    """What the second model takes of the same rows."""
    names = [field.name for field in second.task.inputs]
    if set(names) == set(rows.columns):
        return rows.columns
    other = read_rows(data, second, text_column=text_column, limit=limit)
    if rows_of(other.columns) != rows_of(rows.columns):
        raise ConfigError(
            f"{data}: {rows_of(rows.columns):,} rows have what the first model takes and "
            f"{rows_of(other.columns):,} what the second does; compare on rows that have both"
        )
    return other.columns


def _predict(models: list[Model], columns: list[Columns]) -> tuple[list[Columns], list[float]]:
    """All predictions, the models in turns, and the seconds that each took."""
    total = rows_of(columns[0])
    parts: list[list[Columns]] = [[], []]
    seconds = [0.0, 0.0]
    for model, given in zip(models, columns, strict=True):  # what is slow only once
        model.predict(take(given, slice(0, min(total, 64))))
    for start in range(0, total, STEP):
        for place, model in enumerate(models):
            chunk = take(columns[place], slice(start, start + STEP))
            started = time.perf_counter()
            parts[place].append(model.predict(chunk))
            seconds[place] += time.perf_counter() - started
    joined = [
        {
            name: np.concatenate([part[name] for part in some])
            for name in ("label", "scores", "score")
        }
        for some in parts
    ]
    return joined, seconds


def _places(predictions: Columns, labels: tuple[str, ...], order: list[int] | None = None) -> Array:
    """The place of each row's label among the first model's; -1 for none."""
    known = {label: place for place, label in enumerate(labels)}
    places = np.array([known.get(label, -1) for label in predictions["label"].tolist()])
    if order:
        back = np.array([*(order.index(place) for place in range(len(order))), -1])
        places = back[places]
    return places


def _about(model: Model, reference: str, speed: float) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "runtime": type(model.runtime).__name__.lower(),
        "precision": model.runtime.precision,
        "bytes": sum(path.stat().st_size for path in weight_files(find_model(reference))),
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
            "row": _excerpt(rows.columns, int(place)),
            "labels": [str(left["label"][place]), str(right["label"][place])],
            "scores": [float(left["score"][place]), float(right["score"][place])],
            "change": float(change[place]),
        }
        for place in order.tolist()
        if change[place] > 0
    ]


def _excerpt(columns: Columns, place: int) -> str:
    texts = [values[place] for values in columns.values() if values.dtype == object]
    if texts:
        text = " ".join(str(texts[0]).split())
        return f"{text[:117]}…" if len(text) > 118 else text
    pairs = [f"{name} {values[place]:.6g}" for name, values in columns.items()]
    return ", ".join(pairs[:4]) + (", …" if len(pairs) > 4 else "")


# ---------------------------------------------------------------- who is right


def _judged(
    truth: Array, how: str, a: Array, b: Array, count: int, models: list[dict[str, Any]]
) -> dict[str, Any]:
    known = truth >= 0
    truth, a, b = truth[known], a[known], b[known]
    right = [(places == truth) for places in (a, b)]
    for model, places, good in zip(models, (a, b), right, strict=True):
        model["accuracy"] = _share(int(good.sum()), len(good))
        model["f1"] = f1_interval(truth, places, count)
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return {
        "truth": {"rows": len(truth), "without": int((~known).sum()), "how": how},
        "mcnemar": {"only_a_right": only_a, "only_b_right": only_b, "p": mcnemar(only_a, only_b)},
    }


def _share(part: int, whole: int) -> dict[str, float]:
    low, high = wilson(part, whole)
    return {"value": part / max(whole, 1), "low": low, "high": high}


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference":
    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not whole:
        return 0.0, 1.0
    share = part / whole
    middle = share + Z**2 / (2 * whole)
    spread = Z * math.sqrt(share * (1 - share) / whole + Z**2 / (4 * whole**2))
    scale = 1 + Z**2 / whole
    return max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0)


def mcnemar(only_a: int, only_b: int) -> float:
    """How likely models that are right equally often differ this much or more, on two sides.

    Among rows where exactly one is right, each is so with probability 1/2: the exact binomial form
    of McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    count = only_a + only_b
    if not count:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * tail / 2**count)) if count < 1000 else _normal(only_a, only_b)


def _normal(only_a: int, only_b: int) -> float:
    """The same by a normal distribution, with Edwards's continuity correction (1948)."""
    distance = max(abs(only_a - only_b) - 1, 0) / math.sqrt(only_a + only_b)
    return math.erfc(distance / math.sqrt(2))


def f1_interval(truth: Array, places: Array, count: int) -> dict[str, Any]:
    """F1 of the second of two labels, else the mean over labels, with a 95 % interval.

    The interval is that of the percentile bootstrap: Efron 1979, "Bootstrap methods".
    """
    draw = np.random.default_rng(SEED)
    # Only how often each pair of labels occurs matters, so rows are drawn by drawing the counts.
    pairs = np.zeros((count, count + 1), int)
    np.add.at(pairs, (truth, np.where(places < 0, count, places)), 1)
    total = int(pairs.sum())
    if not total:
        return {"value": 0.0, "low": 0.0, "high": 1.0, "of": ""}
    drawn = draw.multinomial(total, pairs.ravel() / total, DRAWS).reshape(-1, count, count + 1)
    low, high = np.percentile([_f1(one) for one in drawn], (2.5, 97.5))
    kind = "second label" if count == 2 else "mean over labels"
    return {"value": _f1(pairs), "low": float(low), "high": float(high), "of": kind}


def _f1(pairs: Array) -> float:
    """2 hits / (said + true), for labels that occur."""
    count = len(pairs)
    hits = pairs.diagonal()[:count]
    either = pairs.sum(axis=1) + pairs[:, :count].sum(axis=0)
    f1 = np.divide(2 * hits, either, out=np.zeros(count), where=either > 0)
    return float(f1[1] if count == 2 else f1[either > 0].mean())


def verdict(found: Mapping[str, Any]) -> str:
    """What a comparison comes to, in one sentence."""
    first, second = found["models"]
    names = ("A", "B")
    speeds = [model["rows_per_second"] for model in (first, second)]
    ratio = max(speeds) / max(min(speeds), 1e-9)
    quick = names[int(speeds[1] > speeds[0])]
    speed = f"{quick} is {ratio:.1f} times as fast" if ratio >= NEAR else "they are equally fast"
    if "mcnemar" not in found:
        same = found["agreement"]["value"]
        return f"A and B give the same label to {same:.1%} of {found['rows']:,} rows; {speed}."
    test = found["mcnemar"]
    gap = second["accuracy"]["value"] - first["accuracy"]["value"]
    rows = found["truth"]["rows"]
    if test["p"] < 0.05:
        better = names[int(gap > 0)]
        quality = f"{better} is right more often, by {abs(gap):.1%} (p = {test['p']:.2g})"
    else:
        decided = test["only_a_right"] + test["only_b_right"]
        quality = (
            f"{rows:,} rows show no difference in accuracy (p = {test['p']:.2g}; exactly one is "
            f"right on {decided:,})"
        )
    return f"{quality}; {speed}."


# ---------------------------------------------------------------- for people


def show_comparison(found: dict[str, Any], console: Console) -> None:
    """What `compare_models` found."""
    console.print(_models_table(found), highlight=False)
    same = found["agreement"]
    console.print()
    change = found["score_change"]
    lines = [
        (
            "rows",
            f"{found['rows']:,}"
            + (f", {found['left_out']:,} left out: no value to score" if found["left_out"] else ""),
        ),
        ("labels", ", ".join(f"A's {a} is B's {b}" for a, b in found["matched_by_place"].items())),
        ("same label", f"{found['same_labels']:,} ({same['value']:.2%}; {_interval(same, 2)})"),
        ("scores", f"differ by {change['mean']:.4f} on average, {change['largest']:.4f} at most"),
    ]
    if "mcnemar" in found:
        test, truth = found["mcnemar"], found["truth"]
        none = f"; {truth['without']:,} rows have none" if truth["without"] else ""
        lines += [
            ("truth", f"{truth['how']}{none}"),
            (
                "only one right",
                f"A {test['only_a_right']:,}, B {test['only_b_right']:,}; McNemar's exact test: "
                f"p = {test['p']:.3g}",
            ),
        ]
    console.print(facts(lines), highlight=False)
    console.print()
    console.print(_histogram_table(change["histogram"], found["rows"]), highlight=False)
    if found["same_labels"] < found["rows"]:
        console.print()
        console.print(_confusion_table(found), highlight=False)
        console.print()
        for row in found["most_different"]:
            if row["labels"][0] != row["labels"][1]:
                said = (
                    f"{name} {label or 'none'} {score:.3f}"
                    for name, label, score in zip("AB", row["labels"], row["scores"], strict=True)
                )
                console.print(", ".join(said), style="dim", highlight=False, markup=False)
                console.print(f"  {row['row']}", highlight=False, markup=False)
    console.print()
    console.print(
        found["verdict"], highlight=False, markup=False, soft_wrap=not console.is_terminal
    )


def _models_table(found: dict[str, Any]) -> Table:
    judged = "mcnemar" in found
    right = ("size", "rows/s", "accuracy", "F1")
    table = plain_table(
        "", "model", "runs on", *right[:2], *(right[2:] if judged else ()), right=right
    )
    for name, model in zip("AB", found["models"], strict=True):
        cells = [
            name,
            model["name"],
            f"{model['runtime']} {model['precision']}",
            size(model["bytes"]),
            f"{model['rows_per_second']:,.0f}",
        ]
        if judged:
            cells += [f"{model[key]['value']:.3f}" for key in ("accuracy", "f1")]
        table.add_row(*cells)
        if judged:
            table.add_row(
                *[""] * 5, *(_interval(model[key], 3) for key in ("accuracy", "f1")), style="dim"
            )
    return table


def _interval(share: Mapping[str, float], digits: int) -> str:
    if digits == 2:
        return f"95 %: {share['low']:.1%} to {share['high']:.1%}"
    return f"{share['low']:.3f}–{share['high']:.3f}"


def _histogram_table(bins: list[dict[str, float]], rows: int) -> Table:
    table = plain_table("score differs by", "rows", "", right=("rows",))
    for bin_ in bins:
        share = bin_["rows"] / max(rows, 1)
        bar = "█" * math.ceil(30 * share)
        table.add_row(f"{bin_['from']:g} to {bin_['to']:g}", f"{bin_['rows']:,.0f}", bar)
    return table


def _confusion_table(found: dict[str, Any]) -> Table:
    labels = found["labels"]
    table = plain_table(
        "A says", *(f"B: {label}" for label in labels), right=[f"B: {label}" for label in labels]
    )
    for label, counts in zip(labels, found["confusion"], strict=True):
        table.add_row(label, *(f"{count:,}" for count in counts))
    return table
