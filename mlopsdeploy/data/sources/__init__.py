"""Files to columns: CSV, JSON, Parquet, Excel, packed or not, a window of rows at a time.

A source reads forwards, once, and holds one window: memory does not grow with the file. Values
are read as they stand. A review that says "NA" is text, not a missing value.

What a file is, its content tells; its name decides only between text that is CSV and other text.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlopsdeploy.data import packing
from mlopsdeploy.data.addresses import file_part, is_remote, shown
from mlopsdeploy.data.sources.base import Chunk, ReadOptions, Source, Wanted, Window, chunks
from mlopsdeploy.data.sources.delimited import CsvSource
from mlopsdeploy.data.sources.image_files import PictureFiles, WithPictures, is_picture
from mlopsdeploy.data.sources.input_file import HEAD, InputFile, NoRows, split_name
from mlopsdeploy.data.sources.joined import JoinedSource
from mlopsdeploy.data.sources.json_document import is_json, open_json
from mlopsdeploy.data.sources.parquet import ParquetSource
from mlopsdeploy.data.sources.partitions import Partitioned, is_partition, partitions
from mlopsdeploy.data.sources.texts import WithText, parts_of, together
from mlopsdeploy.data.sources.wide import WithArrays
from mlopsdeploy.errors import InputError, needs

__all__ = [
    "Chunk", "CsvSource", "InputFile", "JoinedSource", "ParquetSource", "Partitioned",
    "PictureFiles", "ReadOptions", "Source", "Wanted", "Window", "WithArrays", "WithPictures",
    "WithText", "chunks", "files_of", "format_of", "format_read", "has_data_name", "is_picture",
    "open_source", "parts_of", "pictures_of", "together", "with_content",
]  # fmt: skip

_SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet", ".pq"),
}
# What is read only; a folder's .json files are its data where it has no others.
_READ_ONLY = {
    "csv": (".tab", ".psv"),
    "jsonl": (".json",),
    "excel": (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
}
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
# What a run writes beside its output, and what others put beside data.
_NOT_DATA = (".errors.jsonl", ".manifest.json", ".part", ".crc")
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
    there = _all_of(path)
    if images := _pictures_of(path, there, among_tables=pictures):
        return PictureFiles(shown(path), images)
    files = _files_of(path, there, output)
    if not files:
        return _open_file(path, options)
    folders = partitions(path, files)

    def opened(file: str) -> Source | None:
        try:
            source = _open_file(file, options)
        except NoRows:
            return None
        return Partitioned(source, folders[file], options) if folders[file] else source

    formats = {format_ for file in files if (format_ := _format_by_name(file))}
    if len(formats) > 1:
        raise InputError(
            f"{shown(path)}: holds {' and '.join(sorted(formats))}; name files of one format"
        )
    # How much of the whole an object is, is not asked: each counts the same.
    sizes = {file: 1 if is_remote(file) else Path(file).stat().st_size for file in files}
    return JoinedSource(shown(path), sizes, opened, far=is_remote(path))


def with_content(source: Source, columns: Mapping[str, str], *, pictures: bool) -> Source:
    """The rows with what their columns stand for: the pictures they name, the texts they make up.

    Args:
        source: the rows.
        columns: the model's input -> the source's column; "title,body" is two of texts, "x_0,x_1"
            two numbers of each row.
        pictures: whether the model looks at pictures.
    """
    if pictures:
        return WithPictures(source, *columns.values())
    several = {name: parts for name in columns.values() if (parts := _several(name, source.names))}
    if not several:
        return source
    text = columns.get("text")
    return WithText(source, text, several[text]) if text in several else WithArrays(source, several)


def _several(column: str, names: Sequence[str]) -> list[str]:
    """The columns that one is made of; empty where it is one of the rows' own, or within one."""
    parts = parts_of(column, names)
    return parts if len(parts) > 1 else []


def files_of(path: str, output: str = "") -> list[str]:
    """The data files of a folder or a pattern, sorted; nothing for the name of one file.

    Raises:
        InputError: there are none.
    """
    return _files_of(path, _all_of(path), output)


def _files_of(path: str, there: list[str] | None, output: str) -> list[str]:
    if there is None:
        return []
    named = [file for file in there if has_data_name(file)]
    found = [file for file in named if not _is_json_file(file)] or named
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
    return _pictures_of(path, _all_of(path), among_tables=among_tables)


