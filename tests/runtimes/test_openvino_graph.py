"""The rewrites change no result, whatever the architecture and the exporter."""

import inspect
import warnings

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from mlopsdeploy.runtimes.openvino_graph import keep_first_token, weights_to_int8


def exported(checkpoint, file, dynamo):
    """Straight from torch's exporters, without our own settings."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        checkpoint, attn_implementation="eager" if not dynamo else "sdpa"
    ).eval()
    model.config.return_dict = False
    tokens = torch.randint(5, 100, (2, 8))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            rows, length = torch.export.Dim("rows", max=64), torch.export.Dim("length", max=120)
            torch.onnx.export(
                model, (), str(file), kwargs=inputs, input_names=list(inputs),
                output_names=["logits"], dynamo=True, verbose=False,
                dynamic_shapes={name: {0: rows, 1: length} for name in inputs},
            )  # fmt: skip
        else:
            torch.onnx.export(
                model, tuple(inputs.values()), str(file), input_names=list(inputs),
                output_names=["logits"], opset_version=17, dynamo=False,
                dynamic_axes={**{n: {0: "r", 1: "t"} for n in inputs}, "logits": {0: "r"}},
            )  # fmt: skip
    return file


def compiled(model):
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def answers(model, shapes=((1, 5), (3, 17), (4, 60))):
    running = compiled(model)
    generator = np.random.default_rng(2)
    found = []
    for rows, length in shapes:
        mask = np.ones((rows, length), np.int64)
        mask[0, length // 2 :] = 0
        ids = np.where(mask == 1, generator.integers(5, 100, (rows, length)), 1)
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        names = {port.get_any_name() for port in running.inputs}
        found.append(running({name: tensors[name] for name in names})[0])
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("architecture", "dynamo"),
    [
        *(("Bert", False), ("DistilBert", False), ("Roberta", False), ("Bert", True)),
        *(pytest.param(one, True, marks=pytest.mark.with_all) for one in ("DistilBert", "Roberta")),
    ],
)
def test_keep_first_token_changes_no_result(checkpoints, tmp_path, architecture, dynamo):
    file = exported(checkpoints[architecture], tmp_path / "model.onnx", dynamo)
    core = ov.Core()
    untouched, changed = core.read_model(file), core.read_model(file)
    assert keep_first_token(changed) is True
    np.testing.assert_allclose(answers(changed), answers(untouched), atol=2e-5)


def test_keep_first_token_saves_the_last_layers_feed_forward(onnx_folders):
    model = ov.Core().read_model(onnx_folders["Bert"] / "onnx" / "model.onnx")
    keep_first_token(model)
    # (rows, 1, 64) is the inner width of the feed-forward network at one position.
    shapes = [node.output(0).get_partial_shape() for node in model.get_ops()
              if node.get_type_name() == "MatMul"]  # fmt: skip
    kept = [shape for shape in shapes if len(shape) == 3 and shape[1] == ov.Dimension(1)]
    assert len(kept) >= 3, "query, and both halves of the feed-forward network"


def mixed():
    """A sequence (rows, positions, 8), and its product with a matrix."""
    hidden = ops.parameter([-1, -1, 8], np.float32, name="hidden")
    weight = ops.constant(np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32))
    return hidden, ops.matmul(hidden, weight, False, False)


def test_a_mean_pooled_model_is_left_alone():
    hidden, product = mixed()
    pooled = ops.reduce_mean(ops.relu(product), np.array([1]), keep_dims=False)
    model = ov.Model([pooled], [hidden], "mean")
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert keep_first_token(model) is False
    assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_a_value_that_somebody_else_reads_whole_stays_whole():
    """The first token, and the mean of all: half of what the request asks for is not enough."""
    hidden, product = mixed()
    first = ops.gather(ops.relu(product), np.array(0), np.array(1))
    mean = ops.reduce_mean(product, np.array([1]), keep_dims=False)
    model = ov.Model([ops.add(first, mean)], [hidden], "both")
    value = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    before = compiled(model)({"hidden": value})[0]
    keep_first_token(model)
    np.testing.assert_allclose(compiled(model)({"hidden": value})[0], before, atol=1e-5)


def test_weights_to_int8(onnx_folders):
    core = ov.Core()
    file = onnx_folders["Bert"] / "onnx" / "model.onnx"
    exact, packed = core.read_model(file), core.read_model(file)
    assert weights_to_int8(packed, smallest=1) >= 12
    constants = [node for node in packed.get_ops() if node.get_type_name() == "Constant"]
    stored = [node for node in constants if node.get_element_type() == ov.Type.i8]
    assert len(stored) >= 12
    difference = np.abs(answers(packed) - answers(exact))
    assert 0 < difference.max() < 0.5
    untouched = core.read_model(file)
    assert weights_to_int8(untouched, smallest=10**9) == 0


def test_weights_to_int8_keeps_a_channel_of_zeros_and_its_scale():
    weights = np.array([[1, 0, -127], [64, 0, 3]], np.float32)
    hidden = ops.parameter([-1, 2], np.float32, name="hidden")
    model = ov.Model([ops.matmul(hidden, ops.constant(weights), False, False)], [hidden], "m")
    assert weights_to_int8(model, smallest=1) == 1
    got = compiled(model)({"hidden": np.eye(2, dtype=np.float32)})[0]
    np.testing.assert_allclose(got, weights, atol=0.51)
    assert (got[:, 1] == 0).all()
