"""How a file of delimited text is written, found out by looking at its first bytes.

What is unmistakable is taken, and told in the summary; what could be meant otherwise is a question
that names the setting which answers it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mlopsdeploy.data.sources.base import ReadOptions
from mlopsdeploy.data.sources.records import (
    Dialect,
    Shape,
    fields_of,
    find_records,
    is_number,
    value_of,
)
from mlopsdeploy.data.sources.values import is_utf8
from mlopsdeploy.errors import InputError

LOOKED_AT = 1 << 18  # bytes
_ROWS = 1000
_ABOVE = 20  # lines that may stand above a header
_CANDIDATES = ",;\t|"
_MOST = 0.9  # of the rows: the others may be mistakes
_LONG = 40  # characters: more than a name has
_MANY = 0.02  # of the rows: so many that can't be told are not a few mistakes
_ENCODINGS = {
    "cp1251": "Cyrillic", "cp1253": "Greek", "cp1256": "Arabic", "gb18030": "Chinese",
    "big5": "traditional Chinese", "shift_jis": "Japanese", "euc_jp": "Japanese", "cp949": "Korean",
}  # fmt: skip
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
_SEP = re.compile(rb'"?sep=(.)"?\r*[\n\r]', re.IGNORECASE)
_DATA = re.compile(
    r"(https?://\S+|[^@\s]+@\S+\.\w+|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T][\d:.+Z-]+)?"
    r"|\w{3} \w{3} \d\d? [\d:]+ .*|[\d:]+:\d\d)"
)


@dataclass(frozen=True)
class Layout:
    """Where the rows of a file begin, and how they are written.

    Attributes:
        dialect: how.
        start: bytes above the header, or above the first row where there is none.
        kept: those of them that a copy of the file has, too: `sep=;`.
        skipped: lines of them that it hasn't.
        header: whether the first record names the columns.
        extra: whether rows have a delimiter at their end and the header hasn't.
        shape: what rows look like.
    """

    dialect: Dialect
    start: int = 0
    kept: bytes = b""
    skipped: int = 0
    header: bool = True
    extra: bool = False
    shape: Shape = field(default_factory=lambda: Shape(1))


def find_layout(head: bytes, options: ReadOptions, name: str, path: str) -> Layout:
    """Look at the first bytes of a file.

    Args:
        head: these, as UTF-8.
        options: what is known of it, and need not be found.
        name: what messages call it.
        path: its name may say what the delimiter is.

    Raises:
        InputError: it is no text, or what is meant can't be known.
    """
    head = head[:LOOKED_AT]
    if len(head) == LOOKED_AT and b"\n" in head:
        head = head[: head.rindex(b"\n") + 1]  # whole lines
    if _is_binary(head):
        raise InputError(
            f"{name}: this looks like a binary file, not CSV; if it is text, name its encoding: "
            "--encoding utf-16-le"
        )
    if options.encoding == "auto":
        _check_encoding(head, name)
    newline = "\r" if b"\n" not in head.rstrip(b"\r\n") and b"\r" in head.rstrip(b"\r\n") else "\n"
    layout = _above(head, options, newline)
    body = head[layout.start :]
    if not body.endswith((b"\n", b"\r")):
        body += newline.encode()
    delimiter = layout.dialect.delimiter or _delimiter(body, newline, path, name)
    dialect = _quoting(body, Dialect(delimiter, newline=newline), options, name)
    rows = _rows(body, dialect)
    if options.skip_lines is None and not layout.kept:
        _check_above(rows, head, layout.start, dialect, name)
    if not layout.dialect.delimiter:
        _check_widths(rows, body, dialect, options, name)
    header = has_header(rows, options, name)
    extra = header and _ends_in_delimiter(rows)
    shape = _shape(rows[1:] if header else rows, len(rows[0]) + extra if rows else 1)
    return replace(layout, dialect=dialect, header=header, extra=extra, shape=shape)


def has_header(rows: Sequence[Sequence[str]], options: ReadOptions, name: str) -> bool:
    """Whether the first row names the columns.

    Raises:
        InputError: it looks like a row of data, and nothing is said.
    """
    if options.header is None and _is_data(rows):
        raise InputError(
            f"{name}: its first line looks like a row ({_brief(rows[0])}), not like the names "
            "of columns; say --no-header, or --header if these are names"
        )
    return options.header is not False


def _is_binary(head: bytes) -> bool:
    """Whether it has NUL bytes in its first line, or other control characters all over."""
    head = head.rstrip(b"\0")  # what a crash leaves
    first = head.lstrip(b"\r\n").partition(b"\n")[0]
    return b"\0" in first or len(_CONTROL.findall(head)) > max(len(head) * 0.02, 8)


def _check_encoding(head: bytes, name: str) -> None:
    """Ask if it isn't UTF-8.

    Raises:
        InputError: many of its lines are not.
    """
    if is_utf8(head):
        return
    lines = head.split(b"\n")[:_ROWS]
    wrong = [one for one in lines if not is_utf8(one)]
    if len(wrong) >= 3 and len(wrong) > _MANY * len(lines):
        raise InputError(
            f"{name}: {len(wrong)} of its first {len(lines):,} lines are not UTF-8; name its "
            f"encoding: --encoding {_likely(wrong)}; or --encoding utf-8 to set them aside"
        )


def _likely(lines: Sequence[bytes]) -> str:
    """The encodings that lines may be in: a letter here and there is Western, words are not."""
    text = b"\n".join(lines)
    words = re.findall(rb"[\x80-\xff]+", text)
    if sum(map(len, words)) < 2 * len(words):
        return "cp1252"
    found = [f"{one} ({what})" for one, what in _ENCODINGS.items() if _has_words(text, one)]
    # Western quotes, dashes and accents in a row may look like words of others.
    return ", ".join([*found, "cp1252 (Western)"]) if found else "cp1252"


def _has_words(text: bytes, encoding: str) -> bool:
    """Whether it can be read so, and what is not ASCII is mostly letters then."""
    try:
        marks = [one for one in text.decode(encoding) if not one.isascii()]
    except UnicodeDecodeError:
        return False
    return sum(map(str.isalpha, marks)) > 0.8 * len(marks)


def _above(head: bytes, options: ReadOptions, newline: str) -> Layout:
    """What stands above the header."""
    end = newline.encode()
    start = _past(head, 0, b"\r\n")
    delimiter = "" if options.delimiter == "auto" else options.delimiter
    kept = b""
    if (match := _SEP.match(head, start)) and match[1].isascii():
        start = _past(head, match.end(), b"\n")
        kept = head[match.start() : start]
        delimiter = delimiter or match[1].decode()
    elif options.skip_lines:
        start = 0
    for _ in range(options.skip_lines or 0):
        start = head.find(end, start) + 1 or len(head)
    start = _past(head, start, b"\r\n")
    dialect = Dialect(delimiter, newline=newline)
    return Layout(dialect, start, kept, options.skip_lines or 0)


def _past(head: bytes, start: int, blank: bytes) -> int:
    """The place behind bytes that are blank."""
    return len(head) - len(head[start:].lstrip(blank))


def _records(body: bytes, dialect: Dialect) -> tuple[list[bytes], int]:
    """The first records, less blank ones, and how many of them can't be told."""
    ends, wrong = find_records(body, dialect)
    ends = ends[:_ROWS]
    starts = [0, *ends[:-1].tolist()]
    records = [
        body[start:end].rstrip(b"\r\n") for start, end in zip(starts, ends.tolist(), strict=False)
    ]
    return [one for one in records if one], sum(place < len(ends) for place in wrong)


