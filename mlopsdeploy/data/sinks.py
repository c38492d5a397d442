"""Rows and their predictions to a file.

Where input and output have the same format, a row is written as it was read, byte for byte, with
its predictions behind it; of some columns, each as it is spelled. Elsewhere columns are written
anew.

A sink writes a window at a time to a file that only grows, so that a run can be interrupted and go
on. Parquet's index comes last, so its rows are kept as Arrow's own stream until all are there.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mlopsdeploy.data.addresses import file_part
from mlopsdeploy.data.packing import compressor, split_packing
from mlopsdeploy.data.sources import (
    CsvSource,
    JoinedSource,
    Partitioned,
    Source,
    Window,
    WithArrays,
    WithPictures,
    WithText,
    format_of,
)
from mlopsdeploy.data.sources.base import column_at
from mlopsdeploy.data.sources.records import quoted
from mlopsdeploy.data.sources.values import as_text, values_of

ROW_GROUP = 65_536

# New columns by name: arrays, or Arrow's own where NumPy has no type for what is in them.
Written = Mapping[str, Any]


class Sink(Protocol):
    """Writes windows."""

    def write(self, window: Window, predictions: Written) -> None:
        """Append a window; `predictions` may hold "" (no label) and NaN (no score)."""
        ...


def output_format(path: str, source: Source) -> str:
    """The format of an output: by its name, or for "-" the input's; CSV for a workbook."""
    if path == "-":
        return "csv" if source.format == "excel" else source.format
    return format_of(path)


def passes_records(format_: str, source: Source) -> bool:
    """Whether rows go from the input to an output of this format as they stand."""
    return format_ == source.format != "parquet" and not isinstance(_file_of(source), Partitioned)


def delimiter_for(path: str, source: Source) -> str:
    """Between the fields of CSV at a path: tabs by the name `.tsv`, else as in the input."""
    if split_packing(file_part(path))[0].lower().endswith(".tsv"):
        return "\t"
    first = _file_of(source)
    return first.delimiter if isinstance(first, CsvSource) else ","


def _file_of(source: Source) -> Source:
    """The file that an input is, or the first one of it."""
    rows = source.rows if isinstance(source, WithArrays | WithPictures | WithText) else source
    return rows.first if isinstance(rows, JoinedSource) else rows


def make_sink(
    format_: str,
    path: str,
    file: IO[bytes],
    source: Source,
    columns: Sequence[str] | None = None,
) -> Sink:
    """What writes the windows of a source.

    Args:
        format_: "csv", "jsonl", or "parquet" (see `tables`).
        path: the output; a name that ends in .gz, .bz2, .xz or .zst is packed.
        file: where to; what it holds already was written by such a sink, if `path` isn't "-".
        source: the rows' own.
        columns: those of the input that are written, in this order, by name or by path; None is
            all of them. What is asked of the source has to say so, too: see `Wanted.kept`.
    """
    # Standard output may be a file, in which what stands is not ours.
    started = path != "-" and file.seekable() and file.tell() > 0
    if format_ == "parquet":
        return _TableSink(file, columns)

    def text_sink(file: Any) -> Sink:
        if format_ == "jsonl":
            return _JsonLinesSink(file, columns)
        first, delimiter = _file_of(source), delimiter_for(path, source)
        if isinstance(first, CsvSource):
            return _CsvSink(file, first, delimiter, columns, started=started)
        return _TableCsvSink(file, delimiter, columns, started=started)

    if pack := compressor(path):
        return _Packed(file, pack, text_sink)
    return text_sink(file)


class _Packed:
    """Each window packed on its own: a file can be cut off between two of them."""

    def __init__(
        self,
        file: IO[bytes],
        pack: Callable[[bytes], bytes],
        sink: Callable[[IO[bytes]], Sink],
    ) -> None:
        self._file = file
        self._pack = pack
        self._window = io.BytesIO()
        self._sink = sink(self._window)

    def write(self, window: Window, predictions: Written) -> None:
        self._sink.write(window, predictions)
        self._file.write(self._pack(self._window.getvalue()))
        self._window.seek(0)
        self._window.truncate()


