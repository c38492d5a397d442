"""`python written_models.py FOLDER`: FOLDER/written.json, what is read in models of many kinds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

from mlopsdeploy.convert import export_litert
from mlopsdeploy.convert.tensorflow_graph import open_graph
from mlopsdeploy.model_files.written import to_json

layers, ops = keras.layers, keras.ops
FOUND = {}


def read(folder, name, model, suffix="keras"):
    file = folder / f"{name}.{suffix}"
    model.save(file)
    graph = export_litert.read_keras(file, suffix, trusted=False)
    opened = open_graph(graph.call, graph.inputs)
    FOUND[name] = to_json(export_litert.read_written(graph, opened, changes=False))


def of(*parts, shape=(4,), **how):
    return keras.Sequential([keras.Input(shape, **how), *parts])


def ending(end, shape=(4,)):
    """A model of which `end` makes the last steps, from a layer of three numbers."""
    given = keras.Input(shape)
    return keras.Model(given, end(layers.Dense(3, name="three")(given)))


def outputs(folder):
    dense = layers.Dense
    for name, last in {
        "softmax": dense(3, "softmax", name="last"),
        "sigmoid": dense(3, "sigmoid", name="last"),
        "linear": dense(2, name="last"),
        "unbiased": dense(2, use_bias=False),
        "relu": dense(1, "relu"),
        "gelu": dense(1, "gelu"),
        "silu": dense(1, "silu"),
        "softplus": dense(1, "softplus"),
        "hard_sigmoid": dense(2, "hard_sigmoid"),
        "log_softmax": dense(3, "log_softmax"),
        "layer_softmax": layers.Softmax(),
        "layer_sigmoid": layers.Activation("sigmoid"),
        "normalised": layers.BatchNormalization(),
    }.items():
        read(folder, name, of(dense(3), last))
    for name, end in {
        "moved": lambda x: layers.Dropout(0.5)(layers.Reshape((3, 1))(ops.sigmoid(x))),
        "flat": lambda x: layers.Flatten()(layers.Identity()(layers.Softmax()(x))),
        "ratings": lambda x: ops.sigmoid(x) * 4 + 1,
        "rescaled": layers.Rescaling(2.0, 1.0),
        "written_out": lambda x: ops.exp(x) / ops.sum(ops.exp(x), -1, keepdims=True),
        "largest": lambda x: ops.argmax(x, -1),
        "one_of": lambda x: ops.softmax(x)[:, 1:2],
        "second": lambda x: ops.softmax(x)[..., 1],
        "second_taken": lambda x: ops.take(ops.softmax(x), -2, axis=-1),
        "second_split": lambda x: ops.split(ops.softmax(x), 3, axis=-1)[1],
        "second_unstacked": lambda x: ops.unstack(ops.softmax(x), axis=1)[1],
        "first": lambda x: ops.softmax(x)[:, 0],
        "first_kept": lambda x: ops.softmax(x)[:, :1],
        "first_from_end": lambda x: ops.softmax(x)[..., -3],
        "first_taken": lambda x: ops.take(ops.softmax(x), [0], axis=1),
        "first_split": lambda x: ops.split(ops.softmax(x), [1, 2], axis=-1)[0],
        "two_of": lambda x: ops.softmax(x)[:, 1:],
        "turned": lambda x: ops.softmax(x)[:, ::-1],
        "all_but_first": lambda x: 1 - ops.softmax(dense(2)(x))[:, 0],
        "all_but_second": lambda x: 1 - ops.softmax(dense(2)(x))[:, 1],
        "a_time": lambda x: ops.softmax(layers.RepeatVector(3)(x))[:, 0],
        "a_class_in_time": lambda x: ops.softmax(layers.RepeatVector(3)(x))[:, :, 0],
        "log": lambda x: ops.log(ops.softmax(x) + 1e-7),
        "log_of_second": lambda x: ops.log_softmax(x)[:, 1],
        "log_of_sigmoid": lambda x: ops.log(ops.sigmoid(x)),
        "log_sigmoid": ops.log_sigmoid,
        "log_of_first": lambda x: ops.log(ops.softmax(x)[:, 0]),
        "exp_log": lambda x: ops.exp(ops.log_softmax(x)),
        "exp_log_second": lambda x: ops.exp(ops.log_softmax(x)[:, 1]),
        "exp_log_first": lambda x: ops.exp(ops.log_softmax(x)[:, 0]),
        "exp_log_sigmoid": lambda x: ops.exp(ops.log(ops.sigmoid(x))),
        "exp_alone": ops.exp,
        "rest": lambda x: ops.concatenate([1 - (p := ops.sigmoid(x[:, :1])), p]),
        "heads": lambda x: layers.Concatenate()([dense(1, "sigmoid")(x), dense(2, "sigmoid")(x)]),
        "hard_sigmoid_of_2": lambda x: ops.clip(x * 0.2 + 0.5, 0, 1),
        "bounded": lambda x: ops.clip(x * 0.3 + 0.5, 0, 1),
        "clipped": lambda x: ops.clip(ops.sigmoid(x), 1e-7, 1 - 1e-7),
    }.items():
        read(folder, name, ending(end))
    steps = layers.TimeDistributed(dense(3, "softmax"))
    read(folder, "steps", of(layers.LSTM(4, return_sequences=True), steps, shape=(5, 2)))
    given = keras.Input((4,))
    inner = of(dense(2, "softmax"), shape=(4,))
    read(folder, "nested", keras.Model(given, inner(dense(4)(given))))
    two = {"risk": dense(1, "sigmoid")(given), "days": dense(1, "relu")(given)}
    read(folder, "two", keras.Model(given, two))


def again(folder):
    """Outputs of the shape of the input."""
    dense = layers.Dense
    for name, parts, loss in (
        ("again", [dense(2, "relu"), dense(4)], "mse"),
        ("again_untrained", [dense(2, "relu"), dense(4)], None),
        ("again_wide", [dense(9, "relu"), dense(4)], "mse"),
        ("again_sigmoid", [dense(2, "relu"), dense(4, "sigmoid")], "binary_crossentropy"),
        ("again_labels", [dense(9, "relu"), dense(4, "sigmoid")], "binary_crossentropy"),
    ):
        model = of(*parts)
        if loss:
            model.compile("adam", loss)
        read(folder, name, model)


def losses(folder):
    dense = layers.Dense
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for name, last, loss in (
        ("mse", dense(1), "mse"),
        ("huber", dense(2), keras.losses.Huber()),
        ("mae_sigmoid", dense(1, "sigmoid"), "mae"),
        ("logit", dense(1), logits),
        ("logits", dense(3), classes),
        ("label_logits", dense(3), logits),
        ("plain_loss", dense(3), "categorical_crossentropy"),
        ("classes", dense(3, "softmax"), "sparse_categorical_crossentropy"),
    ):
        for suffix in ("keras", "h5"):
            model = of(last)
            model.compile("adam", loss, metrics=["accuracy"])
            read(folder, f"{name}_{suffix}", model, suffix)
    given = keras.Input((4,))
    model = keras.Model(given, [dense(1, name="price")(given), dense(3, name="kind")(given)])
    model.compile("adam", {"price": "mse", "kind": classes})
    read(folder, "two_losses", model)


def pictures(folder):
    def picture(name, *first, shape=(8, 8, 3)):
        rest = [layers.Conv2D(2, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
        read(folder, name, of(*first, *rest, shape=shape))

    rescaled = layers.Rescaling
    picture("pixels_unsaid")
    picture("pixels_255", rescaled(1 / 255, name="to_one"))
    picture("pixels_255_signed", rescaled(1 / 127.5, offset=-1))
    picture("pixels_one", rescaled(2.0, offset=-1))
    picture("pixels_signed", rescaled(127.5, offset=127.5))
    picture("pixels_mean", layers.Normalization(mean=[124, 116, 104], variance=[58**2] * 3))
    picture("pixels_of_one", layers.Normalization(mean=[0.48] * 3, variance=[0.05] * 3))
    both = [rescaled(1 / 255), layers.Normalization(mean=[0.48] * 3, variance=[0.05] * 3)]
    picture("pixels_both", *both)
    picture("pixels_resized", layers.Resizing(6, 6), rescaled(1 / 255))
    picture("pixels_gray", rescaled(1 / 255), shape=(8, 8, 1))
    picture("pixels_nested", of(rescaled(1 / 255), shape=(8, 8, 3)))
    given = keras.Input((8, 8, 3))
    caffe = given[..., ::-1] - np.array([103.9, 116.8, 123.7], np.float32)
    end = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(caffe)))
    read(folder, "pixels_caffe", keras.Model(given, end))
    signed = given / 127.5 - 1.0
    end = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(signed)))
    read(folder, "pixels_tf", keras.Model(given, end))


def others(folder):
    def table(size):
        return layers.Embedding(size, 2)

    read(folder, "ids", of(table(50), layers.Flatten(), layers.Dense(1)))
    read(folder, "masked", of(layers.Embedding(70, 2, mask_zero=True), layers.GRU(2)))
    user, item = keras.Input((1,), name="user"), keras.Input((1,), name="item", dtype="int32")
    both = layers.Concatenate()([table(9)(user), table(30)(item)])
    read(folder, "two_tables", keras.Model([user, item], layers.Flatten()(both)))
    given = keras.Input((4,))
    read(folder, "dropping", keras.Model(given, layers.Dropout(0.5)(given, training=True)))


def saved_models(folder):
    rows = tf.TensorSpec([None, 4], tf.float32, "rows")
    picture = tf.TensorSpec([None, 8, 8, 3], tf.uint8, "picture")
    weights = tf.Variable(tf.ones([4, 3]))

    def make(name, call, spec):
        module = tf.Module()
        module.weights = weights
        module.call = tf.function(call, input_signature=[spec])
        tf.saved_model.save(module, str(folder / name), signatures=module.call)
        graph = export_litert.read_saved_model(folder / name, trusted=False)
        opened = open_graph(graph.call, graph.inputs)
        FOUND[name] = to_json(export_litert.read_written(graph, opened, changes=False))

    def inner(rows):
        return tf.function(lambda x: tf.nn.softmax(x @ weights))(rows)

    make("saved", lambda rows: {"scores": inner(rows), "sum": rows @ weights}, rows)

    def call(picture):
        return {"out": tf.reduce_mean(tf.cast(picture, tf.float32) / 255, (1, 2))}

    make("saved_picture", call, picture)

    def one(rows):
        return {"price": rows @ weights[:, :1]}

    def two(rows):
        return {"kind": rows @ weights, **one(rows)}

    classes = {"class_name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}
    for name, ends, loss in (
        ("keras_2", None, "mse"),
        ("keras_2_list", [["price", 0, 0], ["kind", 0, 0]], ["mse", classes]),
        ("keras_2_dict", {"p": ["price", 0, 0], "k": ["kind", 0, 0]}, {"p": "mse", "k": classes}),
        ("keras_2_untrained", None, None),
        ("keras_2_damaged", None, b"\x0a\xff"),
    ):
        told_of_keras_2(folder / name, ends, loss)
        make(name, two if ends else one, rows)


def told_of_keras_2(folder, ends, loss):
    """What Keras 2 wrote into a SavedModel beside its graph; made by hand, as that is not here."""
    trained = {} if loss is None else {"training_config": {"loss": loss, "metrics": None}}
    metadata = SavedMetadata()
    if not isinstance(loss, bytes):
        model = {"class_name": "Functional", "config": {"output_layers": ends}, **trained}
        metadata.nodes.add(node_path="root", identifier="_tf_keras_model").metadata = json.dumps(
            model
        )
        metadata.nodes.add(node_id=1, node_path="root.layer-0", metadata="{}")
    folder.mkdir()
    written = loss if isinstance(loss, bytes) else metadata.SerializeToString()
    (folder / "keras_metadata.pb").write_bytes(written)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    keras.utils.set_random_seed(1)
    for part in (outputs, again, losses, pictures, others, saved_models):
        part(target)
    (target / "written.json").write_text(json.dumps(FOUND, indent=1), "utf-8")
