"""What callers of `Model.predict` have, as the columns that a task takes.

A list of texts, a dict of lists, a data frame, a matrix, rows as dicts, pictures: each becomes
columns by the rules of `batch`, so that a row has the same answer either way. Frames are known by
what they can do (`columns` and `[name]`), so that pandas, polars and Arrow are no needs of ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Task, objects
from mlopsdeploy.core import images
from mlopsdeploy.errors import InputError, RowError

# What Python takes besides (`1_000`, `inf`, digits of other scripts) is somebody's mistake.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_TRUTH = {"true": 1.0, "false": 0.0}
# What stands for a missing number, in any case: as pandas, spreadsheets and C's printf write it.
_MISSING = re.compile(
    r"-?|#?n/?a|#n/a n/a|<na>|null|none|[+-]?nan(\(\w*\))?|-?1\.#(ind|qnan)",
    re.ASCII | re.IGNORECASE,
)
_CASES = (str.lower, str.upper, str.capitalize)
_WORDS = ["NA", "N/A", "#N/A", "<NA>", "nan", "-nan", "null", "none"]
WHOLE = 2**53 - 1
"""Up to this, float64 has every whole number."""
NOT_A_NUMBER = ["", "-", "NaN", *sorted({way(word) for word in _WORDS for way in _CASES})]
"""Those that files have most, for a parser that takes a list; `number_of` knows all."""
_KINDS: Mapping[str, set[type]] = {"str": {str}, "bool": {bool}}
_NUMBERS: set[type] = {int, float}


def read_rows(task: Task, rows: Any, model: str) -> tuple[Columns, Array]:
    """The columns of a task's inputs, and which rows have a value to compute.

    Args:
        task: what is to be fed.
        rows: see `Model.predict`.
        model: its name, for messages.

    Returns:
        The columns, numbers as float64, texts as str; None and NaN where a value is missing.
        Pictures are what the caller had: see `picture`. And bool of shape (rows,): False for a
        blank text, a missing picture, or no value where the input can't be NaN.

    Raises:
        InputError: a column is missing, columns are of different length, a row has another width
            than the model, or a value is not what the input takes (then a `RowError`).
    """
    if isinstance(rows, (str, bytes, PathLike)):
        raise InputError(f"{model}: predict takes a list of rows, not one; for one row: [row]")
    if isinstance(rows, Iterator):
        rows = list(rows)
    columns = _by_name(task, rows, model) or _by_place(task, rows, model)
    made = {one.name: _column(task, one, columns[one.name], model) for one in task.inputs}
    first, count = next((name, len(column)) for name, column in made.items())
    present = np.ones(count, bool)
    for one in task.inputs:
        if len(made[one.name]) != count:
            raise InputError(
                f"{model}: column {first!r} has {count} rows, but {one.name!r} has "
                f"{len(made[one.name])}; give every column as many"
            )
        present &= _has_value(task, one, made[one.name])
    return made, present


def picture(value: Any, place: int) -> Array:
    """A picture's pixels: uint8, (height, width, 3), BGR.

    Args:
        value: the pixels themselves, the path of a file, or a file's content.
        place: the row, for messages.

    Raises:
        RowError: it can't be read, or has another shape.
    """
    try:
        if isinstance(value, (str, PathLike)):
            value = Path(value).read_bytes()
        if isinstance(value, bytes):
            value = images.decode(value)
    except OSError as error:
        why = f"{error.filename}: can't be read ({error.strerror})"
        raise RowError(f"row {place}: {why}", [place]) from error
    except ValueError as error:
        raise RowError(f"row {place}: {error}", [place]) from error
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise RowError(
            f"row {place}: expected a BGR picture, uint8 of shape (height, width, 3), and got "
            f"{pixels.dtype} {pixels.shape}",
            [place],
        )
    return pixels


def missing(outputs: Sequence[Field], rows: int, *, finds_objects: bool = False) -> Columns:
    """Predictions of rows that have none: "" and NaN, 0 for counts, and None of a detector."""
    if finds_objects:
        return {one.name: np.full(rows, None, object) for one in outputs}
    columns: Columns = {}
    for one in outputs:
        if one.dtype == "str":
            columns[one.name] = objects([""] * rows)
        else:
            fill = np.nan if one.dtype.startswith("float") else 0
            shape = (rows, *(max(side, 0) for side in one.shape))
            columns[one.name] = np.full(shape, fill, one.dtype)
    return columns


def exact(rows: Sequence[Any], field: Field) -> Array:
    """Rows of JSON as an array of a field's type: no value is rounded, or taken for another kind.

    Args:
        rows: one value each, or lists nested as the field's shape is; 1 may be written as 1.0.
        field: their type and shape.

    Raises:
        ValueError: rows differ in shape, or have another one than the field.
        TypeError: a value is of another kind.
        OverflowError: a number is larger than the type can hold.
    """
    cells: list[Any] = list(rows)
    array = objects(cells)
    if field.shape:
        try:
            array = np.array(rows)
        except ValueError:
            raise ValueError("rows differ in shape") from None
        if not fits(array.shape[1:], field.shape):
            shape = "x".join("n" if side < 0 else str(side) for side in field.shape)
            raise ValueError(f"each row must be {shape} numbers")
        for _ in field.shape:
            cells = [*chain.from_iterable(cells)]
    kinds = set(map(type, cells))
    if not kinds <= _KINDS.get(field.dtype, _NUMBERS):
        raise TypeError(field.dtype)
    if field.dtype == "str":
        return array.astype(object)
    if field.dtype.startswith("float") and cells:
        limit = float(np.finfo(field.dtype).max)
        small, large = (array.min(), array.max()) if field.shape else (min(cells), max(cells))
        if not -limit <= small <= large <= limit:
            raise OverflowError(field.dtype)
        return array.astype(field.dtype)
    whole = np.array(cells, field.dtype)
    if float in kinds and whole.tolist() != cells:
        raise TypeError(field.dtype)
    return whole.reshape(array.shape)


def size_of(shape: tuple[int, ...]) -> int:
    """How many numbers a row of a shape has; -1 where it may have any."""
    return -1 if any(side < 0 for side in shape) else int(np.prod(shape, dtype=int))


def parts_of_row(
    field: Field, names: Collection[str], features: Sequence[str] = ()
) -> tuple[str, ...]:
    """The columns that hold a number each of a row of several, row by row; empty without such.

    Args:
        field: the input that takes the row.
        names: of the columns that there are.
        features: their names, where somebody lists as many as the row has numbers; else they are
            called `NAME_0`, `NAME_1` and so on.
    """
    size = size_of(field.shape)
    if not field.shape or size < 1:
        return ()
    listed = tuple(features) if len(features) == size else ()
    parts = listed or tuple(f"{field.name}_{place}" for place in range(size))
    return parts if set(parts) <= set(names) else ()


def lacking_row(field: Field, names: Sequence[str], features: Sequence[str] = ()) -> str:
    """What to say where a table has neither lists for an input nor the columns of its parts."""
    size, name = size_of(field.shape), field.name
    if size < 0:
        return (
            f"takes arrays as {name!r}, of shape {shape_words(field.shape)}, which no column holds"
        )
    there = f"; there is {some(names) or 'no column'}"
    if len(features) == size and (missing := [one for one in features if one not in names]):
        return f"lacks {some(missing)} of the {size} features of {name!r}{there}"
    named = [f"{name}_{place}" for place in range(size)]
    if missing := [one for one in named if one not in names]:
        if len(missing) < size:
            return f"lacks {some(missing)} of the {size} columns of {name!r}{there}"
        shape = f" ({shape_words(field.shape)})" if len(field.shape) > 1 else ""
        return (
            f"takes {size} numbers a row{shape} as {name!r}: a column {name!r} of lists, or "
            f"columns {named[0]!r} to {named[-1]!r}{there}"
        )
    return ""


def not_exact(numbers: Array, dtype: str) -> Array:
    """Which of some numbers, float64, a type can't hold as they are, bool; NaN is none of them.

    No whole number from 2**53 on: of these float64 itself has not all.
    """
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.asarray(~np.isnan(numbers) & (numbers != 0) & (numbers != 1))
    if kind.kind not in "iu":
        return np.asarray(np.abs(numbers) > np.finfo(kind).max)
    limits = np.iinfo(kind)
    low, high = max(limits.min, -WHOLE), min(limits.max, WHOLE)
    with np.errstate(invalid="ignore"):
        wrong = (np.rint(numbers) != numbers) | (numbers < low) | (numbers > high)
    return np.asarray(wrong & ~np.isnan(numbers))


def number_words(dtype: str) -> str:
    """What a value has to be, for people: `a whole number from 0 to 255`."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return "true or false"
    if kind.kind not in "iu":
        return f"a number of {dtype}"
    limits = np.iinfo(kind)
    if kind.itemsize > 4:
        return "a whole number below 2**53"
    return f"a whole number from {limits.min:,} to {limits.max:,}"


