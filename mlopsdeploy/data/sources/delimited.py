"""CSV: whole rows pass through as bytes, and only the columns a model needs are parsed."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlopsdeploy.columns import Array
from mlopsdeploy.core.inputs import NOT_A_NUMBER
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.records import guess_delimiter, record_ends
from mlopsdeploy.data.sources.base import (
    BROKEN,
    SAMPLE_ROWS,
    Chunk,
    Meter,
    NoRows,
    Origin,
    Wanted,
    Window,
    as_text,
    close,
    named,
    not_numbers,
    to_columns,
)
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
LONGEST_RECORD = 64 << 20  # beyond this a quote was left open, not a long review written
# Closes a quote that nobody closed, and marks its row as one that can't be read: no text has it.
OPENED = b'"\0'
STRAY_RETURN = "holds a carriage return outside of quotes"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class CsvSource:
    """Delimited text. Only the columns asked for are parsed; whole rows pass through as bytes."""

    format = "csv"

    def __init__(
        self,
        stream: IO[bytes],
        raw: IO[bytes],
        path: str,
        delimiter: str,
        encoding: str,
        head: bytes,
    ) -> None:
        self.path = path
        self._meter = Meter(raw)
        self._raw = raw
        self.bom = head.startswith(codecs.BOM_UTF8)
        bom_encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None)
        if encoding == "auto":
            encoding = bom_encoding or "utf-8"
        try:
            encoding = codecs.lookup(encoding).name  # UTF-8, utf8 and utf_8 are one
        except LookupError as error:
            raise InputError(f"{named(path)}: unknown encoding {encoding!r}") from error
        if encoding in ("utf-8", "utf-8-sig"):
            if b"\0" in head:
                raise InputError(f"{named(path)}: this looks like a binary file, not CSV")
            if self.bom:
                stream.read(len(codecs.BOM_UTF8))
            self._read: Callable[[int], bytes] = lambda size: _read_some(stream, size, path)
        else:
            self._read = _transcoder(stream, encoding, path)
        self._pending = b""
        self._line = 1
        self._rows_read = 0
        self._delimiter = "," if delimiter == "auto" else delimiter
        self._read_header(delimiter)

    def _read_header(self, delimiter: str) -> None:
        while b"\n" not in self._pending.lstrip(b"\r\n") and (block := self._read(READ_BYTES)):
            self._pending += self._meter.read(block)
        first_line = self._pending.lstrip(b"\r\n").partition(b"\n")[0]
        if delimiter == "auto":
            text = first_line.decode("utf-8", "replace")
            self._delimiter = "\t" if self.path.lower().endswith(".tsv") else guess_delimiter(text)
        header = b""
        while not header.strip():  # blank lines above the header
            data, ends = self._take(1)
            if not len(ends):
                raise NoRows(f"{named(self.path)}: the file is empty")
            header = data
            self._line += data.count(b"\n")
        if OPENED in header:
            raise InputError(
                f'{named(self.path)}: line {self._line - 1}: a quote (") is opened and never closed'
            )
        self.line_end = "\r\n" if header.endswith(b"\r\n") else "\n"
        self.header = header.rstrip(b"\r\n")
        try:
            table = _parse_csv(header, self._delimiter)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError(f"{named(self.path)}: line 1: the header can't be read") from error
        self.names = table.column_names
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(
                    f"{named(self.path)}: column {name!r} is named twice in the header"
                )

    @property
    def delimiter(self) -> str:
        """The character between fields."""
        return self._delimiter

    def has_rows(self) -> bool:
        """Whether there is anything but a header."""
        return len(self._look(1)[1]) > 0

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows as text, without moving on."""
        data, ends = self._look(SAMPLE_ROWS)
        if not len(ends):
            raise NoRows(f"{named(self.path)}: has a header but no rows")
        chunk = Chunk(1, len(ends), data, None, self._line)
        table = self.parse(chunk, Wanted(dict.fromkeys(self.names, "str"), raw=False)).table
        assert table is not None
        return {name: table.column(name).to_pylist() for name in self.names}

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        while True:
            line = self._line
            data, ends = self._take(rows)
            if not len(ends):
                return None
            self._line += data.count(b"\n")
            count = len(_slices(data, ends))
            if count:  # else nothing but blank lines
                first = self._rows_read + 1
                self._rows_read += count
                return Chunk(first, count, data, self._meter.share(len(data)), line)

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        rows = _Rows(chunk, self._delimiter)
        # Where a table goes on, all of it is text as it stands: one type in every window.
        kinds = wanted.columns if wanted.raw else dict.fromkeys(self.names, "str")
        reasons = rows.opened()
        if reasons:
            table, more = self._parse_parts([rows.records], kinds, reasons)
            reasons |= more
        else:
            table, reasons = self._parse(chunk.content, rows.records, kinds)
        bad = tuple(
            BadRow(chunk.first + place, reason, rows.text(place), self.path, rows.line(place))
            for place, reason in sorted(reasons.items())
        )
        records = rows.records
        places = np.arange(len(records))
        if bad:
            places = np.setdiff1d(places, list(reasons), assume_unique=True)
            records = records.take(pa.array(places))
        columns, unreadable = to_columns(table, wanted.columns)
        window = Window(
            chunk.first + places,
            columns,
            chunk.share,
            (Origin(self.path),),
            records=records,
            bad=bad,
        )
        strange, dropped = not_numbers(window, unreadable, lambda row: rows.line(int(places[row])))
        if not wanted.raw:
            window = replace(window, records=None, table=table.select(self.names))
        return window.without(strange, dropped)

    def _parse(
        self, data: bytes, records: pa.Array, kinds: Mapping[str, str]
    ) -> tuple[pa.Table, dict[int, str]]:
        """The readable rows, and why the others are not; these by their place among `records`."""
        wrong: dict[int, str] = {}

        def note(row: Any) -> str:
            fields = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}"
            place = 0 if row.number is None else row.number - 1
            wrong[place] = f"has {fields}, the header has {row.expected_columns}"
            return "skip"

        try:
            table = _parse_csv(data, self._delimiter, self.names, kinds, note)
        except pa.ArrowInvalid as error:
            if "conversion error to double" in str(error):
                # A word where a number should be: read as text, and judge value by value.
                return self._parse(data, records, dict.fromkeys(kinds, "str"))
            if len(records) == 1:
                return _no_rows(kinds), {0: _reason(error, records)}
        else:
            if table.num_rows + len(wrong) == len(records):
                return table, wrong
            if len(records) == 1:
                lone = b"\r" in records[0].as_buffer().to_pybytes()
                return _no_rows(kinds), {0: STRAY_RETURN if lone else "its quotes don't pair up"}
        # One of them is wrong, or where it ends is: halve until it is alone.
        half = len(records) // 2
        return self._parse_parts([records[:half], records[half:]], kinds, ())

    def _parse_parts(
        self, parts: Sequence[pa.Array], kinds: Mapping[str, str], left_out: Collection[int]
    ) -> tuple[pa.Table, dict[int, str]]:
        """As `_parse`, part by part, without the rows of some places."""
        tables = [_no_rows(kinds)]
        wrong: dict[int, str] = {}
        start = 0
        for part in parts:
            places = [place for place in range(len(part)) if start + place not in left_out]
            content = b"".join(part[place].as_buffer().to_pybytes() + b"\n" for place in places)
            if places:
                table, reasons = self._parse(content, part.take(pa.array(places)), kinds)
                tables.append(table)
                wrong |= {start + places[place]: reason for place, reason in reasons.items()}
            start += len(part)
        return pa.concat_tables(tables, promote_options="permissive"), wrong

    def _look(self, rows: int) -> tuple[bytes, Array]:
        """Up to `rows` complete records, and where each ends; they stay."""
        ends = record_ends(self._pending, self._delimiter)
        while len(ends) < rows:
            open_since = int(ends[-1]) if len(ends) else 0
            too_long = len(self._pending) - open_since > LONGEST_RECORD
            if too_long and self._pending.find(b"\n", open_since) >= 0:
                self._pending = _closed(self._pending, open_since)
                ends = record_ends(self._pending, self._delimiter)
                continue
            block = self._read(max(READ_BYTES, len(self._pending)))
            if block:
                self._pending += self._meter.read(block)
            elif not self._end_of_file(open_since):
                break
            ends = record_ends(self._pending, self._delimiter)
        ends = ends[:rows]
        return self._pending[: int(ends[-1]) if len(ends) else 0], ends

    def _take(self, rows: int) -> tuple[bytes, Array]:
        """As `_look`, and move past them."""
        data, ends = self._look(rows)
        self._pending = self._pending[len(data) :]
        return data, ends

    def _end_of_file(self, start: int) -> bool:
        """Complete the record that the file ends in; whether there was one."""
        self._meter.check_end(self.path)
        if not self._pending[start:].strip(b"\r\n"):
            return False
        if not self._pending.endswith(b"\n"):
            self._pending += b"\n"
        if not len(record_ends(self._pending[start:], self._delimiter)):
            self._pending = _closed(self._pending, start)
        return True

    def close(self) -> None:
        """See `Source`."""
        close(self._raw)


