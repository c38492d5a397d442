"""Files to columns: CSV, JSON Lines and Parquet, a window of rows at a time.

A source reads forwards, once, and holds one window: memory does not grow with the file. Values
are read as they stand. A review that says "NA" is text, not a missing value.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from mlopsdeploy.batch.records import guess_delimiter, record_ends
from mlopsdeploy.columns import Array, Columns, objects
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
LONGEST_RECORD = 64 << 20  # beyond this a quote was left open, not a long review written
SAMPLE_ROWS = 200
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_A_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]


@dataclass(frozen=True)
class Window:
    """Some rows of a source, in its order.

    `columns` holds those asked for: text as str (None where missing), numbers as float64 (NaN
    where missing). `unreadable` marks rows with something else than a number in a number's
    place. `records` holds each row as it stands in the file, without its line end, `table` all
    its columns; which of the two, the source's `columns` call says.
    """

    first: int
    columns: Columns
    unreadable: Array
    records: pa.Array | None = None
    table: pa.Table | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.unreadable)


class Source(Protocol):
    """An open input. `names` are its columns, `sample` some of its first rows."""

    format: str
    path: str
    names: list[str]
    size: int | None

    def sample(self) -> Mapping[str, list[Any]]:
        """The first values of each column (all of it text in CSV)."""
        ...

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """The rows, `rows` at a time.

        Args:
            rows: of one window.
            wanted: column name -> "str" or a NumPy number type.
            raw: give `records` rather than `table`.
            limit: stop after so many rows.
        """
        ...

    def position(self) -> int:
        """Bytes of the file read so far; with `size` it tells how much is left."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


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
        stream: Any = gzip.GzipFile(fileobj=raw) if _peek(raw, 2) == b"\x1f\x8b" else raw
        head = _peek(stream, 4096)
        if not head:
            raise InputError(f"{_named(path)}: the file is empty")
        if head.startswith((b"PAR1", b"PK\x03\x04")):
            kind = "Parquet" if head.startswith(b"PAR1") else "zip (or Excel)"
            raise InputError(f"{_named(path)}: this is a {kind} file, not {format_}")
        if format_ == "jsonl":
            return JsonLinesSource(stream, raw, path)
        return CsvSource(stream, raw, path, delimiter, encoding, head)
    except BaseException:
        raw.close()
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
        self.size = _size(raw)
        self._raw = raw
        self.bom = head.startswith(codecs.BOM_UTF8)
        bom_encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None)
        encoding = (bom_encoding or "utf-8") if encoding == "auto" else encoding
        if encoding in ("utf-8", "utf-8-sig"):
            if b"\0" in head:
                raise InputError(f"{_named(path)}: this looks like a binary file, not CSV")
            if self.bom:
                _skip(stream, len(codecs.BOM_UTF8))
            self._read: Callable[[int], bytes] = lambda size: _read_some(stream, size, path)
        else:
            self._read = _transcoder(stream, encoding, path)
        self._pending = b""
        self._rows_read = 0
        self._line = 1
        self._delimiter = "," if delimiter == "auto" else delimiter
        self._read_header(delimiter)

    def _read_header(self, delimiter: str) -> None:
        while b"\n" not in self._pending and (block := self._read(READ_BYTES)):
            self._pending += block
        first_line = self._pending.partition(b"\n")[0]
        if delimiter == "auto":
            text = first_line.decode("utf-8", "replace")
            self._delimiter = "\t" if self.path.lower().endswith(".tsv") else guess_delimiter(text)
        header = b""
        while not header.strip():  # blank lines above the header
            data, ends = self._take(1)
            if not len(ends):
                raise InputError(f"{_named(self.path)}: the file is empty")
            header = data
        self.line_end = "\r\n" if header.endswith(b"\r\n") else "\n"
        self.header = header.rstrip(b"\r\n")
        self._line += header.count(b"\n")
        try:
            table = _parse_csv(header, self._delimiter)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError(f"{_named(self.path)}: line 1: the header can't be read") from error
        self.names = table.column_names
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(
                    f"{_named(self.path)}: column {name!r} is named twice in the header"
                )

    @property
    def delimiter(self) -> str:
        """The character between fields."""
        return self._delimiter

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows as text, without moving on."""
        data, ends = self._look(SAMPLE_ROWS)
        if not len(ends):
            raise InputError(f"{_named(self.path)}: has a header but no rows")
        table = self._parse(data, dict.fromkeys(self.names, "str"), 0)
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
            kinds = dict(wanted) if raw else {**dict.fromkeys(self.names, "str"), **wanted}
            window = self._window(data, ends, kinds, wanted, raw)
            if window.rows == 0:  # nothing but blank lines
                continue
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
        table = self._parse(data, kinds, len(records))
        if table.num_rows != len(records):
            raise InputError(
                f"{_named(self.path)}: line {self._line} and after: quotes don't pair up; "
                "can't tell where rows end"
            )
        columns, unreadable = _to_columns(table, wanted)
        return Window(
            first=self._rows_read + 1,
            columns=columns,
            unreadable=unreadable,
            records=records if raw else None,
            table=None if raw else table.select(self.names),
        )

    def _parse(self, data: bytes, kinds: Mapping[str, str], rows: int) -> pa.Table:
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
                return self._parse(data, dict.fromkeys(kinds, "str"), rows)
            raise self._unreadable(error, data) from error
        if wrong:
            row = wrong[0]
            raise InputError(
                f"{_named(self.path)}: line {self._line_of(data, row.number)}: has "
                f"{row.actual_columns} fields, the header has {row.expected_columns}"
            )
        return table

    def _line_of(self, data: bytes, number: int | None) -> int:
        ends = record_ends(data, self._delimiter)
        start = int(ends[number - 2]) if number and number > 1 and number - 2 < len(ends) else 0
        return self._line + data[:start].count(b"\n")

    def _unreadable(self, error: pa.ArrowInvalid, data: bytes) -> InputError:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            try:
                data.decode("utf-8")
            except UnicodeDecodeError as bad:
                line = self._line + data[: bad.start].count(b"\n")
                return InputError(
                    f"{_named(self.path)}: line {line}: byte 0x{data[bad.start]:02x} is not UTF-8; "
                    "name the file's encoding, for instance 'encoding: cp1252' in the YAML"
                )
        reason = str(error).splitlines()[0][:160]
        return InputError(f"{_named(self.path)}: line {self._line} and after: {reason}")

    def _look(self, rows: int) -> tuple[bytes, Array]:
        """Up to `rows` complete records, and where each ends; they stay."""
        ends = record_ends(self._pending, self._delimiter)
        while len(ends) < rows:
            block = self._read(max(READ_BYTES, len(self._pending)))
            if not block:
                self._end_of_file(ends)
                ends = record_ends(self._pending, self._delimiter)
                break
            self._pending += block
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
            f'{_named(self.path)}: line {line}: a quote (") is opened and never closed'
        )

    def position(self) -> int:
        """See `Source`."""
        return _tell(self._raw)

    def close(self) -> None:
        """See `Source`."""
        self._raw.close()


class JsonLinesSource:
    """One JSON object a line; columns are the keys of the first rows."""

    format = "jsonl"
    line_end = "\n"

    def __init__(self, stream: IO[bytes], raw: IO[bytes], path: str) -> None:
        self.path = path
        self.size = _size(raw)
        self._raw = raw
        self._stream = stream
        self._line = 0
        self._ahead = self._read_lines(SAMPLE_ROWS)
        if not self._ahead:
            raise InputError(f"{_named(path)}: has no rows")
        self.names = list(dict.fromkeys(key for _, row in self._ahead for key in row))

    def _read_lines(self, count: int) -> list[tuple[bytes, dict[str, Any]]]:
        lines: list[tuple[bytes, dict[str, Any]]] = []
        while len(lines) < count:
            try:
                line = self._stream.readline()
            except (OSError, EOFError) as error:
                raise InputError(f"{_named(self.path)}: can't be read ({error})") from error
            if not line:
                break
            self._line += 1
            if self._line == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                lines.append((line.strip(), self._parse(line)))
        return lines

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{_named(self.path)}: line {self._line}: not JSON ({error})"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{_named(self.path)}: line {self._line}: not a JSON object")
        return row

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows, without moving on."""
        return {name: [row.get(name) for _, row in self._ahead] for name in self.names}

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """See `Source`."""
        left = sys.maxsize if limit is None else limit
        first = 1
        while left:
            count = min(rows, left)
            self._ahead += self._read_lines(count - len(self._ahead))
            lines, self._ahead = self._ahead[:count], self._ahead[count:]
            if not lines:
                return
            values = {
                name: pa.array([_scalar(row.get(name)) for _, row in lines], pa.large_string())
                for name in wanted
            }
            columns, unreadable = _to_columns(pa.table(values), wanted)
            yield Window(
                first=first,
                columns=columns,
                unreadable=unreadable,
                records=pa.array([line.decode() for line, _ in lines], pa.large_string())
                if raw
                else None,
                table=None if raw else self._table([row for _, row in lines]),
            )
            first += len(lines)
            left -= len(lines)

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """All columns; nested values and mixed types as JSON text, so that windows agree."""
        return pa.table(
            {
                name: pa.array([_scalar(row.get(name)) for row in rows], pa.large_string())
                for name in self.names
            }
        )

    def position(self) -> int:
        """See `Source`."""
        return _tell(self._raw)

    def close(self) -> None:
        """See `Source`."""
        self._raw.close()


