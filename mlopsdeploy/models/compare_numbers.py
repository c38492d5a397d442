"""Two models whose answer is a number: how far apart, and whose is nearer to the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy.columns import Array
from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.models.data import as_numbers
from mlopsdeploy.models.pairs import Pair, most_different
from mlopsdeploy.models.significance import errors_of, sign_flips

FIGURES = {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}


def compare(pair: Pair) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both models' numbers for the same rows.

    Returns:
        `kind`, `column`, `rows` where both have one, `only_one`; `difference`: mean, median,
        p95 and largest of its absolute value, and the mean of B − A; `correlation` (Pearson's,
        None where one is constant); `most_different`; with the truth `truth` and `paired`, the
        rows where each is nearer, and p. And each model's `mae`, `rmse` and `r2`, each with `low`
        and `high`; empty without the truth.

    Raises:
        InputError: the column of the truth holds no numbers.
    """
    first, second = (values.astype(np.float64) for values in pair.both("number"))
    both = np.isfinite(first) & np.isfinite(second)
    found: dict[str, Any] = {
        "kind": "number",
        "column": pair.answers[0].number,
        "rows": int(both.sum()),
        "only_one": int((np.isfinite(first) != np.isfinite(second)).sum()),
        **differences(first, second),
    }
    gap = np.where(both, np.abs(np.where(both, second - first, 0)), -1)
    found["most_different"] = most_different(pair, np.argsort(-gap, kind="stable"), gap > 0)
    if pair.truth is None:
        return found, [{}, {}]
    truth, how = as_numbers(pair.truth, pair.column)
    known = both & np.isfinite(truth)
    without = int((both & ~known).sum())
    truth, first, second = truth[known], first[known], second[known]
    off = np.abs(first - truth), np.abs(second - truth)
    found["truth"] = {"rows": len(truth), "without": without, "how": how}
    found["paired"] = {
        "a_nearer": int((off[0] < off[1]).sum()),
        "b_nearer": int((off[1] < off[0]).sum()),
        "p": sign_flips(off[0] - off[1]),
    }
    return found, [errors_of(truth, values) for values in (first, second)]


def differences(first: Array, second: Array) -> dict[str, Any]:
    """`difference` and `correlation` of two columns, over the rows where both have a number."""
    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both].astype(np.float64), second[both].astype(np.float64)
    gap = np.abs(b - a)
    varies = len(a) > 1 and min(np.ptp(a), np.ptp(b)) > 0
    middle, high = np.percentile(gap, (50, 95)) if len(gap) else (0.0, 0.0)
    return {
        "difference": {
            "mean": float(gap.mean()) if len(gap) else 0.0,
            "median": float(middle),
            "p95": float(high),
            "largest": float(gap.max(initial=0)),
            "b_minus_a": float((b - a).mean()) if len(gap) else 0.0,
        },
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varies else None,
    }


def quality(found: dict[str, Any], models: list[dict[str, Any]]) -> str:
    """What it comes to, for the verdict."""
    if "paired" not in found:
        gap, alike = found["difference"], found["correlation"]
        correlation = "" if alike is None else f", correlation {alike:.4g}"
        return (
            f"A and B differ by {gap['mean']:.3g} on average and {gap['largest']:.3g} at most on "
            f"{found['rows']:,} rows{correlation}"
        )
    p = found["paired"]["p"]
    errors = [model["mae"]["value"] for model in models]
    if p >= 0.05:
        return f"{found['truth']['rows']:,} rows show no difference in error (p = {p:.2g})"
    better = "B" if errors[1] < errors[0] else "A"
    gap = abs(errors[0] - errors[1])
    return f"{better} is nearer to the truth, by {gap:.3g} on average (p = {p:.2g})"


def show(found: dict[str, Any], console: Console) -> None:
    """What `compare` found."""
    gap, alike = found["difference"], found["correlation"]
    lines = [
        (found["column"], f"of {found['rows']:,} rows"),
        ("only one has", f"{found['only_one']:,} rows" if found["only_one"] else ""),
        *difference_lines(gap, alike),
    ]
    if "paired" in found:
        test, truth = found["paired"], found["truth"]
        none = f"; {truth['without']:,} rows have none" if truth["without"] else ""
        nearer = f"A {test['a_nearer']:,}, B {test['b_nearer']:,}; sign-flip test of the errors: "
        lines += [("truth", f"{truth['how']}{none}"), ("nearer", f"{nearer}p = {test['p']:.3g}")]
    console.print(facts(lines))
    if found["most_different"]:
        console.print()
        console.print(_rows_table(found["most_different"]))


def difference_lines(gap: dict[str, float], alike: float | None) -> list[tuple[str, str]]:
    """The same figures for people."""
    middle = f"median {gap['median']:.4g}, 95 % within {gap['p95']:.4g}"
    away = f"B is {abs(gap['b_minus_a']):.4g} {'higher' if gap['b_minus_a'] > 0 else 'lower'}"
    return [
        ("differ by", f"{gap['mean']:.4g} on average, {middle}, {gap['largest']:.4g} at most"),
        ("on average", away if gap["b_minus_a"] else ""),
        ("correlation", "" if alike is None else f"{alike:.6g}"),
    ]


def _rows_table(rows: list[dict[str, Any]]) -> Table:
    table = plain_table("most different", "A", "B", right=("A", "B"))
    for row in rows:
        table.add_row(Text(row["row"]), *(f"{number:.6g}" for number in row["numbers"]))
    return table
