"""What a file is, by its content; documents, workbooks, zips, and values within values."""

import bz2
import datetime as dt
import gzip
import io
import json
import random
import sys
import uuid
import zipfile
from contextlib import closing

import fsspec
import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy.data import object_stores
from mlopsdeploy.data.sources import (
    JoinedSource,
    ReadOptions,
    Wanted,
    chunks,
    json_document,
    open_source,
)
from mlopsdeploy.errors import InputError

from . import workbooks

ROWS = [{"id": place, "text": f"some words {place}"} for place in range(5)]


def read(path, rows=2, raw=True, **options):
    """All rows as objects, and how they were read."""
    with closing(open_source(str(path), ReadOptions(**options))) as source:
        windows = [source.parse(chunk, Wanted({}, raw)) for chunk in chunks(source, rows)]
        assert not any(window.bad for window in windows)
        found = [
            json.loads(record) if window.records is not None else record
            for window in windows
            for record in map(window.record, range(window.rows))
        ]
        return found, source.how_read()


def workbook(path, sheets, hidden=()):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
    book.save(path)
    return path


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "id,text\n" + f"1,{name}\n")
    return path


# ---------------------------------------------------------------- JSON that is no lines


def random_value(generator, depth=0):
    kind = generator.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return [random_value(generator, depth + 1) for _ in range(generator.randrange(3))]
    if kind == 7:
        return {key: random_value(generator, depth + 1) for key in generator.sample("abc", 2)}
    text = "".join(generator.choices('ab"\\\n\u2028{}[],:é好😀 ', k=generator.randrange(9)))
    return [None, True, generator.random() * 10 ** generator.randrange(-9, 20), 7, text, -0.0][kind]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 3, 50, 1 << 20])
def test_documents_are_read_as_the_standard_library_reads_them(tmp_path, monkeypatch, seed, block):
    monkeypatch.setattr(json_document, "READ_BYTES", block)
    generator = random.Random(seed)
    path = tmp_path / "r.json"
    for indent in (None, 0, 2):
        rows = [{"id": place, "v": random_value(generator)} for place in range(4)]
        whole = json.dumps(rows, indent=indent, ensure_ascii=generator.random() < 0.5)
        for document in (
            whole,
            f"{whole}\n{whole}",
            json.dumps({"n": 1, "data": {"rows": rows}, "tags": ["a"]}, indent=indent),
            "\r\n".join(json.dumps(row, indent=indent) for row in [*rows, *rows]),
        ):
            path.write_text(document, "utf-8", newline="")
            found, _ = read(path, sheet="data.rows" if '"data"' in document else None)
            assert json.dumps(found) == json.dumps((rows * 2)[: len(found)])
            assert len(found) in (4, 8)


@pytest.mark.parametrize("pretty", [None, 1])
def test_an_object_goes_on_as_it_is_spelled(tmp_path, pretty):
    rows = '[{"a": 1.10, "b": 1E400, "c": "\\u00e9", "a": 2},\n {"d": 12345678901234567890.5}]'
    (tmp_path / "r.json").write_text(rows, "utf-8")
    with closing(open_source(str(tmp_path / "r.json"))) as source:
        window = source.parse(source.read(9), Wanted({}, raw=True))
    assert window.records.to_pylist() == [
        '{"a": 1.10, "b": 1E400, "c": "\\u00e9", "a": 2}', '{"d": 12345678901234567890.5}',
    ]  # fmt: skip


LISTS = json.dumps({"a": ROWS, "b": {"c": ROWS[:2]}})


@pytest.mark.parametrize(
    ("content", "options", "rows", "read_as"),
    [
        (LISTS, {"sheet": "a"}, ROWS, {"format": "json", "list": "a"}),
        (LISTS, {"sheet": "b.c"}, ROWS[:2], {"format": "json", "list": "b.c"}),
        (json.dumps({"n": [1], "a": ROWS}), {}, ROWS, {"format": "json", "list": "a"}),
        (json.dumps({"id": 1, "tags": ["x"]}), {}, [{"id": 1, "tags": ["x"]}], {"format": "json"}),
        ('{"id": 1}\n{"id": 2}\n', {}, [{"id": 1}, {"id": 2}], {"format": "jsonl"}),
    ],
)
def test_which_list_of_a_document(tmp_path, content, options, rows, read_as):
    (tmp_path / "r.json").write_text(content, "utf-8")
    assert read(tmp_path / "r.json", **options) == (rows, read_as)


