"""What is read: rows, values, and what is said of broken files."""

import gzip
import io
import json
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from mlopsdeploy.data.sources import (
    ReadOptions,
    Wanted,
    chunks,
    delimited,
    format_of,
    open_source,
    with_content,
)
from mlopsdeploy.errors import InputError


def opened(tmp_path, content, name="r.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(str(path), ReadOptions(**options))


def windows_of(source, rows, kinds, *, raw=True, limit=None):
    with closing(source):
        wanted = Wanted(kinds, raw)
        return [source.parse(chunk, wanted) for chunk in chunks(source, rows, limit=limit)]


def texts(source, column="text", rows=1000, limit=None, raw=True):
    windows = windows_of(source, rows, {column: "str"}, raw=raw, limit=limit)
    return [text for window in windows for text in window.columns[column]]


def bad_rows(source, rows=1000, raw=True, kinds=None):
    kinds = kinds or {"text": "str"}
    windows = windows_of(source, rows, kinds, raw=raw)
    return [(bad.line, bad.reason) for window in windows for bad in window.bad]


@pytest.mark.parametrize(
    ("format_", "names"),
    [
        ("csv", ["a.csv", "A.CSV", "a.tsv", "a.txt.gz"]),
        ("jsonl", ["a.b.jsonl", "a.ndjson.gz"]),
        ("parquet", ["a.parquet", "a.pq"]),
    ],
)
def test_format_of(format_, names):
    assert [format_of(name) for name in names] == [format_] * len(names)


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.gz", "csv", "a.json"])
def test_a_name_that_says_no_format(name):
    with pytest.raises(InputError, match="can't tell its format"):
        format_of(name)


WORDS = [
    "NA", "None", "null", "NaN", "N/A", "nan", "-", "", " ", "0012", "1e5", "true", "2026-01-01",
]  # fmt: skip


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_text_is_read_as_it_stands(tmp_path, name, raw):
    if name == "r.csv":
        content = "id,text\n" + "".join(f"{place},{word}\n" for place, word in enumerate(WORDS))
    else:
        content = "".join(json.dumps({"text": word}) + "\n" for word in WORDS)
    assert texts(opened(tmp_path, content, name), raw=raw) == WORDS


@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_windows_hold_so_many_rows_and_number_them(tmp_path, rows):
    source = opened(tmp_path, 'id,text\n1,"a\nb"\n2,b\n\n3,"c ""x"""\n4,d\n5,e')
    windows = windows_of(source, rows, {"text": "str"})
    assert [text for window in windows for text in window.columns["text"]] == [
        "a\nb", "b", 'c "x"', "d", "e",
    ]  # fmt: skip
    assert all(window.rows <= rows for window in windows)
    assert [number for window in windows for number in window.numbers] == [1, 2, 3, 4, 5]
    assert (
        b"|".join(record.encode() for window in windows for record in window.records.to_pylist())
        == b'1,"a\nb"|2,b|3,"c ""x"""|4,d|5,e'
    )


def test_small_windows_are_not_found_anew(tmp_path, monkeypatch):
    """Each byte is searched for ends of records when it is read, and not once a window."""
    searched = []
    find = delimited.find_records
    monkeypatch.setattr(
        delimited,
        "find_records",
        lambda data, *a, **k: searched.append(len(data)) or find(data, *a, **k),
    )
    content = "id,text\n" + "".join(f'{n},"a\nb"\n' for n in range(1000))
    source = opened(tmp_path, content)
    with closing(source):
        parts = [chunk.content for chunk in chunks(source, 1)]
    assert len(parts) == 1000
    assert b"".join(parts) == content.encode()[8:]
    assert sum(searched) < 4 * len(content)


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("names", [["r.csv"], ["a.csv", "b.csv"], ["a.csv", "b.csv", "c.csv"]])
def test_shares_of_windows_add_up_to_the_whole(tmp_path, names, rows):
    for name in names:
        opened(tmp_path, "id,text\n" + "1,good\n" * 20, name).close()
    windows = windows_of(open_source(str(tmp_path)), rows, {"text": "str"})
    assert sum(window.rows for window in windows) == 20 * len(names)
    # The header of each file, 8 of its 148 bytes, is no part of any row.
    assert sum(window.share for window in windows) == pytest.approx(140 / 148)


def test_a_record_larger_than_a_read(tmp_path):
    long = "x\n" * 1_500_000
    assert texts(opened(tmp_path, f'id,text\n1,"{long}"\n2,b\n')) == [long, "b"]


@pytest.mark.parametrize("above", ["", "\n\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path, delimiter, above):
    rows = [["id", "text", "x"], ["1", "so good", "2"]]
    source = opened(tmp_path, above + "\n".join(map(delimiter.join, rows)))
    assert source.delimiter == delimiter
    assert texts(source) == ["so good"]


def test_a_delimiter_that_is_said(tmp_path):
    assert texts(opened(tmp_path, "id,x^text\n1^a,b", delimiter="^")) == ["a,b"]
    assert texts(opened(tmp_path, "a,b,c\ttext\n1\tgood", "r.tsv")) == ["good"]


TEXT = "id,text\n1,Größe 好 😀\n"


@pytest.mark.parametrize(
    ("encoded", "encoding"),
    [
        (TEXT.encode("utf-8-sig"), "auto"),
        (TEXT.encode("utf-16"), "auto"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "auto"),
        (gzip.compress(TEXT.encode(), mtime=0), "auto"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        *((TEXT.encode("utf-8-sig"), name) for name in ("utf-8", "UTF-8", "utf8", "utf_8_sig")),
    ],
)
def test_encodings_and_gzip_are_seen_or_named(tmp_path, encoded, encoding):
    source = opened(tmp_path, encoded, encoding=encoding)
    assert source.names == ["id", "text"]
    assert texts(source) == ["Größe 好 😀"]


@pytest.mark.parametrize("name", ["cp1252", "latin-1", "CP1252"])
def test_an_encoding_of_one_byte(tmp_path, name):
    content = "id,text\n1,Größe\n".encode(name)
    assert texts(opened(tmp_path, content, encoding=name)) == ["Größe"]


def test_a_character_across_two_reads(tmp_path):
    long = "好" * 1_000_000
    content = f"id,text\n1x,{long}\n".encode("gb18030")
    assert texts(opened(tmp_path, content, encoding="gb18030")) == [long]


def parquet(**columns):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"", "r.csv: the file is empty"),
        ("r.csv", b"\n\n\n", "r.csv: the file is empty"),
        ("r.csv", b"\xef\xbb\xbf", "r.csv: the file is empty"),
        ("r.csv", b"id,text\n", "r.csv: has a header but no rows"),
        ("r.csv", b"id,text", "r.csv: has a header but no rows"),
        ("r.csv", b"\x7fELF\x00\x01\x02", "r.csv: this looks like a binary file"),
        ("r.csv", b"PAR1....", "r.csv: not a Parquet file"),
        ("r.csv", b"PK\x03\x04....", r"r.csv: can't be read \(File is not a zip file\)"),
        ("r.jsonl", b"", "the file is empty"),
        ("r.jsonl", b"\n \n", "has no rows"),
        ("r.jsonl", b'{"text": "caf\xe9"}\n', r"r\.jsonl: line 1: not JSON"),
        ("r.parquet", b"id,text\n1,a\n", "not a Parquet file"),
        ("r.parquet", b"", "not a Parquet file"),
        ("r.parquet", parquet(text=["a"] * 1000)[:-30], "not a Parquet file"),
        ("r.parquet", parquet(text=pa.array([], "str")), "has no rows"),
        ("r.foo", b"PK", "can't tell its format"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as raised:
        opened(tmp_path, content, name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("content", "bad", "good"),
    [
        (b'id,text\n1,a\n2,"b\n3,c\n', [(3, 'a quote (") is opened and never closed')], ["a", "c"]),
        (b"id,text\n1,a\n2\n", [(3, "has 1 field, the header has 2")], ["a"]),
        (b"id,text\n1,a,b\n", [(2, "has 3 fields, the header has 2")], []),
        (b"text\na\nb, c\n", [(3, "has 2 fields, the header has 1; --delimiter '|' if")], ["a"]),
        (b'id,text\n1,"a\nb"\n\n3,c,d\n', [(5, "has 3 fields, the header has 2")], ["a\nb"]),
        (b"\n\nid,text\n1,a\n2,b,c\n", [(5, "has 3 fields, the header has 2")], ["a"]),
        (b"id,text\n1,caf\xe9\n2,b\n", [(2, "byte 0xe9 is not UTF-8")], ["b"]),
        (b'id,text\n1,"a\nb"\n2,caf\xe9\n', [(4, "byte 0xe9 is not UTF-8")], ["a\nb"]),
        (b"id,text\n1,a\n2,caf\xe9,c\n3,d\n", [(3, "byte 0xe9 is not UTF-8")], ["a", "d"]),
        (b"id,text\n1,a\n2,caf\xe9\rc\n3,d\n", [(3, "byte 0xe9 is not UTF-8")], ["a", "d"]),
    ],
)
def test_rows_that_are_set_aside(tmp_path, content, bad, good, raw):
    found = bad_rows(opened(tmp_path, content), raw=raw)
    assert [line for line, _ in found] == [line for line, _ in bad]
    assert all(said.startswith(reason) for (_, said), (_, reason) in zip(found, bad, strict=True))
    assert texts(opened(tmp_path, content), raw=raw) == good


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"bad", "has 1 field"),
        (b'x,"open', 'a quote (") is opened and never closed'),
        (b"2,caf\xe9", "byte 0xe9 is not UTF-8"),
    ],
)
def test_the_line_of_a_bad_row_deep_in_a_file(tmp_path, rows, row, reason):
    lines = [b"id,text", b"", *[b'1,"a\nb"'] * 400, b"", b"", row, b"9,z"]
    ((line, said),) = bad_rows(opened(tmp_path, b"\n".join(lines) + b"\n"), rows=rows)
    assert line == 1 + 1 + 800 + 2 + 1
    assert said.startswith(reason)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_gzip_file_that_was_cut_off(tmp_path, encoding):
    packed = gzip.compress(("id,text\n" + "1,some words\n" * 5000).encode(encoding))
    with pytest.raises(InputError, match=r"r\.csv\.gz: can't be read"):
        texts(opened(tmp_path, packed[:-20], "r.csv.gz", encoding=encoding))


@pytest.mark.parametrize("name", ["r.csv.gz", "r.jsonl.gz"])
@pytest.mark.parametrize("place", [3, 12, 5000])
def test_a_gzip_file_with_damaged_bytes(tmp_path, name, place):
    generator = np.random.default_rng(0)
    line = ['{{"text": "{} words"}}\n', "1,{} words\n"]["csv" in name]
    rows = "".join(line.format(number) for number in generator.integers(0, 10**9, 5000))
    packed = bytearray(gzip.compress((("id,text\n" if "csv" in name else "") + rows).encode()))
    packed[place : place + 40] = b"\xff" * 40
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as raised:
        texts(opened(tmp_path, bytes(packed), name))
    assert "\n" not in str(raised.value)


def test_an_encoding_that_the_file_does_not_have(tmp_path):
    with pytest.raises(InputError, match="is not cp1252; .*--encoding latin-1"):
        texts(opened(tmp_path, b"id,text\n1,\x81", encoding="cp1252"))
    with pytest.raises(InputError, match="is not utf-16"):
        texts(opened(tmp_path, b"id,text\n1,ab", encoding="utf-16"))
    for name in ("utf-99", "base64"):
        with pytest.raises(InputError, match=f"unknown encoding '{name}'"):
            opened(tmp_path, b"id,text\n1,a", encoding=name)


def test_numbers(tmp_path):
    values = ["1", " 2.5 ", "", "NA", "-1e3", "inf", "word", "1,5", "NaN"]
    content = "x,text\n" + "".join(f'"{value}",t\n' for value in values)
    source = opened(tmp_path, content)
    (window,) = windows_of(source, 100, {"x": "float32"})
    assert [bad.record for bad in window.bad] == ['"inf",t', '"word",t', '"1,5",t']
    assert {bad.reason for bad in window.bad} == {"column 'x' holds no number"}
    nan = float("nan")
    np.testing.assert_equal(window.columns["x"], [1, 2.5, nan, nan, -1000, nan])


def test_numbers_beside_a_quote_that_is_never_closed(tmp_path):
    source = opened(tmp_path, 'x,text\n1,a\n2,"b\n3.5,c\nword,d\n')
    (window,) = windows_of(source, 100, {"x": "float32", "text": "str"})
    assert [bad.line for bad in window.bad] == [3, 5]
    assert window.columns["x"].tolist() == [1, 3.5]


# ---------------------------------------------------------------- JSON Lines


def test_lines_that_are_set_aside(tmp_path):
    content = b'{"text": "a"}\n\n' * 150 + b'oops\n[1]\n{"text": "z"}\n{"text": \n'
    found = bad_rows(opened(tmp_path, content, "r.jsonl"), rows=16)
    assert [(line, said.partition(" (")[0]) for line, said in found] == [
        (301, "not JSON"), (302, "not a JSON object"), (304, "not JSON"),
    ]  # fmt: skip
    assert texts(opened(tmp_path, content, "r.jsonl"), rows=16) == [*["a"] * 150, "z"]


def test_json_lines_with_gaps_other_types_and_half_an_emoji(tmp_path):
    lines = [
        '{"id": 1, "text": "a"}', '{"id": 2}', '{"text": null}', '{"text": 5}',
        '{"text": ["x"]}', '{"text": "cut \\ud83d"}',
    ]  # fmt: skip
    source = opened(tmp_path, "\n".join(lines), "r.jsonl")
    assert source.names == ["id", "text"]
    found = texts(source)
    assert found[:5] == ["a", None, None, "5", '["x"]']
    assert found[5].startswith("cut ")


def test_a_byte_order_mark_before_json_lines(tmp_path):
    content = b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}'
    assert texts(opened(tmp_path, content, "r.jsonl")) == ["a", "b"]


