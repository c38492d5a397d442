"""Which rows to compute together.

A transformer's work grows with the padded length of its batch, so rows of one length belong
together, and a batch is full when its padded work is, not when it has N rows. On natural text
that removes the 30-60 % of work which padding wastes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


def plan(cost: npt.NDArray[np.int64], budget: int) -> list[Rows]:
    """Cut rows into batches whose padded cost stays within `budget`.

    Args:
        cost: work per row, shape (rows,).
        budget: the most that rows × longest row of a batch may be; a row that costs more than
            that is a batch of its own.

    Returns:
        Row indices per batch, costliest first, so that the last batches to finish are short ones
        and no core waits long for another. Every row is in exactly one batch.
    """
    order = np.argsort(-cost, kind="stable")
    batches: list[Rows] = []
    start = 0
    while start < len(order):
        longest = max(int(cost[order[start]]), 1)
        stop = start + max(budget // longest, 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def unique(values: Sequence[Any]) -> tuple[Rows, Rows]:
    """The first row of each distinct value, and for every row the place of its value among them.

    `values[first][inverse]` is `values` again. Values are compared exactly.
    """
    seen: dict[Any, int] = {}
    inverse = np.array([seen.setdefault(value, len(seen)) for value in values], np.intp)
    first = np.empty(len(seen), np.intp)
    first[inverse[::-1]] = np.arange(len(values))[::-1]  # of equal ones the last that is written
    return first, inverse
