"""What an input or output is called: a file, a table of a database, an object in a store.

    reviews.csv                                 a file (so are folders, globs and "-")
    postgresql://me@db.example/shop#reviews     a table; `mart.reviews` is one of a schema
    sqlite:///shop.db, duckdb:///shop.duckdb    a database, by its SQLAlchemy URL
    s3://bucket/reviews.parquet                 an object, by its fsspec URL

Nothing heavy is imported here: `databases` and `object_stores`, which open them, need packages of
their own.
"""

from __future__ import annotations

import re

# What fsspec calls them. None of these is a database's name.
STORES = frozenset({
    "abfs", "abfss", "adl", "az", "ftp", "gcs", "gs", "hdfs", "hf", "http", "https", "memory",
    "oci", "oss", "s3", "s3a", "sftp", "webhdfs",
})  # fmt: skip

_SECRET = re.compile(
    r"([?&][^=&#]*(?:password|passwd|pwd|secret|token|key|credential|signature|sig)[^=&#]*=)[^&#]*",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(://[^:/@?#]*:).*@", re.DOTALL)


def scheme(reference: str) -> str:
    """What stands before "://" in lower case, and "" for a file's path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9_.-]*(?:\+[A-Za-z0-9_]+)?)://", reference)
    return found[1].lower() if found else ""


def is_remote(reference: str) -> bool:
    """Whether it is in an object store, or on another machine."""
    return scheme(reference) in STORES


def is_database(reference: str) -> bool:
    """Whether it is an SQLAlchemy URL (`dialect[+driver]://`), known or misspelt."""
    return scheme(reference) not in {"", "file", "local", *STORES}


def split_table(reference: str) -> tuple[str, str | None]:
    """`postgresql://host/db#mart.scored` -> the URL and "mart.scored"; None where none is named.

    A "#" within a password or a path is not taken for one.
    """
    url, mark, table = reference.rpartition("#")
    if not mark or "/" in table or "@" in table:
        return reference, None
    return url, table or None


def file_part(path: str) -> str:
    """A path as it is; an address without the signature that may follow its name."""
    return path.partition("?")[0] if is_remote(path) else path


def shown(reference: str) -> str:
    """As a message, a log or a manifest may show it: without passwords, keys and tokens."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", reference))


def without_secrets(text: str, reference: str) -> str:
    """Another's message without what `shown` hides of a reference."""
    passwords = [found[0].split(":", 2)[2][:-1] for found in _PASSWORD.finditer(reference)]
    for secret in passwords + [found[0].split("=", 1)[1] for found in _SECRET.finditer(reference)]:
        text = text.replace(secret, "***") if secret else text
    return text