# ---------------------------------------------------------------- Parquet


def test_parquet_keeps_its_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int32()),
            "text": pa.array(["a", None, "NA"]).dictionary_encode(),
            "when": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    source = open_source(str(tmp_path / "r.parquet"))
    windows = windows_of(source, 2, {"text": "str", "id": "int64"}, raw=False)
    assert [list(window.columns["text"]) for window in windows] == [["a", None], ["NA"]]
    assert pa.concat_tables(window.table for window in windows).schema == table.schema
    assert [list(window.numbers) for window in windows] == [[1, 2], [3]]


def test_parquet_with_damaged_rows(tmp_path):
    content = bytearray(parquet(text=[f"text {n}" for n in range(1000)]))
    content[8:200] = bytes(192)
    source = opened(tmp_path, bytes(content), "r.parquet")
    for read in (source.sample, lambda: source.read(9)):
        with pytest.raises(InputError, match=r"r\.parquet: after row 0: can't be read") as raised:
            read()
        assert "\n" not in str(raised.value)


def test_times_within_values_that_python_has_not(tmp_path):
    late = pa.array([10**17], pa.timestamp("ms"))
    within = pa.StructArray.from_arrays([late, pa.array(["a"])], ["at", "text"])
    rows = pa.ListArray.from_arrays([0, 1], within)
    source = opened(tmp_path, parquet(one=within, several=rows), "r.parquet")
    assert source.sample()["one.text"] == ["a"]
    (row,) = source.sample()["several"]
    assert row == [{"at": source.sample()["one.at"][0], "text": "a"}]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_limit_of_parquet(tmp_path, limit):
    source = opened(tmp_path, parquet(text=["a", "b", "c"]), "r.parquet")
    found = texts(source, rows=2, limit=limit)
    assert found == ["a", "b", "c"][:limit]


