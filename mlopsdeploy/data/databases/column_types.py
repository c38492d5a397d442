"""Types of columns: from a database to Arrow, and from Arrow to what databases store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from mlopsdeploy.errors import InputError

_MYSQL = ("mysql", "mariadb")


def types_of_postgresql(description: Any) -> list[pa.DataType]:
    """Those that PostgreSQL says; text for what Arrow has no type for."""
    types = _postgresql_types()

    def type_of(column: Any) -> pa.DataType:
        if column.type_code in types:
            return types[column.type_code]
        if column.type_code == _numeric() and column.precision and 0 <= column.scale <= 38:
            wide = pa.decimal128 if column.precision <= 38 else pa.decimal256
            return wide(column.precision, column.scale) if column.precision <= 76 else pa.string()
        return pa.string()

    return [type_of(column) for column in description]


def _postgresql_types() -> dict[int, pa.DataType]:
    import psycopg

    return {
        psycopg.postgres.types[name].oid: type_
        for name, type_ in {
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
        }.items()
    }


def _numeric() -> int:
    import psycopg

    return psycopg.postgres.types["numeric"].oid


def text_for_the_rest(connection: sa.Connection) -> None:
    """Have psycopg give JSON, arrays, intervals and their like as PostgreSQL prints them."""
    import psycopg
    from psycopg.types.string import TextLoader

    driver: Any = connection.connection.driver_connection
    kept = {*_postgresql_types(), _numeric()}
    texts = {"text", "varchar", "bpchar", "name", '"char"'}  # which it reads faster by itself
    for info in psycopg.postgres.types:
        if info.oid not in kept and info.name not in texts:
            driver.adapters.register_loader(info.oid, TextLoader)
        if info.array_oid:
            driver.adapters.register_loader(info.array_oid, TextLoader)


def types_of_sqlite(connection: sa.Connection, sql: str, names: list[str]) -> list[pa.DataType]:
    """SQLite's columns hold what they are given: the type that fits every value of each."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quote(name)}))" for name in names)
    row = connection.exec_driver_sql(f"SELECT {kinds} FROM ({sql}\n)").one()  # noqa: S608
    types = []
    for found in row:
        there = set((found or "null").split(",")) - {"null"}
        if there == {"integer"}:
            types.append(pa.int64())
        elif there in ({"real"}, {"real", "integer"}):
            types.append(pa.float64())
        else:
            types.append(pa.binary() if there == {"blob"} else pa.string())
    return types


def type_of(values: tuple[Any, ...]) -> pa.DataType:
    """The type of a column by its first values; text where they say nothing or differ."""
    try:
        type_ = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    if pa.types.is_decimal(type_):
        return pa.decimal128(38, type_.scale)
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_binary,
             pa.types.is_date, pa.types.is_time)  # fmt: skip
    return type_ if any(is_type(type_) for is_type in plain) else pa.string()


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

    def plain(type_: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(type_):
            return plain(type_.value_type)
        if pa.types.is_timestamp(type_):
            return pa.timestamp("us", "UTC" if type_.tz else None)
        if pa.types.is_time(type_):
            return pa.time64("us")
        if pa.types.is_date(type_):
            return pa.date32()
        if pa.types.is_uint64(type_):
            return plain(pa.decimal128(20, 0))
        if pa.types.is_decimal(type_):
            return type_ if decimals else pa.string()
        if pa.types.is_float16(type_):
            return pa.float32()
        kept = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean,
                pa.types.is_large_binary, pa.types.is_binary, pa.types.is_fixed_size_binary,
                pa.types.is_large_string)  # fmt: skip
        return type_ if any(is_type(type_) for is_type in kept) else pa.string()

    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with those types."""

    def cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
        if column.type == type_:
            return column
        if pa.types.is_nested(column.type) or pa.types.is_interval(column.type):
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
    for place, field in enumerate(batch.schema):
        if pa.types.is_floating(field.type):
            column = batch.column(place)
            batch = batch.set_column(place, field, pc.if_else(pc.is_nan(column), None, column))
    return batch


def without_nul(batch: pa.RecordBatch) -> pa.RecordBatch:
    """PostgreSQL can't store the character U+0000 in a text: U+FFFD takes its place."""
    for place, field in enumerate(batch.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = pc.replace_substring(batch.column(place), "\0", "\ufffd")
            batch = batch.set_column(place, field, column)
    return batch


def column_type(type_: pa.DataType) -> sa.types.TypeEngine[Any]:
    """What a database stores a (storable) type as."""
    is_ = pa.types
    simple: list[tuple[Any, sa.types.TypeEngine[Any]]] = [
        (is_.is_boolean, sa.Boolean()),
        (is_.is_integer, sa.BigInteger()),
        (is_.is_float32, sa.REAL()),
        (is_.is_float64, sa.Double()),
        (is_.is_date, sa.Date()),
        # MySQL's own defaults cut off microseconds, and texts at 64 KiB.
        (is_.is_time, sa.Time().with_variant(mysql.TIME(fsp=6), *_MYSQL)),
        (is_.is_binary, sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)),
        (is_.is_large_binary, sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)),
        (is_.is_fixed_size_binary, sa.LargeBinary().with_variant(mysql.LONGBLOB(), *_MYSQL)),
    ]
    for is_type, stored_as in simple:
        if is_type(type_):
            return stored_as
    if is_.is_timestamp(type_):
        timestamp = sa.DateTime(timezone=type_.tz is not None)
        return timestamp.with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    if is_.is_decimal(type_):
        return sa.Numeric(type_.precision, type_.scale)
    return sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL)
