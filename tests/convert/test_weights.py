"""Weights of an ONNX file: named after the checkpoint, packed as int8 by a recipe, and back."""

import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from mlopsdeploy.convert.checkpoint import read_state

RECIPE = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "onnx_weights.py"))
name_after, pack_int8 = RECIPE["name_after"], RECIPE["pack_int8"]


@pytest.fixture
def named(onnx_folders, checkpoints):
    """The tiny BERT's ONNX file with the checkpoint's names, and the checkpoint's parameters."""
    model = onnx.load(str(onnx_folders["Bert"] / "onnx" / "model.onnx"))
    state = load_file(checkpoints["Bert"] / "model.safetensors")
    found = name_after(model, state)
    return model, state, found


def run(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ids = np.random.default_rng(0).integers(5, 100, (4, 30))
    tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
    return session.run(None, {node.name: tensors[node.name] for node in session.get_inputs()})[0]


def test_names_change_no_result(named, onnx_folders):
    model, _, found = named
    onnx.checker.check_model(model)
    plain = onnx.load(str(onnx_folders["Bert"] / "onnx" / "model.onnx"))
    np.testing.assert_array_equal(run(model), run(plain))
    assert found > 20  # untrained biases are all zero and can not be told apart


def test_every_matrix_is_found(named):
    model, state, _ = named
    names = {item.name.removesuffix(".T") for item in model.graph.initializer}
    matrices = {name for name, value in state.items() if value.ndim == 2}
    used = {name for name in matrices if "token_type" not in name}
    assert used <= names, sorted(used - names)


def test_float_weights_come_back_exactly(named, tmp_path):
    model, state, _ = named
    onnx.save(model, str(tmp_path / "m.onnx"))
    back = read_state(tmp_path / "m.onnx")
    shared = set(back) & set(state)
    assert len(shared) > 20
    for name in shared:
        np.testing.assert_array_equal(back[name], state[name], err_msg=name)


def test_packed_weights_come_back_within_half_a_step(named, tmp_path):
    model, state, _ = named
    exact = run(model)
    before = len(model.SerializeToString())
    packed = pack_int8(model, smallest=256)
    assert packed >= 12
    onnx.checker.check_model(model)
    assert len(model.SerializeToString()) < before
    types = {item.name: item.data_type for item in model.graph.initializer}
    assert sum(name.endswith(".int8") for name in types) == packed
    assert np.abs(run(model) - exact).max() < 0.5
    onnx.save(model, str(tmp_path / "m.onnx"))
    back = read_state(tmp_path / "m.onnx")
    for name, value in state.items():
        if name not in back:
            continue
        assert back[name].shape == value.shape, name
        step = np.abs(value).max() / 127
        assert np.abs(back[name] - value).max() <= step / 2 + 1e-6, name
    assert {name[:-5].removesuffix(".T") for name in types if name.endswith(".int8")} <= set(back)


def test_scales_are_per_output_channel():
    value = np.array([[1, 100, 0], [-0.5, 50, 0]], np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "a.weight.T"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [None, 2])],
        [onnx.helper.make_tensor_value_info("y", 1, [None, 3])],
        [numpy_helper.from_array(value, "a.weight.T")],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    assert pack_int8(model, smallest=1) == 1
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    np.testing.assert_allclose(arrays["a.weight.T.scale"], [1 / 127, 100 / 127, 1], rtol=1e-6)
    np.testing.assert_array_equal(arrays["a.weight.T.int8"], [[127, 127, 0], [-64, 64, 0]])


def test_small_weights_stay(named):
    model, _, _ = named
    assert pack_int8(model) <= 2  # 32 × 64 is below 4,096 numbers; the embedding is above
    assert any(item.name.startswith("classifier") for item in model.graph.initializer)
