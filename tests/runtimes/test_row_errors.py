"""Values that a runtime can't compute, and those that its library would answer with a number."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlopsdeploy.core import plugins
from mlopsdeploy.errors import RowError
from mlopsdeploy.runtimes.common import rows_with_nan

TABLE = np.arange(10, dtype=np.float32).reshape(5, 2) + 1


def runtime_of(name, file, precision="float32"):
    return plugins.load("runtimes", name)(file, precision=precision, threads=1)


@pytest.fixture
def lookup(tmp_path):
    """`lookup("Gather", [])`: a graph that looks up TABLE, indices of (rows, *shape)."""

    def make(kind, shape):
        graph = helper.make_graph(
            [helper.make_node(kind, ["table", "place"], ["found"])],
            "lookup",
            [helper.make_tensor_value_info("place", TensorProto.INT64, ["rows", *shape])],
            [helper.make_tensor_value_info("found", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(TABLE, "table")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / f"{kind}.onnx")
        return tmp_path / f"{kind}.onnx"

    return make


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("kind", "width"), [("Gather", 0), ("GatherND", 1), ("GatherElements", 2)])
@pytest.mark.parametrize("bad", [5, -6, 2**31, 2**32 + 1])
def test_an_index_beyond_the_end_of_a_table(lookup, name, kind, width, bad):
    runtime = runtime_of(name, lookup(kind, [width] if width else []))

    def place(*rows):
        return {"place": np.array([[row] * width if width else row for row in rows], np.int64)}

    for _ in range(2):
        with pytest.raises(RowError):
            runtime.run(place(0, bad, 1))
        got = runtime.run(place(0, 4, -1))["found"]
        right = TABLE[[0, 4, 4]]
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("name", ["torch", "openvino", "onnxruntime"])
@pytest.mark.parametrize("bad", [10**6, -(10**6)])
def test_a_token_that_the_model_does_not_have(checkpoints, onnx_folders, name, bad):
    folder = checkpoints["Bert"]
    runtime = runtime_of(name, folder if name == "torch" else onnx_file(onnx_folders["Bert"]))

    def texts(*tokens):
        ids = np.array([[2, token, 3] for token in tokens], np.int64)
        return {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }

    before = runtime.run(texts(5, 6))["logits"]
    with pytest.raises(RowError):
        runtime.run(texts(5, bad))
    np.testing.assert_array_equal(runtime.run(texts(5, 6))["logits"], before)
    assert len(runtime.run({key: ids[:0] for key, ids in texts(5).items()})["logits"]) == 0


def onnx_file(folder):
    return folder / "onnx" / "model.onnx"


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantised_input_keeps_what_is_not_a_number(tiny, kind):
    runtime = runtime_of("litert", tiny / f"{kind}.tflite", "auto")
    rows = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, np.nan, 0.5, 0.5]], np.float32)
    got = next(iter(runtime.run({runtime.inputs[0].name: rows}).values()))
    assert np.isnan(got[1]).all()
    alone = next(iter(runtime.run({runtime.inputs[0].name: rows[:1]}).values()))
    np.testing.assert_array_equal(got[0], alone[0])


@pytest.mark.parametrize("name", ["litert", "tensorflow"])
@pytest.mark.parametrize("bad", [2.0**40, np.nan, 0.5])
def test_what_is_no_whole_number_of_the_tensors_size(tiny, name, bad):
    runtime = runtime_of(name, tiny / ("table.tflite" if name == "litert" else "table"), "auto")
    with pytest.raises(RowError, match="whole number") as raised:
        runtime.run({"place": np.array([1, bad, 2])})
    assert raised.value.rows == (1,)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_with_nan_are_found_and_infinities_are_none(dtype):
    good = np.array([[np.inf, -np.inf], [np.finfo(dtype).max, 0], [1, 2]], dtype)
    bad = good.copy()
    bad[2, 0] = np.nan
    whole = np.ones((3, 2), int)
    assert rows_with_nan({"a": good, "b": whole}) == []
    assert rows_with_nan({"a": good, "b": bad}) == [2]
    assert rows_with_nan({"a": good[:0]}) == []
