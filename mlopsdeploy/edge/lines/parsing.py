"""From lines to the columns that a model takes.

A message says which value is wrong and never what it is: lines may be private.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, objects, take
from mlopsdeploy.core.inputs import exact, number_of
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError

_KINDS = {"str": "texts", "bool": "true and false"}


@dataclass
class Parsed:
    """Lines, read.

    Attributes:
        columns: of the rows that the model is to score.
        rows: which lines these are.
        problems: why others are not, by line.
        headers: lines that name the columns of those that follow.
        apart: whether columns have an array of one row for each row.

    Lines in none of these are empty.
    """

    columns: Columns = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    headers: list[int] = field(default_factory=list)
    apart: bool = False

    def batches(self) -> Iterator[tuple[Columns, list[int]]]:
        """Rows that can be computed together, as columns, and which lines these are.

        Arrays that differ in shape can't.
        """
        if not self.apart:
            yield self.columns, self.rows
            return
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place in range(len(self.rows)):
            shapes = tuple(column[place].shape for column in self.columns.values())
            groups.setdefault(shapes, []).append(place)
        for places in groups.values():
            columns = {
                name: np.concatenate([column[place] for place in places])
                for name, column in self.columns.items()
            }
            yield columns, [self.rows[place] for place in places]


Parser = Callable[[Sequence[str | None]], Parsed]
"""Makes rows of lines; None stands for one that is known to be wrong. May remember a header."""


def parser_for(model: Model) -> Parser:
    """What reads the lines of a model.

    Raises:
        ConfigError: it takes pictures.
    """
    fields = model.task.inputs
    matrix = model.task.matrix
    if model.task.data == "image":
        raise ConfigError(f"--model {model.name}: takes pictures: name --camera")
    if matrix is None and any(one.shape for one in fields):
        return Arrays(fields)
    if len(fields) == 1 and fields[0].dtype == "str":
        return Texts(fields[0].name)
    return Rows(fields, matrix, model.task.features)


@dataclass
class Texts:
    """A line is a text."""

    name: str

    def __call__(self, lines: Sequence[str | None]) -> Parsed:
        """All lines with something in them."""
        rows = [place for place, line in enumerate(lines) if line and not line.isspace()]
        texts = [lines[place] for place in rows]
        return Parsed({self.name: objects(texts)}, rows)


class Arrays:
    """A line is a JSON list, nested as the one input is, or an object of lists by input name.

    Where the one input is a list of numbers, a line may also be CSV.

    Args:
        fields: the inputs. Of a size that is free, lines differ; see `Parsed.batches`.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        first = fields[0]
        self._flat = len(fields) == 1 and len(first.shape) == 1 and first.dtype != "str"

    def __call__(self, lines: Sequence[str | None]) -> Parsed:
        """All rows among the lines."""
        parsed = Parsed(apart=True)
        made: list[list[Array]] = []
        for place, line in enumerate(lines):
            if not line or line.isspace():
                continue
            try:
                made.append(self._row(line))
            except ValueError as error:
                parsed.problems[place] = str(error)
            else:
                parsed.rows.append(place)
        for one, column in zip(self._fields, zip(*made, strict=True), strict=False):
            parsed.columns[one.name] = objects(list(column))
        return parsed

    def _row(self, line: str) -> list[Array]:
        values = self._values(line)
        if isinstance(values, dict):
            if lacking := [one.name for one in self._fields if one.name not in values]:
                raise ValueError(f"lacks {lacking[0]!r}")
            return [_array(values[one.name], one, repr(one.name)) for one in self._fields]
        if len(self._fields) > 1:
            names = ", ".join(one.name for one in self._fields)
            raise ValueError(f"is not a JSON object with {names}")
        return [_array(values, self._fields[0], "")]

    def _values(self, line: str) -> Any:
        if self._flat and line.lstrip()[:1] not in ("[", "{"):
            try:
                return [number_of(cell) for cell in _cells(line)]
            except ValueError:  # which would repeat the value
                raise ValueError("must hold numbers only") from None
        return _from_json(line)


def _array(value: Any, field: Field, name: str) -> Array:
    """A value of JSON as the input's array of one row."""
    name = f"{name} " if name else ""
    try:
        return exact([value], field)
    except ValueError as error:
        raise ValueError(f"{name}does not fit: {error}") from None
    except TypeError:
        raise ValueError(f"{name}must hold {_KINDS.get(field.dtype, 'numbers')} only") from None
    except OverflowError:
        raise ValueError(f"{name}has a number that is too large for the model") from None


def _from_json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


