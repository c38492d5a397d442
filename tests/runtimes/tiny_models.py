"""`python tiny_models.py FOLDER`: `.tflite` files and SavedModels whose answers are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
TABLE = np.arange(10, dtype=np.float32).reshape(5, 2)
FLOAT, TEXT, WHOLE = tf.float32, tf.string, tf.int32


def write(folder, name, call, litert=True, **shapes):
    """FOLDER/NAME as a SavedModel, and FOLDER/NAME.tflite."""
    module = tf.Module()
    module.weights, module.table = tf.Variable(WEIGHTS), tf.Variable(TABLE)
    specs = {key: tf.TensorSpec(shape, dtype, key) for key, (dtype, *shape) in shapes.items()}
    function = tf.function(lambda **given: call(module, **given)).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder / name), signatures=function)
    if litert:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / name))
        (folder / f"{name}.tflite").write_bytes(converter.convert())


def quantise(folder, name, kind):
    """FOLDER/NAME, a SavedModel of x, in integers throughout."""
    draw = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / name))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {"x": draw.uniform(-1, 1, (1, 4)).astype(np.float32)} for _ in range(100)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = kind
    (folder / f"{kind.name}.tflite").write_bytes(converter.convert())


def main(folder):
    def linear(held, x):
        return {"y": x @ held.weights}

    write(folder, "free", linear, x=(FLOAT, None, 4))
    write(folder, "fixed", linear, x=(FLOAT, 4, 4))
    quantise(folder, "free", tf.int8)
    quantise(folder, "free", tf.uint8)

    def two(_, wide, narrow):
        return {"product": wide * narrow, "total": tf.reduce_sum(wide, 1) + narrow[:, 0]}

    write(folder, "two", two, wide=(FLOAT, None, 3), narrow=(FLOAT, None, 1))

    def series(_, steps):
        pairs = tf.nn.conv1d(steps, tf.ones([2, 3, 1]), 1, "VALID")  # two steps at least
        return {"largest": tf.reduce_max(pairs, axis=1)}

    write(folder, "series", series, steps=(FLOAT, None, None, 3))

    def rows_of_table(held, place):
        return {"row": tf.gather(held.table, place)}

    write(folder, "table", rows_of_table, place=(WHOLE, None))

    def shout(_, text):
        length = tf.strings.length(text, "UTF8_CHAR")
        return {"loud": tf.strings.upper(text, "utf-8"), "length": length}

    write(folder, "text", shout, litert=False, text=(TEXT, None))

    def call_python(_, x):
        return {"y": tf.numpy_function(lambda values: values * 2, [x], FLOAT)}

    write(folder, "python", call_python, litert=False, x=(FLOAT, None, 4))
    tf.saved_model.save(tf.Module(), str(folder / "unsigned"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
