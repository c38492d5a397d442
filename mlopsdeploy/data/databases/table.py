"""Rows to a table, all of them or none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterable, Sequence
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
from mlopsdeploy.errors import ConfigError, InputError

TRANSACTIONAL = {"duckdb", "postgresql", "sqlite"}  # a CREATE TABLE can be rolled back
IfExists = Literal["replace", "append", "upsert", "fail"]


def load_table(
    url: str,
    table: str,
    batches: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    if_exists: IfExists = "replace",
    key: Sequence[str] = (),
    trial: bool = False,
) -> None:
    """Write rows to a table in one transaction: it appears whole or not at all.

    A table that is there with the same columns is emptied and filled again, so that its views,
    indexes and grants stay; with other columns, a new one takes its name. Readers see the old rows
    until the end. (MySQL and Oracle commit at each CREATE TABLE: there a new table takes its place
    by two statements.)

    "upsert" updates the rows whose key is there in the columns that are written, and inserts the
    others; what else the table has stays. The table has to have a primary key or a unique index of
    just these columns, so that no row can be meant twice; a new one gets that primary key.

    Args:
        url: an SQLAlchemy URL.
        table: its name, `schema.table` for one of a schema; "quotes" keep a dot in a name.
        batches: the rows.
        schema: their Arrow types. What the database has no type for is stored as text. SQLite
            and MySQL get NULL for NaN, PostgreSQL gets U+FFFD for the character U+0000 in a text.
        if_exists: "replace", "append", "upsert" or "fail".
        key: for "upsert", the columns that tell rows apart.
        trial: roll back what it makes; see `check_table`.

    Raises:
        ConfigError: the table is there ("fail"), lacks a column ("append", "upsert") or what the
            key needs, can't be made or written to, or a package is missing.
        InputError: rows have no key, or one that another row has.
        MlopsDeployError: the server can't be reached, or it failed on the way; nothing was kept.
    """
    where = f"{shown(url)}#{table}"
    engine = connect_to(url)
    kind = engine.name
    target = _table(kind, table, schema, where, key)
    if if_exists == "upsert" and kind not in TRANSACTIONAL:
        raise ConfigError(
            f"{where}: --if-exists upsert is for SQLite, PostgreSQL and DuckDB; append, or replace "
            "the table"
        )
    with connected(engine, url, where) as connection, connection.begin() as whole:
        if kind == "sqlite":  # its driver would begin at the first INSERT only
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        there = sa.inspect(connection).has_table(target.name, schema=target.schema)
        if there and if_exists == "fail":
            raise ConfigError(f"{where}: the table is there already; name another one")
        if if_exists == "upsert":
            if there:
                _check_columns(connection, target, where)
            else:
                target.create(connection)
            _upsert(connection, target, key, batches, schema, where)
        elif there and if_exists == "append":
            _check_columns(connection, target, where)
            _fill(connection, target, batches, schema)
        elif not trial or kind in TRANSACTIONAL:
            _replace(connection, target, there, batches, schema, trial=trial)
        if trial:
            whole.rollback()


def check_table(
    url: str,
    table: str,
    *,
    schema: pa.Schema,
    if_exists: IfExists = "replace",
    key: Sequence[str] = (),
) -> None:
    """Find out before the work whether `load_table` can do its own: all of it but the rows.

    What it makes in the database is rolled back. Raises as `load_table`.
    """
    load_table(url, table, (), schema=schema, if_exists=if_exists, key=key, trial=True)


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
    building = _beside(target, target.schema)
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


def _beside(target: sa.Table, schema: str | None = None) -> sa.Table:
    """A table of our own with the columns of another one."""
    name = f"mlopsdeploy_{hashlib.sha256(target.name.encode()).hexdigest()[:12]}"
    columns = [sa.Column(column.name, column.type, quote=True) for column in target.columns]
    return sa.Table(name, sa.MetaData(), *columns, schema=schema)


def _upsert(
    connection: sa.Connection,
    target: sa.Table,
    key: Sequence[str],
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    where: str,
) -> None:
    """Update the rows whose key is there and insert the others.

    Not by ON CONFLICT: for that, a row to update would need a value for each column that can't be
    NULL, also for those that are not written.
    """
    rows = _staged(connection, target, batches, schema)
    _check_key(connection, rows, key, where)
    preparer = connection.dialect.identifier_preparer
    if connection.engine.name == "postgresql":  # readers go on; of two upserts one waits
        lock = f"LOCK TABLE {preparer.format_table(target)} IN SHARE ROW EXCLUSIVE MODE"
        connection.exec_driver_sql(lock)
    _check_unique(connection, target, key, where)
    same = sa.and_(*(target.c[name] == rows.c[name] for name in key))
    # Once more as the table compares them, for which `a` may be `A`.
    _check_once(connection, [target.c[name] for name in key], target.join(rows, same), where)
    if rest := {name: rows.c[name] for name in schema.names if name not in key}:
        connection.execute(target.update().values(rest).where(same))
    there = sa.exists().select_from(target).where(same).correlate(rows)
    connection.execute(target.insert().from_select(schema.names, sa.select(rows).where(~there)))


def _staged(
    connection: sa.Connection,
    target: sa.Table,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
) -> sa.Table:
    """The rows in a temporary table, with the types that the table has for their columns."""
    rows = _beside(target)
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.quote_identifier(name) for name in schema.names)
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {preparer.format_table(rows)} AS "  # noqa: S608
        f"SELECT {names} FROM {preparer.format_table(target)} WHERE 1 = 0"
    )
    _fill(connection, rows, batches, schema)
    return rows


def _check_key(connection: sa.Connection, rows: sa.Table, key: Sequence[str], where: str) -> None:
    """Refuse rows that a key doesn't tell apart, before any of them is written."""
    columns = [rows.c[name] for name in key]
    empty = sa.or_(*(column.is_(None) for column in columns))
    missing = sa.select(sa.func.count()).select_from(rows).where(empty)
    if count := connection.scalar(missing):
        raise InputError(
            f"{where}: rows without {' or '.join(key)}, which is their --key: {count:,}; nothing "
            "was written"
        )
    _check_once(connection, columns, rows, where)