def test_a_line_that_is_named_so_is_a_row(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps({"a": ROWS}), "utf-8")
    assert read(tmp_path / "r.jsonl")[0] == [{"a": ROWS}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", LISTS, "lists of objects in it are a, b.c: say --sheet NAME"),
        ("r.json", "[]", "has no rows"),
        ("r.json", json.dumps(ROWS)[:-20], "after row 4: not JSON, or cut off"),
        ("r.json", json.dumps(ROWS)[:-1], "after row 5: the file ends before its list does"),
        ("r.json", json.dumps(ROWS, indent=1).replace('"id": 3', "id: 3"), "after row 3: not JSON"),
        ("r.json", json.dumps(ROWS) + "oops", "after row 5: 'o' stands behind the end of the list"),
        ("r.json", "[1, 2]", "row 1: not a JSON object"),
        ("r.foo", "id,text\n1,a\n", r"r\.foo: can't tell its format, neither by its content nor"),
        ("r.xlsx", "id,text\n1,a\n", "is no workbook but text; name it .csv"),
        ("r.csv", "PK\3\4" + "." * 99, "can't be read"),
        ("r.csv", "\x28\xb5\x2f\xfd....", "can't be read"),
    ],
)
def test_what_is_wrong_or_a_question(tmp_path, name, content, message):
    encoding = "latin-1" if name == "r.csv" else "utf-8"
    (tmp_path / name).write_text(content, encoding, newline="")
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_bad_line_between_objects_is_set_aside(tmp_path):
    content = json.dumps(ROWS[0]) + "\noops\n" + json.dumps(ROWS[1])
    (tmp_path / "r.json").write_bytes(content.encode("utf-16"))
    with closing(open_source(str(tmp_path / "r.json"))) as source:
        window = source.parse(source.read(9), Wanted({"text": "str"}, raw=True))
    assert list(window.columns["text"]) == ["some words 0", "some words 1"]
    assert [(bad.number, bad.record) for bad in window.bad] == [(2, "oops")]


# ---------------------------------------------------------------- workbooks and zips


def test_cells_are_spelled_as_the_sheet_means_them(tmp_path):
    cells = {
        "int": (3, "3"), "float": (0.1 + 0.2, "0.3"), "text": ("007", "007"), "yes": (True, "TRUE"),
        "date": (dt.date(2026, 1, 2), "2026-01-02"), "none": (None, None),
        "when": (dt.datetime(2026, 1, 2, 10, 5), "2026-01-02 10:05:00"),
        "time": (dt.time(10, 30), "10:30:00"),
        "long": (dt.timedelta(hours=30, seconds=5), "30:00:05"),
    }  # fmt: skip
    values = [value for value, _ in cells.values()]
    path = workbook(tmp_path / "r.xlsx", {"S": [list(cells), values, [], [1], []]})
    (first, second), read_as = read(path)
    assert first == {name: text for name, (_, text) in cells.items()}
    assert second == {**dict.fromkeys(cells), "int": "1"}
    assert read_as == {"format": "excel", "sheet": "S"}


@pytest.mark.parametrize("name", ["r.xls", "r.xlsb", "r.ods"])
def test_workbooks_of_other_programs(tmp_path, name):
    path = workbooks.write(tmp_path / name, [["id", "x", "text"], [1, 2.5, "a b"], [2, "1,5", "ü"]])
    found, read_as = read(path, raw=False, numbers="1234,56")
    rows = [{"id": "1", "x": "2.5", "text": "a b"}, {"id": "2", "x": "1,5", "text": "ü"}]
    assert found == rows
    assert read_as == {"format": "excel", "sheet": workbooks.SHEET, "numbers": "1234,56"}
    with closing(open_source(str(path), ReadOptions(numbers="1234,56"))) as source:
        window = source.parse(source.read(9), Wanted({"x": "float32", "id": "float32"}, raw=False))
    assert [column.tolist() for column in window.columns.values()] == [[2.5, 1.5], [1, 2]]