def _rows(body: bytes, dialect: Dialect) -> list[list[str]]:
    records, _ = _records(body, dialect)
    return [[value_of(one, dialect) for one in fields_of(record, dialect)] for record in records]


def _delimiter(body: bytes, newline: str, path: str, name: str) -> str:
    """The delimiter that cuts most rows into as many fields as the first of them.

    Where none does, the one that the first line has most of; else a comma.

    Raises:
        InputError: two of them do it equally well.
    """
    is_tsv = path.lower().removesuffix(".gz").endswith((".tsv", ".tab"))
    few = body[: 1 << 16]
    body = few if newline.encode() in few else body
    found: dict[str, tuple[bool, int, float]] = {}
    titled: dict[str, tuple[bool, int, float]] = {}  # as `_check_above` will ask about
    for delimiter in _CANDIDATES:
        if delimiter.encode() not in body:
            continue
        dialect = Dialect(delimiter, newline=newline, spaces=b' "' in body)
        records, _ = _records(body, dialect)
        counts = [len(fields_of(record, dialect)) for record in records[:100]]
        usual = Counter(counts).most_common(1)[0][0] if counts else 1
        if counts and counts[0] > 1:
            share = counts.count(counts[0]) / len(counts)
            found[delimiter] = (share > _MOST, counts[0], share)
        elif usual > 1 and _title_above(records, counts, usual, dialect):
            titled[delimiter] = (True, usual, 1.0)
    best = found or titled
    if is_tsv and ("\t" in best or not best):
        return "\t"
    if not any(most for most, _, _ in best.values()):
        return guess_delimiter(body.partition(newline.encode())[0].decode("utf-8", "replace"))
    first, *others = sorted(best, key=best.__getitem__, reverse=True)
    if others and best[others[0]] == best[first]:
        raise InputError(
            f"{name}: its fields could be separated by {first!r} or by {others[0]!r}; "
            "say --delimiter"
        )
    return first


