"""Where records end, against Python's csv module."""

import csv
import io
import random

import numpy as np
import pytest

from mlopsdeploy.data.sources.dialect import guess_delimiter
from mlopsdeploy.data.sources.records import (
    Dialect,
    cutter,
    fields_of,
    find_records,
    value_of,
)


def record_ends(data, delimiter):
    return find_records(data, Dialect(delimiter))[0]


PIECES = ["a", "Review", "é", "好", " ", "", "5", '"', '""', ",", ";", "\t", "|", "\n", "\r\n", "'"]


def records(data: bytes, delimiter: str = ",") -> list[bytes]:
    ends = record_ends(data, delimiter)
    return [data[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=False)]


@pytest.mark.parametrize("seed", range(300))
def test_agrees_with_the_csv_module_on_random_files(seed):
    generator = random.Random(seed)
    delimiter = generator.choice(",;\t|")
    quoting = generator.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    width = generator.randint(2, 5)
    rows = [
        [
            "".join(generator.choice(PIECES) for _ in range(generator.randint(0, 6)))
            for _ in range(width)
        ]
        for _ in range(generator.randint(1, 30))
    ]
    text = io.StringIO(newline="")
    end = generator.choice(["\n", "\r\n"])
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    cut = records(text.getvalue().encode(), delimiter)
    assert b"".join(cut) == text.getvalue().encode()
    read = [
        list(csv.reader(io.StringIO(one.decode(), newline=""), delimiter=delimiter)) for one in cut
    ]
    assert read == [[row] for row in rows]


@pytest.mark.parametrize("seed", range(300))
def test_agrees_with_the_csv_module_on_stray_quotes(seed):
    """Unquoted fields with quotes inside (`5" screen`), mixed with quoted ones."""
    generator = random.Random(seed)

    def field() -> str:
        inside = "".join(generator.choice(["a", "5", " ", "é", ",", "\n", '""']) for _ in range(4))
        bare = "".join(generator.choice(["x", "5", '"', " ", "'"]) for _ in range(4))
        return generator.choice([f'"{inside}"', "z" + bare, "plain", ""])

    text = "".join(
        ",".join(["id", *(field() for _ in range(2))]) + "\n"
        for _ in range(generator.randint(1, 20))
    )
    cut = records(text.encode())
    assert b"".join(cut) == text.encode()
    expected = list(csv.reader(io.StringIO(text, newline="")))
    assert [
        row for one in cut for row in csv.reader(io.StringIO(one.decode(), newline=""))
    ] == expected
    assert len(cut) == len(expected)


@pytest.mark.parametrize("cut", range(33))
def test_an_incomplete_record_is_left_for_later(cut):
    data = b'1,"a\nb"\n2,"say ""hi"""\r\n3,plain\n'
    assert len(data) == 32
    whole = record_ends(data, ",").tolist()
    assert whole == [8, 24, 32]
    assert record_ends(data[:cut], ",").tolist() == [end for end in whole if end <= cut]


def test_nothing_and_blank_lines():
    assert record_ends(b"", ",").tolist() == []
    assert record_ends(b"\n\r\n\n", ",").tolist() == [1, 3, 4]
    assert record_ends(b"", ",").dtype == np.int64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'1,5" screen,good\n2,x,y\n', 2),
        (b'1,a "quoted" word,b\n2,"x\ny",z\n', 2),
        (b'1,5" and 6",b\n2,"x,""\n""",z\n', 2),
        (b'"a"b,c\n"d\n",e\n', 2),
        (b'a,"b" \n"c\nd",e\n', 2),
    ],
)
def test_stray_quotes_are_characters_like_any_other(line, expected):
    assert len(record_ends(line, ",")) == expected


def test_the_delimiter_decides_where_a_quoted_field_may_open():
    data = b'a;"b\nc"\n'
    assert record_ends(data, ";").tolist() == [8]
    assert record_ends(data, ",").tolist() == [5, 8]  # `a;"b` is then one unquoted field


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("id,date,text", ","),
        ("id;date;text", ";"),
        ("id\tdate\ttext", "\t"),
        ("id|date|text", "|"),
        ("text", ","),
        ('"a, b, c";d', ";"),
        ("price (EUR;net),text,date,x", ","),
    ],
)
def test_guess_delimiter(header, delimiter):
    assert guess_delimiter(header) == delimiter


@pytest.mark.parametrize("seed", range(100))
def test_some_fields_of_a_record(seed):
    """As they stand with the same delimiter; with another one Python reads the same out of them."""
    generator = random.Random(seed)
    old, new = generator.sample(",;\t|", 2)
    rows = [
        ["".join(generator.choices(PIECES, k=generator.randint(0, 5))) for _ in range(4)]
        for _ in range(20)
    ]
    places = generator.sample(range(4), generator.randint(2, 4))
    same, other = (cutter(Dialect(old), places, one) for one in (old, new))
    for row in rows:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=old, lineterminator="\n").writerow(row)
        record = text.getvalue().encode()[:-1]
        kept = [row[place] for place in places]
        (read,) = csv.reader(io.StringIO(other(record).decode(), newline=""), delimiter=new)
        assert read == kept
        fields = [value_of(one, Dialect(old)) for one in fields_of(same(record), Dialect(old))]
        assert fields == kept
        if len(places) == 4:
            assert sorted(fields_of(same(record), Dialect(old))) == sorted(
                fields_of(record, Dialect(old))
            )