# ---------------------------------------------------------------- no file


def test_what_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        open_source(str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"no \.csv, \.jsonl or \.parquet file there"):
        open_source(str(tmp_path / "folder.csv"))


# ---------------------------------------------------------------- how delimited text is written

REVIEW = "it broke on day two"
A_TEXT = "I love this phone so much that I bought two more"
SINGLE_QUOTES = """web;'so, so; I think; or not'
sport;'one, two, three; four'
web;'plain'
web;'a; b; c; d, e'
sport;'it''s, well, well; ok, "fine", yes'
"""
A_LINE_EACH = "I love it, it works just as well\nIt broke on day two\n" * 4


@pytest.mark.parametrize(
    ("content", "options", "names", "found", "told"),
    [
        ('id,text\n1,"he said \\"fine, really\\" to me"\n',
         {}, "id text", 'he said "fine, really" to me', {"escape": "\\"}),
        ('id,text\n1,"5"" screen"\n', {"escape": "\\"}, "id text", '5" screen', {"escape": "\\"}),
        ('id,text\n1,"a" b\n', {"quote": "none"}, "id text", '"a" b', {"quote": "none"}),
        ("id,text\n1,'a, b'\n", {"quote": "'"}, "id text", "a, b", {"quote": "'"}),
        ("1,so good\n2,bad\n", {"header": False}, "1 2", "so good", {"header": "none"}),
        ("export\nof May\n\nid,text\n1,a\n2,b\n",
         {"skip_lines": 3}, "id text", "a", {"lines skipped": 3}),
        ("sep=;\r\nid;text\r\n1;a,b\r\n", {}, "id text", "a,b", {"sep= line": "kept"}),
        ("id,text,,\n1,a,,\n", {}, "id text column·3 column·4", "a", {}),
        ("id,text\n1,a,\n2,b,\n",
         {}, "id text column·3", "a", {"delimiter at row ends": "header completed"}),
        ("x,text,date,date,date.2\n1,a,2,3,4\n", {}, "x text date date.3 date.2", "a", {}),
        ('id, text, n\n1, "a, b", 2\n',
         {}, "id text n", "a, b", {"spaces before fields": "left out"}),
        ("id,text\r1,a\r2,b\r", {}, "id text", "a", {"line end": "CR"}),
        ("id,text\r1,a\r2,b\n", {}, "id text", "a", {"line end": "CR"}),
        ("id,text\r\r\n1,a\r\r\n", {}, "id text", "a", {}),
        ("id,text\n1,a\0b\n", {}, "id text", "a\0b", {}),
        ("id,text\n1,a\n" + "\0" * 9, {}, "id text", "a", {"NUL bytes dropped": 9}),
        ("id\ttext\n1\tgood one\n".encode("utf-16-le"),
         {}, "id text", "good one", {"encoding": "utf-16-le"}),
        ("a, b;text;c, d\n1;so;2,5\n3;no;4,5\n", {}, "a,·b text c,·d", "so", {"delimiter": ";"}),
    ],
)  # fmt: skip
def test_how_delimited_text_is_written(tmp_path, content, options, names, found, told):
    source = opened(tmp_path, content, **options)
    assert source.names == [name.replace("·", " ") for name in names.split()]
    assert texts(source, column=source.names[1])[0] == found
    assert told.items() <= source.how_read().items()


