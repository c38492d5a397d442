"""From a JSON body to the columns that a model takes.

What a row looks like follows from the task's fields: a text, a list of numbers in the model's
order, an object by feature name, or nested lists. One row may stand alone; several stand in a
list. Decoding and checking types is one step, in C (msgspec); what is wrong is worked out only
when something is.
"""

from __future__ import annotations

import functools
import operator
import re
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import msgspec
import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Task, objects
from mlopsdeploy.core.inputs import exact
from mlopsdeploy.serve.messages import NOT_JSON, Problem, explained, misfit, too_many
from mlopsdeploy.settings import MAX_ROWS

_LARGE = 1 << 18  # bytes of a body; such ones are parsed one at a time
_parsing = threading.Lock()
_misfit = functools.partial(misfit, 422)
_WORDS = {
    "str": "text", "float": "a number", "int": "a whole number", "bool": "true or false",
    "null": "null", "object": "an object", "array": "a list",
}  # fmt: skip
_MANY = {"str": "texts", "float": "numbers", "int": "whole numbers", "bool": "true and false"}


class Instances:
    """The body `{<key>: rows}` of a route.

    Args:
        task: whose inputs the rows are.
        key: the name of the field that holds them.
        max_rows: the most of them.

    Attributes:
        kind: what one row is: "text", "numbers" (a list or an object by name), "values" (the same
            where not all are numbers of one type), or "arrays" (nested lists).
        named: whether each field is one value, so that a row may also be a list of them.
        by_name: whether a row may be an object by the fields' names.
    """

    def __init__(self, task: Task, key: str, max_rows: int = MAX_ROWS) -> None:
        self.key = key
        self.max_rows = max_rows
        self.fields = task.inputs
        self.matrix = task.matrix
        self.named = all(not field.shape for field in self.fields)
        if self.named and len(self.fields) == 1 and self.fields[0].dtype == "str":
            self.kind = "text"
        elif self.matrix is not None:
            self.kind = "numbers"
        else:
            self.kind = "values" if self.named else "arrays"
        self._whole = self.matrix is not None and self.fields == (self.matrix,)
        self.by_name = self.named or self._whole or self.kind == "arrays"
        self.width = self.matrix.shape[0] if self.matrix else len(self.fields)
        body: Any = msgspec.defstruct("Body", [("rows", self._rows_type())], rename={"rows": key})
        self._decoder = msgspec.json.Decoder(body)

    def decode(self, body: bytes) -> tuple[Columns, bool]:
        """The columns of all rows, and whether it was one row that stood alone.

        Raises:
            Problem: 400 where it is not JSON, 413 where these are too many rows, 422 where it is
                not what the model takes.
        """
        with one_at_a_time(body):
            return self._decode(body)

    def _decode(self, body: bytes) -> tuple[Columns, bool]:
        try:
            rows = self._decoder.decode(body).rows
        except msgspec.ValidationError as error:
            raise self._explained(error) from None
        except NOT_JSON as error:
            raise self._malformed(body, error) from None
        single = self._is_single(rows)
        if not rows and not single:
            raise _misfit("empty", self.key, " is empty: send at least one row")
        listed = [rows] if single else rows
        if len(listed) > self.max_rows:
            raise too_many(self.key, self.max_rows)
        if self.kind == "numbers":
            return {self.matrix.name: self._numbers(listed, single)}, single  # type: ignore[union-attr]
        if self.kind == "text":
            texts = [row if isinstance(row, str) else row.f0 for row in listed]
            return {self.fields[0].name: objects(texts)}, single
        return (self._values if self.kind == "values" else self._arrays)(listed, single), single

    # -- what a row may be

    def _rows_type(self) -> Any:
        row: Any = self._row_struct() if self.by_name else None
        if self.kind == "text":
            return str | row | list[str | row]
        if self.kind == "arrays":
            return row | (list[Any] if len(self.fields) == 1 else list[row])
        values = map(_accepted, self.fields)
        value: Any = (
            _bounded(self.matrix) if self.matrix else functools.reduce(operator.or_, values)
        )
        if row is None:
            return list[value | list[value]]
        return row | list[value | list[value] | row]

    def _row_struct(self) -> Any:
        names = {f"f{place}": field.name for place, field in enumerate(self.fields)}
        types = [*zip(names, map(self._field_type, self.fields), strict=True)]
        return msgspec.defstruct("Row", types, rename=names)

    def _field_type(self, field: Field) -> Any:
        if field.shape:
            return list[_bounded(field)] if self._whole else list[Any]  # type: ignore[misc]
        return _bounded(field) if self.matrix else _accepted(field)

    def _is_single(self, rows: Any) -> bool:
        if not isinstance(rows, list):
            return True
        if self.kind in ("numbers", "values"):
            return bool(rows) and not isinstance(rows[0], list | msgspec.Struct)
        if self.kind == "arrays" and len(self.fields) == 1 and rows:
            named = isinstance(rows[0], dict)
            return not named and depth_of(rows) == len(self.fields[0].shape)
        return False

    # -- rows to columns

    def _in_order(self, rows: list[Any], single: bool) -> list[Any]:
        """Rows as lists in the order of the fields."""
        for place, row in enumerate(rows):
            if not isinstance(row, list):
                if not isinstance(row, msgspec.Struct):
                    raise misfit(
                        422, "wrong-type", self.at(place), " must be a row as the others are"
                    )
                values = msgspec.structs.astuple(row)
                rows[place] = values[0] if self._whole else values
            if len(rows[place]) != self.width:
                detail = f" must have {self.width} values, not {len(rows[place])}"
                raise _misfit("wrong-length", self.at(place, single=single), detail)
        return rows

    def _numbers(self, rows: list[Any], single: bool) -> Array:
        assert self.matrix is not None
        try:
            return np.array(self._in_order(rows, single), self.matrix.dtype)
        except (TypeError, ValueError):  # a list or an object among the numbers
            where = next(
                f"{self.at(place, single=single)}[{position}]"
                for place, row in enumerate(rows)
                for position, value in enumerate(row)
                if not isinstance(value, int | float)
            )
            raise _misfit("wrong-type", where, " must be a number") from None
        except OverflowError:
            detail = f"{self.key} holds a number that is too large for the model"
            raise Problem(422, "out-of-range", detail, self.key) from None

    def _values(self, rows: list[Any], single: bool) -> Columns:
        columns = {}
        rows = self._in_order(rows, single)
        for position, field in enumerate(self.fields):
            try:
                columns[field.name] = exact([row[position] for row in rows], field)
            except (TypeError, ValueError, OverflowError):
                raise self._wrong_value(rows, position, single) from None
        return columns

    def _wrong_value(self, rows: list[Any], position: int, single: bool) -> Problem:
        """The first row whose value at a position is not of its field's type."""
        field = self.fields[position]
        for place, row in enumerate(rows):
            by_name = isinstance(row, tuple) and len(self.fields) > 1
            column = f".{field.name}" if by_name else f"[{position}]"
            where = self.at(place, single=single) + column
            try:
                exact([row[position]], field)
            except OverflowError:
                return _misfit("out-of-range", where, " is too large for the model")
            except (TypeError, ValueError):
                wanted = _WORDS[_json_type(field).__name__]
                return _misfit("wrong-type", where, f" must be {wanted}")
        raise AssertionError("each value alone is as all of them are")

    def _arrays(self, rows: list[Any], single: bool) -> Columns:
        if len(self.fields) > 1:
            return {
                field.name: self._array(
                    [getattr(row, f"f{place}") for row in rows], field, f"{self.key}.{field.name}"
                )
                for place, field in enumerate(self.fields)
            }
        (field,) = self.fields
        if isinstance(rows[0], msgspec.Struct):
            alone = [*msgspec.structs.astuple(rows[0])]
            return {field.name: self._array(alone, field, f"{self.key}.{field.name}")}
        for place, row in enumerate(rows):
            if isinstance(row, dict) and self.by_name:
                if field.name not in row:
                    where = f"{self.at(place, single=single)}.{field.name}"
                    raise _misfit("missing", where, " is missing")
                rows[place] = row[field.name]
        return {field.name: self._array(rows, field, self.key)}

    def _array(self, rows: list[Any], field: Field, where: str) -> Array:
        try:
            return exact(rows, field)
        except ValueError as error:
            raise _misfit("wrong-shape", where, f": {error}") from None
        except TypeError:
            words = _MANY[_json_type(field).__name__]
            raise _misfit("wrong-type", where, f" must hold {words} only") from None
        except OverflowError:
            raise _misfit("out-of-range", where, ": a number is too large") from None

    # -- what is wrong

    def at(self, place: int, *, single: bool = False) -> str:
        """How to point at a row of the body."""
        return self.key if single else f"{self.key}[{place}]"

    def _explained(self, error: msgspec.ValidationError) -> Problem:
        message, where = explained(error)
        if message.startswith("Object missing"):
            return _misfit("missing", where, " is missing")
        if "out of range" in message or re.match("Expected `(float|int)` [<>]=", message):
            return _misfit("out-of-range", where, " is too large for the model")
        found = message.rpartition("got `")[2].rstrip("`")
        got = _WORDS.get(found, found)
        if not where:
            return Problem(422, "wrong-type", f"the body must be an object, not {got}")
        return _misfit("wrong-type", where, f" must be {self._wanted(where)}, not {got}")

    def _wanted(self, where: str) -> str:
        """What is expected at a place, in words."""
        within = "[" in where or "." in where
        if self.kind == "text":
            return "text" if within else "text or a list of texts"
        if not within:
            by_name = " or an object by feature name" if self.named else ""
            if self.kind == "arrays":
                lists = "a list or " if len(self.fields) == 1 else ""
                return f"{lists}an object by input name"
            return f"a list of {self.width} values{by_name}"
        field = self.matrix or next((f for f in self.fields if where.endswith(f".{f.name}")), None)
        return _WORDS[_json_type(field).__name__] if field else "a value of the feature's type"

    def _malformed(self, body: bytes, error: Exception) -> Problem:
        if re.search(rb"[\[:,]\s*-?(NaN|Infinity)", body) and not isinstance(error, RecursionError):
            detail = " holds NaN or Infinity, which JSON does not have: send numbers"
            return misfit(400, "not-json", self.key, detail)
        if isinstance(error, RecursionError):
            detail = "the body is nested too deeply"
        elif not body.strip():
            detail = "the body is empty: send a JSON object"
        elif "truncated" in str(error):
            detail = "the body is not JSON: it is cut off"
        else:
            place = re.search(r"\(byte (\d+)\)", str(error))
            detail = "the body is not JSON" + (f" (at byte {place[1]})" if place else "")
        return Problem(400, "not-json", detail)


