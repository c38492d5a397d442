"""Rows to a table, all of them or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import sqlalchemy as sa

from mlopsdeploy.data.addresses import is_database, shown, split_table
from mlopsdeploy.data.databases.column_types import (
    column_type,
    rows_of,
    storable,
    stored,
    without_nan,
    without_nul,
)
from mlopsdeploy.data.databases.connection import connect_to, connected, is_name, parts_of
from mlopsdeploy.data.databases.query import tables_of
from mlopsdeploy.errors import ConfigError

TRANSACTIONAL = {"duckdb", "postgresql", "sqlite"}  # a CREATE TABLE can be rolled back
IfExists = Literal["replace", "append", "fail"]


def load_table(
    url: str,
    table: str,
    batches: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    if_exists: IfExists = "replace",
    trial: bool = False,
) -> None:
    """Write rows to a table in one transaction: it appears whole or not at all.

    A table that is there with the same columns is emptied and filled again, so that its views,
    indexes and grants stay; with other columns, a new one takes its name. Readers see the old rows
    until the end. (MySQL and Oracle commit at each CREATE TABLE: there a new table takes its place
    by two statements.)

    Args:
        url: an SQLAlchemy URL.
        table: its name, `schema.table` for one of a schema; "quotes" keep a dot in a name.
        batches: the rows.
        schema: their Arrow types. What the database has no type for is stored as text. SQLite
            and MySQL get NULL for NaN, PostgreSQL gets U+FFFD for the character U+0000 in a text.
        if_exists: "replace", "append" or "fail".
        trial: roll back what it makes; see `check_table`.

    Raises:
        ConfigError: the table is there ("fail") or lacks a column ("append"), can't be made or
            written to, or a package is missing.
        MlopsDeployError: the server can't be reached, or it failed on the way; nothing was kept.
    """
    where = f"{shown(url)}#{table}"
    engine = connect_to(url)
    kind = engine.name
    target = _table(kind, table, schema, where)
    with connected(engine, url, where) as connection, connection.begin() as whole:
        if kind == "sqlite":  # its driver would begin at the first INSERT only
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        there = sa.inspect(connection).has_table(target.name, schema=target.schema)
        if there and if_exists == "fail":
            raise ConfigError(f"{where}: the table is there already; name another one")
        if there and if_exists == "append":
            _check_columns(connection, target, where)
            _fill(connection, target, batches, schema)
        elif not trial or kind in TRANSACTIONAL:
            _replace(connection, target, there, batches, schema, trial=trial)
        if trial:
            whole.rollback()


def check_table(
    url: str, table: str, *, schema: pa.Schema, if_exists: IfExists = "replace"
) -> None:
    """Find out before the work whether `load_table` can do its own: all of it but the rows.

    What it makes in the database is rolled back. Raises as `load_table`.
    """
    load_table(url, table, (), schema=schema, if_exists=if_exists, trial=True)


def columns_of(url: str, table: str) -> str:
    """The columns of a table and their types, in one line; "" where there is none.

    Raises:
        ConfigError: not the name of a table, or a package is missing.
        MlopsDeployError: the server can't be reached.
    """
    where = f"{shown(url)}#{table}"
    engine = connect_to(url)
    target = _table(engine.name, table, pa.schema([]), where)
    with connected(engine, url, where) as connection:
        if not sa.inspect(connection).has_table(target.name, schema=target.schema):
            return ""
        return json.dumps(_described(connection, target))


def is_read_by(url: str, table: str, reference: str, query: str | None = None) -> bool:
    """Whether an input reads a table, itself or by way of a view.

    Databases are one where their kind, name and host are, so `localhost` and `127.0.0.1`, a port
    that is the default and a path with `..` make no difference. A query reads what it names.

    Args:
        url: of the table's database.
        table: its name, perhaps with a schema.
        reference: of the input; perhaps no database at all.
        query: the input's, where `reference` names no table.
    """
    source, read = split_table(reference)
    if not is_database(source) or _database(url) != _database(source):
        return False
    name, schema = parts_of(table)
    waiting = tables_of(query or "") if read is None else {parts_of(read)[0].lower()}
    with connected(connect_to(source), source, shown(reference)) as connection:
        inspector = sa.inspect(connection)
        views = {view.lower(): view for view in inspector.get_view_names(schema)}
        while waiting and name.lower() not in waiting:
            if view := views.pop(waiting.pop(), None):
                waiting |= tables_of(str(inspector.get_view_definition(view, schema)))
    return name.lower() in waiting


def _database(url: str) -> tuple[Any, ...]:
    """What is the same for all spellings of a database's URL."""
    parsed = sa.make_url(url)
    kind = {"postgres": "postgresql", "mariadb": "mysql"}.get(
        backend := parsed.drivername.partition("+")[0], backend
    )
    name = parsed.database or ""
    if kind in {"sqlite", "duckdb"}:
        path = Path(name.removeprefix("file:").partition("?")[0]).resolve()
        about = path.stat() if path.exists() else None
        return (kind, (about.st_dev, about.st_ino) if about else str(path))
    host = parsed.host or "localhost"
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    if host.startswith("127.") or host == socket.gethostname():
        host = "localhost"
    port = parsed.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(kind)
    return (kind, host, port, name)


