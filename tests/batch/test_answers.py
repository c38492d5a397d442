"""Whole runs of models that give other answers than a label and its score, or take arrays."""

import json
import sqlite3

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from mlopsdeploy.batch import command
from mlopsdeploy.columns import AnswerColumns, Field, objects
from mlopsdeploy.core.answers import document
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import BatchSettings

from ..answering import answering

X = (Field("a", "float32"), Field("b", "float32"))
WINDOW = (Field("x", "float32", (2, 3)),)
VALUE = Field("value", "float32")


class Arithmetic:
    """A runtime that needs no file."""

    name, precision, streams, batch_scale = "arithmetic", "float32", 1, 1
    precisions = ("float32",)

    def run(self, tensors):
        return tensors


def model_of(inputs, outputs, decode, **more):
    task = answering(*outputs, inputs=inputs, data="table", batch_cost=64, **more)
    task.encode = lambda columns: {one.name: columns[one.name] for one in inputs}
    task.cost = lambda encoded: np.ones(len(next(iter(encoded.values()))), np.int64)
    task.collate = lambda encoded: encoded
    task.decode = lambda tensors, _: decode(tensors)
    return Model("made", "1", "d" * 64, task, Arithmetic())


def regression(columns):
    return {"value": (columns["a"] * 1e6 - columns["b"]).astype(np.float32)}


def clusters(columns):
    near = columns["a"] < 5
    return {
        "label": objects(["near" if one else "far" for one in near]),
        "distance": (columns["a"] * 100).astype(np.float32),
    }


def two(columns):
    score = np.clip(columns["a"] / 100, 0, 1).astype(np.float32)
    label = objects(["yes" if one > 0.5 else "no" for one in score])
    return {
        "fraud_label": label, "fraud_score": score,
        "fraud_scores": np.stack([1 - score, score], axis=1), "price": score * 1000,
    }  # fmt: skip