def _check_once(
    connection: sa.Connection, key: Sequence[sa.Column[Any]], rows: sa.FromClause, where: str
) -> None:
    count = sa.func.count()
    twice = sa.select(*key, count).select_from(rows).group_by(*key).having(count > 1).limit(1)
    if found := connection.execute(twice).first():
        values = zip(key, found, strict=False)
        said = ", ".join(f"{column.name} {value!r}" for column, value in values)
        raise InputError(
            f"{where}: {found[-1]:,} rows have the same key, {said}; nothing was written; "
            "name more columns that tell them apart: --key"
        )


def _check_unique(
    connection: sa.Connection, table: sa.Table, key: Sequence[str], where: str
) -> None:
    """Whether a key can be there once only: what the database says of a statement without rows."""
    preparer = connection.dialect.identifier_preparer
    name = preparer.format_table(table)
    columns = ", ".join(preparer.quote_identifier(column) for column in key)
    try:
        connection.exec_driver_sql(
            f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {name} WHERE 1 = 0 "  # noqa: S608
            f"ON CONFLICT ({columns}) DO NOTHING"
        )
    except sa.exc.DBAPIError as error:
        if "conflict" not in str(error.orig).lower():
            raise
        raise ConfigError(
            f"{where}: has no primary key or unique index of --key {','.join(key)}; make one: "
            f"CREATE UNIQUE INDEX one_per_key ON {name} ({columns})"
        ) from error


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
        into = into.replace("%%", "%")  # doubled for statements that have parameters
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


def _table(
    kind: str, name: str, schema: pa.Schema, where: str, key: Sequence[str] = ()
) -> sa.Table:
    """What SQLAlchemy makes of a name, Arrow's types and a key."""
    if not is_name(name):
        raise ConfigError(f'{where}: not the name of a table; write odd ones in quotes: "{name}"')
    table, within = parts_of(name)
    for identifier in (table, *schema.names):
        if kind == "postgresql" and len(identifier.encode()) > 63:  # it would cut it off
            raise ConfigError(
                f"{where}: the name {identifier[:20] + '…'!r} is longer than the 63 bytes that "
                "PostgreSQL takes"
            )
    if missing := [column for column in key if column not in schema.names]:
        raise ConfigError(
            f"{where}: --key: no column {missing[0]!r} is written; there are: "
            f"{', '.join(schema.names)}"
        )
    columns: list[sa.Column[Any]] = [
        sa.Column(
            field.name,
            column_type(field.type),
            primary_key=field.name in key,
            autoincrement=False,
            quote=True,
        )
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