TABLE = [["id", "text"], [1, "a b"]]


@pytest.mark.parametrize(
    ("sheets", "options", "rows", "read_as"),
    [
        ({"A": [], "B": TABLE, "H": TABLE}, {}, [{"id": "1", "text": "a b"}], {"sheet": "B"}),
        ({"A": [["x"], [1]], "B": TABLE}, {"sheet": "A"}, [{"x": "1"}], {"sheet": "A"}),
        ({"A": TABLE, "H": [["x"], [1]]}, {"sheet": "H"}, [{"x": "1"}], {"sheet": "H"}),
        (
            {"A": [["Export of May"], [], *TABLE]}, {},
            [{"id": "1", "text": "a b"}], {"sheet": "A", "header": "row 3"},
        ),
        ({"A": [["id"], [1, 2]]}, {}, [{"id": "1", "column 2": "2"}], {"sheet": "A"}),
        ({"A": [["id", "id"], [1, 2]]}, {}, [{"id": "1", "id.2": "2"}], {"sheet": "A"}),
        (
            {"A": [[1, "a"], [2, "b"]]}, {"header": False},
            [{"1": "1", "2": "a"}, {"1": "2", "2": "b"}], {"sheet": "A", "header": "none"},
        ),
        ({"A": [[1, 9], [2, 8]]}, {"header": True}, [{"1": "2", "9": "8"}], {"sheet": "A"}),
        (
            {"A": [["so", "it", "is"], [], *TABLE]}, {"skip_lines": 2},
            [{"id": "1", "text": "a b", "column 3": None}], {"sheet": "A", "header": "row 3"},
        ),
    ],
)  # fmt: skip
def test_which_sheet_and_which_header(tmp_path, sheets, options, rows, read_as):
    path = workbook(tmp_path / "r.xlsx", sheets, hidden="H")
    assert read(path, **options) == (rows, {"format": "excel", **read_as})


@pytest.mark.parametrize(
    ("sheets", "options", "message"),
    [
        ({"A": TABLE, "B": TABLE}, {}, "data in the sheets 'A', 'B': which one.* --sheet NAME"),
        ({"A": TABLE}, {"sheet": "a"}, "no sheet 'a'; there are: 'A'"),
        ({"A": []}, {}, "has no rows"),
        ({"A": TABLE[:1]}, {}, "sheet 'A' has a header but no rows"),
        ({"A": [[4, "so good"], [2, "bad"]]}, {}, "like a row .*say --no-header, or --header"),
    ],
)
def test_questions_about_a_workbook(tmp_path, sheets, options, message):
    path = workbook(tmp_path / "r.xlsx", sheets)
    with pytest.raises(InputError, match=message):
        read(path, **options)


def test_a_workbook_that_is_damaged_or_locked(tmp_path):
    path = workbooks.write(tmp_path / "r.xlsb", TABLE)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content[: len(content) // 2] if "sheet" in name else content)
    (tmp_path / "locked.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999))
    with pytest.raises(InputError, match=r"r\.xlsb: can't be read \([^)]*\)$"):
        read(path)
    with pytest.raises(InputError, match=r"can't be read .*; if it has a password, save it witho"):
        read(tmp_path / "locked.xlsx")


def test_a_workbook_needs_a_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    monkeypatch.delitem(sys.modules, "mlopsdeploy.data.sources.excel", raising=False)
    path = workbook(tmp_path / "r.xlsx", {"A": TABLE})
    with pytest.raises(Exception, match=r"pip install 'mlopsdeploy\[excel\]'"):
        read(path)


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        (["x.csv"], {}, "x.csv"),
        (["readme", "in/x.csv", "in/.y.csv"], {}, "in/x.csv"),
        (["x.csv", "y.csv"], {"sheet": "y.csv"}, "y.csv"),
        (["x.csv", "y.csv"], {}, r"r\.zip: a zip of x\.csv, y\.csv: which one\? say --sheet"),
        (["a.md", "b.md"], {}, r"a zip of a\.md, b\.md"),
        ([], {}, "a zip with no file in it"),
    ],
)
def test_which_file_of_a_zip(tmp_path, names, options, text):
    path = archive(tmp_path / "r.zip", *names)
    if text in names:
        with closing(open_source(str(path), ReadOptions(**options))) as source:
            assert source.sample()["text"] == [text]
            assert source.how_read()["file"] == text
    else:
        with pytest.raises(InputError, match=text):
            open_source(str(path), ReadOptions(**options))


