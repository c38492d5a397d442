"""Rows and their predictions to a file that appears whole or not at all.

Where input and output have the same format, a row is written as it was read, byte for byte, with
its predictions behind it. Elsewhere its columns are written anew.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mlopsdeploy.batch.sources import CsvSource, Source, Window, format_of
from mlopsdeploy.columns import Columns
from mlopsdeploy.errors import InputError, MlopsDeployError

DECIMALS = 6  # of a score: more than the lowest precision in use can tell apart
ROW_GROUP = 65_536


class Sink(Protocol):
    """An output being written."""

    def write(self, window: Window, predictions: Columns) -> None:
        """Append a window; `predictions` may hold "" (no label) and NaN (no score)."""
        ...


def output_format(path: str, source: Source) -> str:
    """The format of an output: by its name, or the input's for "-"."""
    return source.format if path == "-" else format_of(path)


def passes_records(path: str, source: Source) -> bool:
    """Whether rows go from the input to this output as they stand."""
    return output_format(path, source) == source.format != "parquet"


@contextmanager
def open_sink(path: str, source: Source) -> Iterator[Sink]:
    """A sink for `path`; the file appears when the block ends well, else nothing is left.

    "-" is standard output, which can't be taken back.

    Raises:
        InputError: the output's folder does not exist, or the output is the input.
        MlopsDeployError: it can't be written, for instance because the disk is full.
    """
    if path == "-":
        try:
            with _sink(sys.stdout.buffer, path, source) as sink:
                yield sink
            sys.stdout.buffer.flush()
        except OSError as error:
            # What is still in the buffer has nowhere to go: else it is tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise MlopsDeployError(
                f"standard output: can't be written ({error.strerror or error})"
            ) from error
        return
    target = Path(path)
    check_output(path, source)
    building = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with building.open("wb") as file:
            if path.lower().endswith(".gz"):
                # No name and no time in it: the same rows make the same bytes.
                with (
                    gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
                    _sink(packed, path, source) as sink,
                ):
                    yield sink
            else:
                with _sink(file, path, source) as sink:
                    yield sink
            file.flush()
            os.fsync(file.fileno())
        building.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise MlopsDeployError(
            f"{path}: can't be written ({error.strerror or error}); nothing was kept"
        ) from error
    finally:
        building.unlink(missing_ok=True)


def check_output(path: str, source: Source) -> None:
    """Refuse early what would fail late.

    Raises:
        InputError: the folder does not exist or can't be written to, or the output is the input.
    """
    target = Path(path)
    format_of(path)
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if source.path != "-" and target.exists() and target.samefile(source.path):
        raise InputError(f"{path}: is the input itself; give another --output")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path}: no permission to write in {target.parent}")


@contextmanager
def _sink(file: Any, path: str, source: Source) -> Iterator[Sink]:
    format_ = output_format(path, source)
    if format_ == "parquet":
        sink = ParquetSink(file)
        yield sink
        sink.finish()
    elif format_ == "jsonl":
        yield JsonLinesSink(file)
    elif isinstance(source, CsvSource):
        yield CsvSink(file, source)
    else:
        yield TableCsvSink(file, "\t" if ".tsv" in path.lower() else ",")


class CsvSink:
    """CSV to CSV: the row's own bytes, the input's delimiter and line ends."""

    def __init__(self, file: IO[bytes], source: CsvSource) -> None:
        self._file = file
        self._source = source
        self._delimiter = source.delimiter
        self._line_end = source.line_end
        self._started = False

    def write(self, window: Window, predictions: Columns) -> None:
        """See `Sink`."""
        if not self._started:
            names = [self._quoted(name) for name in predictions]
            header = self._delimiter.join([self._source.header.decode("utf-8"), *names])
            start = "\ufeff" if self._source.bom else ""
            self._file.write(f"{start}{header}{self._line_end}".encode())
            self._started = True
        parts: list[Any] = [window.records]
        for values in predictions.values():
            parts += [self._delimiter, _as_text(values, self._quoted)]
        _write_joined(self._file, [*parts, self._line_end])

    def _quoted(self, text: str) -> str:
        if any(mark in text for mark in (self._delimiter, '"', "\n", "\r")):
            return '"' + text.replace('"', '""') + '"'
        return text


