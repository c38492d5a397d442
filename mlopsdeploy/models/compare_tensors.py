"""Two models whose answers are tensors: how far each output of theirs is apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from mlopsdeploy.columns import Columns, Field, rows_of
from mlopsdeploy.convert.parity import difference
from mlopsdeploy.core.console import plain_table

TOLERANCE = 1e-4  # of a row's largest number, or of 1 if that is smaller


def compare(
    outputs: Sequence[tuple[Field, Field]], first: Columns, second: Columns
) -> dict[str, Any]:
    """Both models' tensors for the same rows.

    Returns:
        `kind`, `tolerance`, `same_rows`: in which all outputs are equal within it; `outputs`, of
        each `name`, `mean` and `largest` difference (None where shapes or texts differ), and
        `same_rows`.
    """
    total = rows_of(first)
    same = np.ones(total, bool)
    found: list[dict[str, Any]] = []
    for ours, theirs in outputs:
        a, b = first[ours.name], second[theirs.name]
        gap = difference(a, b).reshape(total, -1)
        largest = gap.max(axis=1, initial=0)
        size = np.ones(total)
        if a.dtype.kind in "fiub" and a.size:
            numbers = np.abs(np.nan_to_num(a.astype(np.float64), posinf=0, neginf=0))
            size = np.maximum(numbers.reshape(total, -1).max(axis=1, initial=0), 1)
        equal = largest <= TOLERANCE * size
        same &= equal
        known = bool(np.isfinite(gap).all())
        found.append(
            {
                "name": ours.name,
                "mean": float(gap.mean()) if known and gap.size else None,
                "largest": float(largest.max(initial=0)) if known else None,
                "same_rows": int(equal.sum()),
            }
        )
    return {
        "kind": "tensors",
        "name": "",
        "tolerance": TOLERANCE,
        "same_rows": int(same.sum()),
        "outputs": found,
    }


def quality(found: dict[str, Any], models: list[dict[str, Any]]) -> str:  # noqa: ARG001
    """What it comes to, for the verdict."""
    share = found["same_rows"] / max(found["rows"], 1)
    return (
        f"all outputs are equal within {found['tolerance']:g} in {share:.1%} of "
        f"{found['rows']:,} rows"
    )


def show(found: dict[str, Any], console: Console) -> None:
    """What `compare` found."""
    right = ("differs by", "at most", "rows equal")
    table = plain_table("output", *right, right=right)
    for one in found["outputs"]:
        mean, largest = (
            "–" if one[key] is None else f"{one[key]:.3g}" for key in ("mean", "largest")
        )
        table.add_row(
            Text(one["name"]), mean, largest, f"{one['same_rows']:,} of {found['rows']:,}"
        )
    console.print(table)
