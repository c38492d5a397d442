"""Whether two ways to run a model give the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlopsdeploy.bench.speed import made_up_rows, rows_that_fit
from mlopsdeploy.columns import Array, Columns, concat, rows_of, take
from mlopsdeploy.convert.parity import difference
from mlopsdeploy.core.model import Model

ROWS = 200
# The most that a number may differ from that of the same model elsewhere in float32, and the share
# of labels that may. In float32 other orders of sums move a score by 1e-6; in lower precisions
# the labels count, since close calls are rechecked.
SCORES = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.2}
FLIPS = 0.01
_ASIDE = {"margin"}  # of a score: says which are rechecked in float32, and is no answer


def rows_for(model: Model) -> Columns:
    """Rows to compare on, the same for every way to run a model."""
    return made_up_rows(model, rows_that_fit(model, ROWS))


def answers(model: Model, columns: Columns) -> Columns:
    """What can be compared: the predictions; of models that take arrays the tensors themselves."""
    if any(len(field.shape) > 1 for field in model.task.inputs):
        encoded = model.task.encode(columns)
        parts = [
            model.runtime.run(model.task.collate(take(encoded, slice(row, row + 1))))
            for row in range(rows_of(encoded))
        ]
        return concat(parts)
    return model.predict_columns(columns)


def agreement(expected: Columns, got: Columns, precision: str) -> dict[str, Any]:
    """How far answers differ, and whether that is within the bounds of a precision.

    A number counts by its difference as a share of the largest of its row and column, or of 1 where
    that is less; all else is a label, which is the same or not.

    Returns:
        `rows`, `label_flips`, `largest_change`, `mean_change`, `bound` of a number, `agrees`.
    """
    bound, rows = SCORES.get(precision, SCORES["int8"]), rows_of(expected)
    change, flipped = np.zeros(rows), np.zeros(rows, bool)
    for name in sorted(set(expected) & set(got) - _ASIDE):
        gap = _largest(difference(expected[name], got[name]))
        if expected[name].dtype.kind == "f":
            change = np.maximum(change, gap / _size(expected[name]))
        else:
            flipped |= gap > 0
    flips = int(flipped.sum())
    # At a tie any rounding decides, so labels that a hair decides are not counted in float32.
    agrees = change.max(initial=0) <= bound and flips <= FLIPS * rows
    return {
        "rows": rows,
        "label_flips": flips,
        "largest_change": float(change.max(initial=0)),
        "mean_change": float(change.mean()) if rows else 0.0,
        "bound": bound,
        "agrees": bool(agrees and not set(expected) - set(got) - _ASIDE),
    }


def _size(values: Array) -> Array:
    """The largest finite number of each row, or 1 where that is less."""
    known = np.where(np.isfinite(values), np.abs(values), 0).astype(np.float64)
    return np.maximum(_largest(known), 1.0)


def _largest(gap: Array) -> Array:
    largest: Array = gap.reshape(len(gap), -1).max(axis=1, initial=0)
    return largest
