"""Where the records of delimited text end, and which of them can't be told.

Quotes follow RFC 4180: a field that starts with a quote runs to the closing one, delimiters and
line ends inside included; two quotes stand for one; a quote within an unquoted field is a character
like any other (`5" screen`).

Two things that the RFC does not allow are told rather than read:

* Text behind a closing quote (`"Love" is what I feel`): the record is `STRAY`.
* A quote that is opened by mistake takes in the lines up to the next quote. Such a record is split:
  the line with the quote is `OPENED`, the lines after it are records. It is taken for one if no
  quote closes it, if it is longer than `LONGEST_RECORD`, or if the lines within look like rows of
  their own: each has just as many fields as the header, and a number in every column that holds
  numbers in the first rows. Where no column does, there must be four columns and three such lines.
  So a review of many lines stays one field, commas or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlopsdeploy.columns import Array

LONGEST_RECORD = 64 << 20  # beyond this a quote was left open, not a long review written
OPENED, STRAY = 1, 2


@dataclass(frozen=True)
class Dialect:
    r"""How delimited text is written; each a character, "" for none.

    Attributes:
        delimiter: between fields.
        quote: around a field.
        escape: before a quote within a quoted field; doubling it is always allowed.
        newline: "\n", before which a "\r" may stand, or "\r".
        spaces: whether spaces before a field are no part of it.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    newline: str = "\n"
    spaces: bool = False


@dataclass(frozen=True)
class Shape:
    """What rows of a file look like: how many fields they have, and which hold numbers."""

    width: int
    numbers: tuple[int, ...] = ()


def find_records(
    data: bytes, dialect: Dialect, shape: Shape | None = None, *, last: bool = False
) -> tuple[Array, dict[int, int]]:
    """Where records end.

    Args:
        data: starts at the start of a record.
        dialect: how it is written.
        shape: what a row looks like; None leaves records whole that hold lines like rows.
        last: nothing follows. Else what follows the last end is an incomplete record.

    Returns:
        Positions just past the line end of each record, int64; and `OPENED` or `STRAY` for those
        which can't be told, by their place.
    """
    buffer = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(buffer == ord(dialect.newline))
    if not dialect.quote or dialect.quote.encode() not in data:
        return np.asarray(newlines + 1, np.int64), {}
    escaped = dialect.escape and dialect.escape.encode() in data
    quotes = np.flatnonzero(buffer == ord(dialect.quote))
    wrong: dict[int, int] = {}
    if not (escaped or dialect.spaces) and _is_regular(buffer, quotes, dialect):
        outside = np.searchsorted(quotes, newlines) % 2 == 0
        ends = np.asarray(newlines[outside] + 1, np.int64)
    else:
        ends, wrong = _scan(data, dialect)
    complete = not last or not len(data) or (len(ends) > 0 and ends[-1] == len(data))
    too_long = (
        len(data) > LONGEST_RECORD and np.diff(ends, prepend=0).max(initial=0) > LONGEST_RECORD
    )
    if complete and not too_long and not _takes_in_rows(data, newlines, ends, dialect, shape):
        return ends, wrong
    return _scan_lines(data, dialect, shape, last=last)


def _is_regular(buffer: Array, quotes: Array, dialect: Dialect) -> bool:
    """Whether counting quotes tells inside from outside.

    It does if each odd quote stands where a field may open and each even one where it may close:
    next to a delimiter, a line end, the edge of the data, or the other half of a doubled quote.
    """
    edges = np.array([ord(dialect.delimiter), *b"\n\r", ord(dialect.quote)], np.uint8)
    opening, closing = quotes[0::2], quotes[1::2]
    before = buffer[opening[opening > 0] - 1]
    after = buffer[closing[closing < len(buffer) - 1] + 1]
    return bool(np.isin(before, edges).all() and np.isin(after, edges).all())


