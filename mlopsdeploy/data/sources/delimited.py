"""CSV: whole rows pass through as bytes, and only the columns a model needs are parsed.

Knowing where a record ends lets a job hand every row on byte for byte and tell a user which line is
broken: see `records`. How a file is written is found out first: see `dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlopsdeploy.columns import Array
from mlopsdeploy.core.inputs import NOT_A_NUMBER
from mlopsdeploy.data.bad_rows import BadRow
from mlopsdeploy.data.sources.base import (
    MOST_BYTES,
    SAMPLE_ROWS,
    Chunk,
    FileSource,
    Origin,
    ReadOptions,
    Wanted,
    Window,
    shortened,
    told_apart,
    with_columns,
)
from mlopsdeploy.data.sources.dialect import find_layout
from mlopsdeploy.data.sources.input_file import InputFile, NoRows
from mlopsdeploy.data.sources.records import (
    LONGEST_RECORD,
    OPENED,
    Dialect,
    cutter,
    fields_of,
    find_records,
    value_of,
)
from mlopsdeploy.data.sources.spelling import is_plain
from mlopsdeploy.data.sources.values import is_utf8
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
_NOT_TOLD = "a quote is opened and never closed, or text follows a closing one,"


class CsvSource(FileSource):
    """Delimited text. Only the columns asked for are parsed; whole rows pass through as bytes."""

    format = "csv"

    def __init__(self, file: InputFile, options: ReadOptions) -> None:
        super().__init__(file, options)
        file.decode(options.encoding)
        self.byte_order_mark = file.byte_order_mark
        self._pending = file.read(READ_BYTES)
        while not _has_line(self._pending) and (block := file.read(READ_BYTES)):
            self._pending += block
        if not self._pending.strip(b"\r\n\0"):
            raise NoRows(f"{file.name}: the file is empty")
        self._layout = find_layout(self._pending, options, file.name, self.path)
        self.dialect = self._layout.dialect
        self.delimiter = self.dialect.delimiter
        self._newline = self.dialect.newline.encode()
        self.above = self._layout.kept  # what the output has above its header, too
        self._nuls = 0
        self._at = self._layout.start  # where the next record starts in what is pending
        self._ends = np.zeros(0, np.int64)  # of records there, as far as it was looked at
        self._looked_at = self._ended = False
        self._line = 1 + self._pending.count(self._newline, 0, self._at)
        self.header: bytes | None = None
        if self._layout.header:
            self._read_header()
        else:
            self._without_header()
        if not len(self._look(1)[1]):
            raise NoRows(f"{file.name}: has a header but no rows")

    def _read_header(self) -> None:
        line = self._line
        header, ends = self._take(1)
        if not len(ends):
            raise NoRows(f"{self._file.name}: the file is empty")
        if find_records(header, self.dialect, last=True)[1]:
            raise InputError(
                f"{self._file.name}: line {line}: {_NOT_TOLD} in the header; "
                "--quote none if quotes are part of the names or texts"
            )
        self.header = header.rstrip(b"\r\n")
        self.line_end = header[len(self.header) :].decode()
        try:
            self.header.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._file.name}: line {line}: the header is not UTF-8 (byte "
                f"0x{self.header[error.start]:02x}); name its encoding: --encoding cp1252"
            ) from error
        cells = [value_of(one, self.dialect) for one in fields_of(self.header, self.dialect)]
        if self._layout.extra:  # so that new columns stand below their names
            self.header += self.delimiter.encode()
            cells.append("")
        self._name_columns(told_apart(cells))

    def _without_header(self) -> None:
        record, ends = self._look(1)
        if not len(ends):
            raise NoRows(f"{self._file.name}: the file is empty")
        self.line_end = record[len(record.rstrip(b"\r\n")) :].decode()
        fields = fields_of(record.rstrip(b"\r\n"), self.dialect)
        self._name_columns([str(place + 1) for place in range(len(fields))])

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows as text, without moving on."""
        data, ends = self._look(SAMPLE_ROWS)
        chunk = Chunk(1, len(ends), data, None, self._line)
        table = self.parse(chunk, Wanted(dict.fromkeys(self.names, "str"), raw=False)).table
        assert table is not None
        return {name: table.column(name).to_pylist() for name in self.names}

    def how_read(self) -> dict[str, Any]:
        """See `Source`; what is as usual is left out, but for delimiter and encoding."""
        found = super().how_read()
        dialect, layout = self.dialect, self._layout
        usual: dict[str, Any] = {"delimiter": dialect.delimiter, "encoding": self._file.encoding}
        unusual: dict[str, tuple[Any, Any]] = {
            "quote": (dialect.quote or "none", '"'),
            "escape": (dialect.escape, ""),
            "spaces before fields": ("left out" if dialect.spaces else "", ""),
            "header": ("none" if not layout.header else "", ""),
            "delimiter at row ends": ("header completed" if layout.extra else "", ""),
            "sep= line": ("kept" if layout.kept else "", ""),
            "lines skipped": (layout.skipped, 0),
            "line end": ("CR" if dialect.newline == "\r" else "", ""),
            "NUL bytes dropped": (self._nuls, 0),
        }
        usual |= {name: value for name, (value, default) in unusual.items() if value != default}
        return {"format": found.pop("format"), **usual, **found}

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
        ends, kinds_wrong = find_records(data, self.dialect, self._layout.shape, last=True)
        records, starts, places_of = _slices(data, ends)
        # Where a table goes on, all of it is text as it stands: one type in every window.
        kinds = wanted.cells if wanted.raw else dict.fromkeys(self.names, "str")
        if not is_plain(self.numbers):
            kinds = dict.fromkeys(kinds, "str")
        wrong = {
            int(places_of[at]): self._not_told(kind, records, int(places_of[at]))
            for at, kind in kinds_wrong.items()
        }
        wrong |= self._ragged_bytes(data, records, wrong)
        if wrong:
            table, reasons = self._parse_parts([records], kinds, wrong)
            reasons |= wrong
        else:
            table, reasons = self._parse(data, records, kinds)

        def line(place: int) -> int:
            return chunk.line + int(data.count(self._newline, 0, int(starts[place])))

        def bad_row(place: int) -> BadRow:
            record, first = _content(records, place), line(place)
            reason = reasons[place]
            if within := record.count(self._newline):
                reason = f"lines {first} to {first + within}: {reason}"
                if self.dialect.quote and "field" in reason:
                    reason += "; --quote none if quotes are part of the text"
            return BadRow(chunk.first + place, reason, shortened(record), self.path, first)

        places = np.arange(len(records))
        if reasons:
            places = np.setdiff1d(places, list(reasons), assume_unique=True)
        passed = records.take(pa.array(places)) if reasons else records
        window = Window(
            chunk.first + places,
            {},
            chunk.share,
            (Origin(self.path),),
            records=passed,
            table=None if wanted.raw else table.select(self.names),
            bad=tuple(map(bad_row, sorted(reasons))),
            kept=self._kept(passed, wanted) if wanted.raw else None,
        )
        window = with_columns(window, table, wanted, self.numbers, lambda row: line(places[row]))
        return window if wanted.raw else replace(window, records=None)

    def cutter(self, names: Collection[str] | None, delimiter: str) -> Callable[[bytes], bytes]:
        """What gives these columns of a record, all of them for None; see `records.cutter`."""
        kept = self.names if names is None else names
        return cutter(self.dialect, [self.names.index(name) for name in kept], delimiter)

    def _kept(self, records: pa.Array, wanted: Wanted) -> pa.Array | None:
        delimiter = wanted.delimiter or self.delimiter
        if wanted.kept is None and delimiter == self.delimiter:
            return None
        cut = self.cutter(wanted.kept, delimiter)
        found = map(cut, records.view(pa.large_binary()).to_pylist())
        return pa.array(found, pa.large_binary()).view(pa.large_string())

    def _not_told(self, kind: int, records: pa.Array, place: int) -> str:
        """Why a record can't be told."""
        quote = self.dialect.quote
        if kind == OPENED:
            reason = f"a quote ({quote}) is opened and never closed"
        else:
            reason = f"text follows a closing quote ({quote})"
        if not self.dialect.escape and f"\\{quote}".encode() in _content(records, place):
            return f"{reason}; --escape '\\' if a backslash stands before quotes in the text"
        return f"{reason}; --quote none if quotes are part of the text"

    def _ragged_bytes(
        self, data: bytes, records: pa.Array, left_out: Collection[int]
    ) -> dict[int, str]:
        """Rows of other lengths that are not UTF-8: pyarrow can't hand these to `note` as text."""
        if is_utf8(data):
            return {}
        found = {
            place: record
            for place in range(len(records))
            if place not in left_out and not is_utf8(record := _content(records, place))
        }
        return {
            place: _not_utf8(record)
            for place, record in found.items()
            if b"\r" in record or len(fields_of(record, self.dialect)) != len(self.names)
        }

    def _parse(
        self, data: bytes, records: pa.Array, kinds: Mapping[str, str]
    ) -> tuple[pa.Table, dict[int, str]]:
        """The readable rows, and why the others are not; these by their place among `records`."""
        wrong: dict[int, str] = {}
        first = "header" if self._layout.header else "first row"
        one_text = "; --delimiter '|' if each line is one text" if len(self.names) == 1 else ""

        def note(row: Any) -> str:
            fields = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}"
            place = 0 if row.number is None else row.number - 1
            wrong[place] = f"has {fields}, the {first} has {row.expected_columns}{one_text}"
            return "skip"

        try:
            table = _parse_csv(data, self.dialect, self.names, kinds, note)
        except pa.ArrowInvalid as error:
            if any(kind != "str" for kind in kinds.values()):
                # Perhaps a word where a number should be: read as text, and judge value by value.
                return self._parse(data, records, dict.fromkeys(kinds, "str"))
            reason = _reason(error, records)
        else:
            if table.num_rows + len(wrong) == len(records):
                return table, wrong
            reason = "holds a carriage return outside of quotes"
            if b"\r" not in _content(records, 0):
                reason = "its quotes don't pair up"
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
            content = b"".join(_content(part, place) + self._newline for place in places)
            if places:
                table, reasons = self._parse(content, part.take(pa.array(places)), kinds)
                tables.append(table)
                wrong |= {start + places[place]: reason for place, reason in reasons.items()}
            start += len(part)
        return pa.concat_tables(tables), wrong

    def _look(self, rows: int) -> tuple[bytes, Array]:
        """Up to `rows` complete records and `MOST_BYTES`, and where each ends; they stay."""
        while True:
            self._find_ends()
            ends = self._ends[:rows]
            ends = ends[: np.searchsorted(ends - self._at, MOST_BYTES) + 1]
            if len(ends) == rows or len(ends) < len(self._ends) or self._ended:
                break
            open_since = int(ends[-1]) if len(ends) else self._at
            if len(self._pending) - open_since > LONGEST_RECORD:
                line = self._pending.find(self._newline, open_since)
                if line >= 0:  # `find_records` takes it for a record, too: nothing can close it
                    ends, self._looked_at = np.append(ends, line + 1), False
                    break
            self._read_on(open_since)
        end = int(ends[-1]) if len(ends) else self._at
        return self._pending[self._at : end], ends - self._at

    def _find_ends(self) -> None:
        """Find where records end in what was read since that was done last."""
        if self._looked_at:
            return
        start = int(self._ends[-1]) if len(self._ends) else self._at
        data, shape = self._pending[start:], self._layout.shape
        ends, _ = find_records(data, self.dialect, shape, last=self._ended)
        self._ends = np.concatenate([self._ends, ends + start])
        self._looked_at = True

    def _read_on(self, open_since: int) -> None:
        """Read a block, and let go of what was taken."""
        block = self._file.read(max(READ_BYTES, len(self._pending) - self._at))
        if block:
            self._pending = self._pending[self._at :] + block
            self._ends, self._at = self._ends - self._at, 0
        else:
            self._end_of_file(open_since)
            self._ended = True
        self._looked_at = False

    def _take(self, rows: int) -> tuple[bytes, Array]:
        """As `_look`, and move past them."""
        data, ends = self._look(rows)
        self._ends = self._ends[len(ends) :]
        self._at += len(data)
        self._line += data.count(self._newline)
        return data, ends

    def _end_of_file(self, start: int) -> None:
        """Complete the record that the file ends in, or leave it out if it is being written."""
        rest = self._pending[start:]
        if not rest.strip(b"\r\n\0"):
            self._nuls += rest.count(0)
            self._pending = self._pending[:start]
        elif not rest.endswith(self._newline):
            line = rest.rfind(self._newline) + 1
            if self._file.is_growing():
                self._file.held_back += 1
                self._pending = self._pending[: start + line]
            else:
                self._pending += self._newline