class _CsvSink:
    """CSV to CSV: the row's own bytes, or some of its fields, and the input's line ends."""

    def __init__(
        self,
        file: IO[bytes],
        source: CsvSource,
        delimiter: str,
        columns: Sequence[str] | None,
        *,
        started: bool,
    ) -> None:
        self._file = file
        self._source = source
        self._delimiter = delimiter
        self._columns = columns
        self._none = columns is not None and not columns
        self._started = started

    def write(self, window: Window, predictions: Written) -> None:
        if not self._started:
            self._start(predictions)
            self._started = True
        parts: list[Any] = [] if self._none else [window.passed, self._delimiter]
        for values in predictions.values():
            parts += [_as_text(values, self._quoted), self._delimiter]
        _write_joined(self._file, [*parts[:-1], self._source.line_end])

    def _start(self, predictions: Written) -> None:
        """Write what stands above the rows."""
        source, same = self._source, self._delimiter == self._source.delimiter
        start = "\ufeff" if source.byte_order_mark else ""
        self._file.write(start.encode() + (source.above if same else b""))  # it says which
        if source.header is None:
            return
        names = [self._quoted(name) for name in predictions]
        if not self._none:
            kept = source.header
            if not same or self._columns is not None:
                kept = source.cutter(self._columns, self._delimiter)(kept)
            names = [kept.decode("utf-8"), *names]
        self._file.write(f"{self._delimiter.join(names)}{source.line_end}".encode())

    def _quoted(self, text: str) -> str:
        return quoted(text, self._delimiter)


class _JsonLinesSink:
    """JSON Lines: the row's own object with keys added, or an object of its columns."""

    def __init__(self, file: IO[bytes], columns: Sequence[str] | None) -> None:
        self._file = file
        self._columns = columns

    def write(self, window: Window, predictions: Written) -> None:
        records = window.passed
        if records is None:
            table = _without_nan(_kept(window, self._columns))
            columns = {name: values_of(table.column(name)) for name in table.column_names}
            rows = (
                {name: values[row] for name, values in columns.items()}
                for row in range(window.rows)
            )
            records = pa.array(map(_json_of, rows), pa.large_string())
        opened = pc.ascii_rtrim(pc.utf8_slice_codeunits(records, 0, -1), characters=" \t")
        comma = pc.if_else(pc.ends_with(opened, "{"), "", ",").cast(pa.large_string())
        parts: list[Any] = [opened, comma]
        for place, (name, values) in enumerate(predictions.items()):
            parts += [f"{', ' if place else ' '}{json.dumps(name, ensure_ascii=False)}: "]
            parts += [_as_text(values, _json_text, missing="null")]
        _write_joined(self._file, [*parts, "}\n"])


class _TableCsvSink:
    """Another format to CSV."""

    def __init__(
        self, file: IO[bytes], delimiter: str, columns: Sequence[str] | None, *, started: bool
    ) -> None:
        self._file = file
        self._delimiter = delimiter
        self._columns = columns
        self._started = started

    def write(self, window: Window, predictions: Written) -> None:
        options = pyarrow.csv.WriteOptions(
            include_header=not self._started, delimiter=self._delimiter
        )
        self._started = True
        table = with_predictions(window, predictions, self._columns)
        for place, field in enumerate(table.schema):
            if not _is_plain(field.type):
                table = table.set_column(place, field.name, in_words(table.column(place)))
        pyarrow.csv.write_csv(table, self._file, options)


class _TableSink:
    """Columns with their types, as a sequence of Arrow streams; see `tables`."""

    def __init__(self, file: IO[bytes], columns: Sequence[str] | None) -> None:
        self._file = file
        self._columns = columns

    def write(self, window: Window, predictions: Written) -> None:
        table = with_predictions(window, predictions, self._columns)
        with pa.ipc.new_stream(pa.PythonFile(self._file, "w"), table.schema) as stream:
            stream.write_table(table)


def tables(file: IO[bytes]) -> Iterator[pa.Table]:
    """What a `_TableSink` wrote, window by window."""
    size = os.fstat(file.fileno()).st_size
    while file.tell() < size:
        with pa.ipc.open_stream(file) as stream:
            yield stream.read_all()