@pytest.mark.parametrize(
    ("content", "flag"),
    [
        ("export\nof May\n\nid,text\n1,a\n2,b\n", "--skip-lines 3"),
        ("2,so good\n1,very bad\n3,fine\n", "--no-header"),
        ("I love this phone so much\nIt broke on day two\n", "--no-header"),
        ("ham\tOk lar\nspam\tFree entry\n" + "ham\tSo good\n" * 3, "--no-header"),
        (f"tom;{A_TEXT}\nann;{A_TEXT} too\n", "--no-header"),
        ("id,text\n" + '1,"Love" is all\n' * 9, "--quote none"),
        ('id,text\n1,"5\\" and C:\\x"\n', "--escape"),
        (SINGLE_QUOTES, "--delimiter ';' --quote \"'\""),
        (b"id,text\n" + b"1,caf\xe9\n" * 9, "--encoding cp1252"),
        (b"id,caf\xe9\n1,a\n", "--encoding cp1252"),
        ("a;b,c\n1;2,3\n", "--delimiter"),
        (A_LINE_EACH, r"4 of its first 8 .*--delimiter '\|' --no-header if .*--delimiter ','"),
        (f"review\n{A_LINE_EACH}".replace("a", "|"), "4 of its first 9 .*--delimiter ';' if"),
        ("id,name,text\n" + "1,a,b\n" * 5 + "2,a,b,c\n" * 8, r"--delimiter '\|' if each"),
    ],
)
def test_what_could_be_meant_otherwise_is_asked(tmp_path, content, flag):
    with pytest.raises(InputError, match=flag) as raised:
        opened(tmp_path, content)
    assert "\n" not in str(raised.value)
    assert "codec" not in str(raised.value)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Größe paßt, très bien"),
        ("cp1251", "очень хороший телефон"),
        ("cp1253", "Χάλασε τη δεύτερη μέρα"),
        ("gb18030", "这个手机非常好用"),
        ("shift_jis", "二日目に壊れました"),
        ("cp949", "이 전화기는 정말 좋아요"),
    ],
)
def test_an_encoding_is_asked_for_by_what_it_may_be(tmp_path, encoding, text):
    content = ("id;review\n" + f"1;{text}\n" * 3).encode(encoding)
    with pytest.raises(InputError, match=rf"name its encoding: --encoding .*\b{encoding}\b"):
        opened(tmp_path, content)
    assert texts(opened(tmp_path, content, encoding=encoding), "review") == [text] * 3


