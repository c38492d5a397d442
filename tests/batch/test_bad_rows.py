"""Rows that can't be read or scored: set aside with their number and reason, and never in the way
of others."""

import csv
import json

import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.data.bad_rows import BadRow, MaxErrors
from mlopsdeploy.data.sources.delimited import LONGEST_RECORD
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import BatchSettings

from .tables import read


@pytest.fixture
def run(bag, tmp_path):
    """`run("r.csv", b"...")`: the rows written, those set aside, the summary."""

    def score(name, content, output="o.csv", **settings):
        (tmp_path / name).write_bytes(content)
        chosen = {
            "model": str(bag),
            "runtime": "onnxruntime",
            "threads": 2,
            "max_errors": "none",
            "text_column": "text",
        }
        summary = command.run_batch(
            BatchSettings(
                input=str(tmp_path / name),
                output=str(tmp_path / output),
                **{**chosen, **settings},
            )
        )
        return read(tmp_path / output), errors_of(tmp_path / output), summary

    return score


def errors_of(path):
    path = path.with_name(f"{path.name}.errors.jsonl")
    return read(path) if path.exists() else []


def placed(errors):
    return [(error["row"], error.get("line"), error["record"]) for error in errors]


# ---------------------------------------------------------------- what can be wrong with a row


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"2", "has 1 field, the header has 2"),
        (b"2,good,food", "has 3 fields, the header has 2"),
        (b"2,caf\xe9 good", "byte 0xe9 is not UTF-8; if the file is not, name its encoding"),
        (b"2,good\rfood", "holds a carriage return outside of quotes"),
        (b'2,"good', 'a quote (") is opened and never closed'),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 1000])
def test_a_row_of_csv(run, row, reason, place, batch_size):
    lines = [b"1,good food", b"3,awful room", b"4,slow"]
    lines.insert(place, row)
    rows, errors, summary = run("r.csv", b"id,text\n" + b"\n".join(lines), batch_size=batch_size)
    assert [row["id"] for row in rows] == ["1", "3", "4"]
    assert all(row["label"] for row in rows)
    [error] = errors
    assert reason in error["reason"]
    assert error["file"].endswith("r.csv")
    assert (error["row"], error["line"]) == (place + 1, place + 2)
    assert error["record"] == row.decode("utf-8", "backslashreplace")
    assert summary["rows"] == 4
    assert summary["failed"] == 1
    assert summary["reasons"] == {error["reason"]: 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"good food", "not JSON (Expecting value"),
        (b'{"text": "good"', "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"text": "caf\xe9"}', "not JSON (byte 0xe9 is not UTF-8)"),
        (b'\xff\xfe{\x00}\x00"\x00', "not JSON (byte 0xff is not UTF-8)"),
        (b'{"a":' * 100_000, "not JSON"),
    ],
)
@pytest.mark.parametrize("output", ["o.jsonl", "o.csv"])
def test_a_line_of_json(run, line, reason, output):
    content = b'{"text": "good"}\n\n' + line + b'\n{"text": "awful"}\n'
    rows, errors, _ = run("r.jsonl", content, output=output)
    assert [row["text"] for row in rows] == ["good", "awful"]
    [error] = errors
    assert reason in error["reason"]
    record = line.decode("utf-8", "backslashreplace")
    assert placed(errors) == [(2, 3, record[:65_536] + "… (500,000 bytes)" * (len(line) > 65_536))]


@pytest.mark.parametrize(
    ("key", "reason", "is_bad_in"),
    [
        ("label", "already has a key 'label'; --prefix gives", ("o.jsonl", "o.csv")),
        ("more", "has a key 'more', which none of the first rows has", ("o.csv",)),
    ],
)
def test_a_key_of_a_later_row(run, key, reason, is_bad_in):
    """The first 200 rows say what columns there are. A new one's name is refused at once; one that
    none of them has is no column of CSV."""
    lines = [b'{"text": "good %d"}\n' % number for number in range(300)]
    lines[250] = b'{"text": "awful", "%s": 1}\n' % key.encode()
    for output in ("o.jsonl", "o.csv"):
        rows, errors, _ = run("r.jsonl", b"".join(lines), output=output)
        if output in is_bad_in:
            assert len(rows) == 299
            assert placed(errors) == [(251, 251, lines[250].decode().rstrip())]
            assert reason in errors[0]["reason"]
        else:
            assert rows[250][key] == 1
            assert errors == []


