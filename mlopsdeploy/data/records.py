"""Where one CSV record ends and the next begins.

Knowing it lets a job hand every row on byte for byte, parse only the columns the model needs, and
tell a user which line is broken. Quotes follow RFC 4180: a field that starts with a quote runs to
the closing one, delimiters and line ends inside included; two quotes stand for one; a quote
within an unquoted field is a character like any other (`5" screen`).
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_QUOTE, _NEWLINE, _RETURN = b'"\n\r'


def record_ends(data: bytes, delimiter: str) -> npt.NDArray[np.int64]:
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


def _is_regular(
    buffer: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp], delimiter: int
) -> bool:
    """Whether counting quotes tells inside from outside.

    It does if each odd quote stands where a field may open and each even one where it may close:
    next to a delimiter, a line end, the edge of the data, or the other half of a doubled quote.
    """
    edges = np.array([delimiter, _NEWLINE, _RETURN, _QUOTE], np.uint8)
    opening, closing = quotes[0::2], quotes[1::2]
    before = buffer[opening[opening > 0] - 1]
    after = buffer[closing[closing < len(buffer) - 1] + 1]
    return bool(np.isin(before, edges).all() and np.isin(after, edges).all())


def _scan(data: bytes, delimiter: str) -> npt.NDArray[np.int64]:
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
