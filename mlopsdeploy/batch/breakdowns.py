"""Columns by which a result is broken down: one with dates, and up to three with few values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from mlopsdeploy.columns import Array

NO_DAY = np.iinfo(np.int64).min  # where a value is not a date
MOST_CATEGORIES = 3

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEARS = range(1900, 2101)
_REMEMBERED = 50_000  # spellings of dates kept in memory
_DATE_LIKE_NAME = re.compile(r"date|time|stamp|(?:^|[\s_])(?:at|ts)$", re.IGNORECASE)
_ID_LIKE_NAME = re.compile(r"(?:^|[\s_.-])(?:ids?|uuid|guid|key|index|number)$|^$", re.IGNORECASE)
_AT = r"(?=$|[T\s,])"  # what follows a date: nothing, or the time of day
_TIME = re.compile(r"[T\s,]+\d{1,2}:\d{2}\S*(?:\s?(?:[AaPp]\.?[Mm]\.?|UTC|[+-]\d{2}:?\d{2}))?")
_WORD = r"(?P<word>[A-Za-z]{3})[a-z]*\.?"
_FORMATS = {
    name: re.compile(pattern + _AT)
    for name, pattern in (
        ("year-month-day", r"(?P<y>\d{4})([-/.])(?P<m>\d{1,2})\2(?P<d>\d{1,2})"),
        ("day.month.year", r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})"),
        ("day/month/year", r"(?P<d>\d{1,2})([/-])(?P<m>\d{1,2})\2(?P<y>\d{4})"),
        ("month/day/year", r"(?P<m>\d{1,2})([/-])(?P<d>\d{1,2})\2(?P<y>\d{4})"),
        ("day-month-year", rf"(?P<d>\d{{1,2}})[-/\s]{_WORD}[-/\s](?P<y>\d{{4}}|\d{{2}})"),
        ("month day, year", rf"{_WORD}\s(?P<d>\d{{1,2}}),?\s(?P<y>\d{{4}})"),
    )
}
_SINCE_1970 = {  # digits of a plausible moment, and how many such units are a day
    "seconds since 1970": (re.compile(r"\d{10}(?:\.\d+)?"), 86_400),
    "milliseconds since 1970": (re.compile(r"\d{13}(?:\.\d+)?"), 86_400_000),
}


class DateColumn(NamedTuple):
    """A column with dates, and how they are read, such as `day/month/year`."""

    name: str
    format: str


class DateReader:
    """Reads the dates of one column.

    Args:
        format_: one of those that `choose_breakdowns` gives.
    """

    def __init__(self, format_: str) -> None:
        self._format = format_
        self._known: dict[str, int] = {}

    def days(self, values: Sequence[str | None]) -> Array:
        """Days since 1970-01-01, int64; `NO_DAY` where a value is not a date.

        A moment counts to the day that is written, without a change of time zone; one in seconds
        since 1970 to its day in UTC.
        """
        if self._format in _SINCE_1970:
            found = [self._since_1970(value or "") for value in values]
            return np.array(found, np.int64)
        known, pattern = self._known, _FORMATS[self._format]
        if len(known) > _REMEMBERED:
            known.clear()
        # Dates repeat: most rows cost a look into a dict. The longest date takes 10 characters, 18
        # with a month's name, and what follows tells whether it ends there.
        width = 19 if "word" in pattern.groupindex else 11
        starts = [(value or "").lstrip()[:width] for value in values]
        for start in set(starts) - known.keys():
            known[start] = _day(pattern.match(start))
        return np.fromiter(map(known.__getitem__, starts), np.int64, len(starts))

    def _since_1970(self, value: str) -> int:
        pattern, units = _SINCE_1970[self._format]
        return int(float(value) // units) if pattern.fullmatch(value.strip()) else NO_DAY


def choose_breakdowns(
    sample: Mapping[str, Sequence[Any]], exclude: Collection[str]
) -> tuple[DateColumn | None, tuple[str, ...]]:
    """The column with dates, if there is one, and up to three columns of categories.

    A column has dates if all its values read as dates in one way only: `03/04/2026` alone could be
    March or April, and is left out. It has categories if a few short values come again and again;
    whole numbers only if they are ten at most, and ids never.

    Args:
        sample: column -> some of its values, of any type.
        exclude: columns that are not asked about, such as the model's inputs.
    """
    texts = {
        name: [text for value in values if (text := _text(value))]
        for name, values in sample.items()
        if name not in exclude
    }
    dated = [
        DateColumn(name, format_)
        for name, values in texts.items()
        if len(values) > len(sample[name]) / 2 and (format_ := _date_format(name, values))
    ]
    dates = {column.name for column in dated}
    categories = [
        name for name, values in texts.items() if name not in dates and _is_category(name, values)
    ]
    # Words say more than numbers do.
    categories.sort(key=lambda name: all(_is_number(value) for value in texts[name]))
    return (dated[0] if dated else None), tuple(categories[:MOST_CATEGORIES])


def _text(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text in {"nan", "NaT", "<NA>"} else text


def _date_format(name: str, values: Sequence[str]) -> str:
    if _DATE_LIKE_NAME.search(name):  # else ten digits are rather a number of something
        for format_, (pattern, _) in _SINCE_1970.items():
            if all(pattern.fullmatch(value) for value in values):
                return format_
    fits = [name for name in _FORMATS if all(_is_date(_FORMATS[name], value) for value in values)]
    return fits[0] if len(fits) == 1 else ""


def _is_date(pattern: re.Pattern[str], value: str) -> bool:
    match = pattern.match(value)
    if match is None or _day(match) == NO_DAY:
        return False
    rest = value[match.end() :]
    return not rest or _TIME.fullmatch(rest) is not None


def _day(match: re.Match[str] | None) -> int:
    if match is None:
        return NO_DAY
    parts = match.groupdict()
    year = int(parts["y"])
    if len(parts["y"]) == 2:  # as POSIX reads %y
        year += 1900 if year > 68 else 2000
    if year not in _YEARS:
        return NO_DAY
    try:
        month = _MONTHS.index(parts["word"].lower()) + 1 if "word" in parts else int(parts["m"])
        return (date(year, month, int(parts["d"])) - date(1970, 1, 1)).days
    except ValueError:
        return NO_DAY


def _is_category(name: str, values: Sequence[str]) -> bool:
    distinct = set(values)
    if len(values) < 12 or len(distinct) < 2 or _ID_LIKE_NAME.search(name.strip()):
        return False
    if all(_is_number(value) for value in distinct):
        return len(distinct) <= 10 and all(float(value).is_integer() for value in distinct)
    few = len(distinct) <= min(40, len(values) / 4)
    return few and max(map(len, distinct)) <= 60


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(?:\.\d*)?", value) is not None