def write_parquet(
    windows: Iterator[pa.Table], file: IO[bytes], *, compression: str = "snappy"
) -> None:
    """Rows gathered into groups that readers like, and the index behind them."""
    writer: pyarrow.parquet.ParquetWriter | None = None
    for group in _groups(windows):
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(file, group.schema, compression=compression)
        writer.write_table(group)
    if writer:
        writer.close()


def _groups(windows: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in windows:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _without_nan(table: pa.Table) -> pa.Table:
    """JSON can't spell NaN and infinity: they become null."""
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(place)
            table = table.set_column(place, field, pc.if_else(pc.is_finite(column), column, None))
    return table


def with_predictions(
    window: Window, predictions: Written, columns: Sequence[str] | None = None
) -> pa.Table:
    """The table of a window, or some of its columns, with those of predictions behind them."""
    table = _kept(window, columns)
    for name, values in predictions.items():
        if isinstance(values, pa.Array):
            column = values
        elif values.dtype == object:
            column = pa.array([value or None for value in values], pa.string())
        else:
            column = pa.array(values, from_pandas=True)
        table = table.append_column(name, column)
    return table


def _kept(window: Window, columns: Sequence[str] | None) -> pa.Table:
    """The table of a window, or of its columns those of some names or paths."""
    table = window.table
    assert table is not None
    for path in columns or ():
        if path not in table.column_names:
            table = table.append_column(path, column_at(table, path))
    return table if columns is None else table.select(list(columns))


def _as_text(values: Any, quoted: Callable[[str], str], missing: str = "") -> pa.Array:
    """One string per value; `missing` for no label and for NaN. Lists are JSON."""
    if isinstance(values, pa.Array):
        if pa.types.is_nested(values.type):
            values = in_words(values)
            if quoted is not _json_text:
                values = pa.array([text and quoted(text) for text in values.to_pylist()])
        return pc.fill_null(values.cast(pa.large_string()), missing)
    if values.dtype == object:
        spelled = {value: quoted(value) if value else missing for value in set(values)}
        return pa.array([spelled[value] for value in values], pa.large_string())
    if values.dtype.kind == "b":
        return pa.array(np.where(values, "true", "false").astype(object), pa.large_string())
    column = pa.array(values, from_pandas=True)
    if missing and values.dtype.kind == "f":  # JSON has no infinity either
        column = pc.if_else(pc.is_finite(column), column, None)
    return pc.fill_null(column.cast(pa.large_string()), missing)


def _is_plain(type_: pa.DataType) -> bool:
    """Whether Arrow's CSV writer spells values of a type as people do."""
    if pa.types.is_dictionary(type_):
        return _is_plain(type_.value_type)
    kinds = (
        pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
        pa.types.is_string, pa.types.is_large_string, pa.types.is_date, pa.types.is_time,
        pa.types.is_timestamp, pa.types.is_null,
    )  # fmt: skip
    return any(is_kind(type_) for is_kind in kinds)


def in_words(values: Any) -> pa.Array:
    """Values as text: lists and structs as JSON, bytes as UTF-8, a duration as 1 day, 0:00:00."""
    nested = pa.types.is_nested(values.type)
    if nested:
        values = _with_short_floats(values)
    texts = [
        None if value is None else _json_of(value) if nested else str(value)
        for value in values_of(values)
    ]
    return pa.array(texts, pa.large_string())


def _with_short_floats(values: Any) -> Any:
    """Lists of float32 as the float64 that are spelled alike: 0.1, and not 0.10000000149011612."""
    innermost, depth = values.type, 0
    while hasattr(innermost, "value_type"):
        innermost, depth = innermost.value_type, depth + 1
    if not pa.types.is_float32(innermost):
        return values
    text, number = pa.large_string(), pa.float64()
    for _ in range(depth):
        text, number = pa.list_(text), pa.list_(number)
    return values.cast(text).cast(number)


def _json_of(value: Any) -> str:
    """As JSON: bytes as UTF-8, dates and decimals as text, NaN, which it has not, as null."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_json_default, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan_inside(value), ensure_ascii=False, default=_json_default)


def _json_default(value: Any) -> str:
    return as_text(value) if isinstance(value, bytes) else str(value)


def _without_nan_inside(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan_inside(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan_inside(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
