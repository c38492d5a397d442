"""A URL to an engine, and what a driver says to one line."""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mlopsdeploy.data.addresses import scheme, shown, without_secrets
from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError

# A driver that fails while it cleans up after a failure has SQLAlchemy log it; one line is enough.
logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())

NAME = r'(?:"(?:[^"]|"")+"|[^\s".;()]+)'  # a part of a table's name
_EXTRAS = {"psycopg": "postgresql", "postgresql": "postgresql", "duckdb": "duckdb"}


def connect_to(url: str, *, read_only: bool = False) -> sa.Engine:
    """An engine that keeps no connection open.

    Raises:
        ConfigError: not a URL, no such kind of database, or its package is missing.
        InputError: the file to be read is not there.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigError(
            f"{shown(url)}: not a database URL; it looks like postgresql://user@host:5432/database"
        ) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {}
    path = parsed.database or ""
    in_a_file = path and not path.startswith((":memory:", "file:", "md:"))
    if read_only and in_a_file and scheme(url).partition("+")[0] in {"sqlite", "duckdb"}:
        if not Path(path).exists():
            raise InputError(f"{shown(url)}: there is no file {path}")
        if parsed.drivername.startswith("duckdb"):
            options = {"read_only": True}
    try:
        return sa.create_engine(parsed, poolclass=sa.pool.NullPool, connect_args=options)
    except sa.exc.NoSuchModuleError as error:
        kind = parsed.drivername
        known = ["duckdb", "mysql", "mariadb", "mssql", "oracle", "postgresql", "sqlite"]
        near = difflib.get_close_matches(kind, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else "install its dialect"
        raise ConfigError(
            f"{shown(url)}: needs a package: pip install 'mlopsdeploy[{_EXTRAS[kind]}]'"
            if kind in _EXTRAS
            else f"{shown(url)}: SQLAlchemy knows no {kind!r}; {advice}"
        ) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        what = f"'mlopsdeploy[{_EXTRAS[package]}]'" if package in _EXTRAS else package
        raise ConfigError(
            f"{shown(url)}: needs the package {package!r}: pip install {what}"
        ) from error


# What the first line of a driver's message means for its reader: the class of the error, and what
# to do. Names in quotes are not looked at: a table may be called "disk".
_MEANINGS: list[tuple[str, type[MlopsDeployError], str]] = [
    (r"no such (table|column)|(table|relation|view|column)\b.* does not exist|referenced column"
     r"|unknown column|doesn't exist", InputError, "check the names of tables and columns"),
    (r"schema .* does not exist|unknown database", ConfigError, "create it first"),
    (r"(database|role) .* does not exist", ConfigError, "check the URL"),
    (r"authentication|no password|access denied for user", ConfigError,
     "check user and password (PGPASSWORD and ~/.pgpass work too)"),
    (r"server closed|connection (was |is )?lost|terminating connection|connection is (closed|bad)"
     r"|gone away|consuming input failed|SSL SYSCALL", MlopsDeployError,
     "the connection was lost; run it again"),
    (r"connection (failed|refused)|could not (connect|translate)|failed to resolve"
     r"|name or service|timeout expired|can't connect", MlopsDeployError,
     "is the server up, and are host and port right?"),
    (r"read-?only", ConfigError, "only reading is allowed there"),
    (r"permission denied|privilege|not authorized", ConfigError, "ask its owner for a GRANT"),
    (r"other objects depend", ConfigError,
     "drop its views first, or append, or name another table"),
    (r"is locked|conflicting lock|different configuration", MlopsDeployError,
     "something else has the file open; close it or try again later"),
    (r"disk (is full|i/o)|no space|could not (extend|write)|file too large", MlopsDeployError,
     "make room and run it again"),
    (r"unable to open database", ConfigError, "is its folder there, and may it be written to?"),
    (r"syntax error|parser error|in your sql syntax", InputError, "check the query"),
]  # fmt: skip


@contextlib.contextmanager
def readable_errors(where: str, url: str, engine: sa.Engine) -> Iterator[None]:
    """Turn what the database says into one line, with no secret in it."""
    try:
        yield
    except Exception as error:
        driver_error: Any = getattr(engine.dialect.loaded_dbapi, "Error", ())
        if not isinstance(error, sa.exc.SQLAlchemyError | pa.ArrowException | driver_error):
            raise
        original = getattr(error, "orig", None) or error
        code_and_text = len(original.args) == 2 and isinstance(original.args[0], int)  # of MySQL
        text = str(original.args[1] if code_and_text else original).strip().partition("\n")[0]
        line = " ".join(text.split()).rstrip("!.") or type(error).__name__
        line = without_secrets(line, url)
        for pattern, kind, advice in _MEANINGS:
            if re.search(pattern, re.sub(r'"[^"]*"', '""', line), re.IGNORECASE):
                raise kind(f"{where}: {line}; {advice}") from error
        raise MlopsDeployError(f"{where}: {line}") from error


@contextlib.contextmanager
def connected(engine: sa.Engine, url: str, where: str) -> Iterator[sa.Connection]:
    """A connection whose errors are ours."""
    with readable_errors(where, url, engine), engine.connect() as connection:
        yield connection


def is_name(text: str) -> bool:
    """Whether it is the name of a table, perhaps with a schema, and not a query."""
    return re.fullmatch(rf"{NAME}(\.{NAME})*", text) is not None


def parts_of(name: str) -> tuple[str, str | None]:
    """`mart.scored` -> its name and its schema."""
    parts = [part.strip('"').replace('""', '"') for part in re.findall(NAME, name)]
    return parts[-1], ".".join(parts[:-1]) or None