def _title_above(records: list[bytes], counts: list[int], usual: int, dialect: Dialect) -> bool:
    """Whether the first line with as many fields as the rows reads like names."""
    place = counts.index(usual)
    names = [value_of(one, dialect) for one in fields_of(records[place], dialect)]
    most = counts[place:].count(usual) > _MOST * len(counts[place:])
    return 0 < place <= _ABOVE and most and _are_names(names)


def guess_delimiter(header: str) -> str:
    """The one of `, ; tab |` that a header line has most of, outside quotes; else a comma."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_CANDIDATES, key=bare.count)


def _quoting(body: bytes, plain: Dialect, options: ReadOptions, name: str) -> Dialect:
    """With the quote and the escape character, and with spaces before quotes."""
    quote = {"auto": '"', "none": ""}.get(options.quote, options.quote)
    escape = "" if options.escape in ("auto", "none") else options.escape
    dialect = replace(plain, quote=quote, escape=escape)
    mark = quote.encode()
    if not quote or mark not in body:
        return dialect
    spaced = re.search(re.escape(plain.delimiter.encode()) + b" +" + mark, body)
    if spaced and plain.delimiter != " ":
        other = replace(dialect, spaces=True)
        if _regularity(body, other) > _regularity(body, dialect):
            dialect = other
    records, wrong = _records(body, dialect)
    if not wrong:
        return dialect
    if options.escape == "auto" and b"\\" + mark in body:
        other = replace(dialect, escape="\\")
        others = re.sub(rb"\\\\|\\" + mark, b"", body)
        if _regularity(body, other) == 1 and b"\\" not in others:
            return other
        if _records(body, other)[1] < wrong:
            raise InputError(
                f"{name}: has backslashes before quotes, and elsewhere: say --escape '\\' if they "
                "belong to the file's spelling, or --escape none if they are text"
            )
    if options.quote == "auto" and wrong >= 3 and wrong > _MANY * len(records):
        raise InputError(
            f"{name}: in {wrong} of its first {len(records):,} rows text follows a closing quote; "
            "say --quote none if quotes are text, or --quote '\"' to set such rows aside"
        )
    return dialect


def _regularity(body: bytes, dialect: Dialect) -> float:
    """The share of records that have as many fields as the first one, all of them told."""
    records, wrong = _records(body, dialect)
    if not records:
        return 0
    counts = [len(fields_of(record, dialect)) for record in records]
    return (counts.count(counts[0]) - wrong) / len(counts)


def _check_above(
    rows: Sequence[Sequence[str]], head: bytes, start: int, dialect: Dialect, name: str
) -> None:
    """Ask about lines above the header: they have fewer fields than it and nearly all that follow.

    Raises:
        InputError: there are some.
    """
    if len(rows) < 3:
        return
    usual = Counter(map(len, rows)).most_common(1)[0][0]
    place = next(place for place, row in enumerate(rows) if len(row) == usual)
    below = [len(row) for row in rows[place:]]
    if not 0 < place <= _ABOVE or len(below) < 2 or below.count(usual) < _MOST * len(below):
        return
    if all(len(row) < usual for row in rows[:place]) and _are_names(rows[place]):
        ends, _ = find_records(head[start:], dialect)
        starts = zip([0, *ends.tolist()], ends.tolist(), strict=False)
        filled = [at for at, end in starts if head[start + at : start + end].strip(b"\r\n")]
        lines = head.count(dialect.newline.encode(), 0, start + filled[place])
        raise InputError(
            f"{name}: its first lines have fewer fields than those that follow; are the names of "
            f"its columns {_brief(rows[place])}? Say --skip-lines {lines}, or --skip-lines 0"
        )


def _check_widths(
    rows: Sequence[Sequence[str]], body: bytes, dialect: Dialect, options: ReadOptions, name: str
) -> None:
    """Ask where commas in lines of text may have been taken for delimiters, or a name is missing.

    Raises:
        InputError: many rows have other fields than the first one, which doesn't look like names,
            or more than half, whatever that looks like.
    """
    counts = Counter(len(row) for row in rows if len(row) != len(rows[0]))
    others = counts.total()
    named = bool(rows) and len(rows[0]) > 1 and _are_names(rows[0])
    least = 0.5 if named else 1 - _MOST
    if others < 3 or others <= least * len(rows) or _ends_in_delimiter(rows):
        return
    if options.quote == "auto" and (mark := _single_quoted(body, dialect)):
        raise InputError(
            f"{name}: {others} of its first {len(rows):,} rows don't have as many fields as the "
            f'first; its quotes seem to be single ones: say --delimiter {mark!r} --quote "\'"'
        )
    fields, usual = counts.most_common(1)[0]
    if fields > 1 and usual > _MOST * (len(rows) - 1):
        raise InputError(
            f"{name}: its header has {len(rows[0])} fields and its rows have {fields}; say "
            f"--skip-lines {(options.skip_lines or 0) + 1} --no-header to call the columns 1 to "
            f"{fields}, or --delimiter {dialect.delimiter!r} to set the rows aside"
        )
    lines = [[line] for line in body.decode("utf-8", "replace").splitlines() if line][:_ROWS]
    absent = next((mark for mark in "|;~^" if mark.encode() not in body), "|")
    no_header = " --no-header" if options.header is None and _is_data(lines) else ""
    raise InputError(
        f"{name}: {others} of its first {len(rows):,} rows don't have as many fields as the first; "
        f"say --delimiter '{absent}'{no_header} if each line is one text, or --delimiter "
        f"{dialect.delimiter!r} to set such rows aside"
    )


def _single_quoted(body: bytes, dialect: Dialect) -> str:
    """The delimiter that makes rows alike if single quotes are quotes; "" if none does."""
    for mark in _CANDIDATES:
        single = replace(dialect, delimiter=mark, quote="'")
        if f"{mark}'".encode() in body and _regularity(body, single) > _MOST:
            return mark
    return ""


def _are_names(row: Sequence[str]) -> bool:
    """Whether values could be names of columns: short words, each another one."""
    named = [one.strip() for one in row if one.strip()]
    return (
        len(named) > len(row) / 2
        and len(set(named)) == len(named)
        and not any(_is_value(one) or len(one.split()) > 4 for one in named)
    )


def _is_value(text: str) -> bool:
    text = text.strip()
    return bool(is_number(text.encode()) or _DATA.fullmatch(text))


def _is_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is one of data.

    It is if it holds a number, a date or an address where the rows below do, too (but not if its
    numbers count up: 0, 1, 2 or 2019, 2020 are names that programs give). Where no name stands
    above numbers, it is if it holds a label or a text as the rows below do; and in a file of one
    column if it reads like a sentence, or is there again.
    """
    if len(rows) < 2:
        return False
    first = [one.strip() for one in rows[0]]
    below = [row for row in rows[1:] if len(row) == len(first) and [*row] != rows[0]]
    if len(first) == 1:
        words = len(first[0].split())
        sentence = words >= 4 and not first[0].endswith(("?", ":"))
        return sentence or first[0].endswith((".", "!")) or [first[0]] in below or (
            _is_value(first[0]) and all(_is_value(row[0]) for row in below)
        )  # fmt: skip
    numbers = [int(one) for one in first if re.fullmatch(r"\d{1,9}", one)]
    if len(numbers) > 1 and all(b - a == 1 for a, b in itertools.pairwise(numbers)):
        return False
    columns = [[row[place].strip() for row in below] for place in range(len(first))]
    filled = [
        (one, values)
        for one, cells in zip(first, columns, strict=True)
        if one and (values := [cell for cell in cells if cell])
    ]
    alike = {_is_value(one) for one, values in filled if all(map(_is_value, values))}
    return any(alike) or (not alike and any(_is_content(*column) for column in filled))


