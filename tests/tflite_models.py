"""Writes tiny real .tflite models of every kind that a camera may meet, into the folder given.

    python tests/tflite_models.py FOLDER

Run by a fixture, in a process of its own, since TensorFlow is slow to load and large. All of them
look for a rectangle of pure red, green or blue on black and really compute where it is and which
colour it has, so a mistake in colours, normalisation, coordinates or labels shows.
"""

import os
import sys
import zipfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from mlopsdeploy.tasks.detection_outputs import grid_points
from mlopsdeploy.tasks.ssd import Ssd

SIZE = 64
PLACES = 84  # 8 × 8, 4 × 4 and 2 × 2: the grids of a YOLO of 64 pixels
SSD = Ssd((SIZE, SIZE), (16, 32, 64, 128, 256, 512))

# ---------------------------------------------------------------- what they compute


def find(pixels, size=SIZE):
    """The box y1, x1, y2, x2 (relative) and the score of each colour, from pixels of 0 to 1."""
    inside = tf.reduce_max(pixels, -1)  # (1, size, size); a rectangle is 1, all else 0
    inside = tf.minimum(tf.nn.relu(inside * 4 - 2), 1.0)
    steps = tf.constant(np.arange(size, dtype=np.float32) / size)
    box = []
    for lines in (tf.reduce_max(inside, 2), tf.reduce_max(inside, 1)):  # by height, by width
        first = 1 - tf.reduce_max(lines * (1 - steps), 1)
        last = tf.reduce_max(lines * (steps + 1 / size), 1)
        box.append((first, last))
    (y1, y2), (x1, x2) = box
    scores = 0.9 * tf.reduce_max(pixels, [1, 2])  # (1, 3)
    return (y1, x1, y2, x2), scores


def fill(rows, count, value):
    """`rows` (1, n, columns) and as many rows of `value` as lack to `count`."""
    rest = np.broadcast_to(np.float32(value), (1, count - rows.shape[1], rows.shape[2]))
    return tf.concat([rows, tf.constant(rest.copy())], 1)


def listed(pixels):
    """boxes (1, 10, 4), classes (1, 10), scores (1, 10), count (1,); garbage past the count."""
    box, scores = find(pixels)
    boxes = fill(tf.stack(box, 1)[:, None], 10, 0.5)
    sure = tf.reduce_max(scores, 1)
    kind = tf.cast(tf.argmax(scores, 1, output_type=tf.int32), tf.float32)
    scores = tf.concat([sure[:, None], tf.constant(np.float32([[0.95] * 9]))], 1)
    classes = tf.concat([kind[:, None], tf.constant(np.float32([[2.0] * 9]))], 1)
    count = tf.cast(sure > 0.5, tf.float32)
    return boxes, classes, scores, count


def centre(box):
    y1, x1, y2, x2 = box
    return (y1 + y2) / 2, (x1 + x2) / 2, y2 - y1, x2 - x1


def yolo(pixels, *, objectness, pixel_units=False, places=PLACES):
    """(1, places, columns): the box twice, a little apart, and many that are nothing."""
    box, scores = find(pixels)
    y, x, h, w = centre(box)
    unit = float(SIZE) if pixel_units else 1.0
    xywh = tf.stack([x, y, w, h], 1) * unit
    sure = [tf.ones_like(scores[:, :1])] if objectness else []
    rows = [
        tf.concat([xywh, *sure, scores], 1),
        tf.concat([xywh * 1.01, *sure, scores * 0.8], 1),
    ]
    nothing = [
        0.5 * unit,
        0.5 * unit,
        0.9 * unit,
        0.9 * unit,
        *[0.01] * objectness,
        0.01,
        0.01,
        0.02,
    ]
    return fill(tf.stack(rows, 1), places, nothing)


def end_to_end(pixels, pixel_units=True):
    box, scores = find(pixels)
    y1, x1, y2, x2 = box
    unit = float(SIZE) if pixel_units else 1.0
    kind = tf.cast(tf.argmax(scores, 1, output_type=tf.int32), tf.float32)
    row = tf.stack([x1 * unit, y1 * unit, x2 * unit, y2 * unit, tf.reduce_max(scores, 1), kind], 1)
    return fill(row[:, None], 30, [0, 0, unit / 2, unit, 0.01, 1])


