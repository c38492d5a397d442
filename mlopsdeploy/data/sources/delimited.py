"""CSV: whole rows pass through as bytes, and only the columns a model needs are parsed.

Knowing where a record ends lets a job hand every row on byte for byte and tell a user which line is
broken. Quotes follow RFC 4180: a field that starts with a quote runs to the closing one, delimiters
and line ends inside included; two quotes stand for one; a quote within an unquoted field is a
character like any other (`5" screen`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlopsdeploy.columns import Array
from mlopsdeploy.core.inputs import NOT_A_NUMBER
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.sources.base import (
    SAMPLE_ROWS,
    Chunk,
    FileSource,
    Origin,
    ReadOptions,
    Wanted,
    Window,
    as_text,
    with_columns,
)
from mlopsdeploy.data.sources.input_file import HEAD, InputFile, NoRows
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
LONGEST_RECORD = 64 << 20  # beyond this a quote was left open, not a long review written
# Closes a quote that nobody closed, and marks its row as one that can't be read: no text has it.
OPENED = b'"\0'
NEVER_CLOSED = 'a quote (") is opened and never closed'


class CsvSource(FileSource):
    """Delimited text. Only the columns asked for are parsed; whole rows pass through as bytes."""

    format = "csv"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        super().__init__(file)
        file.decode(options.encoding)
        if not file.transcoded and b"\0" in file.peek(HEAD):
            raise InputError(f"{file.name}: this looks like a binary file, not CSV")
        self.byte_order_mark = file.byte_order_mark
        self._pending = b""
        self._line = 1
        while b"\n" not in self._pending.lstrip(b"\r\n") and (block := file.read(READ_BYTES)):
            self._pending += block
        first_line = self._pending.lstrip(b"\r\n").partition(b"\n")[0].decode("utf-8", "replace")
        delimiter = options.delimiter
        if delimiter == "auto":
            is_tsv = self.path.lower().endswith(".tsv")
            delimiter = "\t" if is_tsv else guess_delimiter(first_line)
        self.delimiter = delimiter
        self._read_header()
        if not len(self._look(1)[1]):
            raise NoRows(f"{file.name}: has a header but no rows")

    def _read_header(self) -> None:
        header = b""
        while not header.strip():  # blank lines above the header
            header, ends = self._take(1)
            if not len(ends):
                raise NoRows(f"{self._file.name}: the file is empty")
        if OPENED in header:
            raise InputError(f"{self._file.name}: line {self._line - 1}: {NEVER_CLOSED}")
        self.line_end = "\r\n" if header.endswith(b"\r\n") else "\n"
        self.header = header.rstrip(b"\r\n")
        try:
            table = _parse_csv(header, self.delimiter)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError(f"{self._file.name}: line 1: the header can't be read") from error
        self._name_columns(table.column_names)

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows as text, without moving on."""
        data, ends = self._look(SAMPLE_ROWS)
        chunk = Chunk(1, len(ends), data, None, self._line)
        table = self.parse(chunk, Wanted(dict.fromkeys(self.names, "str"), raw=False)).table
        assert table is not None
        return {name: table.column(name).to_pylist() for name in self.names}

    def how_read(self) -> dict[str, Any]:
        """See `Source`."""
        return {**super().how_read(), "delimiter": self.delimiter, "encoding": self._file.encoding}

    def read(self, rows: int) -> Chunk | None:
        """See `Source`."""
        while True:
            line = self._line
            data, ends = self._take(rows)
            if not len(ends):
                return None
            if count := len(_slices(data, ends)[0]):  # else nothing but blank lines
                return self._chunk(count, data, self._file.share(len(data)), line)

    def parse(self, chunk: Chunk, wanted: Wanted) -> Window:
        """See `Source`."""
        data = chunk.content
        records, starts = _slices(data, record_ends(data, self.delimiter))
        # Where a table goes on, all of it is text as it stands: one type in every window.
        kinds = wanted.columns if wanted.raw else dict.fromkeys(self.names, "str")
        if opened := _opened(records) if OPENED in data else []:
            table, reasons = self._parse_parts([records], kinds, opened)
            reasons |= dict.fromkeys(opened, NEVER_CLOSED)
        else:
            table, reasons = self._parse(data, records, kinds)

        def line(place: int) -> int:
            return chunk.line + int(data.count(b"\n", 0, int(starts[place])))

        def bad_row(place: int) -> BadRow:
            record = _content(records, place).removesuffix(OPENED).removesuffix(b"\r")
            number = chunk.first + place
            return BadRow(number, reasons[place], as_text(record), self.path, line(place))

        places = np.arange(len(records))
        if reasons:
            places = np.setdiff1d(places, list(reasons), assume_unique=True)
        window = Window(
            chunk.first + places,
            {},
            chunk.share,
            (Origin(self.path),),
            records=records.take(pa.array(places)) if reasons else records,
            table=None if wanted.raw else table.select(self.names),
            bad=tuple(map(bad_row, sorted(reasons))),
        )
        window = with_columns(window, table, wanted, lambda row: line(places[row]))
        return window if wanted.raw else replace(window, records=None)

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
            table = _parse_csv(data, self.delimiter, self.names, kinds, note)
        except pa.ArrowInvalid as error:
            if any(kind != "str" for kind in kinds.values()):
                # Perhaps a word where a number should be: read as text, and judge value by value.
                return self._parse(data, records, dict.fromkeys(kinds, "str"))
            reason = _reason(error, records)
        else:
            if table.num_rows + len(wrong) == len(records):
                return table, wrong
            lone = b"\r" in _content(records, 0)
            reason = (
                "holds a carriage return outside of quotes" if lone else "its quotes don't pair up"
            )
        if len(records) == 1:
            return _no_rows(kinds), {0: reason}
        # One of them is wrong, or where it ends is: halve until it is alone.
        half = len(records) // 2
        return self._parse_parts([records[:half], records[half:]], kinds, ())

    def _parse_parts(
        self, parts: Sequence[pa.Array], kinds: Mapping[str, str], left_out: Collection[int]
    ) -> tuple[pa.Table, dict[int, str]]:
        """As `_parse`, part by part and all of it as text, without the rows of some places."""
        kinds = dict.fromkeys(kinds, "str")
        tables = [_no_rows(kinds)]
        wrong: dict[int, str] = {}
        start = 0
        for part in parts:
            places = [place for place in range(len(part)) if start + place not in left_out]
            content = b"".join(_content(part, place) + b"\n" for place in places)
            if places:
                table, reasons = self._parse(content, part.take(pa.array(places)), kinds)
                tables.append(table)
                wrong |= {start + places[place]: reason for place, reason in reasons.items()}
            start += len(part)
        return pa.concat_tables(tables), wrong

    def _look(self, rows: int) -> tuple[bytes, Array]:
        """Up to `rows` complete records, and where each ends; they stay."""
        ends = record_ends(self._pending, self.delimiter)
        while len(ends) < rows:
            open_since = int(ends[-1]) if len(ends) else 0
            too_long = len(self._pending) - open_since > LONGEST_RECORD
            if too_long and self._pending.find(b"\n", open_since) >= 0:
                self._pending = _closed(self._pending, open_since)
                ends = record_ends(self._pending, self.delimiter)
                continue
            if block := self._file.read(max(READ_BYTES, len(self._pending))):
                self._pending += block
            elif not self._end_of_file(open_since):
                break
            ends = record_ends(self._pending, self.delimiter)
        ends = ends[:rows]
        return self._pending[: int(ends[-1]) if len(ends) else 0], ends

    def _take(self, rows: int) -> tuple[bytes, Array]:
        """As `_look`, and move past them."""
        data, ends = self._look(rows)
        self._pending = self._pending[len(data) :]
        self._line += data.count(b"\n")
        return data, ends

    def _end_of_file(self, start: int) -> bool:
        """Complete the record that the file ends in; whether there was one."""
        if not self._pending[start:].strip(b"\r\n"):
            return False
        if not self._pending.endswith(b"\n"):
            self._pending += b"\n"
        if not len(record_ends(self._pending[start:], self.delimiter)):
            self._pending = _closed(self._pending, start)
        return True


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