def _takes_in_rows(
    data: bytes, newlines: Array, ends: Array, dialect: Dialect, shape: Shape | None
) -> bool:
    """Whether a record of several lines holds lines that look like rows.

    Args:
        data: all records.
        newlines: where there are some.
        ends: of the records.
        dialect: how they are written.
        shape: see `find_records`.
    """
    if shape is None or not len(ends):
        return False
    newlines = newlines[: np.searchsorted(newlines, ends[-1])]
    if len(newlines) == len(ends):  # each line a record
        return False
    firsts = np.concatenate([[0], np.searchsorted(newlines, ends)])  # line numbers of records
    several = np.flatnonzero(np.diff(firsts) > 1)
    first = firsts[several]  # places among `newlines` of the ends of their first lines
    buffer = np.frombuffer(data, np.uint8)
    delimiters = np.flatnonzero(buffer == ord(dialect.delimiter))
    before = np.searchsorted(delimiters, newlines[first])
    found = np.searchsorted(delimiters, newlines[first + 1]) - before
    likely = found >= shape.width - 1
    if 0 in shape.numbers:
        starts = np.frombuffer(b"0123456789+-., " + dialect.delimiter.encode(), np.uint8)
        likely &= np.isin(buffer[newlines[first] + 1], starts)
    pairs = zip(newlines[first[likely]].tolist(), ends[several[likely]].tolist(), strict=True)
    return any(_look_like_rows(data, line + 1, end, dialect, shape) for line, end in pairs)


def _look_like_rows(data: bytes, start: int, stop: int, dialect: Dialect, shape: Shape) -> bool:
    """Whether the lines from `start` to `stop` do; the last, with the closing quote, not quite."""
    delimiter, newline = dialect.delimiter.encode(), dialect.newline.encode()
    quote = dialect.quote.encode()
    lines = 0
    if shape.width < 2 or not (shape.numbers or shape.width >= 4):
        return False
    while start < stop:
        end = data.find(newline, start, stop)
        end = stop if end < 0 else end
        found = data.count(delimiter, start, end)
        closes = end + 1 >= stop
        if found != shape.width - 1 and not (closes and found >= shape.width):
            return False
        fields = data[start:end].rstrip(b"\r").split(delimiter)
        sure = data[start:end].partition(quote)[0].count(delimiter) if closes else shape.width
        numbers = [fields[place].strip() for place in shape.numbers if place < sure]
        if not all(not one or is_number(one) for one in numbers):
            return False
        if shape.numbers and not any(numbers) and not closes:
            return False
        lines += 1
        if closes and lines == 1 and not any(numbers):
            return False
        start = end + 1
    return bool(shape.numbers) or lines >= 3


def is_number(text: bytes) -> bool:
    """Whether a field is a number: not NaN and the like, which may be words."""
    return re.fullmatch(rb"[-+]?(\d[\d.,]*|[.,]\d+)([eE][-+]?\d+)?%?", text) is not None


def _scan(data: bytes, dialect: Dialect) -> tuple[Array, dict[int, int]]:
    """Record by record: slower, and right for stray quotes."""
    ends: list[int] = []
    wrong: dict[int, int] = {}
    position = 0
    pattern = _record_pattern(dialect)
    while match := pattern.match(data, position):
        position = match.end()
        if match.lastindex:
            wrong[len(ends)] = STRAY
        ends.append(position)
    return np.array(ends, np.int64), wrong


def _scan_lines(
    data: bytes, dialect: Dialect, shape: Shape | None, *, last: bool
) -> tuple[Array, dict[int, int]]:
    """As `_scan`, where records may have to be split."""
    ends: list[int] = []
    wrong: dict[int, int] = {}
    position = 0
    pattern, newline = _record_pattern(dialect), dialect.newline.encode()
    while position < len(data):
        match = pattern.match(data, position)
        if match is None and not last:
            break
        line = data.find(newline, position) + 1 or len(data)
        end = match.end() if match else line
        too_long = end - position > LONGEST_RECORD
        if match is None or (
            line < end
            and (too_long or (shape and _look_like_rows(data, line, end, dialect, shape)))
        ):
            wrong[len(ends)], end = OPENED, line
        elif match.lastindex:
            wrong[len(ends)] = STRAY
        ends.append(end)
        position = end
    return np.array(ends, np.int64), wrong