def _pictures_of(path: str, there: list[str] | None, *, among_tables: bool) -> list[str]:
    if there is None:
        return [path] if is_picture(path) and (is_remote(path) or Path(path).is_file()) else []
    # Files of .json beside pictures are notes about them.
    tables = any(has_data_name(file) and not _is_json_file(file) for file in there)
    return [] if tables and not among_tables else sorted(filter(_has_picture_name, there))


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
        return list(_within(place))
    if glob.has_magic(path):
        found = glob.glob(path, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute ones
        return [file for file in found if Path(file).is_file()]
    return None


def _within(folder: Path) -> Iterator[str]:
    """The files of a folder, and of those in it that are called `column=value`, as Hive does."""
    for entry in folder.iterdir():
        if entry.is_file():
            yield str(entry)
        elif is_partition(entry.name) and entry.is_dir():
            yield from _within(entry)


def _below(path: str) -> str:
    """Where the files are that a folder does not have itself."""
    place = Path(path)
    for folder, _, names in os.walk(place if place.is_dir() else ""):
        known = (name for name in names if _has_picture_name(name) or has_data_name(name))
        if found := next(known, None):
            pattern = place / "**" / f"*{Path(found).suffix}"
            return f"; {folder} has some: name them with '{pattern}'"
    return ""


def has_data_name(path: str) -> bool:
    """Whether a file is one to read, by its name."""
    name = path.lower().rpartition("/")[2]
    if name.startswith(_HIDDEN) or name.endswith(_NOT_DATA):
        return False
    return _format_by_name(name) is not None


def _is_json_file(path: str) -> bool:
    return split_name(path).lower().endswith(_READ_ONLY["jsonl"])


def _has_picture_name(path: str) -> bool:
    return is_picture(path) and not path.rpartition("/")[2].startswith(_HIDDEN)


def _open_file(path: str, options: ReadOptions) -> Source:
    file = InputFile.open(path)
    try:
        file.unpack(options.sheet, has_data_name)
        source = _source_of(file, options)
        if options.sheet not in (None, file.member) and not _has_parts(source):
            raise InputError(f"--sheet: {file.name} has no sheets or lists to choose from")
        return source
    except BaseException:
        file.close()
        raise


def _source_of(file: InputFile, options: ReadOptions) -> Source:
    head = file.peek(HEAD)
    told = _format_of_content(head)
    format_ = told or ("csv" if file.inner == "-" else _format_by_name(file.inner))
    if format_ is None:
        raise _unknown(file.name)
    if format_ == "parquet":
        return ParquetSource(file, options)
    if not head:
        raise NoRows(f"{file.name}: the file is empty")
    if format_ == "excel" and not told:
        raise InputError(f"{file.name}: is no workbook but text; name it .csv, .txt or .jsonl")
    if format_ == "excel":
        with needs(f"{file.name}: a workbook", "excel"):
            from mlopsdeploy.data.sources.excel import ExcelSource
        return ExcelSource(file, options)
    return open_json(file, options) if format_ == "jsonl" else CsvSource(file, options)


def _has_parts(source: Source) -> bool:
    return source.format == "excel" or bool(source.how_read().get("list"))


def _format_of_content(head: bytes) -> str | None:
    """What the first bytes tell, unpacked; None for text that may be anything."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((*packing.ZIP, _OLD_EXCEL)):
        return "excel"
    return "jsonl" if is_json(head) else None


def _format_by_name(path: str) -> str | None:
    name = split_name(path)
    return _by_suffix(name, _SUFFIXES) or _by_suffix(name, _READ_ONLY)


def _by_suffix(name: str, formats: Mapping[str, tuple[str, ...]]) -> str | None:
    named = (form for form, suffixes in formats.items() if name.lower().endswith(suffixes))
    return next(named, None)


def format_read(path: str, sheet: str | None = None) -> str:
    """The format of one file to read: by its name, or where that says nothing by its content.

    Raises:
        InputError: it can't be told, or the file can't be read.
    """
    if found := _format_by_name(path):
        return found
    file = InputFile.open(path)
    try:
        file.unpack(sheet, has_data_name)
        found = _format_of_content(file.peek(HEAD)) or _format_by_name(file.inner)
    finally:
        file.close()
    if found is None:
        raise _unknown(file.name)
    return found


def _unknown(name: str) -> InputError:
    return InputError(
        f"{name}: can't tell its format, neither by its content nor by its name; name it .csv, "
        ".tsv, .txt, .jsonl, .json, .parquet or .xlsx (.gz, .bz2, .xz, .zst or .zip may follow)"
    )


def format_of(path: str) -> str:
    """The format to write that a name says: "csv", "jsonl" or "parquet"; .gz or so may follow.

    Raises:
        InputError: the name says none of them.
    """
    name, packed = packing.split_packing(file_part(path))
    if packed != ".zip" and (format_ := _by_suffix(name, _SUFFIXES)):
        return format_
    raise InputError(
        f"{path}: can't tell its format by its name; use .csv, .tsv, .txt, .jsonl, .ndjson or "
        ".parquet (.gz, .bz2, .xz or .zst may follow)"
    )
