"""Whole files through the command: what comes in goes out untouched, in every format."""

import csv
import gzip
import io
import json
import random
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

NEW = ("label", "score", "truncated")


def strip_predictions(data: bytes, delimiter: bytes = b",") -> bytes:
    """The output's bytes without the three columns at each record's end."""
    rows = []
    for record in data.splitlines(keepends=True):
        bare = record.rstrip(b"\r\n")
        end = record[len(bare) :]
        rows.append(bare.rsplit(delimiter, 3)[0] + end if bare.count(delimiter) >= 3 else record)
    return b"".join(rows)


# Rows that differ in all the ways CSV allows; none of the lines inside a quoted field has a
# delimiter in it, so that `strip_predictions` may go by lines.
TRICKY = [
    "plain,good food",
    'quoted,"very good, indeed"',
    'doubled,"they said ""great"" twice"',
    'newline,"first line\nsecond line\n\nlast line"',
    'stray,a 5" screen and 6" more',
    "words,NA",
    "words,None",
    "words,null",
    " blanks , around it ",
    'empty,""',
    "empty,",
    "numbers,0012",
    "zero width,\u200bnot good",
    "emoji,😀 great 👍🏽",
    "apostrophe,'good'",
    "tab,a\tb",
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_csv_rows_go_through_byte_for_byte(score, tmp_path, end, last, start):
    rows = [row.replace("\n", end) for row in ["kind,text", *TRICKY]]
    content = start + end.join(rows).encode() + (end.encode() if last else b"")
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    summary = score(path, text_column="text")
    written = (tmp_path / "r.predictions.csv").read_bytes()
    expected = content if last else content + end.encode()
    assert strip_predictions(written) == expected
    assert summary["rows"] == len(TRICKY)
    assert summary["empty"] == 2
    with (tmp_path / "r.predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["label"] != "" for row in read] == [row["text"].strip() != "" for row in read]
    assert list(read[0]) == ["kind", "text", *NEW]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_kept(score, tmp_path, delimiter):
    rows = [["kind", "text", "x"], ["a", "good, really", "1"], ["b", f"a {delimiter} in it", "2"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    (tmp_path / "r.csv").write_text(text.getvalue(), "utf-8")
    score(tmp_path / "r.csv", text_column="text")
    written = (tmp_path / "r.predictions.csv").read_bytes()
    assert strip_predictions(written, delimiter.encode()) == text.getvalue().encode()
    read = list(csv.reader(io.StringIO(written.decode(), newline=""), delimiter=delimiter))
    assert [row[:3] for row in read] == rows
    assert read[0][3:] == list(NEW)


def test_labels_are_quoted_where_they_need_to_be(score, tmp_path, bert):
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"):
        (folder / name).write_bytes((bert / name).read_bytes())
    config = json.loads((bert / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": 'bad, "very"', "1": "good\nindeed"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "r.csv").write_text("id,review_text\n1,good\n2,awful\n3,bad food", "utf-8")
    for output in ("out.csv", "out.jsonl", "out.parquet"):
        score(tmp_path / "r.csv", model=str(folder), all_scores=True, output=str(tmp_path / output))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["label"] in config["id2label"].values() for row in rows)
    assert list(rows[0])[-2:] == ['score_bad, "very"', "score_good\nindeed"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert [row["label"] for row in lines] == [row["label"] for row in rows]
    assert table.column("label").to_pylist() == [row["label"] for row in rows]


def test_json_lines_keep_their_own_spelling(score, tmp_path):
    lines = [
        '{"id": 1, "text": "good \\u00e9 \\ud83d\\ude00", "nested": {"a": [1, {}]}}',
        '{"text":"bad","id":2.50}',
        '{ "text" : null , "other" : 1e5 }',
        "{}",
        '{"text": "ends with {"}',
        '{"text": "  "}  ',
    ]
    (tmp_path / "r.jsonl").write_bytes(b"\n".join(line.encode() for line in lines))
    summary = score(tmp_path / "r.jsonl", text_column="text")
    written = (tmp_path / "r.predictions.jsonl").read_text("utf-8").splitlines()
    for before, after in zip(lines, written, strict=True):
        assert after.startswith(before.strip()[:-1].rstrip())
        parsed = json.loads(after)
        assert {key: parsed[key] for key in parsed if key not in NEW} == json.loads(before)
        assert set(NEW) <= set(parsed)
        has_text = bool((json.loads(before).get("text") or "").strip())
        assert (parsed["label"] is not None) == (parsed["score"] is not None) == has_text
    assert summary["empty"] == 3


def test_parquet_keeps_types_and_nulls(score, tmp_path):
    table = pa.table(
        {
            "id": pa.array([3, None, 1], pa.int16()),
            "text": ["good", None, "bad"],
            "tags": [["a"], [], None],
            "when": pa.array([0, 1, 2], pa.date32()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    score(tmp_path / "r.parquet", text_column="text")
    written = pyarrow.parquet.read_table(tmp_path / "r.predictions.parquet")
    assert written.select(table.column_names).equals(table)
    assert written.column("label").null_count == written.column("score").null_count == 1
    assert written.schema.field("score").type == pa.float64()
    assert written.schema.field("truncated").type == pa.bool_()


VALUES = {
    "id": ["1", "2", "3", "4", "5"],
    "text": ["good food", 'bad, "really"', "NA", "", "two\nlines é 😀"],
    "other": ["x", "", "None", "y,z", "null"],
}


def write_table(path, values=VALUES):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table(values), path)
        return
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(values))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path):
    if path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = row["label"] or None
        row["score"] = float(row["score"]) if row["score"] else None
    return rows


@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("input_", ["csv", "jsonl", "parquet"])
def test_every_format_into_every_format(score, tmp_path, input_, output):
    path, written = tmp_path / f"r.{input_}", tmp_path / f"out.{output}"
    write_table(path)
    score(path, text_column="text", output=str(written), batch_size=1)
    rows = read_table(written)
    assert {name: [row[name] for row in rows] for name in VALUES} == VALUES
    assert [row["label"] is None for row in rows] == [False, False, False, True, False]
    reference = tmp_path / "reference.csv"
    write_table(tmp_path / "same.csv")
    score(tmp_path / "same.csv", text_column="text", output=str(reference))
    for row, expected in zip(rows, read_table(reference), strict=True):
        assert row["label"] == expected["label"]
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_missing_values_across_formats(score, tmp_path):
    table = pa.table({"text": ["good", "bad"], "n": [1.5, None], "nan": [float("nan"), 2.0]})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    for output in ("o.csv", "o.jsonl"):
        score(tmp_path / "r.parquet", output=str(tmp_path / output), text_column="text")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["n"] for row in rows] == [1.5, None]
    assert [row["nan"] for row in rows] == [None, 2.0]
    with (tmp_path / "o.csv").open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["1.5", ""]


# A column of each type that Parquet has beside text and numbers: its values, and how the last one
# is spelled in CSV and in JSON Lines. Python has no year 11476, and no nanoseconds.
YEAR_11476 = 3 * 10**17
OTHER_TYPES = {
    "ns": (pa.array([1, 10**18 + 1], pa.timestamp("ns")), "2001-09-09 01:46:40.000000001", None),
    "zone": (
        pa.array([1, 0], pa.timestamp("ms", "UTC")),
        "1970-01-01 00:00:00.000Z", "1970-01-01 00:00:00+00:00",
    ),
    "far": (pa.array([1, YEAR_11476], pa.timestamp("us")), "11476-08-15 05:20:00.000000", None),
    "day": (pa.array([1, 10**7], pa.date32()), "29349-01-26", None),
    "time": (pa.array([1, 36_000], pa.time32("s")), "10:00:00.000", "10:00:00"),
    "took": (pa.array([1, 90], pa.duration("s")), "0:01:30", None),
    "forever": (pa.array([1, 10**15], pa.duration("s")), "1000000000000000 s", None),
    "money": (pa.array([Decimal("0.10"), Decimal("1.50")]), "1.50", None),
    "kind": (pa.array(["a", "b"]).dictionary_encode(), "b", None),
    "bytes": (pa.array([b"a", "é".encode()]), "é", None),
    "fixed": (pa.array([b"ab", b"a\xff"], pa.binary(2)), "a\\xff", None),
    "map": (pa.array([[], [("a", 1)]], pa.map_("str", "int8")), '[["a", 1]]', [["a", 1]]),
    "list": (pa.array([[1.5], [1.5, float("nan")]]), "[1.5, null]", [1.5, None]),
    "struct": (pa.array([{"a": None}, {"a": {"b": b"x"}}]), '{"a": {"b": "x"}}', {"a": {"b": "x"}}),
    "nothing": (pa.nulls(2), "", ""),
}  # fmt: skip


def test_columns_of_every_type_go_through(score, tmp_path):
    columns = {name: values for name, (values, _, _) in OTHER_TYPES.items()}
    table = pa.table({"text": ["good", "bad"], **columns})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "r.parquet")  # as Parquet keeps them
    for output in ("o.csv", "o.jsonl", "o.parquet"):
        score(tmp_path / "r.parquet", output=str(tmp_path / output), text_column="text")
    written = pyarrow.parquet.read_table(tmp_path / "o.parquet").select(table.column_names)
    assert str(written) == str(table)  # types and values; NaN equals NaN
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        *_, row = csv.DictReader(file)
    assert {name: row[name] for name in columns} == {
        n: said for n, (_, said, _) in OTHER_TYPES.items()
    }
    row = json.loads((tmp_path / "o.jsonl").read_text("utf-8").splitlines()[-1])
    assert {name: row[name] or "" for name in columns} == {
        name: csv_ if json_ is None else json_ for name, (_, csv_, json_) in OTHER_TYPES.items()
    }


# ---------------------------------------------------------------- some columns


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields_of_some_columns_are_as_they_stand(score, tmp_path, end):
    rows = [row.replace("\n", end).split(",", 1) for row in ["kind,text", *TRICKY]]
    path = tmp_path / "r.csv"
    path.write_bytes(end.join(map(",".join, rows)).encode())
    for columns in (["text"], ["text", "kind"]):
        output = tmp_path / f"{len(columns)}.csv"
        score(path, text_column="text", columns=columns, output=str(output))
        kept = [",".join([text, kind][: len(columns)]) for kind, text in rows]
        assert strip_predictions(output.read_bytes()).decode() == end.join([*kept, ""])


@pytest.mark.parametrize("columns", [["other", "id"], ["text"], []])
@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("input_", ["csv", "jsonl", "parquet"])
def test_some_columns_of_every_format_into_every_format(score, tmp_path, input_, output, columns):
    path, written = tmp_path / f"r.{input_}", tmp_path / f"out.{output}"
    write_table(path)
    score(path, text_column="text", output=str(written), batch_size=1, columns=columns)
    rows = read_table(written)
    assert list(rows[0]) == [*columns, *NEW]
    assert {name: [row[name] for row in rows] for name in columns} == {
        name: VALUES[name] for name in columns
    }
    assert [row["label"] is None for row in rows] == [False, False, False, True, False]


@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet", "tsv"])
@pytest.mark.parametrize("input_", ["jsonl", "parquet"])
def test_what_is_within_a_column_is_kept_by_its_path(score, tmp_path, input_, output):
    rows = [
        {"review": {"id": 7, "more": {"x": "a\tb"}, "text": "good"}, "a.b": "dotted"},
        {"review": {"id": None, "more": None, "text": "bad"}, "a.b": None},
    ]
    path, written = tmp_path / f"r.{input_}", tmp_path / f"out.{output}"
    if input_ == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    columns = ["review.more.x", "review.id", "a.b"]
    score(path, text_column="review.text", output=str(written), columns=columns)
    if output == "tsv":
        with written.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t"))
    else:
        found = read_table(written)
    assert list(found[0]) == [*columns, *NEW]
    values = [[str(row[name] or "") for name in columns] for row in found]
    assert values == [["a\tb", "7", "dotted"], ["", "", ""]]


def test_json_values_of_some_columns_keep_their_spelling(score, tmp_path):
    lines = [
        '{"n": 2.50, "text": "good \\u00e9", "s": "\\u00e9\\ud83d", "o": {"a": [1e5, {}], "n": 1}}',
        '{"text":"bad","o" : {"n" :-0},"n":12345678901234567890123,"s":"}, {"}',
        '{"text": "bad", "n": 1, "n": true, "later": 1}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines), "utf-8")
    score(tmp_path / "r.jsonl", text_column="text", columns=["s", "n", "o", "o.n", "o.a"])
    written = (tmp_path / "r.predictions.jsonl").read_text("utf-8").splitlines()
    assert [line.partition(', "label"')[0] for line in written] == [
        r'{"s": "\u00e9\ud83d", "n": 2.50, '
        '"o": {"a": [1e5, {}], "n": 1}, "o.n": 1, "o.a": [1e5, {}]',
        '{"s": "}, {", "n": 12345678901234567890123, "o": {"n" :-0}, "o.n": -0, "o.a": null',
        '{"s": null, "n": true, "o": null, "o.n": null, "o.a": null',
    ]


def test_some_columns_of_files_that_are_written_differently(score, tmp_path):
    """Each file's own quotes and escapes say where its fields end."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text('id,text,x\n1,"good, really","C:\\"\n2,"bad ""x""",y\n', "utf-8")
    escaped = '3,"bad \\"one\\", really","y"\n' * 5
    (folder / "b.csv").write_text(f"id,text,x\n{escaped}", "utf-8")
    columns = ["x", "id"]
    score(folder, text_column="text", columns=columns, output=str(tmp_path / "o.csv"))
    written = strip_predictions((tmp_path / "o.csv").read_bytes())
    assert written.decode() == 'x,id\n"C:\\",1\ny,2\n' + '"y",3\n' * 5


def test_some_columns_of_a_file_without_header_and_of_folders(score, tmp_path):
    (tmp_path / "r.csv").write_text("1,good food,x\n2,bad food,y\n", "utf-8")
    how = {"header": False, "text_column": "2"}
    score(tmp_path / "r.csv", columns=["3", "1"], **how)
    written = (tmp_path / "r.predictions.csv").read_bytes()
    assert strip_predictions(written) == b"x,1\ny,2\n"
    folder = tmp_path / "in" / "day=monday"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"id": 1, "text": "good"}\n', "utf-8")
    for columns in (["day", "id"], ["day"]):
        output = tmp_path / f"{len(columns)}.jsonl"
        score(tmp_path / "in", text_column="text", columns=columns, output=str(output))
        (row,) = read_table(output)
        assert [row[name] for name in columns] == ["monday", "1"][: len(columns)]
        assert list(row) == [*columns, *NEW]


# ---------------------------------------------------------------- tabs by the name


@pytest.mark.parametrize("name", ["o.tsv", "O.TSV", "o.tsv.gz"])
@pytest.mark.parametrize("columns", [None, ["x", "id"]])
def test_a_name_that_ends_in_tsv_means_tabs(score, tmp_path, name, columns):
    rows = [["id", "x", "text"], ["1", "a;\tb", 'say "good"'], ["2", "plain", "two\nlines, bad"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerows(rows)
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + text.getvalue().encode() + b'3;\xe9;"good"\r\n')
    score(path, text_column="text", output=str(tmp_path / name), columns=columns)
    written = (tmp_path / name).read_bytes()
    content = gzip.decompress(written) if name.endswith(".gz") else written
    assert b"3\t\xe9" in content or b"\xe9\t3" in content  # what is not UTF-8, as it stands
    found = list(
        csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"), newline=""), delimiter="\t")
    )
    kept = [rows[0].index(column) for column in columns or rows[0]]
    assert [row[:-3] for row in found[:3]] == [[row[place] for place in kept] for row in rows]
    assert content.count(b"\r\n") == 4
    assert b'"plain"' not in content


def test_standard_output_has_a_header_below_what_stands_in_it(score, tmp_path, monkeypatch):
    (tmp_path / "r.csv").write_text("review_text\ngood\n", "utf-8")
    with (tmp_path / "o.csv").open("w") as file, monkeypatch.context() as patch:
        print("# tonight", file=file, flush=True)
        patch.setattr(sys, "stdout", file)
        score(tmp_path / "r.csv", output="-")
    lines = (tmp_path / "o.csv").read_text("utf-8").splitlines()
    assert lines[:2] == ["# tonight", "review_text,label,score,truncated"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_folder_that_is_called_tsv_says_nothing(score, tmp_path, suffix):
    folder = tmp_path / "my.tsv.d"
    folder.mkdir()
    write_table(tmp_path / f"r{suffix}")
    score(tmp_path / f"r{suffix}", text_column="text", output=str(folder / "x.csv"))
    assert [row["id"] for row in read_table(folder / "x.csv")] == VALUES["id"]


def test_what_is_read_with_another_delimiter_keeps_it_in_csv(score, tmp_path):
    (tmp_path / "r.tsv").write_text("id\ttext\n1\tgood, really\n", "utf-8")
    score(tmp_path / "r.tsv", text_column="text", output=str(tmp_path / "o.csv"))
    assert (tmp_path / "o.csv").read_bytes().startswith(b"id\ttext\tlabel\tscore")
    score(tmp_path / "r.tsv", text_column="text")
    assert (tmp_path / "r.predictions.tsv").read_bytes() == (tmp_path / "o.csv").read_bytes()


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.tsv"])
def test_gzip_in_and_out(score, tmp_path, name):
    rows = {"r.csv": "id,text\n1,good\n", "r.jsonl": '{"id": 1, "text": "good"}\n',
            "r.tsv": "id\ttext\n1\tgood, really\n"}[name]  # fmt: skip
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(rows.encode()))
    score(packed, text_column="text")
    stem, suffix = name.split(".")
    written = tmp_path / f"{stem}.predictions.{suffix}.gz"
    content = gzip.decompress(written.read_bytes())
    assert content.startswith(rows.splitlines()[0].rstrip("}").encode())
    first = written.read_bytes()
    score(packed, text_column="text")
    assert written.read_bytes() == first, "the same rows make the same bytes"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings_become_utf8(score, tmp_path, encoding):
    content = "id,text\r\n1,Größe sehr gut\r\n2,naïve café\r\n"
    (tmp_path / "r.csv").write_bytes(content.encode(encoding))
    said = {} if encoding == "utf-16" else {"encoding": encoding}
    score(tmp_path / "r.csv", text_column="text", **said)
    written = (tmp_path / "r.predictions.csv").read_bytes()
    assert strip_predictions(written) == content.encode()


@pytest.mark.parametrize("seed", range(12))
def test_random_files_round_trip(score, tmp_path, seed):
    generator = random.Random(seed)
    delimiter = generator.choice(",;\t|")
    end = generator.choice(["\n", "\r\n"])
    pieces = ["good", "bad ", "é", "好", '"', ",", ";", "|", "\n", " ", "NA", "", "5"]

    def field():
        return "".join(generator.choice(pieces) for _ in range(generator.randint(0, 5)))

    header = ["id", "text", "a", "b"]
    rows = [[str(place), field(), field(), field()] for place in range(generator.randint(1, 300))]
    text = io.StringIO(newline="")
    quoting = generator.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(
        [header, *rows]
    )
    (tmp_path / "r.csv").write_bytes(text.getvalue().encode())
    summary = score(tmp_path / "r.csv", text_column="text", batch_size=generator.choice([1, 7, 50]))
    written = (tmp_path / "r.predictions.csv").read_bytes().decode()
    read = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter))
    assert [row[:4] for row in read] == [header, *rows]
    assert {len(row) for row in read} == {7}
    assert summary["rows"] == len(rows)
    assert [bool(row[4]) for row in read[1:]] == [bool(row[1].strip()) for row in rows]
