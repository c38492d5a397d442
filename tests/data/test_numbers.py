"""What a value says that stands where a number should: the same wherever it stands."""

import json
from contextlib import closing

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy import RowError, load_model
from mlopsdeploy.core.inputs import read_rows
from mlopsdeploy.data.sources import ReadOptions, Wanted, open_source
from mlopsdeploy.data.sources.spelling import SPELLINGS
from mlopsdeploy.data.spelled_numbers import question_of_numbers
from mlopsdeploy.errors import InputError
from mlopsdeploy.settings import BatchSettings

NAN, BAD = float("nan"), None
MEANINGS = {
    **dict.fromkeys(["", " ", "-", "NA", "N/A", "n/a", "#N/A", "#n/a", "#NA", "#N/A N/A"], NAN),
    **dict.fromkeys(["NaN", "nan", "NAN", "Nan", "-nan", "-NaN", "+NaN", "-nan(ind)"], NAN),
    **dict.fromkeys(["null", "NULL", "Null", "None", "none", "<NA>", "<na>", "1.#QNAN"], NAN),
    **dict.fromkeys(["inf", "INF", "-inf", "Infinity", "+inf", "1e400", "-1e400"], BAD),
    **dict.fromkeys(["word", "--", ".", "1e", "1 2", "1,5", "0x10", "1_000", "1.5f", "1d5"], BAD),
    **dict.fromkeys(["١٢", "50%", "$5", "5 €", "nan(", "#DIV/0!"], BAD),
    **dict.fromkeys(["1.5", " 1.5 ", "+1.5", "1.50", "15e-1", "0.15E1", "15E-01"], 1.5),
    **dict.fromkeys(["true", "TRUE", "True", "1", "01", "1.", "1e0", "+1"], 1),
    ".5": 0.5, "-.5": -0.5, "false": 0, "-0": -0.0, "1e-400": 0, "1E5": 1e5,
}  # fmt: skip


def written(path, values):
    """A file of a column `x`, by the format that its name says."""
    if path.suffix == ".csv":
        path.write_text("x,n\n" + "".join(f'"{value}",7\n' for value in values), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"x": value}) + "\n" for value in values), "utf-8")
    else:
        pyarrow.parquet.write_table(pa.table({"x": values}), path)
    return path


def numbers(path, **options):
    """The column `x`, and where it holds none."""
    with closing(open_source(str(path), ReadOptions(**options))) as source:
        window = source.parse(source.read(1000), Wanted({"x": "float32"}, raw=False))
    read = dict(zip(window.numbers.tolist(), window.columns["x"].tolist(), strict=True))
    assert {bad.reason for bad in window.bad} <= {"column 'x' holds no number"}
    return [read.get(number, BAD) for number in range(1, len(read) + len(window.bad) + 1)]


@pytest.mark.parametrize("beside", ["3", "word", ""])
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_a_value_means_the_same_wherever_it_stands(tmp_path, name, beside):
    for value, meaning in MEANINGS.items():
        found = numbers(written(tmp_path / name, ["1", value, beside]))
        np.testing.assert_equal(found[:2], [1, meaning], err_msg=repr(value))


@pytest.mark.parametrize("form", [list, np.array, lambda values: np.array(values, object)])
def test_and_from_python(per_feature_onnx, form):
    task = load_model(str(per_feature_onnx)).task
    for value, meaning in MEANINGS.items():
        rows = {"age": form(["1", value]), "visits": [1, 2]}
        if meaning is BAD:
            with pytest.raises(RowError, match="row 1, column 'age': .* is no number"):
                read_rows(task, rows, "m")
        else:
            columns, _ = read_rows(task, rows, "m")
            np.testing.assert_equal(columns["age"], [1, meaning], err_msg=repr(value))


# ---------------------------------------------------------------- decimal commas and thousands

MARKED = {
    "1234.56": {"1.234": 1.234, "1,5": BAD, "1,234": BAD, "1 234": BAD, "1'234": BAD},
    "1234,56": {"1,5": 1.5, "1.5": BAD, "1.234": BAD, ",5": 0.5, "5,": 5, "1,5e3": 1500},
    "1,234.56": {"1,234": 1234, "1,234,567.5": 1234567.5, "1.5": 1.5, "1,5": BAD, "1,23.4": BAD},
    "1.234,56": {
        "1.234": 1234, "-1.234.567,5": -1234567.5, "3,14": 3.14, "1234,5": 1234.5, "1,": 1,
        **dict.fromkeys(["1.23,4", "12.34.567", "1.2345", "1.234.56", "3.14", ".5"], BAD),
        **dict.fromkeys(["0.500", "000.123", ".123", "1.234e3", "1,5,5", "1.234.", "."], BAD),
    },
    "1 234,56": {
        **dict.fromkeys(["1 234,5", "1\u00a0234,5", "1\u202f234,5", " 1 234,5 "], 1234.5),
        "12 34": BAD, "1.234": BAD, "1  234": BAD, "1'234": BAD,
    },
    "1 234.56": {"1 234.5": 1234.5, "1\u2009234": 1234, "1,5": BAD},
    "1'234.56": {"1'234.5": 1234.5, "1’234’567": 1234567, "1,5": BAD, "12'34": BAD},
    "1'234,56": {"1'234,5": 1234.5, "1.5": BAD},
}  # fmt: skip
ANYWHERE = {
    "7": 7, "-7": -7, "+7": 7, "7e3": 7000, "true": 1, "": NAN, "-": NAN, "#N/A": NAN, "-nan": NAN,
    "word": BAD, "inf": BAD, "5%": BAD, "$5": BAD, "1_000": BAD, "١٢": BAD, "0x10": BAD,
}  # fmt: skip


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
@pytest.mark.parametrize("spelling", MARKED)
def test_numbers_as_a_file_spells_them(tmp_path, name, spelling):
    for value, meaning in {**MARKED[spelling], **ANYWHERE}.items():
        for beside in ("3", "word"):
            path = written(tmp_path / name, ["1", value, beside])
            found = numbers(path, numbers=spelling)
            np.testing.assert_equal(found[:2], [1, meaning], err_msg=repr(value))