def _opened(records: pa.Array) -> list[int]:
    """The places of those whose quote nobody closed."""
    ends = pc.ends_with(records, OPENED.decode()).to_numpy(zero_copy_only=False)
    places: list[int] = np.flatnonzero(ends).tolist()
    return places


def _content(records: pa.Array, place: int) -> bytes:
    content: bytes = records[place].as_buffer().to_pybytes()
    return content


def _no_rows(kinds: Mapping[str, str]) -> pa.Table:
    return pa.table({name: pa.array([], pa.large_string()) for name in kinds})


def _reason(error: pa.ArrowInvalid, records: pa.Array) -> str:
    data = _content(records, 0)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as bad:
        return (
            f"byte 0x{data[bad.start]:02x} is not UTF-8; if the file is not, name its encoding: "
            "--encoding cp1252"
        )
    return str(error).splitlines()[0][:160]


def _closed(data: bytes, start: int) -> bytes:
    """With the quote from `start` on closed at its line's end; the lines after it are rows."""
    end = data.index(b"\n", start)
    return data[:end] + OPENED + data[end:]


def _slices(data: bytes, ends: Array) -> tuple[pa.Array, Array]:
    """Each record without its line end, and where it starts; not blank lines, which hold no row."""
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    whole = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    records, starts = pc.ascii_rtrim(whole, characters="\r\n"), offsets[:-1]
    filled = pc.binary_length(records).to_numpy() > 0
    if not filled.all():
        records, starts = records.filter(pa.array(filled)), starts[filled]
    return records, starts