def fits(shape: tuple[int, ...] | None, wanted: tuple[int, ...]) -> bool:
    """Whether a row's shape is a field's, whose -1 stands for any size; None is uneven."""
    return (
        shape is not None
        and len(shape) == len(wanted)
        and all(side in (-1, got) for side, got in zip(wanted, shape, strict=True))
    )


def some(names: Sequence[str]) -> str:
    """The first six names, and how many there are besides."""
    shown = ", ".join(repr(name) for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


def _by_name(task: Task, rows: Any, model: str) -> Mapping[str, Any] | None:
    """Columns of what has names, by input; None where it has none."""
    wanted = [one.name for one in task.inputs]
    frame = hasattr(rows, "columns") and hasattr(rows, "__getitem__")  # pandas, polars or Arrow
    if isinstance(rows, Mapping):
        names = list(rows)
        for name in set(wanted) & set(names):
            if isinstance(rows[name], (str, bytes)) or not hasattr(rows[name], "__len__"):
                raise InputError(
                    f"{model}: column {name!r} is one value, not a list of them; for one row: "
                    "[{...}]"
                )
    elif frame:
        names = list(getattr(rows, "column_names", rows.columns))  # Arrow's columns are the data
        if twice := next((name for name in wanted if names.count(name) > 1), None):
            raise InputError(f"{model}: column {twice!r} is there twice")
    elif isinstance(rows, (list, tuple)) and rows and isinstance(rows[0], Mapping):
        return _of_dicts(rows, wanted, model)
    else:
        return None
    made = _named(task, rows, names, model)
    lacking = [one for one in task.inputs if one.name not in made]
    if not lacking:
        return made
    if task.matrix and task.matrix.name in names:
        return _by_place(task, rows[task.matrix.name], model)
    if task.inputs == (task.matrix,) and frame:  # features without names
        parts = [_numbers(rows[name], str(name), model) for name in names]
        return {wanted[0]: np.column_stack(parts)}
    raise _lacks(task, lacking, [*map(str, names)], model)


def _named(task: Task, rows: Any, names: Sequence[str], model: str) -> dict[str, Any]:
    """The inputs that columns are called by, or that these are the parts of."""
    made: dict[str, Any] = {}
    for one in task.inputs:
        if one.name in names:
            made[one.name] = rows[one.name]
        elif parts := parts_of_row(one, names, task.features):
            columns = [_numbers(rows[part], part, model) for part in parts]
            made[one.name] = np.stack(columns, axis=1)
    return made


def _lacks(task: Task, lacking: Sequence[Field], names: list[str], model: str) -> InputError:
    if shaped := next((one for one in lacking if one.shape and one.dtype != "str"), None):
        return InputError(f"{model}: {lacking_row(shaped, names, task.features)}")
    return InputError(
        f"{model}: lacks {some([one.name for one in lacking])}, which it needs; there is "
        f"{some(names) or 'no column'}"
    )


def _of_dicts(rows: Sequence[Any], wanted: Sequence[str], model: str) -> Mapping[str, Any]:
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RowError(f"{model}: row {place} is no dict, though others are", [place])
        if lacking := [name for name in wanted if name not in row]:
            raise RowError(
                f"{model}: row {place} lacks {some(lacking)}; there is {some(list(row))}", [place]
            )
    return {name: objects([row[name] for row in rows]) for name in wanted}


def _by_place(task: Task, rows: Any, model: str) -> Mapping[str, Any]:
    """Columns of what has no names: texts, pictures, or numbers in the order of the inputs."""
    if not isinstance(rows, (list, tuple)):
        if not hasattr(rows, "__array__"):
            raise InputError(f"{model}: predict takes rows, not {type(rows).__name__}")
        rows = np.asarray(rows)
    if len(task.inputs) == 1 and (task.data != "table" or task.inputs[0].shape):
        return {task.inputs[0].name: rows}
    names = [one.name for one in task.inputs]
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == len(names):
        return {name: rows[:, place] for place, name in enumerate(names)}
    if len(names) == 1 and not any(_shape(row) for row in rows):
        return {names[0]: rows}
    for place, row in enumerate(rows):
        if (shape := _shape(row)) != (len(names),):
            raise RowError(
                f"{model}: row {place} has {_values(shape)}, but the model takes "
                f"{_values((len(names),))}: {some(names)}",
                [place],
            )
    return {name: objects([row[place] for row in rows]) for place, name in enumerate(names)}


def _column(task: Task, field: Field, values: Any, model: str) -> Array:
    if task.data == "image":
        return _pictures(values, model)
    if field.dtype == "str":
        if field.shape:
            return _words(values, field, model)
        return _texts(values, field.name, model, strict=task.data == "text")
    array = _arrays(values, field, model) if field.shape else _numbers(values, field.name, model)
    if array.dtype != object:
        _check_exact(array, field, model)
    return array


def _check_exact(array: Array, field: Field, model: str) -> None:
    kind = np.dtype(field.dtype)
    if array.dtype == kind or (array.dtype.kind in "iu" and np.can_cast(array.dtype, kind)):
        return
    wrong = not_exact(array, field.dtype)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        value = array[wrong][0]
        raise RowError(
            f"{model}: row {row}, column {field.name!r}: {value:.17g} is not "
            f"{number_words(field.dtype)}",
            [row],
        )


def _arrays(values: Any, field: Field, model: str) -> Array:
    """Rows of several numbers each, float64 of (rows, ...); object where they differ in shape.

    A row may be flat: its numbers row by row.
    """
    size = size_of(field.shape)
    if not isinstance(values, np.ndarray) or values.dtype == object:
        values = list(values)
    shapes = [values.shape[1:]] if isinstance(values, np.ndarray) else [*map(_shape, values)]
    for place, shape in enumerate(shapes):
        if not fits(shape, field.shape) and shape != (size,) and not _is_missing(values[place]):
            raise RowError(
                f"{model}: row {place} has {_values(shape)}, but the model takes "
                f"{_values(field.shape)}",
                [place],
            )
    if isinstance(values, np.ndarray):
        array = _numbers(values, field.name, model, flat=False)
        return array.reshape(-1, *field.shape) if size >= 0 else array
    sides = tuple(max(side, 0) for side in field.shape)
    if size < 0 and len(set(shapes)) == 1 and values:
        sides = shapes[0] or sides
    rows = []
    for place, row in enumerate(values):
        if _is_missing(row):
            rows.append(np.full(sides, np.nan))
            continue
        numbers = _numbers([row], field.name, model, flat=False, first=place)
        rows.append(numbers[0].reshape(sides) if size >= 0 else numbers[0])
    if len({row.shape for row in rows}) > 1:
        return objects(rows)
    return np.stack(rows) if rows else np.zeros((0, *sides))


def _shape(row: Any) -> tuple[int, ...] | None:
    """None where it is uneven."""
    if isinstance(row, str):
        return ()
    try:
        return tuple(np.shape(row))
    except ValueError:
        return None


def shape_words(shape: tuple[int, ...]) -> str:
    """`10×3`, and `n` for a size that varies."""
    return "×".join("n" if side < 0 else str(side) for side in shape)


def _values(shape: tuple[int, ...] | None) -> str:
    if not shape:
        return "one value" if shape == () else "lists of different length"
    return f"{shape[0]} values" if len(shape) == 1 else f"a shape of {shape}"


def _pictures(values: Any, model: str) -> Array:
    if isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] == 3:
        raise InputError(f"{model}: predict takes a list of pictures, not one; for one: [picture]")
    return objects([None if _is_missing(value) else value for value in values])


