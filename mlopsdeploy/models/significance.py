"""Shares with their uncertainty, and whether a difference is more than chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array

Z = 1.959964  # of 95 % of a normal distribution
DRAWS = 1000  # of the bootstrap
SEED = 1


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
