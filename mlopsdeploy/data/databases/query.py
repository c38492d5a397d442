"""Rows of a query, as Arrow.

A query is read once, in one statement and so from one state of the data. Scoring may take hours,
in which an open transaction is in others' way (it holds back PostgreSQL's vacuum, SQLite's writers
and every other process at a DuckDB file): `Query.to_parquet` takes the rows out first, and what
goes on after a crash then reads the same rows in the same order, whatever the table has become.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mlopsdeploy.data.addresses import shown, split_table
from mlopsdeploy.data.databases.column_types import (
    array_of,
    storable,
    stored,
    text_for_the_rest,
    type_of,
    types_of_postgresql,
    types_of_sqlite,
)
from mlopsdeploy.data.databases.connection import connect_to, is_name, parts_of, readable_errors
from mlopsdeploy.data.files import whole_file
from mlopsdeploy.data.sinks import write_parquet
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError

WINDOW = 8192
_NAMES = re.compile(r'(?:"(?:[^"]|"")+"|[\w$]+)(?:\.(?:"(?:[^"]|"")+"|[\w$]+))*')
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_SELECTS = {"from", "select", "table", "values", "with"}


class Query(AbstractContextManager["Query"]):
    """The rows of a query, a window at a time; memory does not grow with their number.

    `schema` are its columns and their Arrow types, the same for every batch: those of the
    database where it says them, in SQLite those that the values have (all of them are looked at),
    elsewhere those of the first window. What Arrow has no type for, and a `numeric` without a
    scale, comes as text. Reads only: the transaction is read-only where the database knows such.

    Args:
        reference: an SQLAlchemy URL, perhaps with `#table`.
        query: a SELECT or a table's name, where the URL names no table.
        window: rows of one batch.

    Raises:
        ConfigError: no table and no query (or both), not a SELECT, or a package is missing.
        InputError: there is no such database, table or column, no permission, or no rows.
        MlopsDeployError: the server can't be reached.
    """

    def __init__(self, reference: str, query: str | None = None, *, window: int = WINDOW) -> None:
        url, table = split_table(reference)
        self.shown = shown(reference)
        if bool(table) == bool(query):
            raise ConfigError(
                f"{self.shown}: name a table ({shown(url)}#TABLE) or give a query, one of the two"
            )
        self._url = url
        self._window = window
        self._engine = connect_to(url, read_only=True)
        self.sql = _select(query or table or "", self._engine)
        self._reader: Any = None
        with readable_errors(self.shown, url, self._engine):
            self._connection = self._engine.connect()
        try:
            self._rest = self._arrow() if self._engine.name == "duckdb" else self._rows()
            first = self._next()
            if first is None:
                raise InputError(f"{self.shown}: the query gives no rows")
        except BaseException:
            self.close()
            raise
        self._first = first
        self.schema: pa.Schema = first.schema

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> pa.RecordBatch | None:
        with readable_errors(self.shown, self._url, self._engine):
            return next(self._rest, None)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, once."""
        yield self._first
        while (batch := self._next()) is not None:
            yield batch

    def to_parquet(self, path: Path, *, limit: int | None = None) -> None:
        """Write all rows, or the first `limit`, to a Parquet file; it appears whole or not at all.

        Raises:
            MlopsDeployError: the connection was lost, or the file can't be written.
        """
        try:
            with whole_file(path) as file:
                write_parquet(self._tables(limit or sys.maxsize), file, compression="zstd")
        except OSError as error:
            reason = error.strerror or error
            raise MlopsDeployError(f"{path}: can't be written ({reason})") from error

    def _tables(self, left: int) -> Iterator[pa.Table]:
        for batch in self.batches():
            yield pa.Table.from_batches([batch[:left]])
            left -= batch.num_rows
            if left <= 0:
                return

    def close(self) -> None:
        """End the connection, and with it the transaction."""
        if self._reader is not None:
            self._reader.close()
        self._connection.invalidate()  # no ROLLBACK: it may be lost
        self._connection.close()

    def _arrow(self) -> Iterator[pa.RecordBatch]:
        """DuckDB's rows."""
        driver: Any = self._connection.connection.driver_connection
        # Else a table that isn't there may be found among Python's variables.
        driver.execute("SET python_enable_replacements = false").fetchall()
        self._reader = driver.sql(self.sql).to_arrow_reader(self._window)
        _unlike(self._reader.schema.names, self.shown)
        schema = storable(self._reader.schema)
        for batch in self._reader:
            if batch.num_rows:
                yield stored(batch, schema)

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """The rows of any other database."""
        connection = self._connection.execution_options(
            stream_results=True, max_row_buffer=self._window, no_parameters=True
        )
        types: list[pa.DataType] | None = None
        if self._engine.name == "postgresql":
            connection = connection.execution_options(postgresql_readonly=True)
        if self._engine.driver == "psycopg":
            text_for_the_rest(connection)
        elif self._engine.name == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("BEGIN")
        result = self._reader = connection.exec_driver_sql(self.sql)
        names = list(result.keys())
        _unlike(names, self.shown)
        if self._engine.driver == "psycopg":
            assert result.cursor is not None
            types = types_of_postgresql(result.cursor.description)
        elif self._engine.name == "sqlite":
            types = types_of_sqlite(connection, self.sql, names)
        for rows in result.partitions(self._window):
            values = list(zip(*rows, strict=True))
            types = types or [type_of(column) for column in values]
            yield pa.record_batch(
                [
                    array_of(column, type_, f"{self.shown}: column {name!r}")
                    for name, column, type_ in zip(names, values, types, strict=True)
                ],
                names,
            )


def tables_of(query: str) -> set[str]:
    """In lower case the names that may be those of tables that a query, or a view's own, reads."""
    sql = re.sub(rf"'(?:[^']|'')*'|{_COMMENT}", " ", query, flags=re.DOTALL).strip().rstrip(";")
    if is_name(sql):
        return {parts_of(sql)[0].lower()}
    until = r"\b(?:where|group|order|having|limit|union|select)\b|$"
    parts = re.findall(rf"\b(?:from|table)\b(.*?)(?={until})", sql, re.IGNORECASE | re.DOTALL)
    names = (parts_of(name)[0] for part in parts for name in _NAMES.findall(part))
    return {name.lower() for name in names}


def _select(query: str, engine: sa.Engine) -> str:
    """The statement to run for a query or a table's name."""
    sql = query.strip().rstrip(";").rstrip()
    if is_name(sql):
        name, schema = parts_of(sql)
        table = sa.table(name, schema=schema)
        return f"SELECT * FROM {engine.dialect.identifier_preparer.format_table(table)}"  # noqa: S608
    bare = re.sub(_COMMENT, " ", sql, flags=re.DOTALL).lstrip(" \t\r\n(")
    word = re.match(r"\w*", bare)
    if not word or word[0].lower() not in _SELECTS:
        raise ConfigError(
            f"the query starts with {bare[:20].split(' ')[0]!r}: only a SELECT (or the name of a "
            "table) can be an input"
        )
    return sql


def _unlike(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: column {name!r} is there twice; give one another name (AS)")