class ParquetSource:
    """Columns with types of their own, which are kept."""

    format = "parquet"
    line_end = "\n"

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self.path = path
        self._raw = raw
        if path == "-":  # its index is at the end: a pipe has to be kept first
            kept = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
            kept.write(raw.read())
            raw = self._raw = kept
        self.size = _size(raw)
        try:
            self._file = pyarrow.parquet.ParquetFile(raw)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise InputError(f"{_named(path)}: not a Parquet file ({reason})") from error
        self.names = self._file.schema_arrow.names
        if not self._file.metadata.num_rows:
            raise InputError(f"{_named(path)}: has no rows")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"{_named(path)}: column {name!r} is there twice")

    def sample(self) -> Mapping[str, list[Any]]:
        """The first rows."""
        batch = next(self._file.iter_batches(batch_size=SAMPLE_ROWS))
        sample: dict[str, list[Any]] = batch.to_pydict()
        return sample

    def windows(
        self, rows: int, wanted: Mapping[str, str], *, raw: bool, limit: int | None
    ) -> Iterator[Window]:
        """See `Source`."""
        left = sys.maxsize if limit is None else limit
        del raw  # there is nothing rawer than a table
        first = 1
        for batch in self._file.iter_batches(batch_size=rows):
            table = pa.Table.from_batches([batch[:left]])
            columns, unreadable = _to_columns(table, wanted)
            yield Window(first=first, columns=columns, unreadable=unreadable, table=table)
            first += table.num_rows
            left -= table.num_rows
            if not left:
                return

    def position(self) -> int:
        """See `Source`."""
        return _tell(self._raw)

    def close(self) -> None:
        """See `Source`."""
        self._raw.close()


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
            null_values=_NOT_A_NUMBER,
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


