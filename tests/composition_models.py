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


# What follows is linear in the same three numbers, whatever the answer then is.
PRICE = f"""{HEAD}
price (float[n,3] x) => (float[n,1] y)
<float[3,1] w = {{2.0, -1.5, 0.25}}, float[1] b = {{10.0}}> {{
  xw = MatMul(x, w)
  y = Add(xw, b)
}}"""
PRICE_YAML = """\
task: tabular_regression
features: [age, visits, spend]
"""


def price(x):
    return tf.matmul(x, [[2.0], [-1.5], [0.25]]) + 10.0


TAGS = f"""{HEAD}
tags (float[n,3] x) => (float[n,2] p)
<float[3,2] w = {{0.1, 0.0, 0.0, -1.0, 0.0, 0.02}}, float[2] b = {{-4.5, 1.0}}> {{
  xw = MatMul(x, w)
  z = Add(xw, b)
  p = Sigmoid(z)
}}"""
TAGS_YAML = """\
task: tabular_classification
features: [age, visits, spend]
labels: [old, rare]
"""


def tags(x):
    return tf.sigmoid(
        tf.matmul(x, [[0.1, 0.0], [0.0, -1.0], [0.0, 0.02]]) + tf.constant([-4.5, 1.0])
    )


GROUPS = f"""{HEAD}
groups (float[n,3] x) => (float[n,2] distances)
<float[2,3] centres = {{30.0, 3.0, 10.0, 65.0, 4.0, 270.0}}, int64[1] one = {{1}}> {{
  apart = Unsqueeze(x, one)
  away = Sub(apart, centres)
  distances = ReduceL2<axes = [2], keepdims = 0>(away)
}}"""
GROUPS_YAML = """\
task: clustering
features: [age, visits, spend]
labels: [small, large]
"""


def groups(x):
    return tf.norm(x[:, None] - tf.constant([[30.0, 3.0, 10.0], [65.0, 4.0, 270.0]]), axis=2)


BACK = f"""{HEAD}
back (float[n,3] x) => (float[n,3] y)
<float[3] kept = {{1.0, 1.0, 0.9}}> {{
  y = Mul(x, kept)
}}"""
BACK_YAML = """\
task: anomaly_detection
features: [age, visits, spend]
threshold: 100
"""


def back(x):
    return x * [1.0, 1.0, 0.9]


# As scikit-learn's converter writes a detector: its own label, and how far inside a row is.
OUTSIDE = f"""{HEAD}
outside (float[n,3] x) => (int64[n,1] label, float[n,1] scores)
<float[3,1] w = {{0.0, 0.0, -0.01}}, float[1] b = {{1.0}}, float zero = {{0.0}},
 int64 two = {{2}}, int64 one = {{1}}> {{
  xw = MatMul(x, w)
  scores = Add(xw, b)
  inside = GreaterOrEqual(scores, zero)
  number = Cast<to = 7>(inside)
  twice = Mul(number, two)
  label = Sub(twice, one)
}}"""
OUTSIDE_YAML = """\
task: anomaly_detection
features: [age, visits, spend]
"""


def outside(x):
    scores = 1.0 - 0.01 * x[:, 2:]
    return tf.cast(scores >= 0, tf.int64) * 2 - 1, scores


TWO = f"""{HEAD}
two (float[n,3] x) => (float[n,1] price, float[n,1] gone)
<float[3,2] w = {{2.0, 0.05, -1.5, -0.4, 0.25, 0.01}}, float[2] b = {{10.0, -1.0}},
 int64[2] halves = {{1, 1}}> {{
  xw = MatMul(x, w)
  z = Add(xw, b)
  price, logit = Split<axis = 1>(z, halves)
  gone = Sigmoid(logit)
}}"""
TWO_YAML = """\
task: multi_output
features: [age, visits, spend]
heads:
  price: {task: regression}
  gone: {activation: none, labels: [stays, leaves]}
"""


