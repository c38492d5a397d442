"""Files to columns: CSV, JSON Lines and Parquet, a window of rows at a time.

A source reads forwards, once, and holds one window: memory does not grow with the file. Values
are read as they stand. A review that says "NA" is text, not a missing value.
"""

from __future__ import annotations

import codecs
import gzip
import io
import sys
from pathlib import Path
from typing import IO, Any

from mlopsdeploy.batch.sources.base import BROKEN, Source, Window, close, named
from mlopsdeploy.batch.sources.csv import CsvSource
from mlopsdeploy.batch.sources.json_lines import JsonLinesSource
from mlopsdeploy.batch.sources.parquet import ParquetSource
from mlopsdeploy.errors import InputError

__all__ = [
    "CsvSource",
    "JsonLinesSource",
    "ParquetSource",
    "Source",
    "Window",
    "format_of",
    "open_source",
]


def open_source(path: str, *, delimiter: str = "auto", encoding: str = "auto") -> Source:
    """Open a file by its name, or standard input for "-".

    Raises:
        InputError: it isn't there, is empty, or isn't what its name says.
    """
    raw = _open_raw(path)
    try:
        format_ = format_of(path) if path != "-" else _sniff(raw)
        if format_ == "parquet":
            return ParquetSource(raw, path)
        stream: Any = gzip.GzipFile(fileobj=raw) if _peek(raw, 2, path) == b"\x1f\x8b" else raw
        head = _peek(stream, 4096, path)
        if not head:
            raise InputError(f"{named(path)}: the file is empty")
        if head.startswith((b"PAR1", b"PK\x03\x04")):
            kind = "Parquet" if head.startswith(b"PAR1") else "zip (or Excel)"
            raise InputError(f"{named(path)}: this is a {kind} file, not {format_}")
        if format_ == "jsonl":
            return JsonLinesSource(stream, raw, path)
        return CsvSource(stream, raw, path, delimiter, encoding, head)
    except BaseException:
        close(raw)
        raise


def format_of(path: str) -> str:
    """The format that a file's name says: "csv", "jsonl" or "parquet"; .gz may follow.

    Raises:
        InputError: the name says none of them.
    """
    name = path.lower().removesuffix(".gz")
    for format_, suffixes in {
        "csv": (".csv", ".tsv", ".txt"),
        "jsonl": (".jsonl", ".ndjson"),
        "parquet": (".parquet", ".pq"),
    }.items():
        if name.endswith(suffixes):
            return format_
    raise InputError(
        f"{path}: can't tell its format by its name; "
        "use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)"
    )


def _open_raw(path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file")
    if file.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{path}: can't be opened ({error.strerror})") from error


def _peek(stream: IO[bytes], size: int, path: str) -> bytes:
    """The first bytes, left in place."""
    try:
        if isinstance(stream, io.BufferedReader | gzip.GzipFile):
            return bytes(stream.peek(size)[:size])
        return b""
    except BROKEN as error:
        raise InputError(f"{named(path)}: can't be read ({error})") from error


def _sniff(raw: IO[bytes]) -> str:
    head = _peek(raw, 4096, "-").removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.startswith(b"{") else "csv"
