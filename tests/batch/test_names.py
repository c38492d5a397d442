"""Outputs of tensors may be called as what we know of texts."""

import json

import onnx
import onnx.parser
import pytest

from mlopsdeploy.batch import command
from mlopsdeploy.settings import BatchSettings

NAMES = ("margin", "unread", "model", "tokens", "truncated", "lost_tokens")


@pytest.mark.parametrize("name", NAMES)
def test_an_output_of_that_name_is_written_each_night(tmp_path, name):
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{head} g (float[n,2] x) => (float[n,2] {name}) {{ {name} = Add(x, x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    (tmp_path / "in.jsonl").write_text('{"x": [1, 2]}\n{"x": [3, 4]}\n', "utf-8")
    output = tmp_path / "out.jsonl"
    settings = BatchSettings(
        input=str(tmp_path / "in.jsonl"),
        model=str(tmp_path / "m.onnx"),
        task="tensors",
        output=str(output),
        incremental=True,
    )
    for _ in range(2):
        command.run_batch(settings)
        rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
        assert rows == [{"x": [1, 2], name: [2, 4]}, {"x": [3, 4], name: [6, 8]}]


def test_no_number_stands_for_a_missing_one(tmp_path):
    """Nor where no row of a window has a value."""
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{head} g (int64[n,1] x) => (int64[n,1] y) {{ y = Add(x, x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    (tmp_path / "in.jsonl").write_text('{"x": null}\n{"x": null}\n', "utf-8")
    output = tmp_path / "out.jsonl"
    command.run_batch(
        BatchSettings(
            input=str(tmp_path / "in.jsonl"),
            model=str(tmp_path / "m.onnx"),
            task="tensors",
            output=str(output),
        )
    )
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert rows == [{"x": None, "y": None}] * 2


def test_rows_of_another_shape_are_known_the_next_night(tmp_path):
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{head} g (float[n,k] x) => (float[n,k] y) {{ y = Add(x, x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    output = tmp_path / "out.jsonl"
    given: list[list[float]] = []
    for more in ([[1, 2], [3, 4]], [[5], [6, 7, 8]], [[9, 9, 9]], []):
        given += more
        lines = "".join(json.dumps({"x": row}) + "\n" for row in given)
        (tmp_path / "in.jsonl").write_text(lines, "utf-8")
        summary = command.run_batch(
            BatchSettings(
                input=str(tmp_path / "in.jsonl"),
                model=str(tmp_path / "m.onnx"),
                task="tensors",
                output=str(output),
                incremental=True,
            )
        )
        rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
        assert [row["y"] for row in rows] == [[2 * one for one in row] for row in given]
    assert summary["reused"] == 5


def test_a_row_without_a_list_is_empty(tmp_path):
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{head} g (float[n,k] x) => (float[n,k] y) {{ y = Add(x, x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    output = tmp_path / "out.jsonl"
    for given in ([None, None], [[1, 2], None, [3]], [[1, 2], None, [3, 4]]):
        lines = "".join(json.dumps({"x": row}) + "\n" for row in given)
        (tmp_path / "in.jsonl").write_text(lines, "utf-8")
        summary = command.run_batch(
            BatchSettings(
                input=str(tmp_path / "in.jsonl"),
                model=str(tmp_path / "m.onnx"),
                task="tensors",
                output=str(output),
            )
        )
        rows = [json.loads(line)["y"] for line in output.read_text("utf-8").splitlines()]
        assert rows == [row and [2 * one for one in row] for row in given]
        assert summary["empty"] == given.count(None)