class Rows:
    """A line is a row: CSV in the model's order or in a header's, or a JSON list or object.

    What is between values may be a comma, a semicolon, a tab or blanks. A header is any line that
    names all of the model's features, so a device that starts again may send it again; columns
    that the model does not know are left out.

    Args:
        fields: a column each.
        matrix: the same as one array, where all are numbers of one type.
    """

    def __init__(
        self, fields: Sequence[Field], matrix: Field | None, features: Sequence[str] = ()
    ) -> None:
        self._matrix = matrix
        named = all(not one.shape for one in fields)
        self._names = tuple(one.name for one in fields) if named else tuple(features)
        dtypes = [one.dtype for one in fields] if named else [fields[0].dtype] * matrix.shape[0]  # type: ignore[union-attr]
        self._width = len(dtypes)
        self._fields = fields
        self._read: list[Callable[[Any], Any]] = [_reader(dtype) for dtype in dtypes]
        self._plain = all(dtype.startswith("float") for dtype in dtypes)
        self._order: list[int] | None = None
        self._columns = self._width

    def __call__(self, lines: Sequence[str | None]) -> Parsed:
        """All rows among the lines."""
        parsed, values = Parsed(), []
        for place, line in enumerate(lines):
            if not line or line.isspace():
                continue
            try:
                row = self._row(line)
            except ValueError as error:
                parsed.problems[place] = str(error)
                continue
            if row is None:
                parsed.headers.append(place)
            else:
                values.append(row)
                parsed.rows.append(place)
        self._fill(parsed, values)
        return parsed

    def _row(self, line: str) -> list[Any] | None:
        """Values in the model's order; None for a header."""
        start = line.lstrip()[:1]
        if start in ("[", "{"):
            return self._checked(self._json(line))
        cells = _cells(line)
        if len(cells) == self._columns and self._plain:
            try:
                return list(map(float, self._ordered(cells)))
            except ValueError:
                pass  # a header, something missing, or something wrong
        if self._is_header(cells):
            return None
        if len(cells) != self._columns:
            wanted = "the header has" if self._order else "the model takes"
            raise ValueError(f"has {_values(len(cells))}, {wanted} {self._columns}")
        return self._checked(self._ordered(cells))

    def _ordered(self, cells: list[str]) -> list[str]:
        return cells if self._order is None else [cells[place] for place in self._order]

    def _is_header(self, cells: list[str]) -> bool:
        names = [cell.strip() for cell in cells]
        if not self._names or not set(self._names) <= set(names):
            return False
        self._order = [names.index(name) for name in self._names]
        self._columns = len(names)
        return True

    def _json(self, line: str) -> list[Any]:
        values = _from_json(line)
        if isinstance(values, dict) and isinstance(values.get(self._fields[0].name), list):
            values = values[self._fields[0].name]  # the one input, by its name
        if isinstance(values, dict):
            if not self._names:
                raise ValueError("names values, but the model has no names")
            for name in self._names:
                if name not in values:
                    raise ValueError(f"lacks {name!r}")
            return [values[name] for name in self._names]
        if len(values) != self._width:
            raise ValueError(f"has {_values(len(values))}, the model takes {self._width}")
        return list(values)

    def _checked(self, values: list[Any]) -> list[Any]:
        row = []
        for place, value in enumerate(values):
            try:
                row.append(self._read[place](value))
            except ValueError as error:
                name = repr(self._names[place]) if self._names else f"value {place + 1}"
                raise ValueError(f"{name} {error}") from None
        return row

    def _fill(self, parsed: Parsed, values: list[list[Any]]) -> None:
        """The columns, without rows whose numbers the model's type can't hold."""
        if not values:
            return
        if self._matrix is None:
            columns = zip(*values, strict=True)
            for one, column in zip(self._fields, columns, strict=True):
                array = objects(list(column)) if one.dtype == "str" else _cast(column, one.dtype)
                parsed.columns[one.name] = array
        else:
            parsed.columns[self._matrix.name] = _cast(values, self._matrix.dtype)
        large = np.zeros(len(values), bool)
        for array in parsed.columns.values():
            if array.dtype.kind == "f":
                large |= np.isinf(array.reshape(len(values), -1)).any(axis=1)
        if large.any():
            for row in np.flatnonzero(large).tolist():
                parsed.problems[parsed.rows[row]] = "has a number that is too large for the model"
            kept = np.flatnonzero(~large)
            parsed.rows = [parsed.rows[row] for row in kept.tolist()]
            parsed.columns = take(parsed.columns, kept)


def _cells(line: str) -> list[str]:
    for delimiter in (";", "\t", ","):
        if delimiter in line:
            if '"' not in line:
                return line.split(delimiter)
            return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    return line.split()


def _cast(values: Any, dtype: str) -> Any:
    with np.errstate(over="ignore"):  # infinite, which is looked at
        return np.array(values, dtype)


def _reader(dtype: str) -> Callable[[Any], Any]:
    if dtype == "str":
        return _text
    if dtype.startswith("float"):
        return _number
    kind = np.dtype(dtype)
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)

    def whole(value: Any) -> int:
        number = _number(value)
        if math.isnan(number):  # the type has no way to say "missing"
            raise ValueError("is missing")
        if not number.is_integer():
            raise ValueError("is not a whole number")
        digits = isinstance(value, str) and value.strip().lstrip("+-").isdecimal()
        # A float rounds what is beyond 2**53.
        exact = int(value) if digits or isinstance(value, int) else int(number)
        if not low <= exact <= high:
            raise ValueError("is too large for the model")
        return int(exact)

    return whole


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return number_of(value)
    except (ValueError, OverflowError):  # which would repeat the value
        pass
    raise ValueError("is not a number")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
