"""A tiny ONNX model that keeps its weights in another file."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def with_weights_in(
    location: str, folder: Path, name: str = "model.onnx", *, where: str = "initializer"
) -> Path:
    """Write a model of four numbers whose weights lie at a location; they are not written if that
    leads out of the folder.

    Args:
        where: they stand: as an "initializer", in a node ("constant"), or in the graph of one
            ("branch").
    """
    weights = numpy_helper.from_array(np.full((4, 1), 0.25, np.float32), "weights")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    constant = helper.make_node("Constant", [], ["weights"], value=weights)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
    if where == "constant":
        nodes = [constant, *nodes]
    if where == "branch":
        given = helper.make_tensor_value_info("weights", TensorProto.FLOAT, [4, 1])
        branch = helper.make_graph([constant], "branch", [], [given])
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", 9, [], [1]))
        branches = {"then_branch": branch, "else_branch": branch}
        nodes = [yes, helper.make_node("If", ["yes"], ["weights"], **branches), *nodes]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        [weights] if where == "initializer" else [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"feature_names": "a,b,c,d"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model.SerializeToString())
    place = folder / location
    if place.resolve().is_relative_to(folder.resolve()) and not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(np.array([0.1, 0.2, 0.3, 0.4], "<f4").tobytes())
    return place