def best_class(pixels):
    """Corners in pixels, the best score and its class, neither sorted nor counted."""
    table = yolo(pixels, objectness=False, pixel_units=True)
    xy, wh, scores = table[..., :2], table[..., 2:4], table[..., 4:]
    kinds = tf.cast(tf.argmax(scores, 2, output_type=tf.int32), tf.float32)
    order = list(range(PLACES))[::-1]  # the surest last
    boxes = tf.concat([xy - wh / 2, xy + wh / 2], 2)
    parts = (boxes, tf.reduce_max(scores, 2), kinds)
    return tuple(tf.gather(part, order, axis=1) for part in parts)


def corners(pixels):
    """Corners, relative, and a table of scores."""
    table = yolo(pixels, objectness=False)
    xy, wh = table[..., :2], table[..., 2:4]
    return tf.concat([xy - wh / 2, xy + wh / 2], 2), table[..., 4:]


def pointed(pixels, place=77):
    """As MediaPipe's faces: (1, 224, 16) in pixels from points of a grid, (1, 224, 1) logits."""
    points, _ = grid_points((SIZE, SIZE), 224)
    box, scores = find(pixels)
    y, x, h, w = centre(box)
    from_point = [x - float(points[place, 0]), y - float(points[place, 1]), w, h]
    row = tf.concat([tf.stack(from_point, 1) * SIZE, tf.zeros((1, 12))], 1)
    sure = tf.reduce_max(scores, 1, keepdims=True) * 20 - 10
    boxes = np.random.default_rng(0).normal(0, 9, (1, 224, 16)).astype(np.float32)
    logits = np.full((1, 224, 1), -50, np.float32)
    return tuple(
        tf.concat(
            [tf.constant(part[:, :place]), one[:, None], tf.constant(part[:, place + 1 :])], 1
        )
        for part, one in ((boxes, row), (logits, sure))
    )


def encoded(box, anchor, coder=(10, 10, 5, 5)):
    """The box as offsets to one anchor, as an SSD gives it: (1, 4)."""
    y, x, h, w = centre(box)
    ay, ax, ah, aw = (float(value) for value in anchor)
    log = [tf.math.log(tf.maximum(side, 1e-3)) for side in (h / ah, w / aw)]
    return tf.stack(
        [(y - ay) / ah * coder[0], (x - ax) / aw * coder[1], log[0] * coder[2], log[1] * coder[3]],
        1,
    )


def raw_ssd(pixels, place=50):
    """Raw boxes (1, anchors, 4) and logits (1, anchors, 5): background, three colours, white."""
    box, scores = find(pixels)
    count = len(SSD.anchors)
    noise = np.random.default_rng(0).normal(0, 1, (1, count, 4)).astype(np.float32)
    boxes = tf.concat(
        [
            tf.constant(noise[:, :place]),
            encoded(box, SSD.anchors[place])[:, None],
            tf.constant(noise[:, place + 1 :]),
        ],
        1,
    )
    never = tf.zeros_like(scores[:, :1])
    logits = tf.concat([never + 5, scores * 20 - 10, never - 8], 1)
    nothing = np.full((1, count, 5), -8, np.float32)
    return boxes, tf.concat(
        [tf.constant(nothing[:, :place]), logits[:, None], tf.constant(nothing[:, place + 1 :])], 1
    )


ANCHORS = np.float32([[0.5, 0.5, 1, 1], [0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])

POST_PROCESS = " ".join(
    ['name: "TFLite_Detection_PostProcess"']
    + [
        f'attr {{ key: "{key}" value {{ {kind}: {value} }} }}'
        for key, kind, value in (
            ("max_detections", "i", 10),
            ("max_classes_per_detection", "i", 1),
            ("use_regular_nms", "b", "false"),
            ("nms_score_threshold", "f", 0.000001),
            ("nms_iou_threshold", "f", 0.6),
            ("y_scale", "f", 10.0),
            ("x_scale", "f", 10.0),
            ("h_scale", "f", 5.0),
            ("w_scale", "f", 5.0),
            ("num_classes", "i", 3),
        )
    ]
)


@tf.function(experimental_implements=POST_PROCESS)
def post_process_operator(encodings, scores, anchors):
    """The converter puts the custom operator in its place."""
    return tuple(tf.constant(0.0, name=name) for name in ("boxes", "classes", "scores", "count"))


def post_processed(pixels):
    """With the real operator: boxes, classes, scores, count."""
    box, scores = find(pixels)
    scores = tf.concat([tf.zeros_like(scores[:, :1]), scores], 1)  # it takes a background
    boxes = tf.concat([encoded(box, ANCHORS[0])[:, None], tf.zeros((1, 2, 4))], 1)
    scores = fill(scores[:, None], 3, [0, 0.01, 0.01, 0.01])
    return post_process_operator(boxes, scores, tf.constant(ANCHORS))


def probabilities(pixels):
    """A softmax over red, green, blue: the share of pixels of each."""
    return tf.nn.softmax(20 * tf.reduce_mean(pixels, [1, 2]))


# ---------------------------------------------------------------- how they are written


def convert(
    path, function, *, shape=(SIZE, SIZE, 3), low=0.0, high=1.0, dtype=None, out=None, float16=False
):
    """One .tflite file.

    `function` takes pixels of 0 to 1; the model takes `low` to `high`. With `dtype` its input, and
    with `out` its outputs too, are quantised to that.
    """
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((1, *shape), tf.float32, name="picture")])
    def call(picture):
        pixels = picture if (low, high) == (0, 1) else (picture - low) / (high - low)
        return function(tf.transpose(pixels, [0, 2, 3, 1]) if shape[0] == 3 else pixels)

    module.call = call
    concrete = call.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    converter.allow_custom_ops = True
    if float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    if dtype:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [low + (high - low) * x] for x in samples(shape)
        )
        converter.inference_input_type = getattr(tf, dtype)
        converter.inference_output_type = getattr(tf, out or "float32")
    path.write_bytes(converter.convert())
    return path


