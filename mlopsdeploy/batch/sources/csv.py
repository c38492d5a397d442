"""CSV: whole rows pass through as bytes, and only the columns a model needs are parsed."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlopsdeploy.batch.records import guess_delimiter, record_ends
from mlopsdeploy.batch.sources.base import (
    BROKEN,
    NOT_A_NUMBER,
    SAMPLE_ROWS,
    Meter,
    Window,
    close,
    named,
    to_columns,
)
from mlopsdeploy.columns import Array
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
LONGEST_RECORD = 64 << 20  # beyond this a quote was left open, not a long review written
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
        self._rows_read = 0
        self._line = 1
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
                raise InputError(f"{named(self.path)}: the file is empty")
            header = data
            self._line += data.count(b"\n")
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

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows as text, without moving on."""
        data, ends = self._look(SAMPLE_ROWS)
        if not len(ends):
            raise InputError(f"{named(self.path)}: has a header but no rows")
        table = self._parse(data, dict.fromkeys(self.names, "str"))
        return {name: table.column(name).to_pylist() for name in self.names}

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """See `Source`."""
        left = sys.maxsize if limit is None else limit
        while left:
            data, ends = self._take(min(rows, left))
            if not len(ends):
                return
            # Where a table goes on, all of it is text as it stands: one type in every window.
            kinds = wanted if raw else dict.fromkeys(self.names, "str")
            window = self._window(data, ends, kinds, wanted, raw)
            if window.rows:  # else nothing but blank lines
                yield window
            self._rows_read += window.rows
            self._line += data.count(b"\n")
            left -= window.rows

    def _window(
        self,
        data: bytes,
        ends: Array,
        kinds: Mapping[str, str],
        wanted: Mapping[str, str],
        raw: bool,
    ) -> Window:
        records = _slices(data, ends)
        table = self._parse(data, kinds)
        if table.num_rows != len(records):
            raise InputError(
                f"{named(self.path)}: line {self._line} and after: quotes don't pair up; "
                "can't tell where rows end"
            )
        columns, unreadable = to_columns(table, wanted)
        return Window(
            first=self._rows_read + 1,
            columns=columns,
            unreadable=unreadable,
            share=self._meter.share(len(data)),
            records=records if raw else None,
            table=None if raw else table.select(self.names),
        )

    def _parse(self, data: bytes, kinds: Mapping[str, str]) -> pa.Table:
        wrong: list[Any] = []

        def note(row: Any) -> str:
            wrong.append(row)
            return "skip"

        numbers = {name for name, kind in kinds.items() if kind != "str"}
        try:
            table = _parse_csv(data, self._delimiter, self.names, kinds, note)
        except pa.ArrowInvalid as error:
            if "conversion error to double" in str(error) and numbers:
                # A word where a number should be: read as text, and judge value by value.
                return self._parse(data, dict.fromkeys(kinds, "str"))
            raise self._unreadable(error, data) from error
        if wrong:
            row = wrong[0]
            raise InputError(
                f"{named(self.path)}: line {self._line_of(data, row.number)}: has "
                f"{row.actual_columns} fields, the header has {row.expected_columns}"
            )
        return table

    def _line_of(self, data: bytes, number: int | None) -> int:
        ends = record_ends(data, self._delimiter).tolist()
        places = zip([0, *ends], [*ends, len(data)], strict=True)
        starts = [start for start, end in places if data[start:end].strip(b"\r\n")]
        start = starts[number - 1] if number and number <= len(starts) else 0
        return self._line + data[:start].count(b"\n")

    def _unreadable(self, error: pa.ArrowInvalid, data: bytes) -> InputError:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as bad:
                line = self._line + data[: bad.start].count(b"\n")
                return InputError(
                    f"{named(self.path)}: line {line}: byte 0x{data[bad.start]:02x} is not UTF-8; "
                    "name the file's encoding, for instance 'encoding: cp1252' in the YAML"
                )
        reason = str(error).splitlines()[0][:160]
        return InputError(f"{named(self.path)}: line {self._line} and after: {reason}")

    def _look(self, rows: int) -> tuple[bytes, Array]:
        """Up to `rows` complete records, and where each ends; they stay."""
        ends = record_ends(self._pending, self._delimiter)
        while len(ends) < rows:
            block = self._read(max(READ_BYTES, len(self._pending)))
            if not block:
                self._end_of_file(ends)
                ends = record_ends(self._pending, self._delimiter)
                break
            self._pending += self._meter.read(block)
            ends = record_ends(self._pending, self._delimiter)
            if not len(ends) and len(self._pending) > LONGEST_RECORD:
                raise self._open_quote(0)
        ends = ends[:rows]
        return self._pending[: int(ends[-1]) if len(ends) else 0], ends

    def _take(self, rows: int) -> tuple[bytes, Array]:
        """As `_look`, and move past them."""
        data, ends = self._look(rows)
        self._pending = self._pending[len(data) :]
        return data, ends

    def _end_of_file(self, ends: Array) -> None:
        """Give the last record its line end, if the file lacks it and its quotes are closed."""
        start = int(ends[-1]) if len(ends) else 0
        rest = self._pending[start:]
        if not rest.strip(b"\r\n"):
            return
        if not len(record_ends(rest + b"\n", self._delimiter)):
            raise self._open_quote(start)
        self._pending += b"\n"

    def _open_quote(self, start: int) -> InputError:
        line = self._line + self._pending[:start].count(b"\n")
        return InputError(
            f'{named(self.path)}: line {line}: a quote (") is opened and never closed'
        )

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
