"""From a JSON body to the columns that a model takes.

What a row looks like follows from the task's fields: a text, a list of numbers in the model's
order, an object by feature name, or nested lists. One row may stand alone; several stand in a
list. Decoding and checking types is one step, in C (msgspec); what is wrong is worked out only
when something is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Task, objects
from mlopsdeploy.serve.messages import Problem

_EXPECTED = re.compile(r"Expected `.*`, got `(?P<got>\w+)`(?: - at `\$(?P<path>.*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*?)`(?: - at `\$(?P<path>.*)`)?$")
_RANGE = re.compile(
    r"(?:(?:Number|Integer value) out of range|Expected `(?:float|int)` [<>]= \S+)"
    r"(?: - at `\$(?P<path>.*)`)?"
)
_WORDS = {
    "str": "text", "float": "a number", "int": "a whole number", "bool": "true or false",
    "null": "null", "object": "an object", "array": "a list",
}  # fmt: skip


class Instances:
    """The body `{<key>: rows}` of a route.

    Args:
        task: whose inputs the rows are.
        key: the name of the field that holds them.

    Attributes:
        kind: what one row is: "text", "numbers" (a list or an object by name), "values" (the same
            where not all are numbers of one type), or "arrays" (nested lists).
        named: whether a row may also be an object by the fields' names.
    """

    def __init__(self, task: Task, key: str) -> None:
        self.key = key
        self.fields = task.inputs
        self.matrix = task.matrix
        self._names = tuple(field.name for field in self.fields)
        scalars = all(not field.shape for field in self.fields)
        if scalars and len(self.fields) == 1 and self.fields[0].dtype == "str":
            self.kind = "text"
        elif self.matrix is not None:
            self.kind = "numbers"
        else:
            self.kind = "values" if scalars else "arrays"
        self.width = self.matrix.shape[0] if self.matrix else len(self.fields)
        self.named = scalars
        body: Any = msgspec.defstruct("Body", [("rows", self._rows_type())], rename={"rows": key})
        self._decoder = msgspec.json.Decoder(body)

    def decode(self, body: bytes) -> tuple[Columns, bool]:
        """The columns of all rows, and whether it was one row that stood alone.

        Raises:
            Problem: 400 where it is not JSON, 422 where it is not what the model takes.
        """
        try:
            rows = self._decoder.decode(body).rows
        except msgspec.ValidationError as error:
            raise self._explained(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._malformed(body, error) from None
        single = self._is_single(rows)
        if not rows and not single:
            raise Problem(422, "empty", f"{self.key} is empty: send at least one row", self.key)
        if self.kind == "numbers":
            return {self.matrix.name: self._numbers(rows, single)}, single  # type: ignore[union-attr]
        if self.kind == "text":
            return self._texts([rows] if single else rows), single
        if self.kind == "values":
            return self._values([rows] if single else rows, single=single), single
        return self._arrays(rows, single=single), single

    # -- what a row may be

    def _rows_type(self) -> Any:
        row: Any = self._row_struct() if self.named or len(self.fields) > 1 else None
        if self.kind == "text":
            return str | row | list[str | row]
        if self.kind == "arrays":
            return list[Any] if row is None else row | list[row]
        value: Any = _bounded(self.matrix) if self.matrix else _union(self.fields)
        if row is None:
            return list[value | list[value]]
        return row | list[value | list[value] | row]

    def _row_struct(self) -> Any:
        types = [(f"f{place}", self._field_type(field)) for place, field in enumerate(self.fields)]
        names = {f"f{place}": field.name for place, field in enumerate(self.fields)}
        return msgspec.defstruct("Row", types, rename=names)

    def _field_type(self, field: Field) -> Any:
        if field.shape:
            return list[Any]
        return _bounded(field) if self.matrix else _accepted(field)

    def _is_single(self, rows: Any) -> bool:
        if not isinstance(rows, list):
            return True
        if self.kind in ("numbers", "values"):
            return bool(rows) and not isinstance(rows[0], list | msgspec.Struct)
        if self.kind == "arrays" and len(self.fields) == 1 and rows:
            return depth_of(rows) == len(self.fields[0].shape)
        return False

    # -- rows to columns

    def _numbers(self, rows: Any, single: bool) -> Array:
        listed = [rows] if single else rows
        for place, row in enumerate(listed):
            if not isinstance(row, list):
                if not isinstance(row, msgspec.Struct):
                    raise self._mixed(place)
                listed[place] = msgspec.structs.astuple(row)
            elif len(row) != self.width:
                raise self._wrong_length(self.at(place, single=single), len(row))
        assert self.matrix is not None
        try:
            return np.array(listed, self.matrix.dtype)
        except (TypeError, ValueError):  # a list or an object among the numbers
            raise self._not_numbers(listed, single) from None
        except OverflowError:
            detail = f"{self.key} holds a number that is too large for the model"
            raise Problem(422, "out-of-range", detail, self.key) from None

    def _texts(self, rows: Sequence[Any]) -> Columns:
        texts = [row if isinstance(row, str) else row.f0 for row in rows]
        return {self._names[0]: objects(texts)}

    def _values(self, rows: Sequence[Any], *, single: bool) -> Columns:
        listed: list[Any] = []
        for place, row in enumerate(rows):
            if isinstance(row, msgspec.Struct):
                listed.append(msgspec.structs.astuple(row))
            elif not isinstance(row, list):
                raise self._mixed(place)
            elif len(row) != self.width:
                raise self._wrong_length(self.at(place, single=single), len(row))
            else:
                listed.append(row)
        columns = {}
        for position, field in enumerate(self.fields):
            limits = _limits(field)
            for place, row in enumerate(listed):
                value = row[position]
                fits = _fits(value, field)
                if fits and (limits is None or limits[0] <= value <= limits[1]):
                    continue
                where = f"{self.at(place, single=single)}{self._column(row, position)}"
                if fits:
                    detail = f"{where} is too large for the model"
                    raise Problem(422, "out-of-range", detail, where)
                wanted = _WORDS[_json_type(field).__name__]
                raise Problem(422, "wrong-type", f"{where} must be {wanted}", where)
            columns[field.name] = _column([row[position] for row in listed], field)
        return columns

    def _arrays(self, rows: Any, *, single: bool) -> Columns:
        if len(self.fields) == 1 and isinstance(rows, list):
            field, listed = self.fields[0], [rows] if single else rows
            return {field.name: self._array(listed, field, self.key)}
        listed = [rows] if single else rows
        return {
            field.name: self._array(
                [getattr(row, f"f{place}") for row in listed], field, f"{self.key}.{field.name}"
            )
            for place, field in enumerate(self.fields)
        }

    def _array(self, rows: list[Any], field: Field, where: str) -> Array:
        try:
            raw = np.array(rows)
        except ValueError:
            raise Problem(422, "wrong-shape", f"{where}: rows differ in shape", where) from None
        wanted = field.shape
        fits = raw.ndim == len(wanted) + 1 and all(
            size in (-1, found) for size, found in zip(wanted, raw.shape[1:], strict=True)
        )
        if not fits:
            shape = "x".join("n" if size < 0 else str(size) for size in wanted)
            raise Problem(422, "wrong-shape", f"{where}: each row must be {shape} numbers", where)
        limits = _limits(field)
        kinds, words = "b", "true and false"
        if limits:
            whole = isinstance(limits[0], int)
            kinds, words = ("iu", "whole numbers") if whole else ("iuf", "numbers")
        if kinds == "iu" and raw.dtype.kind == "f" and (raw == np.trunc(raw)).all():
            kinds += "f"
        if raw.dtype.kind not in kinds:
            raise Problem(422, "wrong-type", f"{where} must hold {words} only", where)
        if limits and raw.size and not limits[0] <= raw.min() <= raw.max() <= limits[1]:
            raise Problem(422, "out-of-range", f"{where}: a number is too large", where)
        return raw.astype(field.dtype)

    # -- what is wrong

    def at(self, place: int, *, single: bool) -> str:
        """How to point at a row of the body."""
        return self.key if single else f"{self.key}[{place}]"

    def _column(self, row: Any, position: int) -> str:
        """How to point at a feature: by name where the row was an object."""
        by_name = isinstance(row, tuple) and len(self.fields) > 1
        return f".{self._names[position]}" if by_name else f"[{position}]"

    def _wrong_length(self, where: str, got: int) -> Problem:
        detail = f"{where} must have {self.width} values, not {got}"
        return Problem(422, "wrong-length", detail, where)

    def _mixed(self, place: int) -> Problem:
        where = f"{self.key}[{place}]"
        return Problem(422, "wrong-type", f"{where} must be a row as the others are", where)

    def _not_numbers(self, rows: Sequence[Any], single: bool) -> Problem:
        where = next(
            f"{self.at(place, single=single)}[{position}]"
            for place, row in enumerate(rows)
            for position, value in enumerate(row)
            if not isinstance(value, int | float)
        )
        return Problem(422, "wrong-type", f"{where} must be a number", where)

    def _explained(self, message: str) -> Problem:
        if found := _MISSING.match(message):
            where = self._readable(found["path"], found["name"])
            return Problem(422, "missing", f"{where} is missing", where)
        if found := _RANGE.match(message):
            where = self._readable(found["path"])
            return Problem(422, "out-of-range", f"{where} is too large for the model", where)
        found = _EXPECTED.match(message)
        got = _WORDS.get(found["got"], found["got"]) if found else "something else"
        path = (found["path"] if found else "") or ""
        where = self._readable(path)
        if not where:
            return Problem(422, "wrong-type", f"the body must be an object, not {got}")
        return Problem(422, "wrong-type", f"{where} must be {self._wanted(path)}, not {got}", where)

    def _wanted(self, path: str) -> str:
        """What is expected at a place, in words."""
        inner = path.count("[") + path.count(".") - 1
        if self.kind == "text":
            return "text" if inner else "text or a list of texts"
        if inner == 0:
            objects_ = " or an object by feature name" if self.named else ""
            return f"a list of {self.width} values{objects_}" if self.kind != "arrays" else "a list"
        field = self.matrix or next((f for f in self.fields if path.endswith(f".{f.name}")), None)
        return _WORDS[_json_type(field).__name__] if field else "a value of the feature's type"

    def _readable(self, path: str | None, name: str = "") -> str:
        """`.rows[3].f2` as msgspec has it, with the caller's names."""
        whole = (path or "") + (f".{name}" if name else "")
        return whole.removeprefix(".")

    def _malformed(self, body: bytes, error: Exception) -> Problem:
        if isinstance(error, RecursionError):
            return Problem(400, "not-json", "the body is nested too deeply")
        if not body.strip():
            return Problem(400, "not-json", "the body is empty: send a JSON object")
        if re.search(rb"[\[:,]\s*-?(NaN|Infinity)", body):
            return Problem(
                400,
                "not-json",
                f"{self.key} holds NaN or Infinity, which JSON does not have: send numbers",
                self.key,
            )
        if "truncated" in str(error):
            return Problem(400, "not-json", "the body is not JSON: it is cut off")
        place = re.search(r"\(byte (\d+)\)", str(error))
        at = f" (at byte {place[1]})" if place else ""
        return Problem(400, "not-json", f"the body is not JSON{at}")