def samples(shape):
    """Rectangles of each colour at some places; all black; all white."""
    for color in range(3):
        for first, last in ((0, 64), (8, 40), (30, 60)):
            picture = np.zeros((1, SIZE, SIZE, 3), np.float32)
            picture[:, first:last, first:last, color] = 1
            yield picture if shape[0] != 3 else picture.transpose(0, 3, 1, 2)
    yield np.zeros((1, *shape), np.float32)
    yield np.ones((1, *shape), np.float32)


def zipped(path, source, name, text):
    """A file at the model's end, as TFLite Metadata and Ultralytics put it."""
    path.write_bytes(source.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, text)


def table(builder, *fields):
    """A FlatBuffers table of (kind, value) by number of the field; None for one left out."""
    builder.StartObject(len(fields))
    for number, entry in enumerate(fields):
        if entry is not None:
            kind, value = entry
            {
                "offset": builder.PrependUOffsetTRelativeSlot,
                "byte": builder.PrependByteSlot,
                "int": builder.PrependUint32Slot,
                "float": builder.PrependFloat32Slot,
            }[kind](number, value, 0)
    return builder.EndObject()


def vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def numbers(builder, values, dtype=np.float32):
    return builder.CreateNumpyVector(np.array(values, dtype))


def metadata(*, mean, std, files=(), outputs=(), detector=None, box_index=None, threshold=None):
    """A TFLITE_METADATA buffer."""
    b = flatbuffers.Builder(0)
    options = table(b, ("offset", numbers(b, mean)), ("offset", numbers(b, std)))
    unit = table(b, ("byte", 1), ("offset", options))
    image = table(b, ("byte", 1))
    content = table(b, ("byte", 2), ("offset", image))
    units = vector(b, [unit])
    given = table(b, None, None, None, ("offset", content), ("offset", units))
    gives = []
    for place, name in enumerate(outputs):
        text = b.CreateString(name)
        fields = [("offset", text), None, None, None, None, None, None]
        if name == "location" and box_index is not None:
            index = numbers(b, box_index, np.uint32)
            box = table(b, ("offset", index), ("byte", 1), ("byte", 0))
            fields[3] = ("offset", table(b, ("byte", 3), ("offset", box)))
        if place == 0 and threshold is not None:
            least = table(b, ("float", threshold))
            fields[4] = ("offset", vector(b, [table(b, ("byte", 3), ("offset", least))]))
        if place == 0 and files:
            entries = [
                table(b, ("offset", b.CreateString(file)), None, ("byte", 2)) for file in files
            ]
            fields[6] = ("offset", vector(b, entries))
        gives.append(table(b, *fields))
    graph = [None] * 10
    graph[2], graph[3] = ("offset", vector(b, [given])), ("offset", vector(b, gives))
    if detector is not None:
        name = b.CreateString("DETECTOR_METADATA")
        data = b.CreateByteVector(detector)
        graph[9] = ("offset", vector(b, [table(b, ("offset", name), ("offset", data))]))
    graphs = vector(b, [table(b, *graph)])
    name = b.CreateString("colours")
    b.Finish(table(b, ("offset", name), None, None, ("offset", graphs)), b"M001")
    return bytes(b.Output())