def test_a_file_in_utf_16_is_no_traceback(run):
    content = '{"text": "good"}\n{"text": "awful"}\n'.encode("utf-16")
    rows, _, _ = run("r.jsonl", content, output="o.jsonl")
    assert [row["text"] for row in rows] == ["good", "awful"]


@pytest.mark.parametrize(
    "value",
    [
        b"word",
        b'"1,5"',
        b"0x10",
        b"\xff",
        b"1 2",
        b"--",
        b"1_000",
        b"inf",
        b"-Infinity",
        b"1e400",
        "١٢".encode(),
    ],
)
@pytest.mark.parametrize("column", [0, 1])
def test_a_word_where_a_number_should_be(run, per_feature_onnx, value, column):
    fields = [value, b"2"] if column == 0 else [b"2", value]
    line = b",".join([*fields, b"b"])
    content = b"age,visits,name\n30,1,a\n" + line + b"\n40,3,c\n"
    rows, errors, _ = run("r.csv", content, model=str(per_feature_onnx), text_column=None)
    assert [row["name"] for row in rows] == ["a", "c"]
    assert all(row["label"] for row in rows)
    assert placed(errors) == [(2, 3, line.decode("utf-8", "backslashreplace"))]
    name = ("age", "visits")[column]
    assert errors[0]["reason"] == f"column {name!r} holds no number" or value == b"\xff"


@pytest.mark.parametrize("value", [b"", b"NA", b"NaN", b"-", b"null"])
def test_a_number_that_is_missing_is_not_bad(run, per_feature_onnx, value):
    content = b"age,visits,name\n30,1,a\n" + value + b",2,b\n40,3,c\n"
    rows, errors, summary = run("r.csv", content, model=str(per_feature_onnx), text_column=None)
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert (rows[1]["label"], rows[1]["score"]) == ("", "")
    assert errors == []
    assert summary["empty"] == 1


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_decimal_commas_are_a_question_and_then_read(run, per_feature_onnx, name, tmp_path):
    values = [*["1,5"] * 9, "-0,5", "1.003,5", "1.23,5"]
    rows = [{"age": value, "visits": 1, "label": "a"} for value in values]
    lines = ["age|visits|label", *("|".join(map(str, row.values())) for row in rows)]
    if name == "r.jsonl":
        lines = list(map(json.dumps, rows))
    content = "".join(f"{line}\n" for line in lines).encode()
    settings = {"model": str(per_feature_onnx), "text_column": None, "output": f"o{name[1:]}"}
    with pytest.raises(InputError, match=r"already has 'label'.*; and it holds .* '1,5' in col"):
        run(name, content, **settings, max_errors="100%")
    settings |= {"prefix": "p_", "numbers": "1.234,56"}
    _, errors, summary = run(name, content, **settings)
    assert [(row["row"], row["reason"]) for row in errors] == [(12, "column 'age' holds no number")]
    assert summary["read"]["numbers"] == "1.234,56"
    written = (tmp_path / settings["output"]).read_text("utf-8").splitlines()
    kept = [line.rstrip("}") for line in lines[:-1]]
    assert [line[: len(start)] for line, start in zip(written, kept, strict=True)] == kept
    done = csv.DictReader(written, delimiter="|") if name == "r.csv" else map(json.loads, written)
    scores = [float(row["p_score"]) for row in done]  # of the label 1, or of 0 if that is likelier
    assert scores == pytest.approx([0.622459] * 9 + [0.817574, 1], abs=1e-6)


# ---------------------------------------------------------------- open quotes


def test_an_open_quote_in_a_long_file_takes_one_row(run):
    """Longer than what may lie between two quotes: the rows behind the open one are rows again."""
    filler = b"good food " * 2000
    count = LONGEST_RECORD // len(filler) + 300
    lines = [b"%d,%s" % (number, filler) for number in range(count)]
    lines[7] = b'7,"good ""food'
    rows, errors, _ = run("r.csv", b"id,text\n" + b"\n".join(lines) + b"\n")
    assert [row["id"] for row in rows] == [str(number) for number in range(count) if number != 7]
    assert placed(errors) == [(8, 9, '7,"good ""food')]
    assert errors[0]["reason"].startswith('a quote (") is opened and never closed')


