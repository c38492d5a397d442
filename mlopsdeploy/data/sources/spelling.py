"""How a file writes its numbers: the decimal mark, and what stands between thousands.

Grouping is checked, so that nothing is read as what it is not: `12.34.567`, `0.500` and `1.234e3`
are no numbers of a file that writes 1.234,56. One without any mark is the same in every spelling.
"""

from __future__ import annotations

import re
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from mlopsdeploy.core.inputs import NOT_A_NUMBER

_SPACES, _APOSTROPHES = " \u00a0\u2009\u202f", "'’"
PLAIN = "1234.56"
# Each by an example: its decimal mark, and the characters that may stand between thousands.
SPELLINGS = {
    PLAIN: (".", ""),
    "1234,56": (",", ""),
    "1,234.56": (".", ","),
    "1.234,56": (",", "."),
    "1 234,56": (",", _SPACES),
    "1 234.56": (".", _SPACES),
    "1'234.56": (".", _APOSTROPHES),
    "1'234,56": (",", _APOSTROPHES),
}


def is_plain(example: str) -> bool:
    """Whether numbers are written as Python, JSON and most files do."""
    return example in ("auto", PLAIN)


def respelled(number: str, example: str) -> str:
    """A number that is none of the file's texts, as these are spelled."""
    return number if is_plain(example) else number.replace(".", SPELLINGS[example][0])


def plain(texts: pa.ChunkedArray, example: str) -> pa.ChunkedArray:
    """Texts that are numbers in a spelling, as plain ones; none of the others is a number."""
    decimal, thousands = SPELLINGS[example]
    numbers = texts
    if thousands:
        numbers = pc.replace_substring_regex(numbers, f"[{thousands}]", "")
    numbers = pc.replace_substring(numbers, decimal, ".")
    fit = pc.match_substring_regex(texts, _pattern(example))
    if pc.all(fit).as_py():
        return numbers
    words = pc.if_else(pc.match_substring_regex(texts, _pattern(PLAIN)), "no number", texts)
    words = pc.if_else(pc.is_in(texts, pa.array(NOT_A_NUMBER, texts.type)), None, words)
    return pc.if_else(fit, numbers, words)


@lru_cache
def _pattern(example: str) -> str:
    decimal, thousands = SPELLINGS[example]
    mark = re.escape(decimal)
    numbers = [rf"([0-9]+({mark}[0-9]*)?|{mark}[0-9]+)([eE][+-]?[0-9]+)?"]
    if thousands:
        numbers.append(rf"[1-9][0-9]{{0,2}}([{thousands}][0-9]{{3}})+({mark}[0-9]*)?")
    return rf"^\s*[+-]?({'|'.join(numbers)})\s*$"
