"""JSON bodies to columns, for every kind of row that a task may take."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from mlopsdeploy.columns import Field, rows_of
from mlopsdeploy.serve.instances import Instances
from mlopsdeploy.serve.messages import Problem


@dataclass
class Takes:
    """A task as far as its inputs go."""

    inputs: tuple[Field, ...]
    matrix: Field | None = None


TEXT = Instances(Takes((Field("review_text", "str"),)), "reviews")
NUMBERS = Instances(
    Takes((Field("age", "float32"), Field("visits", "float32")), Field("x", "float32", (2,))),
    "rows",
)
UNNAMED = Instances(Takes((Field("x", "float32", (2,)),), Field("x", "float32", (2,))), "rows")
WHOLE = Instances(
    Takes((Field("a", "int32"), Field("b", "int32")), Field("x", "int32", (2,))), "rows"
)
WIDE = Instances(Takes((Field("x", "int64", (2,)),), Field("x", "int64", (2,))), "rows")
VALUES = Instances(
    Takes(
        (
            Field("age", "float32"),
            Field("city", "str"),
            Field("visits", "int16"),
            Field("vip", "bool"),
        )
    ),
    "rows",
)
PICTURES = Instances(Takes((Field("image", "uint8", (2, 2, 3)),)), "images")
SERIES = Instances(Takes((Field("window", "float32", (-1, 2)),)), "windows")
PAIRS = Instances(Takes((Field("pair", "int64", (2,)),)), "pairs")
SEVERAL = Instances(Takes((Field("window", "float32", (3,)), Field("place", "float32"))), "rows")


def decoded(instances, rows):
    return instances.decode(json.dumps({instances.key: rows}).encode())


def refused(instances, rows):
    """The problem's kind, field and sentence."""
    body = rows if isinstance(rows, bytes) else json.dumps({instances.key: rows}).encode()
    with pytest.raises(Problem) as raised:
        instances.decode(body)
    problem = raised.value
    assert problem.status == (400 if problem.kind == "not-json" else 422)
    return problem.kind, problem.field, problem.detail


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (Takes((Field("text", "str"),)), "a"),
        (Takes((Field("x", "float32", (2,)),), Field("x", "float32", (2,))), [1, 2]),
        (Takes((Field("age", "int64"), Field("city", "str"))), {"age": 1, "city": "a"}),
        (Takes((Field("window", "float32", (-1, 2)),)), [[1, 2]] * 5),
    ],
)
def test_no_more_rows_than_a_request_may_have(task, row):
    instances = Instances(task, "rows", max_rows=3)
    for rows in (row, [row] * 3):
        columns, _ = decoded(instances, rows)
        assert rows_of(columns) in (1, 3)
    with pytest.raises(Problem) as raised:
        decoded(instances, [row] * 1234)
    problem = raised.value
    assert (problem.status, problem.kind, problem.field) == (413, "too-many-rows", "rows")
    assert problem.detail == "rows may have 3 rows at most; the server's max_rows says so"


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("rows", "texts", "single"),
    [
        ("good", ["good"], True),
        ("", [""], True),
        (["good", "bad"], ["good", "bad"], False),
        (["good"], ["good"], False),
        ({"review_text": "good", "id": 7}, ["good"], True),
        ([{"review_text": "good"}, "bad"], ["good", "bad"], False),
        ("caf\xe9 \U0001f49a \x00", ["caf\xe9 \U0001f49a \x00"], True),
    ],
)
def test_texts(rows, texts, single):
    columns, alone = decoded(TEXT, rows)
    assert alone is single
    assert columns["review_text"].dtype == object
    assert columns["review_text"].tolist() == texts


# ---------------------------------------------------------------- rows of numbers


@pytest.mark.parametrize(
    ("rows", "matrix", "single"),
    [
        ([1, 2.5], [[1, 2.5]], True),
        ([[1, 2.5]], [[1, 2.5]], False),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], False),
        ({"visits": 2, "age": 1}, [[1, 2]], True),
        ([{"visits": 2, "age": 1}, [3, 4]], [[1, 2], [3, 4]], False),
        ([[3, 4], {"visits": 2, "age": 1}], [[3, 4], [1, 2]], False),
        ([-0.0, 3.4e38], [[0, 3.4e38]], True),
        ([1e-60, 2**80], [[0, 2.0**80]], True),
    ],
)
def test_numbers(rows, matrix, single):
    columns, alone = decoded(NUMBERS, rows)
    assert alone is single
    assert columns["x"].dtype == np.float32
    assert columns["x"].tolist() == np.array(matrix, np.float32).tolist()


