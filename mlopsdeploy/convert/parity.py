"""The proof that a compiled model answers as the original does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Columns, Runtime, rows_of, take
from mlopsdeploy.errors import MlopsDeployError, one_line

# How far an answer may be off, of its size or of 1 if it is smaller. Both sides compute in
# float32; sums in another order and other polynomials for exp and tanh make 1e-6 of it.
BOUND = 1e-4
# Where an answer moves much when its input moves by float32's last bit, such as a logit that is
# the small difference of sums near 1e6, it is that uncertain on either side.
SWAY = 10
BATCHES = (1, 2, 7)
EXTREME = 1e6  # of an input; the differences there are told apart


class Unfit(Exception):  # noqa: N818  # not an error: another runtime gets it
    """Why a runtime can't have this model."""


@dataclass(frozen=True)
class Case:
    """Rows, the original's answers to them, and how far each may be off."""

    columns: Columns
    expected: Columns
    allowed: Columns

    def off(self, got: Columns, rows: slice) -> float:
        """The largest difference as a share of what is allowed, over all outputs."""
        worst = 0.0
        for name, expected in self.expected.items():
            gap = difference(expected[rows], got[name])
            with np.errstate(invalid="ignore"):  # infinite, where as much is allowed, is no more
                share = np.nan_to_num(gap / self.allowed[name][rows], nan=0, posinf=np.inf)
            worst = max(worst, float(share.max(initial=0)))
        return worst


def difference(expected: Array, got: Array) -> Array:
    """Of each number; infinite where only one of both is finite, or a text or shape differs."""
    if expected.shape != got.shape:
        return np.full(expected.shape, np.inf)
    if expected.dtype.kind not in "fiub":
        differs = [_text(a) != _text(b) for a, b in zip(expected.flat, got.flat, strict=True)]
        return np.where(differs, np.inf, 0.0).reshape(expected.shape)
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        gap = np.where(same, 0.0, np.abs(wide - other))
    finite: Array = np.where(np.isfinite(gap), gap, np.inf)
    return finite


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def nudged(columns: Columns) -> Columns:
    """Real numbers moved by their last bit, up or down at random."""
    draw = np.random.default_rng(0)
    return {
        name: np.nextafter(array, array * draw.choice(np.array([0, 2], array.dtype), array.shape))
        if array.dtype.kind == "f"
        else array
        for name, array in columns.items()
    }


def allowed(expected: Columns, moved: Columns) -> Columns:
    """How far each number may be off, given the answers to the same rows nudged."""
    limits = {}
    for name, value in expected.items():
        sway = difference(value, moved[name]).reshape(len(value), -1).max(axis=1, initial=0)
        by_row = sway.reshape(-1, *[1] * (value.ndim - 1))
        limits[name] = BOUND * _size(value) + SWAY * by_row
    return limits


def _size(value: Array) -> Array:
    """The size of each number, or 1 if it is smaller, not finite, or a text."""
    if value.dtype.kind not in "fiub":
        return np.ones(value.shape)
    size = np.nan_to_num(np.abs(value.astype(np.float64)), nan=1, posinf=1)
    return np.asarray(np.maximum(1, size))


def prove(reference: list[Case], runtime: Runtime) -> dict[str, Any]:
    """The runtime's answers against the original's, in batches of several sizes.

    Raises:
        Unfit: it fails, or one of its answers is further off than allowed.
    """
    ordinary, extreme, share, flips, rows = 0.0, 0.0, 0.0, 0, 0
    for case in reference:
        total = rows_of(case.columns)
        none = runtime.run(take(case.columns, slice(0)))
        if any(len(array) for array in none.values()):
            raise Unfit("it has answers to no rows")
        for batch in (*BATCHES, total):
            for start in range(0, total, batch):
                chosen = slice(start, start + batch)
                try:
                    got = runtime.run({name: array[chosen] for name, array in case.columns.items()})
                except (MlopsDeployError, ValueError, RuntimeError) as error:
                    raise Unfit(one_line(error)) from error
                if set(got) != set(case.expected):
                    raise Unfit("its outputs have other names")
                off = case.off(got, chosen)
                share = max(share, off)
                if off > 1:
                    raise Unfit(f"its answers differ by {_gap(case, got, chosen):.1e}")
                if batch == total:
                    large = _is_extreme(case.columns)
                    ordinary = max(ordinary, _gap(case, got, ~large))
                    extreme = max(extreme, _gap(case, got, large))
                    flips += sum(_flips(case.expected[name], got[name]) for name in got)
                    rows += total
    return {
        "largest_difference": ordinary,
        "largest_difference_of_extremes": extreme,
        "share_of_bound": share,
        "label_flips": flips,
        "rows": rows,
        "batches": [*BATCHES, rows // len(reference)],
    }


def _gap(case: Case, got: Columns, rows: Any) -> float:
    """The largest difference, of the answer's size where that is more than 1."""
    gaps = []
    for name, expected in case.expected.items():
        chosen = got[name] if isinstance(rows, slice) else got[name][rows]
        gap = difference(expected[rows], chosen) / _size(expected[rows])
        gaps.append(float(gap.max(initial=0)))
    return max(gaps)


def _is_extreme(columns: Columns) -> Array:
    large = np.zeros(rows_of(columns), bool)
    for array in columns.values():
        if array.dtype.kind == "f":
            large |= (np.abs(array) >= EXTREME).reshape(len(array), -1).any(axis=1)
    return large


def _flips(expected: Array, got: Array) -> int:
    """Rows whose label differs: the largest of several numbers, or the side of a half."""
    if expected.dtype.kind != "f" or expected.ndim < 2 or not expected.size:
        return 0
    if expected.shape[-1] == 1:
        return int(((expected >= 0.5) != (got >= 0.5)).sum())
    return int((expected.argmax(-1) != got.argmax(-1)).sum())