def test_a_sheet_of_what_has_none(tmp_path):
    (tmp_path / "r.csv").write_text("id\n1\n", "utf-8")
    with pytest.raises(InputError, match=r"--sheet: .*r\.csv has no sheets or lists"):
        read(tmp_path / "r.csv", sheet="A")


# ---------------------------------------------------------------- values within values


def parquet_of(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_values_by_their_path(tmp_path, name):
    rows = [{"id": 1, "review": {"by": {"who": "me"}, "stars": 4.5}}, {"id": 2, "review": None}]
    content = parquet_of(rows) if "parquet" in name else "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / name).write_bytes(content)
    with closing(open_source(str(tmp_path / name))) as source:
        assert source.names == ["id", "review"]
        assert source.sample()["review.by.who"] == ["me", None]
        kinds = {"review.by.who": "str", "review.stars": "float32"}
        window = source.parse(source.read(9), Wanted(kinds, raw=False))
    assert list(window.columns["review.by.who"]) == ["me", None]
    assert str(window.columns["review.stars"]) == "[4.5 nan]"


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"caf\xe9"])
@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_what_is_no_text_is_not_scored_as_one(tmp_path, name, value):
    rows = [{"text": value, "note": value}] * 2
    if name == "r.parquet":
        (tmp_path / name).write_bytes(parquet_of(rows))
    elif isinstance(value, bytes):
        return
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with closing(open_source(str(tmp_path / name))) as source:
        chunk = source.read(9)
        window = source.parse(chunk, Wanted({"text": "str"}, raw=False, texts=["text"]))
        assert [bad.reason for bad in window.bad] == ["column 'text' holds no text"] * 2
        assert not source.parse(chunk, Wanted({"note": "str"}, raw=False)).bad


def test_bytes_that_are_utf8_are_text(tmp_path):
    (tmp_path / "r.parquet").write_bytes(parquet_of([{"text": "große Freude".encode()}]))
    assert read(tmp_path / "r.parquet")[0] == [{"text": "große Freude"}]


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_folders_that_are_a_column(tmp_path, name):
    for day, country in (("2026-01-01", "DE"), ("2026-01-02", "a%2Fb"), ("x", None)):
        folder = tmp_path / f"date={day}" / f"c={country or '__HIVE_DEFAULT_PARTITION__'}"
        folder.mkdir(parents=True)
        rows = [{"id": 1, "text": day}]
        content = {
            "r.csv": f"id,text\n1,{day}\n".encode(), "r.jsonl": json.dumps(rows[0]).encode(),
            "r.parquet": parquet_of(rows),
        }[name]  # fmt: skip
        (folder / name).write_bytes(content)
    for path in (tmp_path, tmp_path / "**" / name):
        found, read_as = read(path, raw=False)
        assert [(row["text"], row["date"], row["c"]) for row in found] == [
            ("2026-01-01", "2026-01-01", "DE"),
            ("2026-01-02", "2026-01-02", "a/b"),
            ("x", "x", None),
        ]  # fmt: skip
        assert read_as["columns of folders"] == ["date", "c"]
    inside, _ = read(tmp_path / "date=2026-01-01", raw=False)
    assert list(inside[0]) == ["id", "text", "c"]


def test_a_folder_with_json_notes_beside_its_data(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,x\n", "utf-8")
    (tmp_path / "about.json").write_text("{}", "utf-8")
    assert read(tmp_path, raw=False)[0] == [{"id": "1", "text": "x"}]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"b.csv": "id;text\n1;x\n"}, r"b\.csv: .*its columns|b\.csv: its fields are separated"),
        ({"b.csv": "id,words\n1,x\n"}, r"b\.csv: its columns are 'id', 'words', those of .*a\.csv"),
        ({"b.csv": '{"id": 1}\n'}, r"b\.csv: is jsonl, .*a\.csv is csv"),
        ({"b.csv.gz": b"\x1f\x8bnot"}, r"b\.csv\.gz: can't be read"),
        ({"date=1/b.csv": "id,text\n1,x\n"}, r"b\.csv: its folders give the columns \['date'\]"),
    ],
)
def test_a_file_that_differs_is_found_before_the_first_row(tmp_path, other, message):
    (tmp_path / "a.csv").write_text("id,text\n1,x\n", "utf-8")
    for name, content in other.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        stored = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(stored)
    with pytest.raises(InputError, match=message) as raised:
        open_source(str(tmp_path))
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------- standard input


