"""A comparison of two models as people read it: tables, and one sentence at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mlopsdeploy.core.console import facts, plain_table, print_line
from mlopsdeploy.models.tables import size

MANY, PAIRS = 5, 10  # labels that still make a square table; pairs of them that are shown else
NEAR = 1.15  # times as fast; below it is no difference on a machine with other work


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
        share = bin_["rows"] / max(rows, 1)
        bar = "█" * math.ceil(30 * share)
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