def _parse_csv(
    data: bytes,
    delimiter: str,
    names: list[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    wrong: Callable[[Any], str] | None = None,
) -> pa.Table:
    """Parse whole records, the first of them a header if no names are given.

    On one thread, so that a bad row knows its number.
    """
    kinds = kinds or {}
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,
            column_names=names,
            block_size=max(len(data) + 1, 1024),
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=b'"' in data, invalid_row_handler=wrong
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={
                name: pa.large_string() if kind == "str" else pa.float64()
                for name, kind in kinds.items()
            },
            include_columns=list(kinds) or None,
            null_values=NOT_A_NUMBER,
            strings_can_be_null=False,
        ),
    )


class _Rows:
    """The rows of a chunk, and where each stands."""

    def __init__(self, chunk: Chunk, delimiter: str) -> None:
        self._chunk = chunk
        self._delimiter = delimiter
        self._ends = record_ends(chunk.content, delimiter)
        self.records = _slices(chunk.content, self._ends)

    def opened(self) -> dict[int, str]:
        """Those whose quote nobody closed, with what to say about it."""
        if OPENED not in self._chunk.content:
            return {}
        ends = pc.ends_with(self.records, OPENED.decode()).to_numpy(zero_copy_only=False)
        return dict.fromkeys(
            np.flatnonzero(ends).tolist(), 'a quote (") is opened and never closed'
        )

    def text(self, place: int) -> str:
        """The row as it stands in the file."""
        record: bytes = self.records[place].as_buffer().to_pybytes()
        return as_text(record.removesuffix(OPENED).removesuffix(b"\r"))

    @cached_property
    def _starts(self) -> list[int]:
        data = self._chunk.content
        places = zip([0, *self._ends[:-1].tolist()], self._ends.tolist(), strict=True)
        return [start for start, end in places if data[start:end].strip(b"\r\n")]

    def line(self, place: int) -> int:
        """The line that it starts on."""
        return self._chunk.line + int(self._chunk.content.count(b"\n", 0, self._starts[place]))


