"""A comparison of two models as people read it: tables, and one sentence at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.models.tables import size

MANY, PAIRS = 5, 10  # labels that still make a square table; pairs of them that are shown else
NEAR = 1.15  # times as fast; below it is no difference on a machine with other work


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
    """All labels by all; of more than fit, the pairs that are most often confused."""
    labels = found["labels"]
    if len(labels) > MANY:
        table = plain_table("A says", "B says", "rows", right=("rows",))
        pairs = [
            (count, a, b)
            for a, counts in zip(labels, found["confusion"], strict=True)
            for b, count in zip(labels, counts, strict=True)
            if a != b and count
        ]
        for count, a, b in sorted(pairs, key=lambda pair: -pair[0])[:PAIRS]:
            table.add_row(a, b, f"{count:,}")
        return table
    table = plain_table(
        "A says", *(f"B: {label}" for label in labels), right=[f"B: {label}" for label in labels]
    )
    for label, counts in zip(labels, found["confusion"], strict=True):
        table.add_row(label, *(f"{count:,}" for count in counts))
    return table