def _is_content(first: str, below: Sequence[str]) -> bool:
    """Whether the first value of a column is one of its labels, or a text like those below.

    A column of one value alone is a box to tick, called by what it says; and a text with a question
    mark is a survey's question.
    """
    if len(set(below)) > 1 and below.count(first) >= max(3, 0.05 * len(below)):
        return True
    long = len(first) >= _LONG and "?" not in first and not first.endswith(":")
    return long and sum(map(len, below)) >= _LONG / 2 * len(below)


def _ends_in_delimiter(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows have one more field than the header, which is empty in all of them."""
    return len(rows) > 1 and all(
        len(row) == len(rows[0]) + 1 and not row[-1].strip() for row in rows[1:]
    )


def _shape(rows: Sequence[Sequence[str]], width: int) -> Shape:
    """Of rows that can be told."""
    rows = [row for row in rows if len(row) == width and "\n" not in "".join(row)][:200]
    numbers = tuple(
        place
        for place in range(width)
        if len(rows) > 1
        and all(not row[place] or is_number(row[place].strip().encode()) for row in rows)
        and sum(bool(row[place]) for row in rows) > len(rows) / 2
    )
    return Shape(width, numbers)


def _brief(row: Sequence[str]) -> str:
    text = ", ".join(" ".join(one.split())[:30] for one in row[:6])
    return repr(text[:80])
