"""Whether two ways to run a model give the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlopsdeploy.bench.speed import made_up_rows, rows_that_fit
from mlopsdeploy.columns import Array, Columns, concat, rows_of, take
from mlopsdeploy.convert.parity import difference
from mlopsdeploy.core.model import Model

ROWS = 200
# The most that a score may differ from that of the same model elsewhere in float32, and the share
# of labels that may. In float32 other orders of sums move a score by 1e-6; in lower precisions
# the labels count, since close calls are rechecked.
SCORES = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.2}
FLIPS = 0.01


def rows_for(model: Model) -> Columns:
    """Rows to compare on, the same for every way to run a model."""
    return made_up_rows(model, rows_that_fit(model, ROWS))


def answers(model: Model, columns: Columns) -> Columns:
    """What can be compared: labels and scores; of models of pictures the tensors themselves."""
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

    Returns:
        `rows`, `label_flips`, `largest_change`, `mean_change`, `bound` of a score, `agrees`.
    """
    bound = SCORES.get(precision, SCORES["int8"])
    if "scores" in expected and "label" in expected:
        change = _largest(difference(expected["scores"], got["scores"]))
        flips = int((expected["label"] != got["label"]).sum())
        # At a tie any rounding decides, so labels that a hair decides are not counted in float32.
        allowed = FLIPS * len(change)
        agrees = bool(change.max(initial=0) <= bound and flips <= allowed)
    else:
        floats = [name for name, values in expected.items() if values.dtype.kind == "f"]
        gaps = [
            _largest(difference(expected[name], got[name]))
            / max(1.0, float(np.abs(expected[name]).max(initial=0)))
            for name in floats
            if name in got
        ]
        change = np.max(gaps, axis=0) if gaps else np.zeros(0)
        flips = 0
        agrees = bool(len(gaps) == len(floats) and change.max(initial=0) <= bound)
    return {
        "rows": len(change),
        "label_flips": flips,
        "largest_change": float(change.max(initial=0)),
        "mean_change": float(change.mean()) if len(change) else 0.0,
        "bound": bound,
        "agrees": agrees,
    }


def _largest(gap: Array) -> Array:
    largest: Array = gap.reshape(len(gap), -1).max(axis=1, initial=0)
    return largest
