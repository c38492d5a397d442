"""Two models whose answer is a label, with or without a number: where they differ, who is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy.columns import AnswerColumns, Array
from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.models.compare_numbers import difference_lines, differences
from mlopsdeploy.models.data import as_labels, as_several
from mlopsdeploy.models.pairs import Pair, match_labels, most_different
from mlopsdeploy.models.significance import (
    f1_interval,
    f1_of_several,
    mcnemar,
    rand_index,
    share,
)

BINS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
MANY, PAIRS = 5, 10  # labels that still make a square table; pairs of them that are shown else
FIGURES = {"accuracy": "accuracy", "f1": "F1"}


def compare(pair: Pair) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both models' labels for the same rows.

    Returns:
        `kind`, `labels`, `matched_by_place`, `same_labels`, `agreement`, `confusion` (the first
        model's labels by row), of labels without probabilities `rand_index`, of several labels a
        row `by_label`; `score_change` (mean, largest, histogram) of probabilities, `difference`
        and `correlation` of other numbers; `most_different`; with the truth `truth` and `mcnemar`.
        And each model's `accuracy` and `f1`, each with `low` and `high`; empty without the truth.

    Raises:
        InputError: nothing in the column of the truth is a label.
    """
    if pair.multi_label:
        return _compare_several(pair)
    names = pair.both("label")
    labels, a, b, order, matched = _places(pair, names)
    table = _confusion(a, b, len(labels))
    found = _agreement(labels, matched, int((a == b).sum()), len(a))
    found["confusion"] = table.tolist()
    if not pair.answers[0].scores:
        found["rand_index"] = rand_index(table)
    change = _change(pair, order, found)
    found["most_different"] = _most_different(pair, a == b, change)
    if pair.truth is None:
        return found, [{}, {}]
    truth, how = as_labels(pair.truth, labels, pair.column)
    known = truth >= 0
    truth, a, b = truth[known], a[known], b[known]
    found |= _judged(truth == a, truth == b, int((~known).sum()), how)
    figures = [
        {
            "accuracy": share(int((predicted == truth).sum()), len(predicted)),
            "f1": f1_interval(truth, predicted, len(labels)),
        }
        for predicted in (a, b)
    ]
    return found, figures


def _compare_several(pair: Pair) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    first, second = pair.answers
    order, matched = match_labels(first, second)
    a = _sets(pair.both("label")[0], first.labels)
    b = _sets(pair.both("label")[1], second.labels)
    b = b[:, order] if order else b
    same = (a == b).all(axis=1)
    found = _agreement(first.labels, matched, int(same.sum()), len(a))
    found["by_label"] = [
        {
            "label": label,
            "agreement": share(int((a[:, n] == b[:, n]).sum()), len(a)),
            "only_a": int((a[:, n] & ~b[:, n]).sum()),
            "only_b": int((b[:, n] & ~a[:, n]).sum()),
        }
        for n, label in enumerate(first.labels)
    ]
    change = _change(pair, order, found)
    found["most_different"] = _most_different(pair, same, change)
    if pair.truth is None:
        return found, [{}, {}]
    truth, known, how = as_several(pair.truth, first.labels, pair.column)
    truth, a, b = truth[known], a[known], b[known]
    right = [(predicted == truth).all(axis=1) for predicted in (a, b)]
    found |= _judged(right[0], right[1], int((~known).sum()), how)
    figures = [
        {"accuracy": share(int(good.sum()), len(good)), "f1": f1_of_several(truth, predicted)}
        for good, predicted in zip(right, (a, b), strict=True)
    ]
    return found, figures


def _agreement(
    labels: Sequence[str], matched: dict[str, str], same: int, rows: int
) -> dict[str, Any]:
    return {
        "kind": "label",
        "labels": list(labels),
        "matched_by_place": matched,
        "same_labels": same,
        "agreement": share(same, rows),
    }


