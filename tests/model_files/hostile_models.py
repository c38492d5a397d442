"""SavedModels that do more than compute, and some that only look so; `python THIS FOLDER`.

Each that could leave a file would leave FOLDER/left, or read FOLDER/secret.txt.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

ops, v1 = tf.raw_ops, tf.compat.v1


def save(folder, step, asset=None):
    """A model of four numbers whose graph takes a step on the side."""
    model = tf.Module()
    model.weights = tf.Variable(tf.fill([4, 1], 0.1))
    model.asset = asset

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def call(x):
        with tf.control_dependencies([step(x)]):
            return {"y": tf.sigmoid(x @ model.weights)}

    tf.saved_model.save(model, str(folder), signatures=call)


def table_of(path):
    first, second = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    return tf.lookup.TextFileInitializer(path, tf.string, first, tf.int64, second)


def with_table(folder):
    """A model with a table that is initialised, from an asset, when it is loaded."""
    model = tf.Module()
    model.table = tf.lookup.StaticHashTable(table_of(str(folder.parent / "words.txt")), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def call(word):
        return {"number": model.table.lookup(word)}

    tf.saved_model.save(model, str(folder), signatures=call)


def of_tensorflow_1(folder, *, in_answer):
    """A graph with variables and a table, as TensorFlow 1 saves it."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], "x")
        weights = v1.get_variable("weights", [1, 1], use_resource=False)
        table = tf.lookup.StaticHashTable(table_of(str(folder.parent / "words.txt")), -1)
        number = tf.cast(table.lookup(tf.constant(["two"])), tf.float32)
        initialise = v1.tables_initializer()
        with tf.control_dependencies([initialise] if in_answer else []):
            y = x @ weights + number
        session.run([v1.global_variables_initializer(), initialise])
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y}, initialise)


def changed(source, folder, change):
    """A copy of a SavedModel, with its message changed."""
    folder.mkdir()
    for part in source.rglob("*"):
        if part.is_dir():
            (folder / part.relative_to(source)).mkdir()
    for part in source.rglob("*"):
        if part.is_file():
            (folder / part.relative_to(source)).write_bytes(part.read_bytes())
    saved = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    change(saved.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def asset_at(place):
    def change(graph):
        graph.asset_file_def[0].filename = place

    return change


def save_in_answer(graph):
    """The saver runs before a signature's answer."""
    saver = graph.saver_def.save_tensor_name.partition(":")[0]
    called = next(node for node in graph.graph_def.node if node.name == saver).attr["f"].func.name
    answer = next(iter(graph.object_graph_def.concrete_functions))
    function = next(f for f in graph.graph_def.library.function if f.signature.name == answer)
    node = function.node_def.add(name="side", op="StatefulPartitionedCall")
    node.attr["f"].func.name = called


def twice(graph):
    """Two nodes of one name."""
    function = graph.graph_def.library.function[0]
    function.node_def.add().CopyFrom(function.node_def[0])


def unknown(graph):
    graph.graph_def.library.function[0].node_def.add(name="own", op="SimpleMLInferenceOp")


def main(folder):
    left, secret = str(folder / "left"), str(folder / "secret.txt")
    Path(secret).write_text("secret\n", "utf-8")
    (folder / "words.txt").write_text("one\ntwo\n", "utf-8")
    steps = {
        "write": lambda x: ops.WriteFile(filename=left, contents="text"),
        "read": lambda x: tf.io.read_file(secret),
        "print": lambda x: tf.print("text", output_stream=f"file://{left}"),
        "records": lambda x: ops.DatasetToTFRecord(
            input_dataset=tf.data.Dataset.from_tensors(["text"])._variant_tensor,
            filename=left, compression_type="",
        ),
        "lines": lambda x: tf.data.TextLineDataset(secret).reduce(0, lambda count, _: count + 1),
        "save": lambda x: ops.SaveV2(
            prefix=left, tensor_names=["a"], shape_and_slices=[""], tensors=[x]
        ),
        "restore": lambda x: ops.RestoreV2(
            prefix=left, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
        ),
        "merge": lambda x: ops.MergeV2Checkpoints(
            checkpoint_prefixes=[left], destination_prefix=left, delete_old_dirs=True
        ),
        "summary": lambda x: ops.CreateSummaryFileWriter(
            writer=ops.SummaryWriter(shared_name="", container=""), logdir=left, max_queue=1,
            flush_millis=1, filename_suffix="",
        ),
        "debug": lambda x: ops.DebugIdentityV2(input=x, debug_urls=[f"file://{left}"]),
        "branch": lambda x: tf.cond(
            tf.reduce_any(x > 0),
            lambda: tf.constant(0),
            lambda: (ops.WriteFile(filename=left, contents="text"), tf.constant(0))[1],
        ),
        "vocabulary": lambda x: ops.InitializeTableFromTextFileV2(
            table_handle=ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64),
            filename=secret, key_index=-2, value_index=-1,
        ),
        "screen": lambda x: tf.print("text"),
        "random": lambda x: tf.random.uniform([2]),
        "texts": lambda x: tf.strings.regex_replace(tf.strings.as_string(x), "1", "2"),
        "loop": lambda x: tf.while_loop(lambda i: i < 3, lambda i: [i + 1], [0]),
    }  # fmt: skip
    for name, step in steps.items():
        save(folder / name, lambda x, step=step: tf.group(step(x)))
    with_table(folder / "table")
    of_tensorflow_1(folder / "graph", in_answer=False)
    of_tensorflow_1(folder / "graph_in_answer", in_answer=True)
    changed(folder / "table", folder / "asset_above", asset_at("../../secret.txt"))
    changed(folder / "table", folder / "asset_elsewhere", asset_at(secret))
    changed(folder / "table", folder / "asset_remote", asset_at("gs://bucket/words.txt"))
    changed(folder / "screen", folder / "saver", save_in_answer)
    changed(folder / "screen", folder / "twice", twice)
    changed(folder / "screen", folder / "unknown", unknown)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
