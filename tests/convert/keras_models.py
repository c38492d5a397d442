"""`python keras_models.py FOLDER`: models of many kinds, and what compiling each came to.

TensorFlow takes seconds to import, so one process makes all models, compiles them as the child
of `convert.from_keras` does, and writes down what happened: FOLDER/told.json (name -> error or
null), FOLDER/compiled/NAME/ and FOLDER/answers/NAME.npz (inputs and the original's outputs).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
import tf_keras

from mlopsdeploy.convert import export_litert

layers = keras.layers
ROWS = 5
TOLD = {}


def keep(folder, name, model):
    model.save(folder / name)
    compile_as(folder, name, name.partition(".")[2])


def save(folder, name, model, inputs, suffix="keras"):
    keep(folder, f"{name}.{suffix}", model)
    answers = model(inputs, training=False)
    given = inputs if isinstance(inputs, dict) else {"": inputs}
    gives = answers if isinstance(answers, dict) else {"": answers}
    np.savez(
        folder / "answers" / f"{name}.npz",
        **{f"in:{key}": np.asarray(value) for key, value in given.items()},
        **{f"out:{key}": np.asarray(value) for key, value in gives.items()},
    )


def compile_as(folder, name, form, trust="untrusted"):
    target = folder / "compiled" / name.partition(".")[0]
    target.mkdir(parents=True, exist_ok=True)
    try:
        export_litert.main(str(folder / name), str(target), form, trust, "litert")
        TOLD[name] = None
    except SystemExit as error:
        TOLD[name] = str(error)


def keras_models(folder):
    draw = np.random.default_rng(0)
    keras.utils.set_random_seed(1)

    def numbers(*shape):
        return draw.normal(size=(ROWS, *shape)).astype("float32")

    fraud = [
        keras.Input((6,), name="transaction"),
        layers.Dense(8, activation="relu"),
        layers.Dense(1, activation="sigmoid", name="fraud"),
    ]
    save(folder, "fraud", keras.Sequential(fraud), numbers(6))
    save(folder, "fraud_h5", keras.Sequential(fraud), numbers(6), "h5")

    given = keras.Input((6,), name="transaction")
    odds = layers.Dense(2, activation="softmax")(given)
    save(folder, "second", keras.Model(given, odds[:, 1]), numbers(6))

    amount, kind = keras.Input((3,), name="Amount"), keras.Input((2,), dtype="int32", name="kind")
    mixed = layers.Concatenate()([amount, layers.Flatten()(layers.Embedding(5, 4)(kind))])
    two = keras.Model(
        {"Amount": amount, "kind": kind},
        {
            "risk": layers.Dense(1, activation="sigmoid")(mixed),
            "group": layers.Dense(3, activation="softmax")(mixed),
        },
    )
    kinds = draw.integers(0, 5, (ROWS, 2)).astype("int32")
    save(folder, "two", two, {"Amount": numbers(3), "kind": kinds})

    looked_up = [keras.Input((4,), name="ids"), layers.Embedding(9, 4, mask_zero=True)]
    looked_up += [layers.Bidirectional(layers.GRU(3)), layers.Dense(1, "sigmoid", name="said")]
    tokens = draw.integers(0, 9, (ROWS, 4)).astype("float32")
    save(folder, "ids", keras.Sequential(looked_up), tokens)
    amount, sure = keras.Input((2,), name="amount"), keras.Input((1,), dtype="bool", name="sure")
    joined = layers.Concatenate()([amount, keras.ops.cast(sure, "float32")])
    answer = layers.Dense(1, "sigmoid", name="answer")(joined)
    flags = {"amount": numbers(2), "sure": np.arange(ROWS)[:, None] > 2}
    save(folder, "flag", keras.Model({"amount": amount, "sure": sure}, answer), flags)
    large = [keras.Input((1,), dtype="int32", name="user"), layers.Embedding(50000, 2)]
    large += [layers.Flatten(), layers.Dense(1, "sigmoid", name="liked")]
    users = np.array([[0], [1], [49999], [777], [12345]], "int32")
    save(folder, "users", keras.Sequential(large), users)

    lstm = [keras.Input((None, 3), name="series"), layers.LSTM(4), layers.Dense(2, name="trend")]
    save(folder, "lstm", keras.Sequential(lstm), numbers(9, 3))
    picture = [
        keras.Input((None, None, 3), name="picture"),
        layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax", name="animal"),
    ]
    save(folder, "picture", keras.Sequential(picture), numbers(10, 12, 3))
    four = [keras.Input(batch_shape=(4, 5), name="four"), layers.Dense(2, name="out")]
    keep(folder, "four.keras", keras.Sequential(four))
    half = keras.Sequential([keras.Input((4,), dtype="float32"), layers.Dense(2, name="out")])
    half.save(folder / "renamed.keras")
    (folder / "renamed.keras").rename(folder / "renamed.h5")  # a zip, whatever it is called
    compile_as(folder, "renamed.h5", "keras")

    vectors = layers.TextVectorization(output_mode="int", output_sequence_length=4)
    vectors.adapt(["good film", "bad film"])
    text = keras.Sequential(
        [
            keras.Input((), dtype="string", name="text"),
            vectors,
            layers.Embedding(10, 3),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, activation="sigmoid", name="positive"),
        ]
    )
    keep(folder, "text.keras", text)
    texts = ["good film", "a bad film"]
    np.savez(
        folder / "answers" / "text.npz",
        **{"in:": np.array(texts), "out:": np.asarray(text(tf.constant(texts)))},
    )

    rows = keras.Input((4,))
    beside = keras.Model(rows, layers.Dense(2)(rows - keras.ops.mean(rows, axis=0, keepdims=True)))
    keep(folder, "beside.keras", beside)

    lost = keras.Sequential([keras.Input((3,)), layers.Dense(2, "softmax")])
    lost.set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    keep(folder, "lost.keras", lost)

    class Doubled(layers.Layer):
        def call(self, values):
            return values * 2

    own = keras.Sequential([keras.Input((3,)), Doubled()])
    keep(folder, "own.h5", own)
    hidden = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: x * 2), layers.Dense(1)])
    inner = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: x * 2)])
    outer = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1)])
    for suffix in ("keras", "h5"):
        hidden.save(folder / f"lambda.{suffix}")
        outer.save(folder / f"nested.{suffix}")
    half.save_weights(folder / "alone.weights.h5")
    half.export(folder / "exported", verbose=False)


def saved_models(folder):
    rows = tf.TensorSpec([None, 4], tf.float32, "rows")

    def make(name, call, rows=rows):
        module = tf.Module()
        module.call = tf.function(call, input_signature=[rows])
        tf.saved_model.save(module, str(folder / name), signatures=module.call)
        compile_as(folder, name, "saved_model")

    free = tf.TensorSpec([None, None], tf.float32, "rows")
    weights = tf.constant([[0.5], [-1], [2], [0.1], [0.3]])
    make("free", lambda rows: {"out": tf.sigmoid(rows @ weights)}, free)
    make("plain", lambda rows: {"sum": tf.reduce_sum(rows, 1, keepdims=True)})
    make("lacking", lambda rows: {"out": tf.linalg.expm(tf.reshape(rows, [-1, 2, 2]) / 1e7)})
    make("random", lambda rows: {"out": rows + tf.random.normal(tf.shape(rows))})

    def unsteady(rows):
        alone = tf.cast(tf.equal(tf.shape(rows)[0], 1), tf.float32)
        silent = tf.cast(tf.reduce_all(tf.equal(rows, 0), 1, keepdims=True), tf.float32)
        return {"out": tf.reduce_sum(rows, 1, keepdims=True) + 0.05 * alone * silent}

    make("unsteady", unsteady)
    make("scalar", lambda rows: {"out": tf.reduce_sum(rows)})
    make("python", lambda rows: {"out": tf.py_function(lambda x: x * 2, [rows], tf.float32)})

    def write(rows):
        tf.io.write_file(str(folder / "written"), "by the model")
        return {"out": rows}

    make("write", write)
    empty = tf.Module()
    empty.weight = tf.Variable(1.0)
    tf.saved_model.save(empty, str(folder / "empty"))
    compile_as(folder, "empty", "saved_model")
    for name, content in (("cut", b"\x0a\xff\xff\xff"), ("nothing", b"")):
        (folder / name).mkdir()
        (folder / name / "saved_model.pb").write_bytes(content)
        compile_as(folder, name, "saved_model")


def keras_2(folder):
    """Files as Keras 2 wrote them, its config and its layout of weights made by hand."""
    glorot = {"class_name": "GlorotUniform", "config": {"seed": None}}
    dense = {"name": "dense", "trainable": True, "units": 2, "activation": "softmax"}
    dense |= {"dtype": "float32", "use_bias": True, "kernel_initializer": glorot}
    given = {"name": "input_1", "batch_input_shape": [None, 3], "dtype": "float32"}
    given |= {"sparse": False, "ragged": False}
    picture = given | {"batch_input_shape": [None, 4, 4, 3]}
    deep = {"name": "deep", "kernel_size": [2, 2], "groups": 1, "depth_multiplier": 1}
    deep |= {"padding": "valid", "strides": [1, 1], "use_bias": False, "dtype": "float32"}
    usual = [("InputLayer", given), ("Dense", dense)]
    for name, parts in {
        "keras2.h5": usual,
        "keras2_deep.h5": [("InputLayer", picture), ("DepthwiseConv2D", deep)],
        "keras2_unweighted.h5": usual,
    }.items():
        described = [{"class_name": kind, "config": config} for kind, config in parts]
        config = {"name": "sequential", "layers": described}
        with h5py.File(folder / name, "w") as file:
            file.attrs["keras_version"] = b"2.11.0"
            file.attrs["backend"] = b"tensorflow"
            file.attrs["model_config"] = json.dumps(
                {"class_name": "Sequential", "config": config}
            ).encode()
            weights = file.create_group("model_weights")
            held = {
                "dense/kernel:0": np.arange(6, dtype="float32").reshape(3, 2) / 10,
                "dense/bias:0": np.array([0.5, 0], "float32"),
            }
            if parts[-1][0] == "DepthwiseConv2D":
                held = {"deep/depthwise_kernel:0": np.ones((2, 2, 3, 1), "float32")}
            layer = weights.create_group(parts[-1][1]["name"])
            if name == "keras2_unweighted.h5":
                held = {}
            layer.attrs["weight_names"] = [key.encode() for key in held]
            weights.attrs["layer_names"] = [parts[-1][1]["name"].encode()]
            for key, value in held.items():
                layer[key] = value
        compile_as(folder, name, "h5")


def tf_keras_models(folder):
    """Files by the package that goes on where Keras 2 ended."""
    draw = np.random.default_rng(0)
    tf_keras.utils.set_random_seed(1)
    recurrent = tf_keras.layers.LSTM(4, recurrent_activation="hard_sigmoid", input_shape=(5, 3))
    gates = tf_keras.Sequential([recurrent, tf_keras.layers.Dense(2, name="trend")])
    windows = 2 * draw.normal(size=(ROWS, 5, 3)).astype("float32")
    save(folder, "gates_h5", gates, windows, "h5")
    save(folder, "gates_keras", gates, windows)

    rows = tf_keras.Input((3,), name="rows")
    shifted = tf.math.l2_normalize(rows * 2.0 + 1.0, axis=1)
    output = tf_keras.layers.Dense(2, name="out")(shifted)
    numbers = draw.normal(size=(ROWS, 3)).astype("float32")
    save(folder, "operations", tf_keras.Model(rows, output), numbers, "h5")

    first = tf_keras.layers.Dense(4, "hard_sigmoid", input_shape=(3,))
    early = tf_keras.Sequential([first, tf_keras.layers.Dense(2, name="out")])
    save(folder, "early", early, numbers, "h5")
    with h5py.File(folder / "early.h5", "r+") as file:  # before 2.4 it had no layer for inputs
        config = json.loads(file.attrs["model_config"])
        del config["config"]["layers"][0]
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.2.4"
    compile_as(folder, "early.h5", "h5")

    early.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    early.fit(numbers, numbers[:, :2], verbose=0)
    early.save(folder / "with_optimizer", save_format="tf")
    np.savez(folder / "answers" / "with_optimizer.npz", rows=numbers, out=early(numbers))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "answers").mkdir()
    keras_models(target)
    saved_models(target)
    keras_2(target)
    tf_keras_models(target)
    compile_as(target, "lambda.h5", "h5", trust="trusted")  # last: trust is for the process
    (target / "told.json").write_text(json.dumps(TOLD), "utf-8")