def _to_columns(table: pa.Table, wanted: Mapping[str, str]) -> tuple[Columns, Array]:
    columns: Columns = {}
    unreadable = np.zeros(table.num_rows, bool)
    for name, kind in wanted.items():
        column = table.column(name)
        if kind == "str":
            columns[name] = objects([_text(value) for value in column.to_pylist()])
        else:
            columns[name], bad = _numbers(column)
            unreadable |= bad
    return columns, unreadable


def _numbers(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Values as float64, NaN where there is none; and where there was something else."""
    try:
        values = column.cast(pa.float64()).to_numpy()
        return values, np.zeros(len(values), bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    values = np.full(len(column), np.nan)
    bad = np.zeros(len(column), bool)
    for row, value in enumerate(column.to_pylist()):
        if value is None or str(value).strip() in _NOT_A_NUMBER:
            continue
        try:
            values[row] = float(value)
        except (TypeError, ValueError):
            bad[row] = True
    return values, bad


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _named(path: str) -> str:
    return "standard input" if path == "-" else path


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


def _peek(stream: IO[bytes], size: int) -> bytes:
    """The first bytes, left in place."""
    try:
        if isinstance(stream, io.BufferedReader | gzip.GzipFile):
            return bytes(stream.peek(size)[:size])
        return b""
    except (OSError, EOFError) as error:
        raise InputError(f"can't be read ({error})") from error


def _sniff(raw: IO[bytes]) -> str:
    head = _peek(raw, 4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.startswith(b"{") else "csv"


def _skip(stream: IO[bytes], count: int) -> None:
    stream.read(count)


def _read_some(stream: IO[bytes], size: int, path: str) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError) as error:  # a truncated or damaged .gz
        raise InputError(f"{_named(path)}: can't be read to its end ({error})") from error


def _transcoder(stream: IO[bytes], encoding: str, path: str) -> Callable[[int], bytes]:
    """A reader that gives UTF-8, whatever the file is written in."""
    try:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    except LookupError as error:
        raise InputError(f"{_named(path)}: unknown encoding {encoding!r}") from error

    def read(size: int) -> bytes:
        try:
            return text.read(size).encode("utf-8")
        except UnicodeError as error:
            raise InputError(f"{_named(path)}: is not {encoding} ({error})") from error

    return read


def _size(raw: IO[bytes]) -> int | None:
    if not raw.seekable():
        return None
    here = raw.tell()
    end = raw.seek(0, io.SEEK_END)
    raw.seek(here)
    return end or None


def _tell(raw: IO[bytes]) -> int:
    try:
        return raw.tell()
    except (OSError, ValueError):  # a pipe, or closed already
        return 0