def one_at_a_time(body: bytes) -> AbstractContextManager[Any]:
    """What to parse a body within: of large ones no two take their many times the memory."""
    return _parsing if len(body) > _LARGE else nullcontext()


def _json_type(field: Field) -> type:
    kind = "U" if field.dtype == "str" else np.dtype(field.dtype).kind
    return {"f": float, "i": int, "u": int, "b": bool}.get(kind, str)


def _bounded(field: Field) -> Any:
    """A number that the field's type can hold; JSON has no infinity, but 1e39 in float32 is one."""
    kind = _json_type(field)
    if kind not in (int, float) or field.dtype in ("int64", "uint64"):  # beyond msgspec's bounds
        return kind
    limits = np.finfo(field.dtype) if kind is float else np.iinfo(field.dtype)
    return Annotated[kind, msgspec.Meta(ge=kind(limits.min), le=kind(limits.max))]


def _accepted(field: Field) -> Any:
    """What JSON may have for it: to JSON Schema, and to many a client, 1.0 is a whole number."""
    kind = _json_type(field)
    return int | float if kind is int else kind


def depth_of(value: object) -> int:
    """How deeply lists are nested, looking at the first item of each."""
    depth = 0
    while isinstance(value, list) and value:
        depth, value = depth + 1, value[0]
    return depth