def _places(
    pair: Pair, names: tuple[Array, Array]
) -> tuple[tuple[str, ...], Array, Array, list[int], dict[str, str]]:
    """The labels, the place of each row's among them (-1 for none), and how they were matched."""
    first, second = pair.answers
    if first.scores:
        order, matched = match_labels(first, second)
        theirs = tuple(second.labels[n] for n in order) if order else second.labels
        return (
            first.labels,
            _place(names[0], first.labels),
            _place(names[1], theirs),
            order,
            matched,
        )
    # Without probabilities a label that only one model has is just never given by the other.
    given = {label for column in names for label in column.tolist() if label}
    labels = tuple(dict.fromkeys([*first.labels, *second.labels, *sorted(given)]))
    a, b = _place(names[0], labels), _place(names[1], labels)
    if not _numbered(first, labels):
        return labels, a, b, [], {}
    # Clusters that nothing names: those of both models that share most rows are the same.
    table = _confusion(a, b, len(labels))
    ours_of = np.full(len(labels) + 1, -1)
    free = table.astype(float)
    for _ in labels:
        one, other = divmod(int(free.argmax()), len(labels))
        ours_of[other] = one
        free[one, :], free[:, other] = -1, -1
    matched = {
        labels[one]: labels[other]
        for other, one in enumerate(ours_of[:-1].tolist())
        if one != other and table[one, other]
    }
    return labels, a, ours_of[b], [], dict(sorted(matched.items()))


def _numbered(answer: AnswerColumns, labels: Sequence[str]) -> bool:
    """Whether these are groups with a distance or so, called by their numbers alone."""
    return bool(answer.number) and all(label.isdigit() for label in labels)


def _place(names: Array, labels: Sequence[str]) -> Array:
    known = {label: place for place, label in enumerate(labels)}
    return np.array([known.get(label, -1) for label in names.tolist()], int)


def _sets(names: Array, labels: Sequence[str]) -> Array:
    """Which labels each row has, bool (rows, labels)."""
    has = np.zeros((len(names), len(labels)), bool)
    known = {label: place for place, label in enumerate(labels)}
    for row, joined in enumerate(names.tolist()):
        has[row, [known[name] for name in joined.split("|") if name]] = True
    return has


def _change(pair: Pair, order: list[int], found: dict[str, Any]) -> Array:
    """How far apart each row's numbers are; what that comes to is added to what was found."""
    if pair.answers[0].scores:
        left, right = pair.both("scores")
        change = np.abs(left - (right[:, order] if order else right)).max(axis=1, initial=0)
        found["score_change"] = {
            "mean": float(change.mean()),
            "largest": float(change.max(initial=0)),
            "histogram": _histogram(change),
        }
        return np.asarray(change)
    if not pair.answers[0].number:
        return np.zeros(len(pair.both("label")[0]))
    left, right = (values.astype(np.float64) for values in pair.both("number"))
    found |= differences(left, right)
    return np.nan_to_num(np.abs(left - right))


def _most_different(pair: Pair, same: Array, change: Array) -> list[dict[str, Any]]:
    """Rows with other labels first, by how far apart the scores are."""
    return most_different(pair, np.lexsort((-change, same)), ~same | (change > 0))


def _confusion(a: Array, b: Array, count: int) -> Array:
    """Rows: A's label; columns: B's. Rows without a label are left out."""
    table = np.zeros((count, count), int)
    known = (a >= 0) & (b >= 0)
    np.add.at(table, (a[known], b[known]), 1)
    return table


def _histogram(change: Array) -> list[dict[str, float]]:
    counts, _ = np.histogram(change, bins=[*BINS[:-1], 1.0000001])
    return [
        {"from": low, "to": high, "rows": int(count)}
        for low, high, count in zip(BINS, BINS[1:], counts, strict=False)
    ]