@pytest.mark.parametrize(
    "content",
    [
        "id,name,text\n" + "1,a,b\n" * 9 + "2,a,b,c\n" * 8,  # ragged, below names
        "It is so good, I think\n" + "so, so\n" * 40 + "bad\n" * 4,  # a few
        "id,text\n1,a,\n2,b,\n3,c,\n",
        "id,text\n1,a,b\n2,c,d\n",  # too few to tell
    ],
)
def test_rows_of_other_lengths_are_bad_rows(tmp_path, content):
    assert opened(tmp_path, content).delimiter == ","


@pytest.mark.parametrize(
    "content",
    [
        "left,sales\n1,sales\n0,it\n" + "1,sales\n" * 9,  # a name above numbers
        "who,Comedy\na,Comedy\nb,\n" + "c,Comedy\n" * 9,  # boxes to tick
        f"who;What did you like best of all? Say it in one sentence.\na;{A_TEXT}\n",
        "who,type\na,name\nb,name\nc,type\n",  # as a list of columns has
    ],
)
def test_names_that_look_like_content(tmp_path, content):
    assert opened(tmp_path, content).how_read().get("header") is None


def test_a_name_is_missing(tmp_path):
    """As R writes the names of rows, which have none themselves."""
    rows = "".join(f"{n},{n}.5,Fair,good\n" for n in range(50))
    with pytest.raises(InputError) as raised:
        opened(tmp_path, f"carat,cut,review\n{rows}")
    assert str(raised.value).endswith(
        "its header has 3 fields and its rows have 4; say --skip-lines 1 --no-header to call the "
        "columns 1 to 4, or --delimiter ',' to set the rows aside"
    )
    source = opened(tmp_path, f"carat,cut,review\n{rows}", skip_lines=1, header=False)
    assert source.names == ["1", "2", "3", "4"]
    assert texts(source, "4") == ["good"] * 50


