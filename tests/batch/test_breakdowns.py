"""Which columns have dates or categories, and how dates are read."""

import datetime as dt

import numpy as np
import pytest

from mlopsdeploy.batch.breakdowns import NO_DAY, DateColumn, DateReader, choose_breakdowns

DAY = (dt.date(2026, 11, 22) - dt.date(1970, 1, 1)).days


def format_of(values, name="time"):
    return (choose_breakdowns({name: values}, ())[0] or DateColumn("", "")).format


@pytest.mark.parametrize(
    ("written", "format_"),
    [
        ("2026-11-22", "year-month-day"),
        ("2026-11-22T23:59:59.5+02:00", "year-month-day"),
        ("2026-11-22 08:15:00 UTC", "year-month-day"),
        ("2026/11/22", "year-month-day"),
        ("22.11.2026", "day.month.year"),
        ("22/11/2026 8:15 PM", "day/month/year"),
        ("11/22/2026", "month/day/year"),
        ("22-Nov-26", "day-month-year"),
        ("22 November 2026", "day-month-year"),
        ("Nov 22, 2026", "month day, year"),
        ("1795305600", "seconds since 1970"),
        ("1795305600000", "milliseconds since 1970"),
        (dt.date(2026, 11, 22), "year-month-day"),
        (np.datetime64("2026-11-22T10:00"), "year-month-day"),
    ],
)
def test_dates(written, format_):
    assert format_of([written] * 3) == format_
    assert DateReader(format_).days([str(written)]).tolist() == [DAY]


def test_single_digits_and_what_follows_a_date():
    reader = DateReader("year-month-day")
    assert reader.days(["2026/1/2 10:00", "2026/1/2", " 2026-01-02T1"]).tolist() == [20455] * 3
    wrong = ["2026-02-30", "20260102", "", None, "tomorrow", "3026-01-01", "2026-01-021"]
    assert reader.days(wrong).tolist() == [NO_DAY] * len(wrong)


@pytest.mark.parametrize(
    "values",
    [
        ["03/04/2026", "05/06/2026"],  # March or April?
        ["2026-11-22", "soon"],
        ["2026-11-22", "22.11.2026"],
        ["13/01/2026", "01/13/2026"],
        ["", "", "2026-11-22"],
        ["3.11", "3.12"],
        [],
    ],
)
def test_no_dates(values):
    assert format_of(values) == ""


def test_one_value_settles_day_and_month():
    assert format_of(["03/04/2026", "13/04/2026"]) == "day/month/year"


def test_ten_digits_are_a_moment_only_where_the_name_says_so():
    values = ["1795305600", "1795392000"]
    assert format_of(values, "created_at") == "seconds since 1970"
    assert format_of(values, "phone") == ""


def test_choice():
    rows = range(40)
    sample = {
        "review_id": [f"R{row}" for row in rows],
        "date": [f"2026-03-{row % 28 + 1:02d}" for row in rows],
        "shop id": [row % 3 for row in rows],
        "stars": [str(row % 5 + 1) for row in rows],
        "price": [row % 7 + 0.5 for row in rows],
        "age": [row % 30 for row in rows],
        "country": ["FR", "DE", None, "日本"] * 10,
        "same": ["x"] * 40,
        "long": ["a" * 61, "b"] * 20,
        "text": ["good", "bad"] * 20,
        "recommended": [True, False] * 20,
        "department": ["Tops", "Dresses"] * 20,
    }
    date, categories = choose_breakdowns(sample, {"text"})
    assert date == DateColumn("date", "year-month-day")
    assert categories == ("country", "recommended", "department")
    del sample["country"], sample["date"]
    assert choose_breakdowns(sample, {"text"}) == (None, ("recommended", "department", "stars"))
    assert choose_breakdowns({}, ()) == (None, ())