def _texts(values: Any, name: str, model: str, *, strict: bool) -> Array:
    """Texts, None where there is none; other values as text, unless `strict`."""
    column = values if isinstance(values, (list, tuple)) else np.asarray(values)
    if np.ndim(column) != 1 and not isinstance(column, (list, tuple)):
        raise InputError(f"{model}: {name!r} has a shape of {column.shape}, not one text a row")
    texts: list[str | None] = []
    for place, value in enumerate(column):
        if strict and not isinstance(value, str) and not _is_missing(value):
            kind = type(value).__name__
            raise RowError(f"{model}: row {place} is no text, but {kind}", [place])
        texts.append(None if _is_missing(value) else str(value))
    return objects(texts)


def _words(values: Any, field: Field, model: str) -> Array:
    """Rows of several texts each, str of (rows, ...)."""
    rows = [np.array(row, object) for row in values]
    for place, row in enumerate(rows):
        if not fits(row.shape, field.shape):
            raise RowError(
                f"{model}: row {place} has {_values(row.shape)}, but the model takes "
                f"{_values(field.shape)}",
                [place],
            )
    if len({row.shape for row in rows}) > 1:
        return objects(rows)
    return np.stack(rows) if rows else np.zeros((0, *(max(n, 0) for n in field.shape)), object)


