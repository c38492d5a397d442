"""What runtimes have in common: rows that a file's tensors can't hold, and silence."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite, isnan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, concat, objects, rows_of, take
from mlopsdeploy.errors import ModelError, RowError

SET_ASIDE = "a row with one has no answer"
"""Of a runtime that sets aside rows with NaN; else `own_rule`."""

_one_at_a_time = threading.Lock()


def own_rule(what: str = "") -> str:
    """Of a runtime that lets NaN through to a graph which has an answer for it."""
    return f"by the graph's own rule{f' ({what})' if what else ''}"


Size = int | str | None
"""Of an axis: its length, or the name of one that is free, or None for another that is."""


def rows_at_a_time(file: Path, inputs: Mapping[str, Sequence[Size]]) -> int:
    """How many rows a file takes at a time, by the sizes of its inputs' axes; 0: any number.

    Raises:
        ModelError: an input has no axis for rows, or they differ in how many they take.
    """
    for name, sizes in inputs.items():
        if len(sizes) == 1 and isinstance(sizes[0], int) and sizes[0] > 1:
            raise ModelError(
                f"{file}: input {name!r} takes {sizes[0]} numbers and has no axis for rows; export "
                "the model with rows as the first axis of each input"
            )
    found = {sizes[0] for sizes in inputs.values() if sizes and isinstance(sizes[0], int)}
    if len(found) > 1:
        raise ModelError(
            f"{file}: its inputs take {' and '.join(map(str, sorted(found)))} rows; export the "
            "model with rows as the first axis of each input"
        )
    return found.pop() if found else 0


class RowAxis(NamedTuple):
    """What of an output is rows.

    Attributes:
        axis: that of the rows, or None where all of it belongs to the one row that it takes.
        fixed: how long the file says that its first axis is, whatever rows come in; else 0. Given
            as many rows, that axis would pass for them: see `rows_first`.
    """

    axis: int | None = 0
    fixed: int = 0

    def first(self, value: object, rows: int, name: str) -> Array:
        """An output with the rows as its first axis.

        Raises:
            ModelError: it has none of this length.
        """
        array, axis = np.asarray(value), self.axis
        if axis is None:
            return array[None]
        if self.fixed == 1 and array.ndim and array.shape[0] != 1:  # which the file has wrong
            axis = 0
        if array.ndim <= axis or array.shape[axis] != rows:
            raise ModelError(
                f"output {name!r} has the shape {array.shape} for {rows} rows: it can't be told "
                "which of it belongs to which row; export the model with rows as the first axis of "
                "each output"
            )
        return np.moveaxis(array, axis, 0) if axis else array


def row_axis(
    inputs: Iterable[Sequence[Size]], sizes: Sequence[Size]
) -> tuple[RowAxis, tuple[int, ...]]:
    """What of an output is rows, and the shape of one, by the sizes of all inputs' axes and its."""
    inputs = [one for one in inputs if one]
    first = sizes[0] if sizes else None
    firsts = {one[0] for one in inputs}
    fixed, axis = (first if isinstance(first, int) else 0), 0
    if firsts == {1} and sizes and first != 1:
        return RowAxis(None), tuple(size if isinstance(size, int) else -1 for size in sizes)
    if fixed and not any(isinstance(size, int) for size in firsts):
        # What inputs call their rows, or the only axis that can follow them.
        free = [place for place, size in enumerate(sizes) if not isinstance(size, int)]
        named = [place for place in free if sizes[place] and sizes[place] in firsts]
        others = any(not isinstance(size, int) for one in inputs for size in one[1:])
        axis = next(iter(named or (free if len(free) == 1 and not others else ())), 0)
    shape = [size for place, size in enumerate(sizes) if place != axis]
    known = RowAxis(axis, 0 if fixed == 1 and axis == 0 else fixed)
    return known, tuple(size if isinstance(size, int) else -1 for size in shape)


def rows_first(
    run: Callable[[Columns], Sequence[object]],
    tensors: Columns,
    axes: Sequence[tuple[str, RowAxis]],
    at_a_time: int,
) -> Columns:
    """A graph's outputs, each with the rows as its first axis.

    Args:
        run: gives the outputs for some rows, in the order of `axes`.
        tensors: of at least one row.
        axes: each output's name, and what of it is rows.
        at_a_time: how many rows the graph takes at a time; 0: any number.

    Raises:
        ModelError: an output has no axis for the rows.
    """

    def outputs(part: Columns) -> Columns:
        rows = rows_of(part)
        # An axis that is as long whatever comes in mustn't pass for that of the rows.
        hidden = not at_a_time and any(axis.fixed == rows for _, axis in axes)
        if hidden:
            part = {name: np.concatenate([array, array[-1:]]) for name, array in part.items()}
        return {
            name: axis.first(value, rows + hidden, name)[:rows]
            for (name, axis), value in zip(axes, run(part), strict=True)
        }

    if at_a_time and rows_of(tensors) != at_a_time:
        return in_steps(outputs, tensors, at_a_time)
    return outputs(tensors)


def dense(field: Field, array: Array) -> Array:
    """Values as a file's tensor holds them: contiguous and of its dtype.

    Raises:
        RowError: a row has NaN, a fraction or too large a number for a tensor of whole numbers.
    """
    if field.dtype == "str":
        texts = np.ascontiguousarray(array, object)
        if any(text is None for text in texts.flat):  # a missing text is an empty one
            texts = objects([text or "" for text in texts.flat]).reshape(texts.shape)
        return texts
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


def rows_not_finite(tensors: Columns, *, nan: bool = True) -> list[int]:
    """The places of the rows that have NaN, or in one of their features an infinite number.

    Without `nan` only those with an infinite one. Infinite numbers of a mask, which has more axes,
    are meant so.
    """
    found: set[int] = set()
    for array in tensors.values():
        # As above; where it is infinite, a square may be too large.
        if array.dtype.kind == "f" and not isfinite(np.vdot(array, array)):
            if array.ndim < 3:
                found.update(rows_where(~np.isfinite(array) if nan else np.isinf(array)))
            elif nan:
                found.update(rows_where(np.isnan(array)))
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