def _judged(a: Array, b: Array, without: int, how: str) -> dict[str, Any]:
    """Which of both is right, given where each is."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return {
        "truth": {"rows": len(a), "without": without, "how": how},
        "mcnemar": {"only_a_right": only_a, "only_b_right": only_b, "p": mcnemar(only_a, only_b)},
    }


# ---------------------------------------------------------------- as people read it


def quality(found: dict[str, Any], models: list[dict[str, Any]]) -> str:
    """What it comes to, for the verdict."""
    if "mcnemar" not in found:
        same = found["agreement"]["value"]
        what = "labels" if "by_label" in found else "label"
        return f"A and B give the same {what} to {same:.1%} of {found['rows']:,} rows"
    test = found["mcnemar"]
    gap = models[1]["accuracy"]["value"] - models[0]["accuracy"]["value"]
    if test["p"] < 0.05:
        better = "B" if gap > 0 else "A"
        return f"{better} is right more often, by {abs(gap):.1%} (p = {test['p']:.2g})"
    decided = test["only_a_right"] + test["only_b_right"]
    return (
        f"{found['truth']['rows']:,} rows show no difference in accuracy "
        f"(p = {test['p']:.2g}; exactly one is right on {decided:,})"
    )


def show(found: dict[str, Any], console: Console) -> None:
    """What `compare` found."""
    console.print(facts(_facts(found)))
    if "score_change" in found:
        console.print()
        console.print(_histogram_table(found["score_change"]["histogram"], found["rows"]))
    if found["same_labels"] < found["rows"]:
        console.print()
        several = "by_label" in found
        console.print(_by_label_table(found) if several else _confusion_table(found))
        console.print()
        for row in found["most_different"]:
            if row["labels"][0] != row["labels"][1]:
                numbers = row.get("numbers", ("", ""))
                both = zip("AB", row["labels"], numbers, strict=True)
                line = (f"{name} {label or 'none'}{_said(number)}" for name, label, number in both)
                console.print(", ".join(line), style="dim", markup=False)
                console.print(f"  {row['row']}", markup=False)


def _said(number: Any) -> str:
    return "" if number == "" else f" {number:.3f}"


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    same = found["agreement"]
    interval = f"95 %: {same['low']:.1%} to {same['high']:.1%}"
    matched = [f"A's {a} is B's {b}" for a, b in found["matched_by_place"].items()]
    alike = found.get("rand_index")
    what = "same labels" if "by_label" in found else "same label"
    lines = [
        ("labels", ", ".join(matched)),
        (what, f"{found['same_labels']:,} ({same['value']:.2%}; {interval})"),
        ("same groups", "" if alike is None else f"adjusted Rand index {alike:.4f}"),
    ]
    if "score_change" in found:
        change = found["score_change"]
        by = f"differ by {change['mean']:.4f} on average, {change['largest']:.4f} at most"
        lines.append(("scores", by))
    if "difference" in found:
        lines += difference_lines(found["difference"], found["correlation"])
    if "mcnemar" in found:
        test, truth = found["mcnemar"], found["truth"]
        none = f"; {truth['without']:,} rows have none" if truth["without"] else ""
        right = f"A {test['only_a_right']:,}, B {test['only_b_right']:,}; McNemar's exact test: "
        lines += [
            ("truth", f"{truth['how']}{none}"),
            ("only one right", f"{right}p = {test['p']:.3g}"),
        ]
    return lines


def _histogram_table(bins: list[dict[str, float]], rows: int) -> Table:
    table = plain_table("score differs by", "rows", "", right=("rows",))
    for bin_ in bins:
        bar = "█" * math.ceil(30 * bin_["rows"] / max(rows, 1))
        table.add_row(f"{bin_['from']:g} to {bin_['to']:g}", f"{bin_['rows']:,.0f}", bar)
    return table


def _by_label_table(found: dict[str, Any]) -> Table:
    right = ("same", "only A", "only B")
    table = plain_table("label", *right, right=right)
    for one in sorted(found["by_label"], key=lambda one: one["agreement"]["value"])[:PAIRS]:
        table.add_row(
            Text(one["label"]), f"{one['agreement']['value']:.2%}", f"{one['only_a']:,}",
            f"{one['only_b']:,}",
        )  # fmt: skip
    return table


def _confusion_table(found: dict[str, Any]) -> Table:
    """All labels by all; of more than fit, the pairs that are most often confused."""
    labels = found["labels"]
    rows = list(zip(labels, found["confusion"], strict=True))
    if len(labels) <= MANY:
        right = [f"B: {label}" for label in labels]
        table = plain_table("A says", *right, right=right)
        for label, counts in rows:
            table.add_row(Text(label), *(f"{count:,}" for count in counts))
        return table
    table = plain_table("A says", "B says", "rows", right=("rows",))
    pairs = [
        (count, a, b)
        for a, counts in rows
        for b, count in zip(labels, counts, strict=True)
        if a != b and count
    ]
    for count, a, b in sorted(pairs, key=lambda pair: -pair[0])[:PAIRS]:
        table.add_row(Text(a), Text(b), f"{count:,}")
    return table
