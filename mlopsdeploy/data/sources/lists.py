"""Rows of several numbers each, as lists in a column: Arrow's own, or JSON in a text."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array, objects
from mlopsdeploy.core.inputs import fits, not_exact, number_words, shape_words, size_of
from mlopsdeploy.data.sources.values import numbers_in, values_of

Shape = tuple[int, ...]


def lists_in(
    column: pa.ChunkedArray, kind: str, shape: Shape, spelled: str = "auto"
) -> tuple[Array, dict[int, str]]:
    """The lists of a column as one array.

    Args:
        column: lists, nested as the shape is, or flat with the numbers row by row; in a column of
            text they are JSON.
        kind: "str" or a NumPy number type.
        shape: of a row; -1 is a size that varies.
        spelled: how texts write numbers; see `ReadOptions`.

    Returns:
        float64 (of texts str) of (rows, ...), NaN where a row has no list; an object array of each
        row's where rows differ in shape. And why some rows, by their place, have no such list.
    """
    dense = _dense(column, shape)
    reasons: dict[int, str] = {}
    if dense is None:
        found = [_row(value, shape) for value in values_of(column)]
        reasons = {place: row for place, row in enumerate(found) if isinstance(row, str)}
        good = [row for row in found if isinstance(row, np.ndarray)]
        sides = good[0].shape if good else tuple(max(side, 0) for side in shape)
        if len(good) < len(found) and any(side < 0 for side in shape):
            return _with_none(found, kind, spelled, reasons)
        none = np.full(sides, None, object)
        rows = [row if isinstance(row, np.ndarray) else none for row in found]
        if len({row.shape for row in rows}) > 1:
            return _ragged(rows, kind, spelled, reasons)
        dense = _column([*chain.from_iterable(row.flat for row in rows)])
        shape = sides
    array, wrong = _values(dense, kind, spelled)
    array = array.reshape(len(column), *shape)
    for place, reason in wrong.items():
        reasons.setdefault(place // max(size_of(shape), 1), reason)
    return array, reasons


def _dense(column: pa.ChunkedArray, shape: Shape) -> pa.ChunkedArray | None:
    """All numbers, one after the other, where all rows are Arrow's lists of that shape."""
    if size_of(shape) < 1 or not len(column):
        return None
    sides = list(shape)
    depth, innermost = 0, column.type
    while hasattr(innermost, "value_type") and pa.types.is_nested(innermost):
        depth, innermost = depth + 1, innermost.value_type
    if depth == 1:
        sides = [size_of(shape)]
    if depth != len(sides) or pa.types.is_nested(innermost):
        return None
    array = column.combine_chunks()
    for side in sides:
        if isinstance(array, pa.ChunkedArray) or array.null_count:
            return None
        lengths = array.value_lengths().to_numpy(zero_copy_only=False)
        if not (lengths == side).all():
            return None
        array = array.flatten()
    return pa.chunked_array([array])


def _column(values: list[Any]) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowException, OverflowError):  # of several kinds
        texts = [None if value is None else str(value) for value in values]
        return pa.chunked_array([pa.array(texts, pa.large_string())])


def _values(column: pa.ChunkedArray, kind: str, spelled: str) -> tuple[Array, dict[int, str]]:
    if kind == "str":
        texts = [None if value is None else str(value) for value in values_of(column)]
        return objects(texts), {}
    numbers, bad = numbers_in(column, spelled)
    reasons = dict.fromkeys(np.flatnonzero(bad).tolist(), "holds no number in its list")
    inexact = np.flatnonzero(not_exact(numbers, kind) & ~bad).tolist()
    words = f"does not hold {number_words(kind)} in its list"
    return numbers, {**dict.fromkeys(inexact, words), **reasons}


def _row(value: Any, shape: Shape) -> Array | str | None:
    """A row's list, an object array of its shape; or what is wrong with it. None without one."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return "holds no list in JSON"
    if value is None:
        return None
    if not isinstance(value, list):
        return f"holds no list of {shape_words(shape)} numbers"
    there = _shape(value)
    if there is None:
        return "holds lists of different length"
    if fits(there, shape) or there == (size_of(shape),):
        flat = value
        for _ in there[1:]:
            flat = [*chain.from_iterable(flat)]
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(there if -1 in shape else shape)
    return f"holds {shape_words(there)} numbers, not {shape_words(shape)}"


def _shape(value: Any) -> Shape | None:
    """Of nested lists; None where they are uneven."""
    if not isinstance(value, list):
        return ()
    inner = {_shape(one) for one in value}
    if len(inner) > 1 or None in inner:
        return None
    (within,) = inner or {()}
    assert within is not None
    return (len(value), *within)


def _with_none(
    found: list[Array | str | None], kind: str, spelled: str, reasons: dict[int, str]
) -> tuple[Array, dict[int, str]]:
    """Rows of a size that varies, None where there is no list."""
    places = [place for place, row in enumerate(found) if isinstance(row, np.ndarray)]
    wrong: dict[int, str] = {}
    some, wrong = _ragged([found[place] for place in places], kind, spelled, wrong)  # type: ignore[misc]
    column = objects([None] * len(found))
    column[places] = some
    return column, {**{places[row]: reason for row, reason in wrong.items()}, **reasons}


def _ragged(
    rows: list[Array], kind: str, spelled: str, reasons: dict[int, str]
) -> tuple[Array, dict[int, str]]:
    made = []
    for place, row in enumerate(rows):
        values, wrong = _values(_column(list(row.flat)), kind, spelled)
        made.append(values.reshape(row.shape))
        if wrong:
            reasons.setdefault(place, next(iter(wrong.values())))
    return objects(made), reasons