@pytest.mark.parametrize("kind", ["json", "json.gz", "parquet", "xlsx", "zip", "csv.gz"])
def test_standard_input_by_its_content(tmp_path, monkeypatch, kind):
    path = tmp_path / "r"
    if kind == "xlsx":
        workbook(path, {"A": [["id", "text"], *([row["id"], row["text"]] for row in ROWS)]})
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("r.json", json.dumps(ROWS))
    elif "json" in kind:
        path.write_text(json.dumps(ROWS), "utf-8")
    elif kind == "parquet":
        path.write_bytes(parquet_of(ROWS))
    else:
        path.write_text("id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in ROWS), "utf-8")
    if kind.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))

    class Pipe(io.RawIOBase):
        content = io.BytesIO(path.read_bytes())

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.content.readinto(buffer)

    class Standard:
        buffer = io.BufferedReader(Pipe())

    monkeypatch.setattr(sys, "stdin", Standard())
    assert [row["text"] for row in read("-", raw=False)[0]] == [row["text"] for row in ROWS]


# ---------------------------------------------------------------- object stores


@pytest.mark.parametrize(
    "name", ["r.json.gz", "r.xlsx", "r.zip", "r.parquet.gz", "day=1/r.csv.bz2"]
)
def test_objects_by_their_content(tmp_path, name):
    bucket = f"memory:///{uuid.uuid4().hex[:8]}"
    lines = "id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in ROWS)
    content = {
        "r.json.gz": lambda: gzip.compress(json.dumps(ROWS).encode()),
        "r.xlsx": lambda: workbook(
            tmp_path / "r.xlsx", {"A": [["id", "text"], *map(list, map(dict.values, ROWS))]}
        ).read_bytes(),
        "r.zip": lambda: archive(tmp_path / "r.zip", "a.csv").read_bytes(),
        "r.parquet.gz": lambda: gzip.compress(parquet_of(ROWS)),
        "day=1/r.csv.bz2": lambda: bz2.compress(lines.encode()),
    }[name]()
    with fsspec.open(f"{bucket}/in/{name}", "wb") as file:
        file.write(content)
    expected = ["a.csv"] if name == "r.zip" else [row["text"] for row in ROWS]
    places = [f"{bucket}/in/{name}"] + [f"{bucket}/in"] * (name != "r.zip")
    for place in places:  # what a folder's zips hold, their names have to say
        found, _ = read(place, raw=False)
        assert [row["text"] for row in found] == expected
    assert ("day" in found[0]) is name.startswith("day")


def test_a_folder_far_away_is_listed_once(monkeypatch):
    bucket = f"memory:///{uuid.uuid4().hex[:8]}"
    for name in ("a", "b"):
        with fsspec.open(f"{bucket}/in/{name}.csv", "w") as file:
            file.write("id,text\n1,x\n")
    listed = []
    expand = object_stores.expand
    monkeypatch.setattr(object_stores, "expand", lambda url: listed.append(url) or expand(url))
    assert len(read(f"{bucket}/in", raw=False)[0]) == 2
    assert listed == [f"{bucket}/in"]


def test_files_that_are_called_otherwise_in_messages(tmp_path):
    """The share of a file is found by its own address, and not by the one without its password."""
    (tmp_path / "a.csv").write_text("id,text\n1,x\n", "utf-8")

    def opened(_):
        return open_source(str(tmp_path / "a.csv"))

    files = {f"sftp://me:secret@host/{name}.csv": 1 for name in "ab"}
    with closing(JoinedSource("sftp://me:***@host", files, opened)) as source:
        assert sum(chunk.share for chunk in chunks(source, 1)) == pytest.approx(1 / 3)
