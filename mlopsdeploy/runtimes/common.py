"""What runtimes have in common: rows that a file's tensors can't hold, and silence."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, isnan

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, concat, rows_of, take
from mlopsdeploy.errors import RowError

_one_at_a_time = threading.Lock()


def dense(field: Field, array: Array) -> Array:
    """Values as a file's tensor holds them: contiguous and of its dtype.

    Raises:
        RowError: a row has NaN, a fraction or too large a number for a tensor of whole numbers.
    """
    if field.dtype == "str":
        return np.ascontiguousarray(array, object)
    target = np.dtype(field.dtype)
    if array.dtype == target:
        return np.ascontiguousarray(array)
    if (
        target.kind == "b"
        and array.dtype.kind in "iuf"
        and not (fits := np.isin(array, (0, 1))).all()
    ):
        raise RowError(f"{field.name}: holds what is neither 0 nor 1", rows_where(~fits))
    if target.kind in "iu" and array.dtype.kind in "iuf" and not np.can_cast(array.dtype, target):
        limits = np.iinfo(target)
        fits = (array >= limits.min) & (array <= limits.max)
        if array.dtype.kind == "f":
            fits &= array == np.trunc(array)
        if not fits.all():
            raise RowError(
                f"{field.name}: holds what is no whole number from {limits.min} to {limits.max}",
                rows_where(~fits),
            )
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.ascontiguousarray(array, target)


def rows_where(found: Array) -> list[int]:
    """The places of the rows that have something found in them."""
    places: list[int] = np.flatnonzero(found.reshape(len(found), -1).any(axis=1)).tolist()
    return places


def rows_with_nan(tensors: Columns) -> list[int]:
    """The places of the rows that have NaN in one of these tensors."""
    found: set[int] = set()
    for array in tensors.values():
        # A sum of squares is NaN where one of them is, and only there: no other way is as quick.
        if array.dtype.kind == "f" and isnan(np.vdot(array, array)):
            found.update(rows_where(np.isnan(array)))
    return sorted(found) if found else []


def rows_not_finite(tensors: Columns) -> list[int]:
    """The places of the rows that have NaN, or in one of their features an infinite number.

    Infinite numbers of a mask, which has more axes, are meant so.
    """
    found: set[int] = set()
    for array in tensors.values():
        # As above; where it is infinite, a square may be too large.
        if array.dtype.kind == "f" and not isfinite(np.vdot(array, array)):
            found.update(rows_where(~np.isfinite(array) if array.ndim < 3 else np.isnan(array)))
    return sorted(found) if found else []


def with_nan(outputs: Columns, rows: Sequence[int]) -> Columns:
    """Outputs with NaN, and no name of a class, in these rows: what isn't known has no answer.

    Libraries lose NaN: in OpenVINO ReLU makes 0 of it, and the rest of the graph a sure score.

    Raises:
        RowError: no output can hold NaN.
    """
    if not rows:
        return outputs
    floats = [name for name, array in outputs.items() if array.dtype.kind == "f"]
    if not floats:
        raise RowError("a value is missing (NaN) or infinite, which the model can't take", rows)
    for array in outputs.values():
        if array.dtype == object:
            array[list(rows)] = ""
    for name in floats:
        if not outputs[name].flags.writeable:
            outputs[name] = outputs[name].copy()
        outputs[name][list(rows)] = np.nan
    return outputs


def no_rows(outputs: Sequence[Field]) -> Columns:
    """The outputs for no rows at all, which many a graph can't compute."""
    return {
        field.name: np.empty(
            (0, *(max(size, 0) for size in field.shape)),
            object if field.dtype == "str" else field.dtype,
        )
        for field in outputs
    }


def in_steps(run: Callable[[Columns], Columns], tensors: Columns, size: int) -> Columns:
    """The outputs of `run` for `size` rows at a time, the last step filled up with its last row."""
    rows = rows_of(tensors)
    parts = [
        run(take(tensors, np.minimum(np.arange(start, start + size), rows - 1)))
        for start in range(0, rows, size)
    ]
    return take(concat(parts), slice(rows))


def takes_one_length(inputs: Sequence[Field]) -> bool:
    """Whether a graph takes tokens and can't tell padding from them, so that none may be there."""
    names = {field.name for field in inputs}
    return "input_ids" in names and "attention_mask" not in names


def by_length(run: Callable[[Columns], Columns], tensors: Columns) -> Columns:
    """The outputs of `run` for rows of one length at a time, without their padding."""
    if "attention_mask" not in tensors:
        return run(tensors)

    def run_alike(part: Columns) -> Columns:
        mask = part["attention_mask"].astype(bool)
        if mask.all():
            return run(part)
        shape = (len(mask), int(mask[0].sum()))
        return run({name: array[mask].reshape(shape) for name, array in part.items()})

    return in_groups(run_alike, tensors, tensors["attention_mask"].sum(axis=1))


def in_groups(run: Callable[[Columns], Columns], tensors: Columns, keys: Array) -> Columns:
    """The outputs of `run` for rows of one key at a time, in the order of the rows."""
    groups = [np.flatnonzero(keys == key) for key in np.unique(keys)]
    if len(groups) == 1:
        return run(tensors)
    parts = []
    for rows in groups:
        try:
            parts.append(run(take(tensors, rows)))
        except RowError as error:
            raise RowError(str(error), rows[list(error.rows)].tolist()) from error
    return take(concat(parts), np.argsort(np.concatenate(groups)))


@contextmanager
def quietly() -> Iterator[None]:
    """Drop what is written to the process's standard error, by C++ that has no setting for it."""
    with _one_at_a_time:
        sys.stderr.flush()
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
