"""What a value says that stands where a number should: the same wherever it stands."""

import json
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mlopsdeploy import RowError, load_model
from mlopsdeploy.core.inputs import read_rows
from mlopsdeploy.data.sources import ReadOptions, Wanted, open_source

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


@pytest.mark.parametrize("beside", ["3", "word", "1,000", ""])
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