@pytest.mark.parametrize("instances", [NUMBERS, UNNAMED, WHOLE], ids=["named", "unnamed", "whole"])
@pytest.mark.parametrize(
    ("rows", "kind", "field"),
    [
        ([], "empty", "rows"),
        ([1], "wrong-length", "rows"),
        ([1, 2, 3], "wrong-length", "rows"),
        ([[1, 2], [1, 2, 3]], "wrong-length", "rows[1]"),
        ([[1, 2], []], "wrong-length", "rows[1]"),
        ([[1, 2], 3], "wrong-type", "rows[1]"),
        ([1, [2]], "wrong-type", "rows[1]"),
        ([[1, [2]]], "wrong-type", "rows[0][1]"),
        ([[1, None]], "wrong-type", "rows[0][1]"),
        ([1, "2"], "wrong-type", "rows[1]"),
        ([True, 2], "wrong-type", "rows[0]"),
        ("12", "wrong-type", "rows"),
        (b'{"rows": [1, 1e999]}', "out-of-range", "rows[1]"),
        (b'{"rows": [1, NaN]}', "not-json", "rows"),
        (b'{"rows": [1, -Infinity]}', "not-json", "rows"),
        (b'{"row": [1, 2]}', "missing", "rows"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(instances, rows, kind, field):
    assert refused(instances, rows)[:2] == (kind, field)


def test_numbers_up_to_what_the_models_type_holds():
    assert decoded(WIDE, [1, 2**62])[0]["x"].tolist() == [[1, 2**62]]
    assert decoded(WHOLE, [1, -(2**31)])[0]["x"].tolist() == [[1, -(2**31)]]


def test_the_sentence_says_what_is_wanted():
    assert refused(NUMBERS, [1])[2] == "rows must have 2 values, not 1"
    assert refused(NUMBERS, "x")[2] == (
        "rows must be a list of 2 values or an object by feature name, not text"
    )
    assert refused(NUMBERS, [1, None])[2].startswith("rows[1] must be a number")
    assert refused(NUMBERS, {"age": 1})[2] == "rows.visits is missing"
    assert refused(NUMBERS, b"[1]")[2] == "the body must be an object, not a list"
    assert refused(NUMBERS, b"")[2] == "the body is empty: send a JSON object"
    assert refused(NUMBERS, b'{"rows": [1, 2')[2] == "the body is not JSON: it is cut off"
    assert refused(NUMBERS, b'{"rows": [1, x]}')[2] == "the body is not JSON (at byte 13)"


# ---------------------------------------------------------------- rows of several types


def test_values_of_several_types():
    by_name = {"vip": True, "visits": 3, "city": "Ulm", "age": 5}
    columns, alone = decoded(VALUES, [by_name, [6.5, "Bonn", -3, False]])
    assert alone is False
    assert {name: column.tolist() for name, column in columns.items()} == {
        "age": [5.0, 6.5], "city": ["Ulm", "Bonn"], "visits": [3, -3], "vip": [True, False],
    }  # fmt: skip
    types = [columns[field.name].dtype for field in VALUES.fields]
    assert types == [np.float32, object, np.int16, bool]
    columns, alone = decoded(VALUES, [6.5, "Bonn", -3.0, False])
    assert alone is True
    assert columns["city"].tolist() == ["Bonn"]


# ---------------------------------------------------------------- nested lists

PICTURE = [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 255]]]


def test_nested_lists():
    columns, alone = decoded(PICTURES, PICTURE)
    assert (alone, columns["image"].shape, columns["image"].dtype) == (True, (1, 2, 2, 3), np.uint8)
    assert decoded(PICTURES, [[[255.0] * 3] * 2] * 2)[0]["image"].max() == 255
    columns, alone = decoded(PICTURES, [PICTURE, PICTURE])
    assert (alone, columns["image"].tolist()) == (False, [PICTURE, PICTURE])
    columns, alone = decoded(SERIES, [[1, 2], [3, 4], [5, 6]])
    assert (alone, columns["window"].shape) == (True, (1, 3, 2))
    columns, alone = decoded(SERIES, [[[1, 2]], [[3, 4]]])
    assert (alone, columns["window"].shape) == (False, (2, 1, 2))


def test_nested_lists_beside_other_fields():
    row = {"window": [1, 2, 3], "place": 7}
    columns, alone = decoded(SEVERAL, row)
    assert alone is True
    assert columns["window"].tolist() == [[1, 2, 3]]
    assert columns["place"].tolist() == [7]
    columns, alone = decoded(SEVERAL, [row, row])
    assert (alone, columns["window"].shape, columns["place"].shape) == (False, (2, 3), (2,))


@pytest.mark.parametrize(
    ("instances", "rows", "kind", "field"),
    [
        (TEXT, 5, "wrong-type", "reviews"),
        (TEXT, None, "wrong-type", "reviews"),
        (TEXT, [], "empty", "reviews"),
        (TEXT, ["a", 5], "wrong-type", "reviews[1]"),
        (TEXT, ["a", None], "wrong-type", "reviews[1]"),
        (TEXT, [["a"]], "wrong-type", "reviews[0]"),
        (TEXT, {"text": "a"}, "missing", "reviews.review_text"),
        (TEXT, ["a", {"review_text": 5}], "wrong-type", "reviews[1].review_text"),
        (TEXT, b'{"reviews": "\xff"}', "not-json", ""),
        (TEXT, b'{"reviews": "\\ud800"}', "not-json", ""),
        (VALUES, [6.5, "Bonn", -3], "wrong-length", "rows"),
        (VALUES, ["6.5", "Bonn", -3, False], "wrong-type", "rows[0]"),
        (VALUES, [6.5, 7, -3, False], "wrong-type", "rows[1]"),
        (VALUES, [6.5, "Bonn", 3.5, False], "wrong-type", "rows[2]"),
        (VALUES, [6.5, "Bonn", True, False], "wrong-type", "rows[2]"),
        (VALUES, [6.5, "Bonn", 3, 0], "wrong-type", "rows[3]"),
        (VALUES, [6.5, "Bonn", 40_000, False], "out-of-range", "rows[2]"),
        (VALUES, [1e39, "Bonn", 3, False], "out-of-range", "rows[0]"),
        (VALUES, [[6.5, "Bonn", 3, False], [6.5, "Bonn", None, False]], "wrong-type", "rows[1][2]"),
        (VALUES, [[6.5, "Bonn", 3, False], [6.5, ["Bonn"], 3, False]], "wrong-type", "rows[1][1]"),
        (
            VALUES,
            {"vip": True, "visits": 40_000, "city": "U", "age": 5},
            "out-of-range",
            "rows.visits",
        ),
        (VALUES, {"vip": True, "visits": "40", "city": "U", "age": 5}, "wrong-type", "rows.visits"),
        (VALUES, {"vip": True, "city": "U", "age": 5}, "missing", "rows.visits"),
        (VALUES, 7, "wrong-type", "rows"),
        (VALUES, [], "empty", "rows"),
        (NUMBERS, [1, 1e39], "out-of-range", "rows[1]"),
        (NUMBERS, [[1, 2], {"age": -1e39, "visits": 1}], "out-of-range", "rows[1].age"),
        (WHOLE, [1, 2**31], "out-of-range", "rows[1]"),
        (WHOLE, [1, 2**80], "out-of-range", "rows[1]"),
        (WIDE, [1, 2**70], "out-of-range", "rows"),
        (WHOLE, [1, 2.5], "wrong-type", "rows[1]"),
        (PICTURES, [], "empty", "images"),
        (PICTURES, "x", "wrong-type", "images"),
        (PICTURES, [1, 2], "wrong-shape", "images"),
        (PICTURES, PICTURE[0], "wrong-shape", "images"),
        (PICTURES, [[[1, 2], [3]]], "wrong-shape", "images"),
        (PICTURES, [PICTURE, PICTURE[0]], "wrong-shape", "images"),
        (PICTURES, [[["a"] * 3] * 2] * 2, "wrong-type", "images"),
        (PICTURES, [[[None] * 3] * 2] * 2, "wrong-type", "images"),
        (PICTURES, [[[True] * 3] * 2] * 2, "wrong-type", "images"),
        (PICTURES, [[[256] * 3] * 2] * 2, "out-of-range", "images"),
        (PICTURES, [[[-1] * 3] * 2] * 2, "out-of-range", "images"),
        (PICTURES, [[[0.5] * 3] * 2] * 2, "wrong-type", "images"),
        (PICTURES, [[[2**70] * 3] * 2] * 2, "out-of-range", "images"),
        (PAIRS, [1, 2**63], "out-of-range", "pairs"),
        (PAIRS, [1, 2**70], "out-of-range", "pairs"),
        (SERIES, [[1, 2, 3]], "wrong-shape", "windows"),
        (SERIES, [[[1, 2]], [[1, 2], [3, 4]]], "wrong-shape", "windows"),
        (SERIES, [[1, 1e39]], "out-of-range", "windows"),
        (SERIES, [[1, {"a": 1}]], "wrong-type", "windows"),
        (SERIES, [[1, True]], "wrong-type", "windows"),
        (SEVERAL, {"window": [1, 2], "place": 7}, "wrong-shape", "rows.window"),
        (SEVERAL, {"window": [1, 2, "x"], "place": 7}, "wrong-type", "rows.window"),
        (SEVERAL, {"window": [1, 2, 3], "place": "x"}, "wrong-type", "rows.place"),
        (SEVERAL, {"window": [1, 2, 3]}, "missing", "rows.place"),
        (SEVERAL, [{"window": [1, 2, 3], "place": 1}, [1]], "wrong-type", "rows[1]"),
        (SEVERAL, [], "empty", "rows"),
    ],
)
def test_what_does_not_fit(instances, rows, kind, field):
    assert refused(instances, rows)[:2] == (kind, field)


def test_deep_nesting_ends_in_an_answer_not_in_a_crash():
    for depth in (900, 5_000, 100_000):
        body = b'{"images": ' + b"[" * depth + b"]" * depth + b"}"
        kind, _, _ = refused(PICTURES, body)
        assert kind in ("not-json", "wrong-shape")


def test_the_one_input_by_its_name():
    columns, single = UNNAMED.decode(b'{"rows": {"x": [1, 2]}}')
    assert (columns["x"].tolist(), single) == ([[1, 2]], True)
    columns, single = UNNAMED.decode(b'{"rows": [{"x": [1, 2]}, [3, 4]]}')
    assert (columns["x"].tolist(), single) == ([[1, 2], [3, 4]], False)
    with pytest.raises(Problem, match="must have 2 values, not 3"):
        UNNAMED.decode(b'{"rows": [{"x": [1, 2, 3]}]}')