def record_ends(data: bytes, delimiter: str) -> Array:
    """Positions just past the line end of every complete record in `data`.

    `data` starts at the start of a record. What follows the last position is an incomplete one.
    """
    buffer = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(buffer == _NEWLINE)
    if b'"' not in data:
        return np.asarray(newlines + 1, np.int64)
    quotes = np.flatnonzero(buffer == _QUOTE)
    if not _is_regular(buffer, quotes, ord(delimiter)):
        return _scan(data, delimiter)
    outside = np.searchsorted(quotes, newlines) % 2 == 0
    return np.asarray(newlines[outside] + 1, np.int64)


def _is_regular(buffer: Array, quotes: Array, delimiter: int) -> bool:
    """Whether counting quotes tells inside from outside.

    It does if each odd quote stands where a field may open and each even one where it may close:
    next to a delimiter, a line end, the edge of the data, or the other half of a doubled quote.
    """
    edges = np.array([delimiter, _NEWLINE, _RETURN, _QUOTE], np.uint8)
    opening, closing = quotes[0::2], quotes[1::2]
    before = buffer[opening[opening > 0] - 1]
    after = buffer[closing[closing < len(buffer) - 1] + 1]
    return bool(np.isin(before, edges).all() and np.isin(after, edges).all())


def _scan(data: bytes, delimiter: str) -> Array:
    """Record by record: slower, and right for stray quotes."""
    ends = []
    position = 0
    pattern = _record_pattern(delimiter)
    while match := pattern.match(data, position):
        position = match.end()
        ends.append(position)
    return np.array(ends, np.int64)


@lru_cache
def _record_pattern(delimiter: str) -> re.Pattern[bytes]:
    mark = re.escape(delimiter.encode())
    field = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+)?+' % (mark, mark, mark)
    return re.compile(rb"%b(?:%b%b)*+\n" % (field, mark, field))


def guess_delimiter(header: str) -> str:
    """The one of `, ; tab |` that a header line has most of, outside quotes; else a comma."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)