def test_open_quotes_at_the_end_with_quoted_rows_before(run):
    content = b'id,text\r\n1,"good\r\nfood"\r\n2,"x ""y"" z"\r\n3,"open\r\n4,bad\r\n'
    rows, errors, _ = run("r.csv", content)
    assert [row["text"] for row in rows] == ["good\r\nfood", 'x "y" z', "bad"]
    assert placed(errors) == [(3, 5, '3,"open')]


def test_a_row_longer_than_what_a_quote_may_hold(run):
    """Without a quote it is a row like any other."""
    long = b"x" * (LONGEST_RECORD + 6_000_000)
    content = b"id,text,more\n1,good,\n2,slow," + long + b"\n3,bad,\n"
    rows, errors, _ = run("r.csv", content, output="o.jsonl")
    assert [(row["id"], len(row["more"])) for row in rows] == [("1", 0), ("2", len(long)), ("3", 0)]
    assert errors == []


# ---------------------------------------------------------------- numbers of rows and lines


def test_rows_and_lines_are_counted_as_people_do(run):
    """Blank lines are no rows; a row may have many lines; chunks are small."""
    content = b'\n\nid,text\n1,good\n\n\n2\n3,"a\nb\nc"\n4,x,y\n\n5,bad\nz,\xff\n6,"good"\n7\n'
    for batch_size in (1, 1000):
        rows, errors, _ = run("r.csv", content, batch_size=batch_size)
        assert [row["id"] for row in rows] == ["1", "3", "5", "6"]
        assert placed(errors) == [(2, 7, "2"), (4, 11, "4,x,y"), (6, 14, "z,\\xff"), (8, 16, "7")]


def test_a_bad_row_of_parquet_is_told_by_its_columns(fragile, run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"id": [1, 2, 3], "text": ["good", "poison", "bad"]})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    content = (tmp_path / "s.parquet").read_bytes()
    rows, errors, _ = run("r.parquet", content, model=str(fragile))
    assert [row["id"] for row in rows] == ["1", "3"]
    assert [(error["row"], error["record"]) for error in errors] == [
        (2, {"id": 2, "text": "poison"})
    ]
    assert "line" not in errors[0]


# ---------------------------------------------------------------- a model that fails


@pytest.mark.parametrize(
    "poisoned", [[0], [7], [399], [3, 4, 5], [0, 199, 200, 398], range(0, 400, 7)]
)
def test_culprits_are_found_and_others_keep_their_labels(
    run, fragile, bag, quick_reviews, poisoned
):
    texts = [f"{text} {number}" for number, text in enumerate(quick_reviews(400))]
    good = {place: text for place, text in enumerate(texts) if place not in poisoned}
    for place in poisoned:
        texts[place] += " poison"
    lines = [f"{number},{text}\n".encode() for number, text in enumerate(texts)]
    rows, errors, summary = run("r.csv", b"id,text\n" + b"".join(lines), model=str(fragile))
    assert placed(errors) == [(place + 1, None, f"{place},{texts[place]}") for place in poisoned]
    for error in errors:
        assert error["reason"].startswith("ONNX Runtime can't compute these values (")
        assert "indices element out of data bounds" in error["reason"]
        assert "\n" not in error["reason"]
    assert summary["failed"] == len(poisoned)
    alone, _, _ = run(
        "s.csv",
        b"id,text\n" + b"".join(f"{place},{text}\n".encode() for place, text in good.items()),
        output="s.csv.out.csv",
    )
    assert [row["id"] for row in rows] == [str(place) for place in good]
    assert [row["label"] for row in rows] == [row["label"] for row in alone]
    for row, same in zip(rows, alone, strict=True):
        assert float(row["score"]) == pytest.approx(float(same["score"]), abs=1e-5)


def test_each_duplicate_of_a_culprit_is_set_aside(run, fragile):
    content = b"text\npoison\ngood\npoison\n\nbad\npoison\n"
    rows, errors, summary = run("r.csv", content, model=str(fragile))
    assert [row["text"] for row in rows] == ["good", "bad"]
    assert [error["row"] for error in errors] == [1, 3, 5]
    assert summary["duplicates"] == 2


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.csv.gz", "o.parquet"])
def test_an_output_without_any_row_can_be_read(run, fragile, tmp_path, name):
    import pyarrow.parquet

    if name.endswith(("gz", "parquet")):
        content = b"id,text\n1,poison\n2,very poison\n"
        with pytest.raises((UnicodeDecodeError, json.JSONDecodeError)):
            run("r.csv", content, output=name, model=str(fragile))
        assert len(errors_of(tmp_path / name)) == 2
        if name.endswith("parquet"):
            names = pyarrow.parquet.read_table(tmp_path / name).column_names
            assert names == ["id", "text", "label", "score", "truncated"]
        return
    rows, errors, _ = run("r.csv", b"id,text\n1,poison\n", output=name, model=str(fragile))
    assert rows == []
    assert len(errors) == 1
    if name == "o.csv":
        assert (tmp_path / name).read_text() == "id,text,label,score,truncated\n"


