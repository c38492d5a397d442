"""Shares with their uncertainty, and whether a difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array

Z = 1.959964  # of 95 % of a normal distribution
DRAWS = 1000  # of the bootstrap
SEED = 1
DRAWN = 20_000_000  # rows drawn in all, at most; of so many fewer draws tell as much
FLIPPED = 12  # rows whose signs are flipped in all ways


def share(part: int, whole: int) -> dict[str, float]:
    """`value`, with `low` and `high`, its 95 % confidence interval."""
    low, high = wilson(part, whole)
    return {"value": part / max(whole, 1), "low": low, "high": high}


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference":
    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not whole:
        return 0.0, 1.0
    p = part / whole
    middle = p + Z**2 / (2 * whole)
    spread = Z * math.sqrt(p * (1 - p) / whole + Z**2 / (4 * whole**2))
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
    """2 hits / (predicted + true), for labels that occur."""
    count = len(pairs)
    hits = pairs.diagonal()[:count]
    either = pairs.sum(axis=1) + pairs[:, :count].sum(axis=0)
    f1 = np.divide(2 * hits, either, out=np.zeros(count), where=either > 0)
    return float(f1[1] if count == 2 else f1[either > 0].mean())


def f1_of_several(truth: Array, predicted: Array) -> dict[str, Any]:
    """F1 over all labels of all rows, which may each have several, with a 95 % interval.

    Args:
        truth: bool of shape (rows, labels).
        predicted: the same.
    """
    counts = np.stack(
        [(truth & predicted).sum(axis=1), truth.sum(axis=1) + predicted.sum(axis=1)], axis=1
    ).astype(np.float64)  # of each row: hits, and predicted + true

    def f1(sums: Array) -> float:
        return float(2 * sums[0] / sums[1]) if sums[1] else 0.0

    if not len(counts):
        return {"value": 0.0, "low": 0.0, "high": 1.0, "of": "all labels"}
    drawn = [f1(counts[rows].sum(axis=0)) for rows in _draws(len(counts))]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {
        "value": f1(counts.sum(axis=0)), "low": float(low), "high": float(high), "of": "all labels",
    }  # fmt: skip


def errors_of(truth: Array, values: Array) -> dict[str, dict[str, float | None]]:
    """`mae`, `rmse` and `r2` of numbers, each with `low` and `high`, its 95 % bootstrap interval.

    `r2` is None where the truth is the same in all rows.
    """
    parts = np.stack([np.abs(values - truth), (values - truth) ** 2, truth, truth**2], axis=1)

    def figures(means: Array) -> tuple[float, float, float]:
        spread = means[3] - means[2] ** 2
        left = means[1] / spread if spread > 1e-12 * max(means[3], 1e-300) else np.nan
        return float(means[0]), float(np.sqrt(means[1])), float(1 - left)

    names = ("mae", "rmse", "r2")
    if not len(parts):
        return {name: {"value": None, "low": None, "high": None} for name in names}
    parts[:, 2] -= parts[:, 2].mean()  # so that the spread loses no digits
    parts[:, 3] = parts[:, 2] ** 2
    value = figures(parts.mean(axis=0))
    drawn = np.array([figures(parts[rows].mean(axis=0)) for rows in _draws(len(parts))])
    found: dict[str, dict[str, float | None]] = {}
    for place, name in enumerate(names):
        known = drawn[np.isfinite(drawn[:, place]), place]
        low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
        figure = {"value": value[place], "low": float(low), "high": float(high)}
        found[name] = {key: one if math.isfinite(one) else None for key, one in figure.items()}
    return found


def _draws(rows: int) -> Iterator[Array]:
    """Places of rows drawn with replacement, as the bootstrap has it."""
    draw = np.random.default_rng(SEED)
    for _ in range(max(min(DRAWS, DRAWN // rows), 100)):
        yield draw.integers(0, rows, rows)


def sign_flips(differences: Array) -> float:
    """How likely the mean of paired differences is this far from 0 by chance, on two sides.

    Were there nothing to it, each difference could as well have the other sign: Fisher 1935, "The
    Design of Experiments". All signs of a few rows are tried; of more, their sum is near to
    normal, with the sum of the squares as its variance.
    """
    differences = differences[differences != 0]
    count = len(differences)
    if not count:
        return 1.0
    total = abs(float(differences.sum()))
    if count > FLIPPED:
        return math.erfc(total / math.sqrt(2 * float((differences**2).sum())))
    signs = (np.arange(2**count)[:, np.newaxis] >> np.arange(count)) % 2 * 2 - 1
    return float((np.abs(signs @ differences) >= total * (1 - 1e-12)).mean())


def rand_index(table: Array) -> float:
    """How alike two groupings are, whatever the groups are called: 1 the same, 0 by chance.

    The adjusted Rand index of the counts of each pair of groups: Hubert and Arabie 1985,
    "Comparing partitions".
    """

    def pairs(counts: Array) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, one, other = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    every = pairs(np.array([table.sum()]))
    by_chance = one * other / every if every else 0.0
    most = (one + other) / 2
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)