def test_a_text_a_line(tmp_path):
    source = opened(tmp_path, A_LINE_EACH, delimiter="|", header=False)
    assert texts(source, "1")[:2] == ["I love it, it works just as well", "It broke on day two"]


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize(
    ("row", "closing", "reasons"),
    [
        ('20,"open,1', "90,plain,0", ["is opened and never closed"]),
        ('20,"open,1', '90,"open too,1', ["is opened and never closed"] * 2),
        ('20,"open,1', '90,a "good" one,1', ["is opened and never closed"]),
        ('20,"open,1', '90,screen of 5",1', ["is opened and never closed"]),
        ('20,"a" b,1', "90,plain,0", ["text follows a closing quote"]),
        ('20,"a\nb" c,1', "90,plain,0", ["lines 21 to 22: text follows a closing quote"]),
    ],
)
def test_a_quote_that_takes_in_rows_costs_only_its_own_line(tmp_path, rows, row, closing, reasons):
    lines = [f"{place},{REVIEW},{place % 5}" for place in range(1, 100)]
    lines[19], lines[89] = row, closing
    content = "\n".join(["id,text,n", *lines]) + "\n"
    found = bad_rows(opened(tmp_path, content), rows=rows)
    assert len(found) == len(reasons)
    assert all(part in reason for part, (_, reason) in zip(reasons, found, strict=True))
    assert len(texts(opened(tmp_path, content), rows=rows)) == 99 - len(reasons)