def number_of(value: Any) -> float:
    """A number from its value, or as people write it: `-1.5`, `2e3`; true and false are 1 and 0.

    NaN for what says that there is none: "", `NA`, `null`, `-nan` and the like, in any case.

    Raises:
        ValueError: it is something else, or beyond the range of a float64.
    """
    if isinstance(value, str):
        if _MISSING.fullmatch(value.strip()):
            return np.nan
        if (truth := _TRUTH.get(value.strip().lower())) is not None:
            return truth
        if not _NUMBER.fullmatch(value):
            raise ValueError(value)
    number = float(value)
    if np.isinf(number):
        raise ValueError(value)
    return number


def _numbers(values: Any, name: str, model: str, *, flat: bool = True, first: int = 0) -> Array:
    """Values as float64, NaN where there is none; whole numbers beyond 2**53 as they are.

    `first` is the number of the first row, for messages.
    """
    if isinstance(values, (list, tuple)):
        try:
            array = np.array(values)
        except ValueError:
            array = objects(list(values))
        if array.dtype.kind not in "biuf":  # among texts, NumPy makes texts of numbers
            array = objects(list(values)) if flat else np.array(values, object)
    else:
        array = np.asarray(values)
    if flat and array.ndim != 1:
        raise InputError(f"{model}: {name!r} has a shape of {array.shape}, not one number a row")
    if (
        array.dtype.kind in "iu"
        and array.size
        and not -WHOLE <= array.min() <= array.max() <= WHOLE
    ):
        return array
    if array.dtype.kind in "biuf":
        return array.astype(np.float64, copy=False)
    return _each_number(array, name, model, first)