def _field(dialect: Dialect) -> bytes:
    """A field's pattern; its only group is what follows a closing quote."""
    mark, quote = re.escape(dialect.delimiter.encode()), re.escape(dialect.quote.encode())
    escape, end = re.escape(dialect.escape.encode()), re.escape(dialect.newline.encode())
    if not dialect.quote:
        return b"[^%b%b]*+" % (mark, end)
    # Blanks behind a closing quote do no harm.
    taken = (dialect.newline, dialect.delimiter)
    blank = b"".join(re.escape(one.encode()) for one in " \r" if one not in taken)
    escaped = b"|%b." % escape if escape else b""
    before = b" *+" if dialect.spaces else b""
    return b"(?:%b%b(?:[^%b%b]++|%b%b%b)*+%b[%b]*+([^%b%b]++)?+|[^%b%b%b][^%b%b]*+)?+" % (
        before, quote, quote, escape, quote, quote, escaped, quote, blank, mark, end,
        quote, mark, end, mark, end,
    )  # fmt: skip


@lru_cache
def _record_pattern(dialect: Dialect) -> re.Pattern[bytes]:
    field, mark = _field(dialect), re.escape(dialect.delimiter.encode())
    end = re.escape(dialect.newline.encode())
    return re.compile(b"%b(?:%b%b)*+%b" % (field, mark, field, end), re.DOTALL)


@lru_cache
def _field_pattern(dialect: Dialect) -> re.Pattern[bytes]:
    return re.compile(_field(dialect), re.DOTALL)


def fields_of(record: bytes, dialect: Dialect) -> list[bytes]:
    """The fields of a record as they stand in it, quotes and all."""
    if not dialect.quote or dialect.quote.encode() not in record:
        return record.split(dialect.delimiter.encode())
    pattern, fields, position = _field_pattern(dialect), [], 0
    while True:
        match = pattern.match(record, position)
        assert match is not None
        fields.append(match[0])
        position = match.end() + 1
        if position > len(record) or record[match.end()] != ord(dialect.delimiter):
            return fields  # the end, or a quote that nobody closes


def value_of(field: bytes, dialect: Dialect, errors: str = "backslashreplace") -> str:
    """What a field says; `errors` is what becomes of bytes that are not UTF-8."""
    quote = dialect.quote.encode()
    field = field.strip(b" ") if dialect.spaces else field
    if quote and field.startswith(quote):
        field = field.rstrip(b" \r")
        field = field[1:].removesuffix(quote).replace(quote * 2, quote)
        if dialect.escape:
            mark = re.escape(dialect.escape.encode())
            field = re.sub(mark + b"(.)", rb"\1", field, flags=re.DOTALL)
    return field.decode("utf-8", errors)


def quoted(value: str, delimiter: str) -> str:
    """A field that says this, in quotes where it needs them."""
    if any(mark in value for mark in (delimiter, '"', "\n", "\r")):
        return '"' + value.replace('"', '""') + '"'
    return value


def cutter(dialect: Dialect, places: Sequence[int], delimiter: str) -> Callable[[bytes], bytes]:
    """What gives some fields of a record as they stand in it.

    Args:
        dialect: of the records.
        places: of the fields.
        delimiter: between them; with one that is not the dialect's, they are written anew.
    """
    between, same = delimiter.encode(), delimiter == dialect.delimiter
    marks = [mark.encode() for mark in ("\n", "\r", '"', dialect.quote, delimiter) if mark]

    def anew(field: bytes) -> bytes:
        value = value_of(field, dialect, "surrogateescape")
        return quoted(value, delimiter).encode("utf-8", "surrogateescape")

    def cut(record: bytes) -> bytes:
        fields = fields_of(record, dialect)
        kept = [fields[place] for place in places]
        as_is = same or not (dialect.spaces or any(mark in record for mark in marks))
        return between.join(kept if as_is else map(anew, kept))

    return cut
