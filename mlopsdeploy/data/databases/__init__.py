"""Databases, in and out: rows of a query as Arrow, and Arrow as a table that appears whole.

SQLAlchemy connects, quotes, makes tables and knows each database's types; Arrow holds the rows.
PostgreSQL (psycopg's COPY) and DuckDB (which speaks Arrow) have a way in bulk; any other database
gets rows by `executemany`.
"""

try:
    import sqlalchemy as sqlalchemy
except ModuleNotFoundError as missing:
    from mlopsdeploy.errors import ConfigError

    raise ConfigError(
        "a database needs the package 'sqlalchemy': pip install 'mlopsdeploy[sql]'"
    ) from missing

from mlopsdeploy.data.databases.query import Query
from mlopsdeploy.data.databases.table import check_table, columns_of, is_read_by, load_table

__all__ = ["Query", "check_table", "columns_of", "is_read_by", "load_table"]
