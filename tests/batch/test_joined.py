"""A folder or a pattern as one input."""

import gzip

import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.errors import InputError
from mlopsdeploy.settings import BatchSettings

from .tables import read


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def run(bag, folder):
    """`run(folder)`: scores what is in it into `o.csv` beside it; the rows and the summary."""

    def score(source=None, output=None, **settings):
        output = output or folder.parent / "o.csv"
        chosen = {
            "model": str(bag),
            "runtime": "onnxruntime",
            "max_errors": "none",
            "text_column": "text",
        }
        summary = command.run_batch(
            BatchSettings(input=str(source or folder), output=str(output), **{**chosen, **settings})
        )
        return read(output), summary

    return score


def fill(folder, **files):
    """`fill(folder, a=["good"])`: a.csv with so many rows, numbered through."""
    number = 0
    for name, texts in files.items():
        lines = ["id,text"]
        for text in texts:
            lines.append(f"{number},{text}")
            number += 1
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", "utf-8")


def ids(rows):
    return [int(row["id"]) for row in rows]


def test_files_in_the_order_of_their_names(run, folder):
    fill(folder, a=["good", "bad"], b=["food"], c=["slow", "quiet", "box"])
    rows, summary = run()
    assert ids(rows) == list(range(6))
    assert all(row["label"] for row in rows)
    assert summary["rows"] == 6
    assert summary["input"] == str(folder)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", [0, 1, 2, 3]),
        ("[bc].csv", [2, 3]),
        ("2026-*/*.csv", [4, 5]),
        ("**/*.csv", [4, 5, 0, 1, 2, 3]),
    ],
)
def test_a_pattern(run, folder, pattern, expected):
    fill(folder, a=["good", "bad"], b=["food"], c=["slow"])
    (folder / "2026-01").mkdir()
    (folder / "2026-01" / "x.csv").write_text("id,text\n4,good\n5,bad\n", "utf-8")
    rows, _ = run(folder / pattern)
    assert ids(rows) == expected


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_as_if_it_were_one_file(run, folder, quick_reviews, batch_size):
    """Many tiny files, empty ones and ones with nothing but a header among them."""
    texts = quick_reviews(600)
    number = 0
    for place in range(300):
        path = folder / f"{place:03}.csv"
        count = place % 5
        lines = [f"{number + row},{texts[number + row]}\n" for row in range(count)]
        number += count
        path.write_text(("id,text\n" + "".join(lines)) if place % 15 else "", "utf-8")
    whole = folder.parent / "whole.csv"
    whole.write_text(
        "id,text\n" + "".join(f"{place},{text}\n" for place, text in enumerate(texts[:number])),
        "utf-8",
    )
    rows, summary = run(batch_size=batch_size)
    expected, _ = run(whole, folder.parent / "w.csv", batch_size=batch_size)
    assert rows == expected
    assert summary["rows"] == number
    assert (folder.parent / "o.csv").read_bytes() == (folder.parent / "w.csv").read_bytes()


def test_rows_of_errors_are_counted_per_file(run, folder):
    fill(folder, a=["good", "bad,x", "food"], b=["slow"], d=["good", "quiet", "box", "room,x"])
    (folder / "c.csv").write_text("\n\nid,text\n,x,x\n\n9,good\n8\n", "utf-8")
    for batch_size in (1, 1000):
        rows, summary = run(batch_size=batch_size)
        assert len(rows) == 7
        assert summary["failed"] == 4
        assert [
            (error["file"].rpartition("/")[2], error["row"], error["line"])
            for error in read(folder.parent / "o.csv.errors.jsonl")
        ] == [("a.csv", 2, 3), ("c.csv", 1, 4), ("c.csv", 3, 7), ("d.csv", 4, 5)]


def test_rows_that_the_model_fails_on_are_counted_per_file(run, folder, fragile):
    fill(folder, a=["good", "bad"], b=["slow", "poison"], c=["poison", "food", "poison"])
    rows, _ = run(model=str(fragile))
    assert ids(rows) == [0, 1, 2, 5]
    assert [
        (error["file"].rpartition("/")[2], error["row"], error["record"])
        for error in read(folder.parent / "o.csv.errors.jsonl")
    ] == [("b.csv", 2, "3,poison"), ("c.csv", 1, "4,poison"), ("c.csv", 3, "6,poison")]


def test_packed_files_line_ends_and_marks_among_others(run, folder):
    fill(folder, a=["good"])
    (folder / "b.csv.gz").write_bytes(gzip.compress(b"id,text\n1,bad\n"))
    (folder / "c.csv").write_bytes(b"\xef\xbb\xbfid,text\r\n2,food\r\n3,slow")
    (folder / "d.csv").write_text("id,text\n4,quiet\n", "utf-16")
    (folder / "e.csv.gz").write_bytes(gzip.compress(b""))
    rows, _ = run()
    assert ids(rows) == list(range(5))
    assert [row["text"] for row in rows] == ["good", "bad", "food", "slow", "quiet"]
    assert b"\r" not in (folder.parent / "o.csv").read_bytes()


def test_an_output_within_the_folder_is_no_input(run, folder):
    fill(folder, a=["good"], z=["bad", "food,x"])
    for _ in range(3):
        rows, summary = run(output=folder / "o.csv")
        assert ids(rows) == [0, 1]
        assert summary["rows"] == 3


