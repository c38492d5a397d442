"""Outputs of tensors may be called as what we know of texts."""

import json

import onnx
import onnx.parser
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.settings import BatchSettings

NAMES = ("margin", "unread", "model", "tokens", "truncated", "lost_tokens")


def save(folder, signature, output="y"):
    """A model of `signature` that adds its input to itself."""
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{head} g {signature} {{ {output} = Add(x, x) }}"
    onnx.save(onnx.parser.parse_model(text), folder / "m.onnx")


def write(folder, values):
    """Rows of `x`."""
    lines = "".join(json.dumps({"x": value}) + "\n" for value in values)
    (folder / "in.jsonl").write_text(lines, "utf-8")


def run(folder, **more):
    """What a run on them writes, and its summary."""
    settings = BatchSettings(
        input=str(folder / "in.jsonl"),
        model=str(folder / "m.onnx"),
        task="tensors",
        output=str(folder / "out.jsonl"),
        **more,
    )
    summary = command.run_batch(settings)
    written = (folder / "out.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in written], summary


@pytest.mark.parametrize("name", NAMES)
def test_an_output_of_that_name_is_written_each_night(tmp_path, name):
    save(tmp_path, f"(float[n,2] x) => (float[n,2] {name})", name)
    write(tmp_path, [[1, 2], [3, 4]])
    for _ in range(2):
        rows, _ = run(tmp_path, incremental=True)
        assert rows == [{"x": [1, 2], name: [2, 4]}, {"x": [3, 4], name: [6, 8]}]


def test_no_number_stands_for_a_missing_one(tmp_path):
    """Nor where no row of a window has a value."""
    save(tmp_path, "(int64[n,1] x) => (int64[n,1] y)")
    write(tmp_path, [None, None])
    rows, _ = run(tmp_path)
    assert rows == [{"x": None, "y": None}] * 2


def test_rows_of_another_shape_are_known_the_next_night(tmp_path):
    save(tmp_path, "(float[n,k] x) => (float[n,k] y)")
    given: list[list[float]] = []
    for more in ([[1, 2], [3, 4]], [[5], [6, 7, 8]], [[9, 9, 9]], []):
        given += more
        write(tmp_path, given)
        rows, summary = run(tmp_path, incremental=True)
        assert [row["y"] for row in rows] == [[2 * one for one in row] for row in given]
    assert summary["reused"] == 5


def test_a_row_without_a_list_is_empty(tmp_path):
    save(tmp_path, "(float[n,k] x) => (float[n,k] y)")
    for given in ([None, None], [[1, 2], None, [3]], [[1, 2], None, [3, 4]]):
        write(tmp_path, given)
        rows, summary = run(tmp_path)
        assert [row["y"] for row in rows] == [row and [2 * one for one in row] for row in given]
        assert summary["empty"] == given.count(None)