def _each_number(array: Array, name: str, model: str, first: int) -> Array:
    """As `_numbers`, value by value."""
    made = np.full(array.size, np.nan)
    flattened: list[Any] = array.reshape(-1).tolist()
    for place, value in enumerate(flattened):
        if _is_missing(value):
            continue
        try:
            if array.dtype.kind in "mMc":
                raise TypeError
            made[place] = number_of(value)
        except (TypeError, ValueError):
            row = first + place // max(array.size // len(array), 1)
            shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}…"
            raise RowError(
                f"{model}: row {row}, column {name!r}: {shown!r} is no number", [row]
            ) from None
    return made.reshape(array.shape)


def _has_value(task: Task, field: Field, column: Array) -> Array:
    """Where there is something to compute, bool (rows,)."""
    if task.data == "text":
        return np.array([text is not None and bool(text.strip()) for text in column], bool)
    if task.data == "image":
        return np.array([value is not None for value in column], bool)
    return has_numbers(field, column)


def has_numbers(field: Field, column: Array) -> Array:
    """Where a row lacks no number that the model can't do without, bool (rows,)."""
    if column.dtype == object and field.shape:
        there = [row is not None for row in column]
        if field.dtype.startswith(("float", "str")):
            return np.array(there, bool)
        return np.array([row is not None and not np.isnan(row).any() for row in column], bool)
    if field.dtype.startswith(("float", "str")):  # NaN and None are the model's to deal with
        return np.ones(len(column), bool)
    return np.asarray(~np.isnan(column).any(axis=tuple(range(1, column.ndim))))


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, or what pandas has in their place."""
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")