class JsonLinesSink:
    """JSON Lines: the row's own object with keys added, or an object of its columns."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, window: Window, predictions: Columns) -> None:
        """See `Sink`."""
        if window.records is None:
            assert window.table is not None
            rows = _without_nan(window.table).to_pylist()
            lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
            records = pa.array(lines, pa.large_string())
        else:
            records = window.records
        opened = pc.ascii_rtrim(pc.utf8_slice_codeunits(records, 0, -1), characters=" \t")
        comma = pc.if_else(pc.ends_with(opened, "{"), "", ",").cast(pa.large_string())
        parts: list[Any] = [opened, comma]
        for place, (name, values) in enumerate(predictions.items()):
            parts += [f"{', ' if place else ' '}{json.dumps(name, ensure_ascii=False)}: "]
            parts += [_as_text(values, _json_text, missing="null")]
        _write_joined(self._file, [*parts, "}\n"])


class TableCsvSink:
    """Another format to CSV."""

    def __init__(self, file: IO[bytes], delimiter: str) -> None:
        self._file = file
        self._delimiter = delimiter
        self._started = False

    def write(self, window: Window, predictions: Columns) -> None:
        """See `Sink`."""
        options = pyarrow.csv.WriteOptions(
            include_header=not self._started, delimiter=self._delimiter
        )
        self._started = True
        try:
            pyarrow.csv.write_csv(_with_predictions(window, predictions), self._file, options)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"a column of this input can't be written as CSV ({error}); use .parquet or .jsonl"
            ) from error


class ParquetSink:
    """Columns with their types; rows are gathered into groups that readers like."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, window: Window, predictions: Columns) -> None:
        """See `Sink`."""
        self._waiting.append(_with_predictions(window, predictions))
        if sum(table.num_rows for table in self._waiting) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the index."""
        self._flush()
        if self._writer:
            self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        self._writer = self._writer or pyarrow.parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)


def _without_nan(table: pa.Table) -> pa.Table:
    """JSON can't spell NaN and infinity: they become null."""
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(place)
            table = table.set_column(place, field, pc.if_else(pc.is_finite(column), column, None))
    return table


def _with_predictions(window: Window, predictions: Columns) -> pa.Table:
    table = window.table
    assert table is not None
    for name, values in predictions.items():
        if values.dtype == object:
            column = pa.array([value or None for value in values], pa.string())
        else:
            column = pa.array(_rounded(values), from_pandas=True)
        table = table.append_column(name, column)
    return table


def _as_text(values: Any, quoted: Callable[[str], str], missing: str = "") -> pa.Array:
    """One string per value; `missing` for no label and for NaN."""
    if values.dtype == object:
        spelled = {value: quoted(value) if value else missing for value in set(values)}
        return pa.array([spelled[value] for value in values], pa.large_string())
    if values.dtype.kind == "b":
        return pa.array(np.where(values, "true", "false").astype(object), pa.large_string())
    column = pa.array(_rounded(values), from_pandas=True).cast(pa.large_string())
    return pc.fill_null(column, missing)


def _rounded(values: Any) -> Any:
    return np.round(values.astype(np.float64), DECIMALS) if values.dtype.kind == "f" else values


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _write_joined(file: IO[bytes], parts: list[Any]) -> None:
    """Write the parts of each row side by side, as one block of bytes."""
    typed = [
        pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts
    ]
    joined = pc.binary_join_element_wise(*typed, pa.scalar("", pa.large_string()))
    for array in joined.chunks if isinstance(joined, pa.ChunkedArray) else [joined]:
        offsets = np.frombuffer(array.buffers()[1], np.int64)
        start, stop = offsets[array.offset], offsets[array.offset + len(array)]
        file.write(memoryview(array.buffers()[2])[start:stop])


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the system lets folders be synced."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
