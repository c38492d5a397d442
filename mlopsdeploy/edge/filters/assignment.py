"""Which box belongs to which track: pairs whose similarities sum to the most, exactly.

SciPy's solver would be the heaviest package on a device, for a problem that is nearly always tiny:
of most tracks and boxes only one pair overlaps at all. Those are paired at once, and the few that
compete are solved by shortest augmenting paths (Jonker and Volgenant 1987, Crouse 2016).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Pair = tuple[int, int]


def assign(similarity: Floats) -> list[Pair]:
    """Pairs of row and column, each at most once, with the largest sum of similarities.

    Args:
        similarity: shape (rows, columns), at least 0; 0 is no pair at all.
    """
    possible = similarity > 0
    alone = possible & (possible.sum(0) == 1) & (possible.sum(1, keepdims=True) == 1)
    pairs: list[Pair] = [(int(row), int(column)) for row, column in np.argwhere(alone)]
    rows = np.flatnonzero(possible.any(1) & ~alone.any(1))
    columns = np.flatnonzero(possible.any(0) & ~alone.any(0))
    if len(rows) and len(columns):
        rest = similarity[np.ix_(rows, columns)]
        found = _solve(rest) if len(rows) <= len(columns) else [(a, b) for b, a in _solve(rest.T)]
        pairs += [(int(rows[a]), int(columns[b])) for a, b in found if rest[a, b] > 0]
    return pairs


def _solve(similarity: Floats) -> list[Pair]:
    """A column for each row, of which there are no more than columns."""
    cost = similarity.max() - similarity
    rows, columns = cost.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # dual variables
    row_of = np.full(columns, -1)
    for start in range(rows):
        _augment(cost, start, of_row, of_column, row_of)
    return [(int(row), column) for column, row in enumerate(row_of) if row >= 0]


def _augment(
    cost: Floats, start: int, of_row: Floats, of_column: Floats, row_of: npt.NDArray[np.int64]
) -> None:
    """Give a row its column; others may have to move to their next best."""
    columns = cost.shape[1]
    distance = np.full(columns, np.inf)
    came_from = np.full(columns, -1)  # the column before on the path; -1 is `start`
    done = np.zeros(columns, bool)
    row, at, length = start, -1, 0.0
    visited: list[tuple[int, float]] = []
    while True:
        visited.append((row, length))
        reduced = length + cost[row] - of_row[row] - of_column
        better = ~done & (reduced < distance)
        distance[better], came_from[better] = reduced[better], at
        at = int(np.where(done, np.inf, distance).argmin())
        length = float(distance[at])
        done[at] = True
        if row_of[at] < 0:
            break
        row = int(row_of[at])
    for seen, reached in visited:
        of_row[seen] += length - reached
    of_column[done] -= length - distance[done]
    while came_from[at] >= 0:
        before = int(came_from[at])
        row_of[at] = row_of[before]
        at = before
    row_of[at] = start