def test_all_spellings_can_be_set():
    assert set(MARKED) == set(SPELLINGS)
    for spelling in ["auto", *SPELLINGS, 1234.56, "1\u00a0234,56", "1’234.56"]:
        read = str(spelling).replace("\u00a0", " ").replace("’", "'")
        assert BatchSettings(numbers=spelling).numbers == read
    for wrong in ("1.234", "1,234,56", "1.234.56", "1234", "1_234.56", ""):
        with pytest.raises(ValueError, match="expected auto, 1234.56, 1234,56"):
            BatchSettings(numbers=wrong)


def test_what_is_no_text_has_no_spelling(tmp_path):
    """Numbers of JSON, Parquet and of a workbook's cells are what they are."""
    rows = [{"x": 1.234}, {"x": "1.234"}, {"x": 5}, {"x": 1.5e-7}, *[{"x": "2,5"}] * 3]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    book = openpyxl.Workbook()
    for value in ("x", *(row["x"] for row in rows)):
        book.active.append([value])
    book.save(tmp_path / "r.xlsx")
    for name in ("r.jsonl", "r.xlsx"):
        with closing(open_source(str(tmp_path / name))) as source:
            asked = question_of_numbers(source.sample())
        assert "'2,5' in column 'x'; say --numbers 1.234,56 if that is 2.5 and '1.234'" in asked
        found = numbers(tmp_path / name, numbers="1.234,56")
        np.testing.assert_allclose(found, [1.234, 1234, 5, 1.5e-7, *[2.5] * 3])
    pyarrow.parquet.write_table(pa.table({"x": [1.234, 5]}), tmp_path / "r.parquet")
    assert numbers(tmp_path / "r.parquet", numbers="1.234,56") == [1.234, 5]
    for column in (pa.array(["1.234"]).dictionary_encode(), pa.array([b"1.234"])):
        pyarrow.parquet.write_table(pa.table({"x": column}), tmp_path / "r.parquet")
        assert numbers(tmp_path / "r.parquet", numbers="1.234,56") == [1234]


def test_and_in_the_names_of_folders(tmp_path):
    for value in ("1.5", "2,5"):
        (tmp_path / f"x={value}").mkdir()
        (tmp_path / f"x={value}" / "r.csv").write_text("n\n1\n", "utf-8")
    with closing(open_source(str(tmp_path), ReadOptions(numbers="1234,56"))) as source:
        wanted = Wanted({"x": "float32"}, raw=False)
        with pytest.raises(InputError, match="x=1.5/r.csv: column 'x' holds no number"):
            source.parse(source.read(1), wanted)
        assert source.parse(source.read(1), wanted).columns["x"].tolist() == [2.5]


def test_commas_within_fields_of_semicolons(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("name;x\n" + "a;1,5\nb;2,5\nc;1.002,5\n", "utf-8")
    assert numbers(path, numbers="1.234,56") == [1.5, 2.5, 1002.5]
    with closing(open_source(str(path), ReadOptions(numbers="1.234,56"))) as source:
        read = {"format": "csv", "delimiter": ";", "encoding": "utf-8", "numbers": "1.234,56"}
        assert source.how_read() == read


# ---------------------------------------------------------------- the question


@pytest.mark.parametrize(
    ("columns", "answers"),
    [
        ({"a": ["3,14", "2,5", "NA", "7,25", "7"]}, ["1234,56 if that is 3.14"]),
        ({"a": ["3,14"] * 9 + ["-1.234,5"]}, ["1.234,56 if that is 3.14"]),
        ({"a": ["1,234"] * 3}, ["1234,56 if that is 1.234", "1,234.56 if that is 1234"]),
        ({"a": ["1,234"] * 3 + ["0.5"]}, ["1,234.56 if that is 1234"]),
        ({"a": ["1,5"] * 3, "b": ["1.234", "7", "7"]}, ["1.234,56 if that is 1.5 and '1.234' in"]),
        ({"a": ["1\u00a0234"] * 3}, ['"1 234,56" if that is 1234']),
        ({"a": ["1'234.5"], "b": [2.5]}, ['"1\'234.56" if that is 1234.5']),
        ({"a": ["5"] * 196 + ["3,14"] * 4}, ["1234,56 if that is 3.14"]),
        ({"a": ["word"], "b": ["1,5"]}, ["1234,56 if that is 1.5"]),
    ],
)
def test_a_column_of_decimal_commas_is_a_question(columns, answers):
    asked = question_of_numbers(columns)
    given = [f"--numbers {answer}" for answer in answers]
    assert f"; say {', '.join(given)}" in asked
    assert asked.endswith(", or --numbers 1234.56 to set such rows aside")


@pytest.mark.parametrize(
    "columns",
    [
        {"a": ["1.5", "NA", "", "7"], "b": [1.5, None]},
        {"a": ["3.5"] * 90 + ["3,5"] * 10},  # some are so: bad rows
        {"a": ["3.5"] * 5 + ["3,5"] * 5},
        {"a": ["30", "1,5", "40"]},
        {"a": ["1,5"] * 9, "b": ["2.5"] * 9},  # no spelling reads both
        {"a": ["word", "1;5", "12,34,56"]},
        {"a": []},
        {},
    ],
)
def test_else_it_is_not(columns):
    assert question_of_numbers(columns) is None
