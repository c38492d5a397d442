"""How the numbers of answers are spread: probabilities in equal bins, other numbers in a sketch.

Both are exact in this sense: neither the order of the rows, nor how they are cut into windows, nor
a restart changes a digit. So sums are whole numbers, of a unit in which every float is whole.

Numbers without bounds are counted in bins whose edges are powers of one ratio, for each sign, as
in DDSketch (C. Masson, J. E. Rim and H. K. Lee, DDSketch: a fast and fully-mergeable quantile
sketch with relative-error guarantees, PVLDB 12(12), 2019): whatever their size, a quantile is
wrong by at most 0.5 % of itself. Only bins that hold something take memory: some 460 for each
factor of ten that the numbers span. What differs by less than that, such as moments as seconds
since 1970, is one bin, where only the mean, the least and the greatest tell a change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mlopsdeploy.columns import Array

SCORE_BINS = 100  # of equal width, from 0 to 1
QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}

_RATIO = 1.005  # of a bin's end to its start: the accuracy of a quantile
_MIDDLE = 150_000  # more than the bins on each side of 1 up to the last float64: none is 0
_WIDTH = 1 << 19  # more bins than there are of one sign
_SCORE_UNIT = 2**30  # a score of 1 in the units that its sum is kept in
_SMALLEST = -1126  # every float64, as 53 bits and an exponent, is a multiple of 2 to this


class Spread(Protocol):
    """How the numbers of each label are spread; labels are told apart by their places."""

    def add(self, places: Array, numbers: Array) -> None:
        """Count numbers, float64 and finite, each of the label at its place."""
        ...

    def merge(self, other: Any, places: Array) -> None:
        """Add another's, whose label at place i is this one's at places[i]."""
        ...

    def as_dict(self, place: int, rows: int) -> dict[str, Any]:
        """Of one label, which has so many rows, for JSON: its mean, its exact sum, its bins."""
        ...

    def read(self, place: int, known: Mapping[str, Any]) -> None:
        """Take over what `as_dict` gave."""
        ...


def spread_of(*, is_probability: bool) -> Spread:
    """An empty one, for numbers of a kind."""
    return _Scores() if is_probability else _Numbers()


class _Scores:
    """Numbers from 0 to 1, each rounded to a multiple of 2**-30 where they are summed."""

    def __init__(self) -> None:
        self._bins = np.zeros((0, SCORE_BINS), np.int64)
        self._sums = np.zeros(0, object)  # Python's integers don't overflow

    def add(self, places: Array, numbers: Array) -> None:
        bins = np.clip((numbers * SCORE_BINS).astype(np.intp), 0, SCORE_BINS - 1)
        self._bins = tally(self._bins, places, bins)
        units = np.rint(numbers * _SCORE_UNIT)
        sums = np.bincount(places, units, len(self._bins))  # exact below 2**53
        self._sums = fit(self._sums, len(self._bins)) + sums.astype(np.int64).astype(object)

    def merge(self, other: _Scores, places: Array) -> None:
        height = max(len(self._bins), int(places.max(initial=-1)) + 1)
        self._bins, self._sums = fit(self._bins, height), fit(self._sums, height)
        np.add.at(self._bins, places[: len(other._bins)], other._bins)
        np.add.at(self._sums, places[: len(other._sums)], other._sums)

    def as_dict(self, place: int, rows: int) -> dict[str, Any]:
        there = place < len(self._bins)
        total = int(self._sums[place]) if there else 0
        return {
            "mean": total / _SCORE_UNIT / rows if rows else None,
            "sum": total,
            "bins": self._bins[place].tolist() if there else [0] * SCORE_BINS,
        }

    def read(self, place: int, known: Mapping[str, Any]) -> None:
        self._bins = fit(self._bins, max(place + 1, len(self._bins)))
        self._sums = fit(self._sums, len(self._bins))
        self._bins[place], self._sums[place] = known["bins"], known["sum"]


class _Numbers:
    """Numbers of any size."""

    def __init__(self) -> None:
        self._bins: list[Counter[int]] = []
        self._sums: list[int] = []
        self._least: list[float] = []
        self._most: list[float] = []

    def _fit(self, height: int) -> None:
        while len(self._bins) < height:
            self._bins.append(Counter())
            self._sums.append(0)
            self._least.append(math.inf)
            self._most.append(-math.inf)

    def add(self, places: Array, numbers: Array) -> None:
        if not len(numbers):
            return
        height = int(places.max()) + 1
        self._fit(height)
        keys = places * (2 * _WIDTH) + bins_of(numbers) + _WIDTH
        keys, counts = np.unique(keys, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._bins[key // (2 * _WIDTH)][key % (2 * _WIDTH) - _WIDTH] += count
        for place, total in enumerate(exact_sums(numbers, places, height)):
            self._sums[place] += total
        for place in np.unique(places).tolist():
            mine = numbers[places == place]
            self._least[place] = min(self._least[place], float(mine.min()))
            self._most[place] = max(self._most[place], float(mine.max()))

    def merge(self, other: _Numbers, places: Array) -> None:
        self._fit(int(places.max(initial=-1)) + 1)
        for place, at in enumerate(places.tolist()[: len(other._bins)]):
            self._bins[at].update(other._bins[place])
            self._sums[at] += other._sums[place]
            self._least[at] = min(self._least[at], other._least[place])
            self._most[at] = max(self._most[at], other._most[place])

    def as_dict(self, place: int, rows: int) -> dict[str, Any]:
        self._fit(place + 1)
        bins = sorted(self._bins[place].items())
        empty = not bins
        known: dict[str, Any] = {
            "mean": mean_of(self._sums[place], rows),
            "sum": short(self._sums[place]),
            "least": None if empty else self._least[place],
            "greatest": None if empty else self._most[place],
            "bins": {"at": [at for at, _ in bins], "rows": [count for _, count in bins]},
        }
        return {**known, **{name: quantile(known, share) for name, share in QUANTILES.items()}}

    def read(self, place: int, known: Mapping[str, Any]) -> None:
        self._fit(place + 1)
        bins = known["bins"]
        self._bins[place] = Counter(dict(zip(bins["at"], bins["rows"], strict=True)))
        self._sums[place] = long(known["sum"])
        if bins["at"]:
            self._least[place], self._most[place] = known["least"], known["greatest"]


# ---------------------------------------------------------------- bins without bounds


def bins_of(numbers: Array) -> Array:
    """The bin of each number, int64, in their order: 0 is zero's own, below it are the negative."""
    size = np.abs(numbers)
    with np.errstate(divide="ignore"):
        powers = np.ceil(np.log(size) / math.log(_RATIO))
    powers[size == 0] = -_MIDDLE
    bins: Array = (np.sign(numbers) * (powers + _MIDDLE)).astype(np.int64)
    return bins


