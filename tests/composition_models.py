"""`python composition_models.py FOLDER`: a model per task, as ONNX, LiteRT and SavedModel at once.

The same arithmetic is written down twice, for ONNX and for TensorFlow, so that every runtime has a
graph of the model in a format that it opens, and all must give the same answers.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import onnx
import onnx.parser
import tensorflow as tf

SIZE = 64
PLACES = 84  # 8 × 8, 4 × 4 and 2 × 2: the grid of a YOLO for 64 pixels
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'

# ---------------------------------------------------------------- rows of numbers

CHURN = f"""{HEAD}
churn (float[n,3] x) => (float[n,1] p)
<float[3,1] w = {{0.05, -0.4, 0.01}}, float[1] b = {{-1.0}}> {{
  xw = MatMul(x, w)
  z = Add(xw, b)
  p = Sigmoid(z)
}}"""
CHURN_YAML = """\
task: tabular_classification
features: [age, visits, spend]
labels: [stays, leaves]
"""


def churn(x):
    return tf.sigmoid(tf.matmul(x, [[0.05], [-0.4], [0.01]]) - 1.0)


# ---------------------------------------------------------------- the colour of a picture

COLORS = f"""{HEAD}
colors (float[n,{SIZE},{SIZE},3] picture) => (float[n,3] p)
<float twenty = {{20.0}}> {{
  mean = ReduceMean<axes = [1, 2], keepdims = 0>(picture)
  z = Mul(mean, twenty)
  p = Softmax<axis = 1>(z)
}}"""
COLORS_YAML = """\
task: image_classification
labels: [red, green, blue]
input: {mean: 0, std: 255}
"""


def colors(picture):
    return tf.nn.softmax(20 * tf.reduce_mean(picture, [1, 2]))


# ---------------------------------------------------------------- rectangles on a picture

# The box of what is bright, once, as a YOLO without objectness gives it, and nothing else.
FINDER = f"""{HEAD}
finder (float[n,{SIZE},{SIZE},3] picture) => (float[n,7,{PLACES}] found)
<float one = {{1.0}}, float two = {{2.0}}, float four = {{4.0}}, float zero = {{0.0}},
 float half = {{0.5}}, float sure = {{0.9}}, float step = {{{1 / SIZE}}},
 int64[1] last = {{2}}> {{
  brightest = ReduceMax<axes = [3], keepdims = 0>(picture)
  fourfold = Mul(brightest, four)
  less = Sub(fourfold, two)
  inside = Clip(less, zero, one)
  steps = Constant<value_floats = {[i / SIZE for i in range(SIZE)]}>()
  before = Sub(one, steps)
  after = Add(steps, step)
  down = ReduceMax<axes = [2], keepdims = 0>(inside)
  across = ReduceMax<axes = [1], keepdims = 0>(inside)
  down_before = Mul(down, before)
  down_after = Mul(down, after)
  across_before = Mul(across, before)
  across_after = Mul(across, after)
  from_bottom = ReduceMax<axes = [1], keepdims = 1>(down_before)
  from_right = ReduceMax<axes = [1], keepdims = 1>(across_before)
  y1 = Sub(one, from_bottom)
  x1 = Sub(one, from_right)
  y2 = ReduceMax<axes = [1], keepdims = 1>(down_after)
  x2 = ReduceMax<axes = [1], keepdims = 1>(across_after)
  x_sum = Add(x1, x2)
  y_sum = Add(y1, y2)
  x = Mul(x_sum, half)
  y = Mul(y_sum, half)
  w = Sub(x2, x1)
  h = Sub(y2, y1)
  strongest = ReduceMax<axes = [1, 2], keepdims = 0>(picture)
  scores = Mul(strongest, sure)
  row = Concat<axis = 1>(x, y, w, h, scores)
  column = Unsqueeze(row, last)
  rest = Constant<value = float[1,7,1] {{0.5, 0.5, 0.9, 0.9, 0.01, 0.01, 0.02}}>()
  zeros = Sub(column, column)
  nothing = Add(zeros, rest)
  found = Concat<axis = 2>(column, {", ".join(["nothing"] * (PLACES - 1))})
}}"""
FINDER_YAML = """\
task: object_detection
labels: [red, green, blue]
input: {mean: 0, std: 255, resize: stretch}
"""


def finder(picture):
    inside = tf.clip_by_value(4 * tf.reduce_max(picture, 3) - 2, 0.0, 1.0)
    steps = tf.constant(np.arange(SIZE, dtype=np.float32) / SIZE)
    edges = []
    for lines in (tf.reduce_max(inside, 1), tf.reduce_max(inside, 2)):
        edges.append(1 - tf.reduce_max(lines * (1 - steps), 1))
        edges.append(tf.reduce_max(lines * (steps + 1 / SIZE), 1))
    x1, x2, y1, y2 = edges
    box = tf.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
    row = tf.concat([box, 0.9 * tf.reduce_max(picture, [1, 2])], 1)
    nothing = tf.constant([[[0.5], [0.5], [0.9], [0.9], [0.01], [0.01], [0.02]]])
    rest = tf.repeat(tf.zeros_like(row)[..., None] + nothing, PLACES - 1, axis=2)
    return tf.concat([row[..., None], rest], 2)


# ---------------------------------------------------------------- how they are written


def write(folder, text, said, name, output, function, shape):
    graph = onnx.parser.parse_model(text)
    onnx.checker.check_model(graph)
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    (folder / "model.yaml").write_text(said, "utf-8")
    module = tf.Module()
    signature = [tf.TensorSpec((None, *shape), tf.float32, name=name)]
    module.call = tf.function(lambda *rows: {output: function(*rows)}, input_signature=signature)
    tf.saved_model.save(module, folder, signatures=module.call.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    (folder / "model.tflite").write_bytes(converter.convert())


def main(folder):
    picture = (SIZE, SIZE, 3)
    write(folder / "churn", CHURN, CHURN_YAML, "x", "p", churn, (3,))
    write(folder / "colors", COLORS, COLORS_YAML, "picture", "p", colors, picture)
    write(folder / "finder", FINDER, FINDER_YAML, "picture", "found", finder, picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
