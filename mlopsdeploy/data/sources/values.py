"""Values of Arrow's columns, as Python has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mlopsdeploy.columns import Array
from mlopsdeploy.core.inputs import number_of
from mlopsdeploy.data.sources.spelling import is_plain, plain


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Python's values, and text where Python has none: a date of the year 20000, nanoseconds.

    Bytes are text where they are UTF-8, as the strings of some writers are, which don't say so.
    """
    values: list[Any]
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [_value_of(value) for value in column]
    if is_bytes(column.type):
        values = [as_text(value) if isinstance(value, bytes) else value for value in values]
    return values


def _value_of(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    if pa.types.is_struct(value.type):
        return {name: _value_of(one) for name, one in value.items()}
    if isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        return [_value_of(one) for one in value.values]
    if pa.types.is_duration(value.type):
        return f"{value.value} {value.type.unit}"
    try:
        return value.cast(pa.string()).as_py()
    except (ValueError, pa.ArrowException):
        return str(value)


def numbers_in(column: pa.ChunkedArray, spelled: str = "auto") -> tuple[Array, Array]:
    """Values as float64, NaN where there is none; and where there was something else."""
    if not is_plain(spelled):
        column = _plain(column, spelled)
    try:
        values = column.cast(pa.float64()).to_numpy()
        return values, np.isinf(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    values = np.full(len(column), np.nan)
    bad = np.zeros(len(column), bool)
    for row, value in enumerate(values_of(column)):
        if value is None:
            continue
        try:
            values[row] = number_of(value)
        except (TypeError, ValueError):
            bad[row] = True
    return values, bad


def _plain(column: pa.ChunkedArray, spelled: str) -> pa.ChunkedArray:
    """A column's texts as plain numbers; what is no text stays as it is."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_bytes(column.type):
        column = pa.chunked_array([values_of(column)], pa.large_string())
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return plain(column, spelled) if is_text else column


def is_bytes(type_: pa.DataType) -> bool:
    """Whether a column's values are bytes."""
    kinds = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
    return any(is_kind(type_) for is_kind in kinds)


def is_utf8(value: bytes) -> bool:
    """Whether bytes are text in UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def as_text(record: bytes) -> str:
    r"""A row as it stands in the file; bytes that are no UTF-8 as `\xe9`."""
    return record.decode("utf-8", "backslashreplace")