def edges_of(bins: Array) -> tuple[Array, Array]:
    """Where bins begin and end, float64."""
    powers = np.abs(bins) - _MIDDLE
    with np.errstate(over="ignore", under="ignore"):
        near, far = (np.power(_RATIO, np.asarray(side, float)) for side in (powers - 1, powers))
    most = np.finfo(np.float64).max
    near, far = (np.where(bins == 0, 0.0, np.minimum(side, most)) for side in (near, far))
    return np.where(bins < 0, -far, near), np.where(bins < 0, -near, far)


def together(spreads: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several spreads without bounds, by `Spread.as_dict`, as one."""
    whole = _Numbers()
    rows = 0
    for known in spreads:
        if known["bins"]["at"]:
            one = _Numbers()
            one.read(0, known)
            whole.merge(one, np.zeros(1, np.intp))
            rows += sum(known["bins"]["rows"])
    return whole.as_dict(0, rows)


def counts_at(spread: Mapping[str, Any], bins: Array) -> Array:
    """How many rows each of some bins has, int64."""
    rows = dict(zip(spread["bins"]["at"], spread["bins"]["rows"], strict=True))
    return np.array([rows.get(at, 0) for at in bins.tolist()], np.int64)


def quantile(spread: Mapping[str, Any], share: float) -> float | None:
    """The number below which that share of the rows lies, by `Spread.as_dict`; None without rows.

    Within 0.5 % of the true one, and never beyond the least and the greatest.
    """
    at, rows = (np.array(spread["bins"][name], np.int64) for name in ("at", "rows"))
    if not len(at):
        return None
    rank, below = share * (rows.sum() - 1), np.cumsum(rows)
    place = min(int(np.searchsorted(below, rank, side="right")), len(at) - 1)
    low, high = (float(edge[0]) for edge in _within(spread, at[place : place + 1]))
    part = (rank - float(below[place] - rows[place]) + 0.5) / float(rows[place])
    return float(low + (high - low) * min(part, 1.0))


def histogram(spread: Mapping[str, Any], edges: Array) -> Array:
    """Rows between edges, float64 of shape (edges - 1,): those of each bin lie evenly in it.

    Args:
        spread: by `Spread.as_dict`.
        edges: float64, increasing.
    """
    at, rows = (np.array(spread["bins"][name], np.int64) for name in ("at", "rows"))
    low, high = _within(spread, at)
    found = np.zeros(len(edges) - 1)
    for start, stop, count in zip(low.tolist(), high.tolist(), rows.tolist(), strict=True):
        if start < stop:
            with np.errstate(over="ignore"):  # far beyond a narrow bin
                found += np.diff(np.clip((edges - start) / (stop - start), 0, 1)) * count
        elif edges[0] <= start <= edges[-1]:
            place = int(np.searchsorted(edges, start, side="right")) - 1
            found[min(place, len(found) - 1)] += count
    return found


def _within(spread: Mapping[str, Any], bins: Array) -> tuple[Array, Array]:
    """Where bins begin and end, as far as there are numbers."""
    low, high = (np.clip(side, spread["least"], spread["greatest"]) for side in edges_of(bins))
    return low, high


# ---------------------------------------------------------------- exact sums


def exact_sums(numbers: Array, places: Array, height: int) -> list[int]:
    """The sum of the numbers at each place, in units of 2**-1126: of these every float is whole."""
    sums = [0] * height
    if not len(numbers):
        return sums
    parts, exponents = np.frexp(numbers)
    whole = np.ldexp(parts, 53).astype(np.int64)
    keys, inverse = np.unique(places * 4096 + (exponents + 2048), return_inverse=True)
    # In two halves, whose sums are exact in float64 for up to 2**26 rows.
    high = np.bincount(inverse, whole >> 26, len(keys)).astype(np.int64).tolist()
    low = np.bincount(inverse, whole & ((1 << 26) - 1), len(keys)).astype(np.int64).tolist()
    for key, upper, lower in zip(keys.tolist(), high, low, strict=True):
        shift = key % 4096 - 2048 - 53 - _SMALLEST
        sums[key // 4096] += ((upper << 26) + lower) << shift
    return sums


def mean_of(total: int, rows: int) -> float | None:
    """The mean of rows with such a sum; None without rows."""
    if not rows:
        return None
    return total / (rows << -_SMALLEST)


def short(total: int) -> list[int]:
    """A sum as a number and the power of two that it is a multiple of: `[3, -1]` is 1.5."""
    if not total:
        return [0, 0]
    zeros = (total & -total).bit_length() - 1
    return [total >> zeros, zeros + _SMALLEST]


def long(known: Sequence[int]) -> int:
    """What `short` gave, as a sum."""
    number, exponent = known
    return number << (exponent - _SMALLEST) if number else 0


# ---------------------------------------------------------------- tables of counts


def tally(table: Array, rows: Array, columns: Array) -> Array:
    """The table, made higher where need be, with one more in each of these cells."""
    height, width = max(table.shape[0], int(rows.max(initial=-1)) + 1), table.shape[1]
    counts = np.bincount(rows * width + columns, minlength=height * width)
    return counts.reshape(height, width) + fit(table, height)


def fit(table: Array, height: int) -> Array:
    """The table, made as high with zeros."""
    more = np.zeros((height - len(table), *table.shape[1:]), table.dtype)
    return np.concatenate([table, more])