@pytest.mark.parametrize("header", ["id,text", "text,n", "title,text", "id,text,n"])
def test_reviews_of_many_lines_are_read_as_they_stand(tmp_path, header):
    review = "Great phone, works\nNice one, really, 5 of 5\n1. good, 2. cheap\n\n3, or 4, times"
    row = {"id": "7", "n": "3", "title": "t"}
    cells = [row.get(name, f'"{review}"') for name in header.split(",")]
    content = header + "\n" + (",".join(cells) + "\n") * 20
    assert texts(opened(tmp_path, content)) == [review] * 20


@pytest.mark.parametrize(("name", "first"), [("r.csv", "id,text\n"), ("r.jsonl", "")])
def test_a_line_that_is_being_written_is_held_back(tmp_path, name, first):
    row = '{"text": "a"}' if "json" in name else "1,a"
    path = tmp_path / name
    with path.open("w") as file:
        file.write(f"{first}{row}\n{row[:-1]}")
        file.flush()
        source = open_source(str(path))
        file.write(row[-1] + "\n")
        file.flush()
        assert texts(source) == ["a"]
    assert source.how_read()["lines held back"] == 1
    assert texts(open_source(str(path))) == ["a", "a"]
    path.write_text(first + row)
    assert texts(open_source(str(path))) == ["a"]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_several_columns_of_text_as_one(tmp_path, name):
    rows = [("Fine", "works"), ("", "broke"), ("", ""), ("Bad", "")]
    content = "id,title,body\n" + "".join(f"{a},{a},{b}\n" for a, b in rows)
    if name == "r.jsonl":
        content = "".join(json.dumps({"id": a, "title": a, "body": b}) + "\n" for a, b in rows)
    source = with_content(opened(tmp_path, content, name), {"text": "title,body"}, pictures=False)
    assert texts(source, "title,body") == ["Fine\nworks", "broke", None, "Bad"]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.json", "r.parquet", "folder"])
def test_long_rows_come_in_small_chunks(tmp_path, monkeypatch, name):
    """Which rows are together depends on these alone: a run that goes on has the same chunks."""
    rows = [(number, "x" * (number % 7 * 100)) for number in range(1000)]
    for module in ("delimited", "json_lines", "parquet", "joined"):
        monkeypatch.setattr(f"mlopsdeploy.data.sources.{module}.MOST_BYTES", 5000)
    table = pa.table({"id": [row[0] for row in rows], "text": [row[1] for row in rows]})
    if name == "folder":
        for day in range(2):
            (tmp_path / name / f"day={day}").mkdir(parents=True)
            part = table[day * 500 : day * 500 + 500]
            pyarrow.csv.write_csv(part, tmp_path / name / f"day={day}" / "r.csv")
    elif name.endswith("csv"):
        pyarrow.csv.write_csv(table, tmp_path / name)
    elif name.endswith("parquet"):
        pyarrow.parquet.write_table(table, tmp_path / name)
    else:
        lines = [json.dumps(row) for row in table.to_pylist()]
        text = "\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]"
        (tmp_path / name).write_text(text, "utf-8")
    path = str(tmp_path / name)

    def numbers(source, chunk):
        return source.parse(chunk, Wanted({"id": "float64"}, raw=False)).columns["id"].tolist()

    with closing(open_source(path)) as source:
        found = [(chunk.rows, numbers(source, chunk)) for chunk in chunks(source, 80)]
    assert [number for _, part in found for number in part] == [row[0] for row in rows]
    counts = [count for count, _ in found]
    long = [sum(len(rows[int(number)][1]) for number in part) for _, part in found]
    assert max(long) < (10_000 if name == "folder" else 5000 + 64 * 300)  # Parquet: 64 rows more
    assert min(long[:-1]) > 4000
    with closing(open_source(path)) as source:
        again = [chunk.rows for chunk in chunks(source, 80, limit=sum(counts[:5]))]
        again += [chunk.rows for chunk in chunks(source, 80)]
    assert again == counts
