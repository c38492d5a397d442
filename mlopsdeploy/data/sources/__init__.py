"""Files to columns: CSV, JSON Lines and Parquet, a window of rows at a time.

A source reads forwards, once, and holds one window: memory does not grow with the file. Values
are read as they stand. A review that says "NA" is text, not a missing value.
"""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Mapping
from pathlib import Path

from mlopsdeploy.data.addresses import is_remote, shown
from mlopsdeploy.data.sources.base import Chunk, ReadOptions, Source, Wanted, Window, chunks
from mlopsdeploy.data.sources.delimited import CsvSource
from mlopsdeploy.data.sources.image_files import PictureFiles, WithPictures, is_picture
from mlopsdeploy.data.sources.input_file import HEAD, InputFile, NoRows
from mlopsdeploy.data.sources.joined import JoinedSource
from mlopsdeploy.data.sources.json_lines import JsonLinesSource
from mlopsdeploy.data.sources.parquet import ParquetSource
from mlopsdeploy.data.sources.texts import WithText, parts_of
from mlopsdeploy.errors import InputError

__all__ = [
    "SUFFIXES", "Chunk", "CsvSource", "InputFile", "JoinedSource", "ParquetSource", "PictureFiles",
    "ReadOptions", "Source", "Wanted", "Window", "WithPictures", "WithText", "chunks", "files_of",
    "format_of", "is_picture", "open_source", "parts_of", "pictures_of", "with_content",
]  # fmt: skip

_SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet", ".pq"),
}
SUFFIXES = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
# What a run writes beside its output, and what others put beside data.
_NOT_DATA = (".errors.jsonl", ".part", ".crc")
_HIDDEN = (".", "_")


def open_source(
    path: str,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # never changed
    *,
    output: str = "",
    pictures: bool = False,
) -> Source:
    """Open a file by its name, several by their folder or pattern, or standard input for "-".

    Args:
        path: `reviews.csv`, `reviews/`, `reviews/2026-*.csv`, "-"; pictures likewise.
        options: how to read it.
        output: is not an input, even where the pattern fits it.
        pictures: of a folder with tables and pictures take the pictures.

    Raises:
        InputError: it isn't there, is empty, or isn't what its name says.
    """
    if images := pictures_of(path, among_tables=pictures):
        return PictureFiles(shown(path), images)
    files = files_of(path, output)
    if not files:
        return _open_file(path, options)

    def opened(file: str) -> Source | None:
        try:
            return _open_file(file, options)
        except NoRows:
            return None

    formats = {format_of(file) for file in files}
    if len(formats) > 1:
        raise InputError(
            f"{shown(path)}: holds {' and '.join(sorted(formats))}; name files of one format"
        )
    # How much of the whole an object is, is not asked: each counts the same.
    sizes = {file: 1 if is_remote(file) else Path(file).stat().st_size for file in files}
    return JoinedSource(shown(path), sizes, opened)


def with_content(source: Source, columns: Mapping[str, str], *, pictures: bool) -> Source:
    """The rows with what their columns stand for: the pictures they name, the texts they make up.

    Args:
        source: the rows.
        columns: the model's input -> the source's column; "title,body" is two of texts.
        pictures: whether the model looks at pictures.
    """
    if pictures:
        return WithPictures(source, *columns.values())
    text = columns.get("text")
    if text is None or (parts := parts_of(text, source.names)) == [text]:
        return source
    return WithText(source, text, parts)


def files_of(path: str, output: str = "") -> list[str]:
    """The data files of a folder or a pattern, sorted; nothing for the name of one file.

    Raises:
        InputError: there are none.
    """
    there = _all_of(path)
    if there is None:
        return []
    found = [file for file in there if _has_data_name(file)]
    if is_remote(path):
        found = [name for name in found if name != output]
    else:
        found = [file for file in found if Path(file).resolve() != Path(output).resolve()]
    if not found:
        what = "object" if is_remote(path) else "file"
        raise InputError(
            f"{shown(path)}: no .csv, .jsonl or .parquet {what} there, and no picture{_below(path)}"
        )
    return sorted(found)


def pictures_of(path: str, *, among_tables: bool = False) -> list[str]:
    """The pictures that a name, a folder or a pattern stands for, sorted.

    Where there are tables, too, nothing, unless these are asked for `among_tables`.
    """
    there = _all_of(path)
    if there is None:
        return [path] if is_picture(path) and (is_remote(path) or Path(path).is_file()) else []
    tables = not among_tables and any(map(_has_data_name, there))
    return [] if tables else sorted(filter(_has_picture_name, there))


def _all_of(path: str) -> list[str] | None:
    """All files of a folder or a pattern; None for the name of one file."""
    place = Path(path)
    if is_remote(path):
        from mlopsdeploy.data import object_stores

        found = object_stores.expand(path)
        return None if found == [path] else found
    if path == "-" or place.is_file():
        return None
    if place.is_dir():
        return [str(file) for file in place.iterdir() if file.is_file()]
    if glob.has_magic(path):
        found = glob.glob(path, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute ones
        return [file for file in found if Path(file).is_file()]
    return None


def _below(path: str) -> str:
    """Where the pictures are that a folder does not have itself."""
    place = Path(path)
    for folder, _, names in os.walk(place if place.is_dir() else ""):
        if found := next(filter(_has_picture_name, names), None):
            pattern = place / "**" / f"*{Path(found).suffix}"
            return f"; {folder} has some: name them with '{pattern}'"
    return ""


def _has_data_name(path: str) -> bool:
    name = path.lower().rpartition("/")[2]
    if name.startswith(_HIDDEN) or name.endswith(_NOT_DATA):
        return False
    return name.removesuffix(".gz").endswith(SUFFIXES)


def _has_picture_name(path: str) -> bool:
    return is_picture(path) and not path.rpartition("/")[2].startswith(_HIDDEN)


def _open_file(path: str, options: ReadOptions) -> Source:
    file = InputFile.open(path)
    try:
        format_ = _format_of_content(file) if path == "-" else format_of(file.path)
        if format_ == "parquet":
            return ParquetSource(file)
        file.unpack()
        head = file.peek(HEAD)
        if not head:
            raise NoRows(f"{file.name}: the file is empty")
        if head.startswith((b"PAR1", b"PK\x03\x04")):
            kind = "Parquet" if head.startswith(b"PAR1") else "zip (or Excel)"
            raise InputError(f"{file.name}: this is a {kind} file, not {format_}")
        if format_ == "jsonl":
            return JsonLinesSource(file)
        return CsvSource(file, options)
    except BaseException:
        file.close()
        raise


def _format_of_content(file: InputFile) -> str:
    head = file.peek(HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.startswith(b"{") else "csv"


def format_of(path: str) -> str:
    """The format that a file's name says: "csv", "jsonl" or "parquet"; .gz may follow.

    Raises:
        InputError: the name says none of them.
    """
    name = path.lower()
    if is_remote(path):  # a signature may follow
        name = name.partition("?")[0]
    name = name.removesuffix(".gz")
    for format_, suffixes in _SUFFIXES.items():
        if name.endswith(suffixes):
            return format_
    raise InputError(
        f"{path}: can't tell its format by its name; "
        "use .csv, .tsv, .txt, .jsonl, .ndjson or .parquet (.gz may follow)"
    )
