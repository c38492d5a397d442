"""Types of columns: from a database to Arrow, and from Arrow to what databases store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from mlopsdeploy.data.sinks import in_words
from mlopsdeploy.errors import InputError

_MYSQL = ("mysql", "mariadb")
_IS_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
_POSTGRESQL = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def types_of_postgresql(description: Any) -> list[pa.DataType]:
    """Those that PostgreSQL says; text for what Arrow has no type for."""
    from psycopg.postgres import types as known

    types = {known[name].oid: type_ for name, type_ in _POSTGRESQL.items()}
    numeric = known["numeric"].oid

    def type_of(column: Any) -> pa.DataType:
        digits = column.precision if column.type_code == numeric else None
        if digits and digits <= 76 and 0 <= column.scale <= 38:
            return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, column.scale)
        return types.get(column.type_code, pa.string())

    return [type_of(column) for column in description]


def text_for_the_rest(connection: sa.Connection) -> None:
    """Have psycopg give JSON, arrays, intervals and their like as PostgreSQL prints them."""
    from psycopg.postgres import types as known
    from psycopg.types.string import TextLoader

    driver: Any = connection.connection.driver_connection
    # The texts among them it reads faster by itself.
    kept = {*_POSTGRESQL, "numeric", "text", "varchar", "bpchar", "name", '"char"'}
    for info in known:
        if info.name not in kept:
            driver.adapters.register_loader(info.oid, TextLoader)
        if info.array_oid:
            driver.adapters.register_loader(info.array_oid, TextLoader)


def types_of_sqlite(connection: sa.Connection, sql: str, names: list[str]) -> list[pa.DataType]:
    """SQLite's columns hold what they are given: the type that fits every value of each."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quote(name)}))" for name in names)
    row = connection.exec_driver_sql(f"SELECT {kinds} FROM ({sql}\n)").one()  # noqa: S608
    fitting = {
        "integer": pa.int64(),
        "real": pa.float64(),
        "integer,real": pa.float64(),
        "blob": pa.binary(),
    }
    found = [",".join(sorted(set((kinds or "").split(",")) - {"null"})) for kinds in row]
    return [fitting.get(kinds, pa.string()) for kinds in found]


def type_of(values: tuple[Any, ...]) -> pa.DataType:
    """The type of a column by its first values; text where they say nothing or differ."""
    try:
        type_ = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    if pa.types.is_decimal(type_):
        return pa.decimal128(38, type_.scale)
    return type_ if pa.types.is_integer(type_) else _storable(type_, decimals=True)


def array_of(values: tuple[Any, ...], type_: pa.DataType, where: str) -> pa.Array:
    """Values of a column as Arrow.

    Raises:
        InputError: one of them is not of that type.
    """
    try:
        return pa.array(values, type_)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        if pa.types.is_string(type_):
            return pa.array([_text(value) for value in values], type_)
        if pa.types.is_decimal(type_):  # PostgreSQL's numeric may be NaN
            finite = [
                value if value is not None and value.is_finite() else None for value in values
            ]
            return pa.array(finite, type_)
        raise InputError(
            f"{where}: a value is no {type_} as those before it; CAST it to one type in the query"
        ) from error


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def storable(schema: pa.Schema, *, decimals: bool = True) -> pa.Schema:
    """The nearest types that databases have: no dictionaries, no nested values, microseconds.

    Without `decimals` (SQLite would make floats of them) they are text.
    """
    types = [(field.name, _storable(field.type, decimals)) for field in schema]
    return pa.schema(types)


def _storable(type_: pa.DataType, decimals: bool) -> pa.DataType:
    is_ = pa.types
    if is_.is_dictionary(type_):
        return _storable(type_.value_type, decimals)
    if is_.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    if is_.is_uint64(type_):
        return _storable(pa.decimal128(20, 0), decimals)
    if is_.is_decimal(type_):
        return type_ if decimals else pa.string()
    nearest = [
        (is_.is_time, pa.time64("us")),
        (is_.is_date, pa.date32()),
        (is_.is_float16, pa.float32()),
        *((is_type, type_) for is_type in (is_.is_integer, is_.is_floating, is_.is_boolean)),
        *((is_type, type_) for is_type in (*_IS_BYTES, is_.is_large_string)),
    ]
    return next((there for is_type, there in nearest if is_type(type_)), pa.string())


def stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with those types."""

    def cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
        if column.type == type_:
            return column
        if pa.types.is_nested(column.type):
            return in_words(column).cast(type_)
        if pa.types.is_interval(column.type):
            return pa.array([_text(value) for value in column.to_pylist()], type_)
        return pc.cast(column, type_, safe=False)  # unsafe: nanoseconds to microseconds

    return pa.record_batch(
        [cast(batch.column(place), field.type) for place, field in enumerate(schema)], schema=schema
    )


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows as Python values.

    Raises:
        InputError: a date is before the year 1 or after 9999, which drivers can't send.
    """
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(column.to_pylist())
        except (OverflowError, ValueError) as error:
            raise InputError(f"column {name!r} can't be stored ({error})") from error
    return zip(*columns, strict=True)


def without_nan(batch: pa.RecordBatch) -> pa.RecordBatch:
    """MySQL and SQLite can't store NaN: NULL takes its place."""
    return _changed(
        batch, pa.types.is_floating, lambda column: pc.if_else(pc.is_nan(column), None, column)
    )


def without_nul(batch: pa.RecordBatch) -> pa.RecordBatch:
    """PostgreSQL can't store the character U+0000 in a text: U+FFFD takes its place."""
    return _changed(
        batch,
        lambda type_: pa.types.is_string(type_) or pa.types.is_large_string(type_),
        lambda column: pc.replace_substring(column, "\0", "\ufffd"),
    )


def _changed(
    batch: pa.RecordBatch,
    is_type: Callable[[pa.DataType], bool],
    change: Callable[[pa.Array], pa.Array],
) -> pa.RecordBatch:
    columns = [change(column) if is_type(column.type) else column for column in batch.columns]
    return pa.record_batch(columns, schema=batch.schema)


def column_type(type_: pa.DataType) -> sa.types.TypeEngine[Any]:
    """What a database stores a (storable) type as."""
    is_ = pa.types
    if is_.is_timestamp(type_):
        timestamp = sa.DateTime(timezone=type_.tz is not None)
        return timestamp.with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    if is_.is_decimal(type_):
        return sa.Numeric(type_.precision, type_.scale)
    # MySQL's own defaults cut off microseconds, and texts at 64 KiB.
    blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)
    simple: list[tuple[Any, sa.types.TypeEngine[Any]]] = [
        (is_.is_boolean, sa.Boolean()),
        (is_.is_integer, sa.BigInteger()),
        (is_.is_float32, sa.REAL()),
        (is_.is_float64, sa.Double()),
        (is_.is_date, sa.Date()),
        (is_.is_time, sa.Time().with_variant(mysql.TIME(fsp=6), *_MYSQL)),
        *((is_type, blob) for is_type in _IS_BYTES),
    ]
    text = sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
    return next((stored_as for is_type, stored_as in simple if is_type(type_)), text)