def test_what_is_no_data_is_passed_by(run, folder):
    fill(folder, a=["good"])
    for name in (
        "_SUCCESS",
        ".hidden.csv",
        "_temporary.csv",
        "notes.md",
        "a.csv.crc",
        "b.csv.part",
    ):
        (folder / name).write_text("no data", "utf-8")
    (folder / "folder.csv").mkdir()
    rows, _ = run()
    assert ids(rows) == [0]


def test_other_columns_are_refused_by_the_file_s_name(run, folder):
    fill(folder, a=["good"], b=["bad"])
    (folder / "c.csv").write_text("id,review,stars\n1,good,3\n", "utf-8")
    with pytest.raises(
        InputError, match=r"c.csv: its columns are 'id', 'review', 'stars', those of .*a.csv"
    ):
        run()


def test_another_delimiter_is_refused_by_the_file_s_name(run, folder):
    fill(folder, a=["good"])
    (folder / "b.csv").write_text("id;text\n1;good\n", "utf-8")
    with pytest.raises(InputError, match=r"b.csv: its "):
        run()


def test_formats_can_t_be_mixed(run, folder):
    fill(folder, a=["good"])
    (folder / "b.jsonl").write_text('{"id": 1, "text": "good"}\n', "utf-8")
    with pytest.raises(InputError, match="holds csv and jsonl; name files of one format"):
        run()
    rows, _ = run(folder / "*.csv")
    assert ids(rows) == [0]


def test_json_keys_may_come_in_any_order_or_not_at_all(run, folder):
    (folder / "a.jsonl").write_text('{"id": 1, "text": "good", "stars": 3}\n', "utf-8")
    (folder / "b.jsonl").write_text('\n{"text": "bad", "id": 2}\n', "utf-8")
    (folder / "c.jsonl").write_text("\n\n", "utf-8")
    (folder / "d.jsonl").write_text('{"text": "x", "id": 3, "new": 1}\n{"id": 4}\n', "utf-8")
    rows, summary = run()
    assert ids(rows) == [1, 2, 4]
    assert [row["stars"] for row in rows] == ["3", "", ""]
    assert summary["failed"] == 1, "CSV has no column for `new`"
    lines, _ = run(output=folder.parent / "o.jsonl")
    assert [line["id"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["new"] == 1


def test_parquet_as_spark_writes_it(run, folder):
    """A part without rows is one file in many."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    for place, texts in enumerate(([], ["good", "bad"], [], ["food"], [])):
        table = pa.table({"id": [place] * len(texts), "text": texts}, schema)
        pyarrow.parquet.write_table(table, folder / f"part-{place:05}.parquet")
    (folder / "_SUCCESS").touch()
    rows, summary = run()
    assert ids(rows) == [1, 1, 3]
    assert summary["rows"] == 3
    other = pa.table({"id": ["x"], "text": ["good"]})
    pyarrow.parquet.write_table(other, folder / "part-00009.parquet")
    with pytest.raises(InputError, match=r"part-00009.parquet: column 'id' is string"):
        run()


def test_a_folder_without_rows(run, folder):
    with pytest.raises(InputError, match="no .csv, .jsonl or .parquet file there"):
        run()
    (folder / "a.csv").write_text("", "utf-8")
    (folder / "b.csv").write_text("id,text\n", "utf-8")
    with pytest.raises(InputError, match="none of its 2 files has rows"):
        run()


def test_the_default_output_stands_beside_the_folder(bag, folder):
    fill(folder, a=["good"])
    summary = command.run_batch(
        BatchSettings(input=f"{folder}/", model=str(bag), runtime="onnxruntime", text_column="text")
    )
    assert summary["output"] == f"{folder}.predictions.csv"


def test_strange_names(run, folder):
    for place, name in enumerate(["a b.csv", "ä🙂.csv", "line\nend.csv", "-x.csv"]):
        (folder / name).write_text(f"id,text\n{place},good\n{place},x,y\n", "utf-8")
    rows, summary = run(output=folder / "out put\n🙂.csv")
    assert sorted(ids(rows)) == [0, 1, 2, 3]
    assert summary["failed"] == 4
    assert len(read(folder / "out put\n🙂.csv.errors.jsonl")) == 4


def test_going_on_in_a_folder(processes, bag, folder, quick_reviews):
    texts = quick_reviews(1500)
    for place in range(50):
        rows = "".join(f"{place},{text}\n" for text in texts[place * 30 : place * 30 + 30])
        (folder / f"{place:02}.csv").write_text(f"id,text\n{rows}{place}\n", "utf-8")

    def batch(**how):
        return processes.run(
            folder, ".", "-o", "../o.csv", "--model", bag, "--runtime", "onnxruntime",
            "--batch-size", "10", "--max-errors", "none", "--text-column", "text", **how,
        )  # fmt: skip

    def made():
        names = ("o.csv", "o.csv.errors.jsonl")
        return [(folder.parent / name).read_bytes() for name in names]

    assert batch().code == 0
    expected = made()
    some_done = processes.has_rows(folder.parent / "o.csv")
    assert batch(kill=some_done).code == -9
    ended = batch()
    assert ended.code == 0
    assert "going on after" in ended.said
    assert made() == expected
    assert batch(kill=some_done).code == -9
    (folder / "00x.csv").write_text("id,text\n100,good\n", "utf-8")
    ended = batch()
    assert ended.code == 0
    assert "starting over" in ended.said