def _parse_csv(
    data: bytes,
    dialect: Dialect,
    names: list[str],
    kinds: Mapping[str, str],
    wrong: Callable[[Any], str],
) -> pa.Table:
    """Parse whole records. On one thread, so that a bad row knows its number."""
    if dialect.spaces:
        data = _without_spaces(data, dialect)
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,
            column_names=names,
            block_size=max(len(data) + 1, 1024),
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            escape_char=dialect.escape or False,
            newlines_in_values=bool(dialect.quote) and dialect.quote.encode() in data,
            invalid_row_handler=wrong,
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


def _content(records: pa.Array, place: int) -> bytes:
    content: bytes = records[place].as_buffer().to_pybytes()
    return content


def _no_rows(kinds: Mapping[str, str]) -> pa.Table:
    return pa.table({name: pa.array([], pa.large_string()) for name in kinds})


def _reason(error: pa.ArrowInvalid, records: pa.Array) -> str:
    return _not_utf8(_content(records, 0)) or str(error).splitlines()[0][:160]


def _not_utf8(record: bytes) -> str:
    """Why a record is no text; "" for one that is."""
    try:
        record.decode("utf-8")
    except UnicodeDecodeError as bad:
        return (
            f"byte 0x{record[bad.start]:02x} is not UTF-8; if the file is not, name its encoding: "
            "--encoding cp1252"
        )
    return ""


def _slices(data: bytes, ends: Array) -> tuple[pa.Array, Array, Array]:
    """Each record without its line end, and where it starts; not blank lines, which hold no row.

    Returns:
        Records, their starts, and for each of the ends the place of its record.
    """
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    whole = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    records, starts = pc.ascii_rtrim(whole, characters="\r\n"), offsets[:-1]
    filled = pc.binary_length(records).to_numpy() > 0
    if not filled.all():
        records, starts = records.filter(pa.array(filled)), starts[filled]
    return records, starts, np.cumsum(filled) - 1


def _without_spaces(data: bytes, dialect: Dialect) -> bytes:
    """Records less the spaces before their fields."""
    ends, _ = find_records(data, dialect, last=True)
    delimiter, start, lines = dialect.delimiter.encode(), 0, []
    for end in ends.tolist():
        fields = fields_of(data[start:end].rstrip(b"\r\n"), dialect)
        lines.append(delimiter.join(one.lstrip(b" ") for one in fields))
        start = end
    return dialect.newline.encode().join([*lines, b""])


def _has_line(data: bytes) -> bool:
    content = data.lstrip(b"\r\n")
    return b"\n" in content or b"\r" in content.rstrip(b"\r")
