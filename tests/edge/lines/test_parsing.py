"""Lines to rows: as CSV, with a header, as JSON; what is wrong is said without repeating it."""

import numpy as np
import pytest

from mlopsdeploy.columns import Field
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.edge.lines.parsing import Rows, Texts, parser_for
from mlopsdeploy.errors import ConfigError

NAMES = ("age", "visits", "spend")
ROW = [25.0, 3.0, 100.0]


@pytest.fixture
def parse():
    """Of three numbers in one array."""
    return Rows([Field(name, "float32") for name in NAMES], Field("x", "float32", (3,)))


def test_texts():
    parsed = Texts("text")(["a", "", "  \t", None, " b "])
    assert parsed.columns["text"].tolist() == ["a", " b "]
    assert parsed.rows == [0, 4]
    assert parsed.problems == {}


@pytest.mark.parametrize(
    "line",
    [
        "25,3,100", "25;3;100", "25\t3\t100", "25 3  100", " 25, 3 , 1e2 ", '"25","3","100"',
        "[25, 3, 100.0]", '{"spend": 100, "age": 25, "visits": 3, "other": "x"}',
    ],
)  # fmt: skip
def test_a_row_in_all_its_shapes(parse, line):
    parsed = parse([line])
    assert parsed.rows == [0]
    assert parsed.columns["x"].tolist() == [ROW]
    assert parsed.columns["x"].dtype == np.float32


def test_a_header_names_the_columns_from_then_on(parse):
    parsed = parse(["25,3,100", "spend, other,visits,age", "100,zz,3,25", '100,"a,b",3,25', ""])
    assert parsed.headers == [1]
    assert parsed.rows == [0, 2, 3]
    assert parsed.columns["x"].tolist() == [ROW] * 3
    parsed = parse(["1,2,3", "age,visits,spend", "25,3,100"])  # a device that starts again
    assert parsed.problems == {0: "has 3 values, the header has 4"}
    assert parsed.columns["x"].tolist() == [ROW]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("secret,3,100", "'age' is not a number"),
        ("25,3", "has 2 values, the model takes 3"),
        ("secret", "has 1 value, the model takes 3"),
        ("[25, 3]", "has 2 values, the model takes 3"),
        ("[25, true, 3]", "'visits' is not a number"),
        ('[25, "secret", 3]', "'visits' is not a number"),
        ("[25, [3], 3]", "'visits' is not a number"),
        ('{"age": 25, "visits": 3}', "lacks 'spend'"),
        ("[25, 3,", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("25,3,1e39", "has a number that is too large for the model"),
        ("inf,3,100", "has a number that is too large for the model"),
        ("[1" + "0" * 400 + ", 3, 1]", "'age' is not a number"),
    ],
)
def test_what_is_wrong_is_said_and_the_rest_goes_on(parse, line, problem):
    parsed = parse(["25,3,100", line, "25,3,100"])
    assert parsed.problems == {1: problem}
    assert parsed.rows == [0, 2]
    assert parsed.columns["x"].tolist() == [ROW] * 2


def test_missing_numbers_are_left_to_the_model(parse):
    parsed = parse(["NA,3,100", ",3,100", "[null, 3, 100]", "#n/a,3,100"])
    assert parsed.rows == [0, 1, 2, 3]
    assert np.isnan(parsed.columns["x"][:, 0]).all()


def test_columns_of_several_types():
    parse = Rows([Field("age", "float32"), Field("visits", "int64"), Field("town", "str")], None)
    parsed = parse(['25,3,"Bonn, Rhein"', "25,3.5,Bonn", "25,,Bonn", "25,1e30,Bonn", "[1, 2, 3]"])
    assert parsed.columns["visits"].tolist() == [3, 2]
    assert parsed.columns["visits"].dtype == np.int64
    assert parsed.columns["town"].tolist() == ["Bonn, Rhein", "3"]
    assert parsed.problems == {
        1: "'visits' is not a whole number",
        2: "'visits' is missing",
        3: "'visits' is too large for the model",
    }


def test_features_without_names():
    parse = Rows([Field("x", "float32", (2,))], Field("x", "float32", (2,)))
    parsed = parse(["1,2", "a,b", '{"a": 1}', "[3, 4]"])
    assert parsed.columns["x"].tolist() == [[1, 2], [3, 4]]
    assert parsed.problems == {
        1: "value 1 is not a number",
        2: "names values, but the model has no names",
    }


def test_a_model_tells_how_its_lines_are_read(bert, churn_onnx, per_feature_onnx):
    def of(path):
        return parser_for(load_model(str(path), runtime="onnxruntime", threads=1))

    assert isinstance(of(bert), Texts)
    assert of(churn_onnx)(["25,3,100"]).columns["features"].shape == (1, 3)
    assert of(per_feature_onnx)(["25,3"]).columns["visits"].dtype == np.int64
    with pytest.raises(ConfigError, match="--model detector: takes pictures: name --camera"):
        parser_for(load_model("detector", threads=1))


def test_whole_numbers_that_no_float_holds_are_read_exactly():
    parsed = Rows([Field("id", "int64"), Field("n", "int64")], None)(["9007199254740993, 1e3"])
    assert parsed.columns["id"].tolist() == [9007199254740993]
    assert parsed.columns["n"].tolist() == [1000]


def test_the_one_input_by_its_name_or_that_of_its_features():
    x = Field("x", "float32", (2,))
    parsed = Rows([x], x, ("a", "b"))(['{"x": [1, 2]}', '{"b": 4, "a": 3}', "b,a", "6,5"])
    assert parsed.columns["x"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert parsed.headers == [2]