def _json_type(field: Field) -> type:
    kind = "U" if field.dtype == "str" else np.dtype(field.dtype).kind
    return {"f": float, "i": int, "u": int, "b": bool}.get(kind, str)


def _bounded(field: Field) -> Any:
    """A number that the field's type can hold; JSON has no infinity, but 1e39 in float32 is one."""
    kind = _json_type(field)
    limits = _limits(field)
    if limits is None or field.dtype in ("int64", "uint64"):  # more than msgspec's bounds can say
        return kind
    return Annotated[kind, msgspec.Meta(ge=limits[0], le=limits[1])]


def _limits(field: Field) -> tuple[Any, Any] | None:
    """The smallest and the largest number of the field's type; None where it holds no numbers."""
    kind = _json_type(field)
    if kind not in (int, float):
        return None
    limits = np.finfo(field.dtype) if kind is float else np.iinfo(field.dtype)
    return kind(limits.min), kind(limits.max)


def _accepted(field: Field) -> Any:
    """What JSON may have for it: to JSON Schema, and to many a client, 1.0 is a whole number."""
    kind = _json_type(field)
    return int | float if kind is int else kind


def _union(fields: Sequence[Field]) -> Any:
    union: Any = None
    for kind in {_accepted(field) for field in fields}:
        union = kind if union is None else union | kind
    return union


def _fits(value: object, field: Field) -> bool:
    wanted = _json_type(field)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    whole = wanted is int and isinstance(value, float) and value.is_integer()
    return whole or type(value) is wanted


def _column(values: list[Any], field: Field) -> Array:
    return objects(values) if field.dtype == "str" else np.array(values, field.dtype)


def depth_of(value: object) -> int:
    """How deeply lists are nested, looking at the first item of each."""
    depth = 0
    while isinstance(value, list) and value:
        depth, value = depth + 1, value[0]
    return depth