def test_a_mistake_of_ours_is_no_bad_row(run, monkeypatch):
    from mlopsdeploy.runtimes.onnxruntime import OnnxRuntime

    monkeypatch.setattr(OnnxRuntime, "run", lambda self, tensors: tensors.nothing)
    with pytest.raises(AttributeError):
        run("r.csv", b"text\ngood\n")


# ---------------------------------------------------------------- how many are too many


@pytest.fixture
def spoilt(quick_reviews):
    """4,000 rows, each hundredth bad from row 1,000 on: 30 in all."""
    texts = quick_reviews(4000)
    return b"id,text\n" + b"".join(
        f"{number},{text}{',x' * (number >= 1000 and number % 100 == 0)}\n".encode()
        for number, text in enumerate(texts)
    )


@pytest.mark.parametrize("allowed", ["30", "1%", "0.75%", "100%", "none", " NONE "])
def test_enough(run, spoilt, allowed):
    rows, errors, _ = run("r.csv", spoilt, max_errors=allowed, batch_size=50)
    assert len(rows) == 3970
    assert len(errors) == 30


@pytest.mark.parametrize("allowed", ["0", "3", "29", "0.1%", "0.7%"])
def test_too_many(run, spoilt, tmp_path, allowed):
    """What is done is kept, and with a larger allowance the run goes on from there."""
    whole, errors, _ = run("r.csv", spoilt, output="whole.csv", batch_size=50)
    with pytest.raises(InputError, match="rows are bad, more than --max-errors") as caught:
        run("r.csv", spoilt, max_errors=allowed, batch_size=50)
    said = str(caught.value)
    assert f"the first: {tmp_path / 'r.csv'}: line 1002: has 3 fields, the header has 2" in said
    assert not (tmp_path / "o.csv").exists()
    done = json.loads((tmp_path / "o.csv.unfinished" / "manifest.json").read_text())["rows"]
    assert 1000 < done <= 4000
    with pytest.raises(InputError, match="rows are bad"):
        run("r.csv", spoilt, max_errors=allowed, batch_size=50)
    rows, again, summary = run("r.csv", spoilt, max_errors="30", batch_size=50)
    assert summary["attempts"] >= 2
    assert rows == whole
    assert [error["row"] for error in again] == [error["row"] for error in errors]


def test_a_stop_comes_soon(run, spoilt, tmp_path):
    """A million rows are not read to their end to find that they are all bad."""
    with pytest.raises(InputError):
        run("r.csv", spoilt, max_errors="0", batch_size=10)
    done = json.loads((tmp_path / "o.csv.unfinished" / "manifest.json").read_text())["rows"]
    assert done < 2000


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "-1%", "%", "nan%", "1 %%"])
def test_what_max_errors_can_t_be(text):
    with pytest.raises(ConfigError, match="expected a number, a share such as 0.1%, or none"):
        MaxErrors.parse(text)


@pytest.mark.parametrize(
    ("text", "bad", "rows", "share", "too_many"),
    [
        ("none", 10**9, 10**9, 1.0, False),
        ("0", 0, 10, None, False),
        ("0", 1, 10**9, 0.1, True),
        ("1%", 1, 1, 0.000001, False),  # of a million rows or so
        ("1%", 11, 1000, 1.0, True),
        ("1%", 10, 1000, 1.0, False),
        ("1%", 1000, 1000, None, False),  # nobody knows of how many
        ("1%", 1001, 1000, None, True),
        ("1%", 2000, 300_000, None, False),
        ("0%", 1, 10**6, 0.5, True),
    ],
)
def test_shares_are_of_the_whole(text, bad, rows, share, too_many):
    assert MaxErrors.parse(text).exceeded(bad, rows, share) is too_many


def test_a_bad_row_is_one_line_of_json():
    row = BadRow(3, "why", "a\nb\u2028\x85", "r.csv", 4)
    line = row.as_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "file": "r.csv", "row": 3, "line": 4, "reason": "why", "record": "a\nb\u2028\x85"
    }  # fmt: skip