FRAUD = AnswerColumns("fraud_label", "fraud_score", "fraud_scores", ("no", "yes"), "fraud")
MODELS = {
    "regression": model_of(X, [VALUE], regression),
    "clusters": model_of(X, [Field("label", "str"), Field("distance", "float32")], clusters),
    "two": model_of(
        X,
        [
            Field("fraud_label", "str"),
            Field("fraud_score", "float32"),
            Field("fraud_scores", "float32", (2,)),
            Field("price", "float32"),
        ],
        two,
        answers=(FRAUD, AnswerColumns(number="price", name="price")),
    ),
    "tensors": model_of(
        X,
        [Field("vector", "float32", (2,)), Field("count", "int64"), Field("seen", "bool")],
        lambda columns: {
            "vector": np.stack([columns["a"], columns["b"]], axis=1).astype(np.float32) / 10,
            "count": np.nan_to_num(columns["a"]).astype(np.int64) + 2**60,
            "seen": columns["a"] > 2,
        },
        answers=(),
    ),
    "window": model_of(
        WINDOW, [VALUE], lambda columns: {"value": columns["x"][:, 1, 0].astype(np.float32)}
    ),
    "whole": model_of(
        (Field("id", "uint8"), Field("ok", "bool")),
        [Field("sum", "int64"), Field("many", "int32", (-1,))],
        lambda columns: {
            "sum": columns["id"].astype(np.int64) + columns["ok"].astype(np.int64),
            "many": objects([np.arange(int(one), dtype=np.int32) for one in columns["id"]]),
        },
        answers=(),
    ),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run("regression", frame, "in.csv", "out.csv")` gives the rows written, and the summary."""

    def score(model, rows, source="in.csv", output="out.jsonl", **settings):
        path, goal = tmp_path / source, tmp_path / output
        goal = output if "://" in output else goal
        if isinstance(rows, (str, bytes)):
            path.write_text(rows)
        elif source.endswith(".parquet"):
            pq.write_table(rows if isinstance(rows, pa.Table) else pa.table(dict(rows)), path)
        elif source.endswith(".csv"):
            pd.DataFrame(rows).to_csv(path, index=False)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr(command, "load_for", lambda *_, **__: MODELS[model])
        chosen = BatchSettings(input=str(path), output=str(goal), max_errors="100%", **settings)
        summary = command.run_batch(chosen, Console(stderr=True, highlight=False, width=120))
        if output.endswith(".parquet"):
            return pq.read_table(goal), summary
        if "://" in output:
            return [], summary
        if output.endswith(".csv"):
            return goal.read_text().splitlines(), summary
        return [json.loads(line) for line in goal.read_text().splitlines()], summary

    return score


ROWS = {"a": [1.0, 2.0, None, 40.0], "b": [0.0, 0.5, 3.0, 1.0], "day": ["2026-03-01"] * 4}


def test_a_number_is_the_answer(run, capsys):
    lines, summary = run("regression", ROWS, output="out.csv")
    assert lines[0] == "a,b,day,value"
    assert [line.split(",")[3] for line in lines[1:]] == ["1000000", "1999999.5", "", "40000000"]
    assert (summary["rows"], summary["empty"], summary["failed"]) == (4, 1, 0)
    assert "labels" not in summary
    assert "mean_score" not in summary
    (answer,) = summary["answers"]
    assert (answer["rows"], answer["least"], answer["greatest"]) == (3, 1e6, 4e7)
    assert answer["mean"] == pytest.approx((1e6 + 1999999.5 + 4e7) / 3)
    assert answer["median"] == pytest.approx(1999999.5, rel=0.005)
    assert "mean 14,300,000, median 2,000,000" in " ".join(capsys.readouterr().err.split())


def test_numbers_keep_their_type_and_digits(run):
    table, _ = run("regression", {"a": [1e-9], "b": [1e-12]}, output="out.parquet")
    assert table.schema.field("value").type == pa.float32()
    assert table["value"].to_pylist() == [np.float32(1e-3 - 1e-12)]


def test_a_label_and_a_number_without_bounds(run, capsys):
    rows, summary = run("clusters", ROWS)
    assert [row["label"] for row in rows] == ["near", "near", None, "far"]
    assert [row["distance"] for row in rows] == [100.0, 200.0, None, 4000.0]
    assert summary["labels"] == {"near": 2, "far": 1}
    assert "mean_score" not in summary
    assert "distance" in capsys.readouterr().err


def test_several_answers(run, capsys):
    rows, summary = run("two", ROWS, all_scores=True)
    assert list(rows[0])[3:] == [
        "fraud_label", "fraud_score", "price", "fraud_score_no", "fraud_score_yes",
    ]  # fmt: skip
    assert [answer["name"] for answer in summary["answers"]] == ["fraud", "price"]
    shown = " ".join(capsys.readouterr().err.split())
    assert "fraud labels no 3" in shown
    assert "price mean" in shown


def test_all_scores_of_what_has_none(run):
    with pytest.raises(ConfigError, match="made has no scores of labels; it gives 'value'"):
        run("regression", ROWS, all_scores=True)


def test_tensors_are_written_as_they_are(run, capsys):
    table, summary = run("tensors", {"a": [1.0, 40.0], "b": [1.0, 2.0]}, output="out.parquet")
    assert table["vector"].type == pa.list_(pa.float32())
    assert table["count"].to_pylist() == [2**60 + 1, 2**60 + 40]
    assert table["seen"].to_pylist() == [False, True]
    rows, _ = run("tensors", {"a": [1.0, 40.0], "b": [1.0, 2.0]})
    assert rows[0]["vector"] == [0.1, 0.1]
    lines, _ = run("tensors", {"a": [1.0], "b": [2.0]}, output="out.csv")
    assert lines == ["a,b,vector,count,seen", f'1.0,2.0,"[0.1, 0.2]",{2**60 + 1},false']
    assert summary["answers"] == []
    assert "tensors as they are" in capsys.readouterr().err


def test_whole_numbers_and_truths_are_taken_exactly(run):
    given = [{"id": one, "ok": True} for one in (3, 256, 2.5, "x", None, 0)]
    given.append({"id": 1, "ok": 2})
    rows, summary = run("whole", given, "in.jsonl")
    assert [row["sum"] for row in rows] == [4, None, 1]
    assert [row["many"] for row in rows] == [[0, 1, 2], None, []]
    assert summary["failed"] == 4
    assert set(summary["reasons"]) == {
        "column 'id' does not hold a whole number from 0 to 255", "column 'id' holds no number",
        "column 'ok' does not hold true or false",
    }  # fmt: skip


WINDOWS = [[[1, 2, 3], [4, 5, 6]], [[0.5, 0, 0], [7, 0, 0]]]
FLAT = [[1, 2, 3, 4, 5, 6], [0.5, 0, 0, 7, 0, 0]]
NAMED = {f"x_{place}": [row[place] for row in FLAT] for place in range(6)}


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("in.parquet", {"x": WINDOWS}),
        ("in.parquet", {"x": FLAT}),
        ("in.parquet", pa.table({"x": pa.array(FLAT, pa.list_(pa.float32(), 6))})),
        ("in.csv", {"x": [json.dumps(row) for row in WINDOWS]}),
        ("in.jsonl", [{"x": row} for row in WINDOWS]),
        ("in.json", json.dumps([{"x": row} for row in FLAT])),
        ("in.csv", NAMED),
        ("in.parquet", NAMED),
    ],
)
def test_arrays_of_a_row(run, source, rows):
    written, summary = run("window", rows, source)
    assert [row["value"] for row in written] == [4, 7]
    assert summary["failed"] == 0


def test_columns_go_on_as_they_are_spelled(run):
    rows = "x_0,x_1,x_2,x_3,x_4,x_5\n1.0,2,3,4e0,5,6\n1,2,3,x,5,6\n"
    lines, summary = run("window", rows, output="out.csv")
    assert lines == ["x_0,x_1,x_2,x_3,x_4,x_5,value", "1.0,2,3,4e0,5,6,4"]
    assert summary["reasons"] == {"column 'x_3' holds no number": 1}


def test_arrays_in_a_database_are_json(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the manifest of a database is
    path = tmp_path / "out.db"
    run("tensors", {"a": [1.0, None], "b": [2.0, 3.0]}, output=f"sqlite:///{path}#t")
    database = sqlite3.connect(path)
    found = [row[0] for row in database.execute("SELECT vector FROM t")]
    database.close()
    assert found == ["[0.1, 0.2]", "[null, 0.3]"]


def test_columns_that_are_named(run):
    rows = {letter: [row[place] for row in FLAT] for place, letter in enumerate("fedcba")}
    written, _ = run("window", rows, features=tuple("fedcba"))
    assert [row["value"] for row in written] == [4, 7]


def test_rows_of_another_size_are_bad_rows(run):
    given = [WINDOWS[0], [1, 2], [[1], [2, 3]], "no list", {"a": 1}, [[1, 2, "x"], [4, 5, 6]], None]
    rows, summary = run("window", [{"x": row} for row in given], "in.jsonl")
    assert [row["value"] for row in rows] == [4, None]
    assert set(summary["reasons"]) == {
        "column 'x' holds 2 numbers, not 2×3", "column 'x' holds lists of different length",
        "column 'x' holds no list in JSON", "column 'x' holds no list of 2×3 numbers",
        "column 'x' holds no number in its list",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"y": [1]}, "takes 6 numbers a row .2×3. as 'x': a column 'x' of lists, or columns 'x_0' "
         "to 'x_5'; there is 'y'"),
        ({"x_0": [1], "x_1": [2]}, "lacks 'x_2', 'x_3', 'x_4', 'x_5' of the 6 columns of 'x'"),
    ],
)  # fmt: skip
def test_where_the_numbers_of_a_row_are_not(run, rows, problem):
    with pytest.raises(InputError, match=problem):
        run("window", rows)


def test_probabilities_have_the_digits_of_other_strategies(run):
    """From 0.1 on; below, a file has six decimals, which no batch's rounding can change."""
    a = np.float32([99.98765432, 12.3456789, 0.00123456789])
    scored, _ = run("two", [{"a": float(one), "b": 0.0} for one in a], source="in.jsonl")
    scores = [line["fraud_score"] for line in scored]
    shown = [document(MODELS["two"].task, two({"a": a}), row)["fraud_score"] for row in range(3)]
    assert (scores[:2], scores[2], shown[2]) == (shown[:2], 0.000012, 0.0000123457)


@pytest.mark.parametrize("model", ["regression", "clusters", "two", "tensors"])
def test_a_report_and_a_second_night(run, tmp_path, model):
    random = np.random.default_rng(3)
    night = {
        "a": random.uniform(0, 80, 400), "b": random.normal(0, 1, 400),
        "day": [f"2026-03-{1 + row % 20:02d}" for row in range(400)],
        "shop": [("Nord", "Süd")[row % 2] for row in range(400)],
    }  # fmt: skip
    page = tmp_path / "report.html"
    run(model, night, report=str(page))
    first = page.read_text()
    _, summary = run(model, {**night, "a": night["a"] + 40}, report=str(page), fresh=True)
    shown = page.read_text()
    if model == "tensors":
        assert "tensors, which are written as they are and not counted" in shown
        assert summary["drift"]["level"] == "unknown"
        return
    assert summary["drift"]["level"] == "much"
    if model != "two":
        assert ">Mean score<" not in shown
    if model == "regression":
        for words in ("Lowest", "Highest", "Median", "Over time", "By category", "Mean value"):
            assert words in first, words
        assert summary["drift"]["measures"][0]["name"] == "value"
        assert "Value is higher: " in summary["drift"]["verdict"]


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"window", "whole"}))
def test_what_an_earlier_night_computed_is_the_same(run, model):
    fresh, _ = run(model, ROWS, incremental=True)
    again, summary = run(model, ROWS, incremental=True)
    assert again == fresh
    assert summary["reused"] == 4