def _no_rows(kinds: Mapping[str, str]) -> pa.Table:
    return pa.table({name: pa.array([], pa.large_string()) for name in kinds})


def _reason(error: pa.ArrowInvalid, records: pa.Array) -> str:
    data = records[0].as_buffer().to_pybytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as bad:
        return (
            f"byte 0x{data[bad.start]:02x} is not UTF-8; if the file is not, name its encoding: "
            "--encoding cp1252"
        )
    return str(error).splitlines()[0][:160]


def _closed(data: bytes, start: int) -> bytes:
    """`data` with an end to the record from `start` on, whose quote is opened and never closed.

    The lines after it are rows again.
    """
    end = data.index(b"\n", start)
    return data[:end] + OPENED + data[end:]


def _slices(data: bytes, ends: Array) -> pa.Array:
    """Each record as a string without its line end; blank lines, which hold no row, left out."""
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    whole = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    records = pc.ascii_rtrim(whole, characters="\r\n")
    lengths = pc.binary_length(records)
    if pc.min(lengths).as_py() == 0:
        records = records.filter(pc.greater(lengths, 0))
    return records


def _read_some(stream: IO[bytes], size: int, path: str) -> bytes:
    try:
        return stream.read(size)
    except BROKEN as error:
        raise InputError(f"{named(path)}: can't be read to its end ({error})") from error


def _transcoder(stream: IO[bytes], encoding: str, path: str) -> Callable[[int], bytes]:
    """A reader that gives UTF-8, whatever the file is written in."""
    try:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    except LookupError as error:
        raise InputError(f"{named(path)}: unknown encoding {encoding!r}") from error

    def read(size: int) -> bytes:
        try:
            return text.read(size).encode("utf-8")
        except BROKEN as error:
            raise InputError(f"{named(path)}: can't be read to its end ({error})") from error
        except UnicodeError as error:
            raise InputError(f"{named(path)}: is not {encoding} ({error})") from error

    return read
