"""`python contract_models.py FOLDER`: one model of a table and one of pictures, in each format.

Both look something up: a row's shop, or the brightness of a picture, in a table of five. Whatever
is beyond its end has no answer. `expected` is the same in NumPy, once more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SIDE = 8  # pixels
FEATURES = ["shop", "age", "visits"]
YAML = (
    f"task: tabular_classification\nfeatures: [{', '.join(FEATURES)}]\n"
    "labels: [stays, leaves]\nactivation: none\n"
)
PICTURE_YAML = (
    "task: image_classification\nlabels: [stays, leaves]\nactivation: none\n"
    "input: {mean: 0, std: 1}\n"
)
_draw = np.random.default_rng(3)
TABLE = _draw.normal(size=(5, 2)).astype(np.float32)
HIDDEN = _draw.normal(size=(4, 6)).astype(np.float32)
LAST = _draw.normal(size=(6, 2)).astype(np.float32)


def softmax(values):
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def expected(rows):
    """Probabilities of rows of shop, age and visits, (rows, 2); raises IndexError as NumPy does."""
    rows = np.asarray(rows, np.float32)
    shops = rows[:, 0].astype(int)
    if (shops < 0).any():
        raise IndexError("a shop below 0")
    joined = np.concatenate([TABLE[shops], rows[:, 1:]], axis=1)
    return softmax(np.maximum(joined @ HIDDEN, 0) @ LAST)


def expected_of_picture(level):
    """Probabilities of a picture that is one grey."""
    return softmax(TABLE[[int(level) // 50]] @ HIDDEN[:2] @ LAST)[0]


def make_onnx(folder):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def save(name, shape, nodes, **constants):
        graph = helper.make_graph(
            [helper.make_node(kind, takes, [makes], **how) for kind, takes, makes, how in nodes],
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *shape])],
            [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 2])],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")

    save(
        "table", [3],
        [
            ("Gather", ["x", "zero"], "first", {"axis": 1}),
            ("Cast", ["first"], "shop", {"to": TensorProto.INT64}),
            ("Gather", ["table", "shop"], "found", {"axis": 0}),
            ("Gather", ["x", "others"], "rest", {"axis": 1}),
            ("Concat", ["found", "rest"], "joined", {"axis": 1}),
            ("MatMul", ["joined", "hidden"], "sums", {}),
            ("Relu", ["sums"], "kept", {}),
            ("MatMul", ["kept", "last"], "logits", {}),
            ("Softmax", ["logits"], "p", {"axis": 1}),
        ],
        zero=np.int64(0), others=np.array([1, 2]), table=TABLE, hidden=HIDDEN, last=LAST,
    )  # fmt: skip
    save(
        "picture", [SIDE, SIDE, 3],
        [
            ("ReduceMean", ["x"], "mean", {"axes": [1, 2, 3], "keepdims": 0}),
            ("Div", ["mean", "fifty"], "level", {}),
            ("Cast", ["level"], "place", {"to": TensorProto.INT64}),
            ("Gather", ["table", "place"], "found", {"axis": 0}),
            ("MatMul", ["found", "hidden"], "sums", {}),
            ("MatMul", ["sums", "last"], "logits", {}),
            ("Softmax", ["logits"], "p", {"axis": 1}),
        ],
        fifty=np.float32(50), table=TABLE, hidden=HIDDEN[:2], last=LAST,
    )  # fmt: skip


def make_tensorflow(folder):
    import tensorflow as tf

    def save(name, shape, compute):
        module = tf.Module()
        module.held = [tf.Variable(value) for value in (TABLE, HIDDEN, LAST)]
        spec = tf.TensorSpec([None, *shape], tf.float32, "x")
        function = tf.function(lambda x: {"p": compute(x, *module.held)})
        saved = folder / f"{name}_saved"
        tf.saved_model.save(module, str(saved), signatures=function.get_concrete_function(spec))
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def table(x, shops, hidden, last):
        found = tf.gather(shops, tf.cast(x[:, 0], tf.int32))
        joined = tf.concat([found, x[:, 1:]], 1)
        return tf.nn.softmax(tf.nn.relu(joined @ hidden) @ last)

    def picture(x, levels, hidden, last):
        found = tf.gather(levels, tf.cast(tf.reduce_mean(x, [1, 2, 3]) / 50, tf.int32))
        return tf.nn.softmax(found @ hidden[:2] @ last)

    save("table", [3], table)
    save("picture", [SIDE, SIDE, 3], picture)


def main(folder):
    make_onnx(folder)
    make_tensorflow(folder)
    for name, text in (("table", YAML), ("picture", PICTURE_YAML)):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
        (folder / f"{name}_saved" / "model.yaml").write_text(text, "utf-8")
    (folder / "table.rows").touch()  # for the runtime of an outside package


if __name__ == "__main__":
    main(Path(sys.argv[1]))