def _replace(
    connection: sa.Connection,
    target: sa.Table,
    there: bool,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    *,
    trial: bool,
) -> None:
    """Fill a table that is alike, or a new one that then takes its name."""
    name = f"mlopsdeploy_{hashlib.sha256(target.name.encode()).hexdigest()[:12]}"
    columns = [sa.Column(column.name, column.type, quote=True) for column in target.columns]
    building = sa.Table(name, sa.MetaData(), *columns, schema=target.schema)
    building.drop(connection, checkfirst=True)  # left by a killed run, where DDL commits at once
    building.create(connection)
    if there and _described(connection, target) == _described(connection, building):
        building.drop(connection)
        connection.execute(target.delete().where(sa.false() if trial else sa.true()))
        _fill(connection, target, batches, schema)
        return
    _fill(connection, building, batches, schema)
    if there:
        target.drop(connection)
    preparer = connection.dialect.identifier_preparer
    old, new = preparer.format_table(building), preparer.quote_identifier(target.name)
    connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


def _fill(
    connection: sa.Connection, table: sa.Table, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> None:
    """Write the rows by the fastest way that the driver has."""
    driver: Any = connection.connection.driver_connection
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.quote_identifier(name) for name in schema.names)
    into = f"{preparer.format_table(table)} ({names})"
    columns = storable(schema, decimals=connection.engine.name != "sqlite")
    storing = (stored(batch, columns) for batch in batches)
    if connection.engine.name == "duckdb":
        for batch in storing:
            driver.register("mlopsdeploy_rows", pa.Table.from_batches([batch]))
            driver.execute(f"INSERT INTO {into} SELECT * FROM mlopsdeploy_rows").fetchall()  # noqa: S608
            driver.unregister("mlopsdeploy_rows")
    elif connection.engine.driver == "psycopg":
        with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for batch in storing:
                for row in rows_of(without_nul(batch)):
                    copy.write_row(row)
    else:
        insert = table.insert()
        for batch in storing:
            if batch.num_rows:
                kept = batch if connection.engine.name == "postgresql" else without_nan(batch)
                rows = [dict(zip(schema.names, row, strict=True)) for row in rows_of(kept)]
                connection.execute(insert, rows)


def _table(kind: str, name: str, schema: pa.Schema, where: str) -> sa.Table:
    """What SQLAlchemy makes of a name and Arrow's types."""
    if not is_name(name):
        raise ConfigError(f'{where}: not the name of a table; write odd ones in quotes: "{name}"')
    table, within = parts_of(name)
    for identifier in (table, *schema.names):
        if kind == "postgresql" and len(identifier.encode()) > 63:  # it would cut it off
            raise ConfigError(
                f"{where}: the name {identifier[:20] + '…'!r} is longer than the 63 bytes that "
                "PostgreSQL takes"
            )
    columns: list[sa.Column[Any]] = [
        sa.Column(field.name, column_type(field.type), quote=True)
        for field in storable(schema, decimals=kind != "sqlite")
    ]
    return sa.Table(table, sa.MetaData(), *columns, schema=within)


def _described(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    """The columns of a table as the database has it: name, type, precision, scale."""
    name = connection.dialect.identifier_preparer.format_table(table)
    result = connection.exec_driver_sql(f"SELECT * FROM {name} WHERE 1 = 0")  # noqa: S608
    assert result.cursor is not None
    described = [(column[0], str(column[1]), *column[4:6]) for column in result.cursor.description]
    result.all()
    return described


def _check_columns(connection: sa.Connection, table: sa.Table, where: str) -> None:
    there = [column[0] for column in _described(connection, table)]
    missing = [name for name in table.columns.keys() if name not in there]  # noqa: SIM118
    if missing:
        raise ConfigError(
            f"{where}: the table has no column {missing[0]!r} (it has {', '.join(there)}); "
            "add it, or replace the table"
        )