def two(x):
    return price(x), churn(x)


# Four moments with two sensors each: no columns of a table, but an array.
WINDOW = f"""{HEAD}
window (float[n,4,2] x) => (float[n,1] y)
<float[2,1] w = {{1.0, 0.5}}> {{
  mean = ReduceMean<axes = [1], keepdims = 0>(x)
  y = MatMul(mean, w)
}}"""
WINDOW_YAML = """\
task: tabular_regression
"""


def window(x):
    return tf.matmul(tf.reduce_mean(x, 1), [[1.0], [0.5]])


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


REDNESS = f"""{HEAD}
redness (float[n,{SIZE},{SIZE},3] picture) => (float[n,1] y)
<float[3,1] w = {{1.0, 0.0, 0.0}}> {{
  mean = ReduceMean<axes = [1, 2], keepdims = 0>(picture)
  y = MatMul(mean, w)
}}"""
REDNESS_YAML = """\
task: image_regression
input: {mean: 0, std: 255}
"""


def redness(picture):
    return tf.reduce_mean(picture, [1, 2])[:, :1]


BOTH = f"""{HEAD}
both (float[n,{SIZE},{SIZE},3] picture) => (float[n,1] redness, float[n,3] colour)
<float[3,1] w = {{1.0, 0.0, 0.0}}, float twenty = {{20.0}}> {{
  mean = ReduceMean<axes = [1, 2], keepdims = 0>(picture)
  redness = MatMul(mean, w)
  z = Mul(mean, twenty)
  colour = Softmax<axis = 1>(z)
}}"""
BOTH_YAML = """\
task: image_multi_output
input: {mean: 0, std: 255}
heads:
  redness: {task: regression}
  colour: {activation: none, labels: [red, green, blue]}
"""


def both(picture):
    return redness(picture), colors(picture)


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


def write(folder, text, said, name, outputs, function, shape):
    graph = onnx.parser.parse_model(text)
    onnx.checker.check_model(graph)
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    (folder / "model.yaml").write_text(said, "utf-8")
    module = tf.Module()
    signature = [tf.TensorSpec((None, *shape), tf.float32, name=name)]

    def named(*rows):
        found = function(*rows)
        return dict(zip(outputs, found if len(outputs) > 1 else [found], strict=True))

    module.call = tf.function(named, input_signature=signature)
    tf.saved_model.save(module, folder, signatures=module.call.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    (folder / "model.tflite").write_bytes(converter.convert())


def main(folder):
    picture = (SIZE, SIZE, 3)
    three = (3,)
    write(folder / "churn", CHURN, CHURN_YAML, "x", ["p"], churn, three)
    write(folder / "price", PRICE, PRICE_YAML, "x", ["y"], price, three)
    write(folder / "tags", TAGS, TAGS_YAML, "x", ["p"], tags, three)
    write(folder / "groups", GROUPS, GROUPS_YAML, "x", ["distances"], groups, three)
    write(folder / "back", BACK, BACK_YAML, "x", ["y"], back, three)
    write(folder / "outside", OUTSIDE, OUTSIDE_YAML, "x", ["label", "scores"], outside, three)
    write(folder / "two", TWO, TWO_YAML, "x", ["price", "gone"], two, three)
    write(folder / "window", WINDOW, WINDOW_YAML, "x", ["y"], window, (4, 2))
    write(folder / "raw", PRICE, "task: tensors\n", "x", ["y"], price, three)
    write(folder / "colors", COLORS, COLORS_YAML, "picture", ["p"], colors, picture)
    write(folder / "both", BOTH, BOTH_YAML, "picture", ["redness", "colour"], both, picture)
    write(folder / "redness", REDNESS, REDNESS_YAML, "picture", ["y"], redness, picture)
    write(folder / "finder", FINDER, FINDER_YAML, "picture", ["found"], finder, picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