def detector_options(anchors):
    """MediaPipe's DETECTOR_METADATA: anchors one by one, and how boxes are written."""
    b = flatbuffers.Builder(0)
    entries = [
        table(b, ("float", x), ("float", y), ("float", w), ("float", h)) for y, x, h, w in anchors
    ]
    schema_ = table(b, ("offset", vector(b, entries)))
    options = table(b, ("offset", schema_))
    scales = [("float", value) for value in (10.0, 10.0, 5.0, 5.0)]
    decoding = table(b, *[None] * 6, *scales, ("byte", 1), ("byte", 1))
    b.Finish(table(b, None, ("offset", options), ("offset", decoding)), b"V001")
    return bytes(b.Output())


def in_file_order(source, names):
    """Names by output of the signature, in the order of the file's tensors: as metadata want it."""
    model = flatbuffer_utils.read_model(str(source))
    made = {entry.tensorIndex: entry.name.decode() for entry in model.signatureDefs[0].outputs}
    return [names[made[index]] for index in model.subgraphs[0].outputs]


def described(path, source, buffer, *, label_file=None, labels=()):
    """A copy of a model with TFLite Metadata in it."""
    model = flatbuffer_utils.read_model(str(source))
    held = schema.BufferT()
    held.data = np.frombuffer(buffer, np.uint8)
    model.buffers.append(held)
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    flatbuffer_utils.write_model(model, str(path))
    if label_file:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(label_file, "\n".join(labels))


def row_models(folder):
    """Of rows, each made of the same product."""
    weights = tf.constant(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
    table = tf.constant(np.linspace(-1, 1, 28, dtype=np.float32).reshape(7, 4))
    ends = {
        "linear": lambda x: {"scores": x + 0.5},
        "relu": lambda x: {"scores": tf.nn.relu(x)},
        "softmax": lambda x: {"scores": tf.nn.softmax(x)},
        "sigmoid": lambda x: {"scores": tf.reshape(tf.sigmoid(x), (-1, 3, 1))},
        "rest": lambda x: {"scores": tf.concat([1 - tf.sigmoid(x), tf.sigmoid(x)], 1)},
        "second": lambda x: {"scores": tf.nn.softmax(x)[:, 1]},
        "second_taken": lambda x: {"scores": tf.gather(tf.nn.softmax(x), [1], axis=1)},
        "second_split": lambda x: {"scores": tf.split(tf.nn.softmax(x), 3, 1)[1]},
        "second_of_sizes": lambda x: {"scores": tf.split(tf.nn.softmax(x), [1, 1, -1], 1)[1]},
        "second_unstacked": lambda x: {"scores": tf.unstack(tf.nn.softmax(x), axis=1)[1]},
        "second_sliced": lambda x: {"scores": tf.slice(tf.nn.softmax(x), [0, 1], [-1, 1])},
        "first": lambda x: {"scores": tf.nn.softmax(x)[..., 0]},
        "first_sliced": lambda x: {"scores": tf.slice(tf.nn.softmax(x), [0, 0], [-1, 1])},
        "first_taken": lambda x: {"scores": tf.gather(tf.nn.softmax(x), 0, axis=1)},
        "exp_log_second": lambda x: {"scores": tf.exp(tf.nn.log_softmax(x)[:, 1])},
        "log_second": lambda x: {"scores": tf.nn.log_softmax(x)[:, 1]},
        "log": lambda x: {"scores": tf.math.log(tf.nn.softmax(x))},
        "several": lambda x: {"chance": tf.sigmoid(x), "price": x, "kind": tf.argmax(x, 1)},
        "random": lambda x: {"scores": x + tf.random.normal((3,))},
    }
    for name, end in ends.items():
        row_model(folder / f"row_{name}.tflite", lambda x, end=end: end(x @ weights), tf.float32)
    looked_up = lambda ids: {"scores": tf.reduce_sum(tf.gather(table, ids), 1)}  # noqa: E731
    row_model(folder / "row_ids.tflite", looked_up, tf.int32)
    row_model(
        folder / "row_float_ids.tflite", lambda ids: looked_up(tf.cast(ids, tf.int32)), tf.float32
    )


def row_model(path, function, dtype):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, 4), dtype, name="row")])
    def call(row):
        return function(row)

    module.call = call
    concrete = call.get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())


def main(folder):
    def make(name, function, **how):
        return convert(folder / f"{name}.tflite", function, **how)

    def reordered(*places):
        return lambda pixels: tuple(listed(pixels)[place] for place in places)

    def named(pixels):
        roles = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
        return dict(zip(roles, listed(pixels), strict=True))

    make("post_process", post_processed, low=-1.0, high=1.0)
    plain = make("tf1_order", reordered(0, 1, 2, 3), low=-1.0, high=1.0)
    make("tf2_order", reordered(2, 0, 3, 1), low=-1.0, high=1.0)
    make("maker_order", reordered(3, 2, 1, 0), low=-1.0, high=1.0)
    make("named", named, low=-1.0, high=1.0)
    outputs = ("location", "category", "score", "number of detections")
    outputs = in_file_order(plain, {f"output_{i}": name for i, name in enumerate(outputs)})
    how = {"mean": [127.5], "std": [127.5], "box_index": [1, 0, 3, 2]}
    described(folder / "listed_described.tflite", plain, metadata(outputs=outputs, **how))
    turned = {"category": "score", "score": "category"}
    outputs = [turned.get(name, name) for name in outputs]
    described(folder / "misnamed.tflite", plain, metadata(outputs=outputs, **how))
    make("best_class", best_class)
    make("corners", corners)
    make("pointed", pointed, low=-1.0, high=1.0)
    make("listed_uint8", named, low=-1.0, high=1.0, dtype="uint8")
    raw = make("raw_ssd", raw_ssd, low=-1.0, high=1.0)
    described(
        folder / "raw_described.tflite",
        raw,
        metadata(
            mean=[127.5],
            std=[127.5],
            outputs=["location", "score"],
            detector=detector_options(SSD.anchors),
            threshold=0.3,
            files=["colours.txt"],
        ),
        label_file="colours.txt",
        labels=["red", "green", "blue", "white"],
    )
    make("yolo_v5", lambda p: yolo(p, objectness=True, places=3 * PLACES))
    v8 = lambda p: tf.transpose(yolo(p, objectness=False), [0, 2, 1])  # noqa: E731
    plain = make("yolo_v8", v8)
    make("yolo_v8_int8", v8, dtype="int8", out="int8")
    make(
        "yolo_v8_pixels",
        lambda p: tf.transpose(yolo(p, objectness=False, pixel_units=True), [0, 2, 1]),
    )
    make("yolo_v8_channels_first", v8, shape=(3, SIZE, SIZE))
    make("yolo_v10", end_to_end)
    make(
        "yolo_too_coarse",
        lambda p: yolo(p, objectness=True, pixel_units=True),
        dtype="int8",
        out="int8",
    )
    said = {"names": {0: "red", 1: "green", 2: "blue"}, "imgsz": [SIZE, SIZE], "task": "detect"}
    zipped(folder / "yolo_ultralytics.tflite", plain, "temp_meta.txt", str(said))
    for name, operator in (("coral", "edgetpu-custom-op"), ("flex", "FlexErf")):
        model = flatbuffer_utils.read_model(str(folder / "post_process.tflite"))
        for code in model.operatorCodes:
            if code.customCode:
                code.customCode = operator.encode()
        flatbuffer_utils.write_model(model, str(folder / f"{name}.tflite"))
    make("heads", lambda p: [tf.image.resize(p, (8, 8)), tf.image.resize(p, (4, 4))])
    make("masks", lambda p: [p[..., :2] + 1, p[..., :1] * 2])

    softmax = make("softmax", probabilities, low=-1.0, high=1.0)
    make("logits", lambda p: 20 * tf.reduce_mean(p, [1, 2]), low=-1.0, high=1.0)
    make(
        "with_background",
        lambda p: tf.concat([tf.zeros((1, 1)), probabilities(p)], 1),
        low=-1.0,
        high=1.0,
    )
    make(
        "sigmoid",
        lambda p: tf.sigmoid(40 * tf.reduce_mean(p[..., :1], [1, 2]) - 2),
        low=-1.0,
        high=1.0,
    )
    make("softmax_int8", probabilities, low=-1.0, high=1.0, dtype="int8", out="int8")
    make("softmax_uint8", probabilities, dtype="uint8", out="uint8")
    make("softmax_float16", probabilities, low=-1.0, high=1.0, float16=True)
    make("takes_pixels", lambda p: probabilities(p * (1 / 255.0)))
    make("quantised_inside", probabilities, dtype="float32", out="float32")
    described(
        folder / "described.tflite",
        make("zero_to_one", probabilities),
        metadata(mean=[0.0], std=[255.0], files=["colours.txt"], outputs=["probability"]),
        label_file="colours.txt",
        labels=["red", "green", "blue"],
    )
    zipped(folder / "labels_within.tflite", softmax, "labelmap.txt", "red\ngreen\nblue\n")
    row_models(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
