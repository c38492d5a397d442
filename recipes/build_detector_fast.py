"""From MediaPipe's object detector to the fast built-in one: widen, prune, quantise, measure.

    pip install ai-edge-quantizer==0.10.0
    npm pack @mediapipe/objectron@0.4.1675468480
    python recipes/build_detector_fast.py --package mediapipe-objectron-*.tgz --pictures FOLDER ...

The package's `.data` file holds the labels and an SSD MobileNet v2 whose weights are float16. Here

1. the weights become float32 constants, without the 144 operators that did so at load;
2. channels that training has switched off go: their weights are next to nothing, so that they
   give the same number at every place, which moves into the next layer's bias. That changes no
   answer, makes the model smaller, and makes it possible to quantise it: the bias of such a
   channel does not fit into 32 bits of its tiny scale, and without this step scores fall by 0.13;
3. weights and activations become int8, calibrated on half of the pictures. The input becomes
   uint8, so that a frame's pixels are the model's input as they are; outputs stay float32;
4. the models are compared on the other half, and what was measured is printed as JSON.

Pictures are taken from all images and videos under the folders: of a video one frame in twelve,
its first half for calibration and its second for the comparison; of images every other one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName

from mlopsdeploy.tasks.ssd import Found, Ssd

Array = npt.NDArray[Any]

EXAMPLE = "example.jpg"
BUILT_IN = Path(__file__).parents[1] / "mlopsdeploy" / "builtin" / "detector-fast"
VERSION = "1.1.0"
ASSETS = "package/objectron_solution_packed_assets.data"
LABEL_BYTES, MODEL_BYTES = slice(0, 184), slice(184, 9987912)

# What the package's own graph says (ObjectDetectionOidV4Subgraph, in its .wasm file): options of
# ImageToTensor, SsdAnchors, TensorsToDetections and NonMaxSuppression.
# The float model takes (pixel - 127.5) / 127.5. In the uint8 one a pixel is its own integer, whose
# zero point is the whole number 127.
INPUT = {"size": [300, 300], "color": "rgb", "mean": 127.0, "std": 127.5, "resize": "stretch"}
BOXES = {
    "size": [300, 300],
    "strides": [16, 32, 64, 128, 256, 512],
    "min_scale": 0.2,
    "max_scale": 0.95,
    "aspect_ratios": [1.0, 2.0, 0.5, 3.0, 0.3333],
    "reduced_lowest": True,
    "coder": [10.0, 10.0, 5.0, 5.0],
    "background": 0,
    "iou": 0.5,
    "limit": 100,
}
THRESHOLD = 0.35

CONV, DEPTHWISE = schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D
IMAGES, VIDEOS = {".jpg", ".jpeg", ".png"}, {".mp4", ".avi", ".mov"}
FRAME_STEP = 12
DEAD = 2e-4  # the largest weight of a channel that counts as switched off


def main() -> None:
    """Write the detector's folder and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--package", type=Path, required=True, help="the npm tarball")
    parser.add_argument("--pictures", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    with tarfile.open(arguments.package) as package:
        assets = package.extractfile(ASSETS)
        assert assets, f"{arguments.package}: no {ASSETS}"
        data = assets.read()
    # The first is "???", the background.
    labels = data[LABEL_BYTES].decode().splitlines()[1:]
    calibration, held_out = split(arguments.pictures)
    BUILT_IN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        files = {
            "float16": scratch / "float16.tflite",
            "float32": scratch / "float32.tflite",
            "float32_pruned": scratch / "pruned.tflite",
            "int8": BUILT_IN / "model.tflite",
        }
        files["float16"].write_bytes(data[MODEL_BYTES])
        model = flatbuffer_utils.read_model(files["float16"])
        widen(model)
        flatbuffer_utils.write_model(model, files["float32"])
        removed = prune(model)
        steady(model)
        flatbuffer_utils.write_model(model, files["float32_pruned"])
        quantize(files["float32_pruned"], calibration, files["int8"])
        (BUILT_IN / "labels.txt").write_text("\n".join(labels) + "\n", "utf-8")
        illustrate(BUILT_IN)
        describe(labels)
        measured = {
            "calibration_pictures": len(calibration),
            "held_out_pictures": len(held_out),
            "channels_removed": removed,
            "models": measure(files, held_out),
        }
    print(json.dumps(measured, indent=2))


def split(folders: list[Path]) -> tuple[list[Array], list[Array]]:
    """Pictures to calibrate with, and others to compare models on; BGR."""
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    images = [cv2.imread(str(path)) for path in paths if path.suffix in IMAGES]
    read = [image for image in images if image is not None]
    calibration, held_out = read[::2], read[1::2]
    for path in paths:
        if path.suffix in VIDEOS:
            frames = list(every(path, FRAME_STEP))
            calibration += frames[: len(frames) // 2]
            held_out += frames[len(frames) // 2 :]
    return calibration, held_out


def every(path: Path, step: int) -> Iterator[Array]:
    """One frame in `step` of a video."""
    video = cv2.VideoCapture(str(path))
    while True:
        good, frame = video.read()
        if not good:
            return
        yield frame
        for _ in range(step - 1):
            video.grab()


def widen(model: Any) -> None:
    """Make float32 constants of the float16 ones, and name the signature that was missing."""
    graph = model.subgraphs[0]
    kept = []
    for operator in graph.operators:
        if kind(model, operator) != schema.BuiltinOperator.DEQUANTIZE:
            kept.append(operator)
            continue
        half, full = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
        values = _bytes(model, half).view(np.float16).astype(np.float32)
        model.buffers[half.buffer].data = values.view(np.uint8)
        full.buffer = half.buffer
    graph.operators = kept
    _drop_unused(graph)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named(b"image", graph.inputs[0])]
    names = (b"box_encodings", b"class_predictions")
    signature.outputs = [_named(*pair) for pair in zip(names, graph.outputs, strict=True)]
    model.signatureDefs = [signature]


def prune(model: Any) -> int:
    """Remove channels that are the same at every place, and say how many.

    Where a convolution's weights for a channel are nothing, it gives relu6(bias) everywhere, and
    a following 1 x 1 convolution can have that number in its bias. A depthwise convolution can't
    (its zero padding is not that number), unless its own weights for the channel are nothing too.
    """
    graph = model.subgraphs[0]
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        readers.setdefault(int(operator.inputs[0]), []).append(operator)
    removed = 0
    for operator in graph.operators:
        after = readers.get(int(operator.outputs[0]), [])
        kinds = {kind(model, one) for one in (operator, *after)}
        # A depthwise convolution goes with the one before it.
        if not after or not kinds <= {CONV, DEPTHWISE} or kind(model, operator) != CONV:
            continue
        depthwise = [one for one in after if kind(model, one) == DEPTHWISE]
        plain = [one for one in after if kind(model, one) == CONV]
        gone = np.logical_and.reduce([_dead(model, one) for one in depthwise or [operator]])
        if plain:
            gone &= _dead(model, operator) & all(_is_pointwise(graph, one) for one in plain)
        if not gone.any():
            continue
        for one in plain:
            _fold(model, operator, one, gone)
        for one in depthwise:
            for last in readers[int(one.outputs[0])]:
                _fold(model, one, last, gone)
            _shrink(model, one, gone)
        _shrink(model, operator, gone)
        removed += int(gone.sum())
    return removed


def steady(model: Any) -> None:
    """Give the dead channels that had to stay a weight large enough to quantise them by.

    These are convolutions that give the same everywhere, followed by a depthwise one that uses it
    to see the border. With `DEAD` their bias fits into int32; it moves what they give by less
    than a step of int8.
    """
    for operator in model.subgraphs[0].operators:
        what = kind(model, operator)
        if what not in {CONV, DEPTHWISE}:
            continue
        weights = _values(model, operator.inputs[1]).copy()
        for channel in np.moveaxis(weights, -1 if what == DEPTHWISE else 0, 0):  # views
            if np.abs(channel).max() < DEAD:
                channel.fill(0)
                channel[0, 0, 0] = DEAD
        _set(model, operator.inputs[1], weights)


def _dead(model: Any, operator: Any) -> Array:
    """Which of a convolution's output channels have no weights to speak of."""
    weights = _values(model, operator.inputs[1])
    depthwise = kind(model, operator) == DEPTHWISE
    dead: Array = np.abs(weights).max(axis=(0, 1, 2) if depthwise else (1, 2, 3)) < DEAD
    return dead


def _is_pointwise(graph: Any, operator: Any) -> bool:
    return list(graph.tensors[operator.inputs[1]].shape[1:3]) == [1, 1]


def _fold(model: Any, constant: Any, reader: Any, gone: Array) -> None:
    """Move the constant channels of one convolution into the bias of the next."""
    assert _is_pointwise(model.subgraphs[0], reader)
    given = _values(model, constant.inputs[2])[gone]
    activation = constant.builtinOptions.fusedActivationFunction
    assert activation == schema.ActivationFunctionType.RELU6
    weights, bias = (_values(model, reader.inputs[place]) for place in (1, 2))
    _set(model, reader.inputs[2], bias + weights[:, 0, 0, gone] @ given.clip(0, 6))
    _set(model, reader.inputs[1], weights[..., ~gone])


def _shrink(model: Any, operator: Any, gone: Array) -> None:
    """Take output channels from a convolution."""
    graph = model.subgraphs[0]
    weights, bias = (_values(model, operator.inputs[place]) for place in (1, 2))
    depthwise = kind(model, operator) == DEPTHWISE
    _set(model, operator.inputs[1], weights[..., ~gone] if depthwise else weights[~gone])
    _set(model, operator.inputs[2], bias[~gone])
    output = graph.tensors[operator.outputs[0]]
    output.shape = [*output.shape[:-1], int((~gone).sum())]


def kind(model: Any, operator: Any) -> int:
    """The operator's number among `BuiltinOperator`."""
    code = model.operatorCodes[operator.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _bytes(model: Any, tensor: Any) -> Array:
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8)


def _values(model: Any, index: int) -> Array:
    tensor = model.subgraphs[0].tensors[index]
    return _bytes(model, tensor).view(np.float32).reshape(tensor.shape)


def _set(model: Any, index: int, values: Array) -> None:
    tensor = model.subgraphs[0].tensors[index]
    tensor.shape = list(values.shape)
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    model.buffers[tensor.buffer].data = flat.view(np.uint8)


def _drop_unused(graph: Any) -> None:
    """Renumber the tensors without those that no operator reads or writes."""
    lists = [graph.inputs, graph.outputs]
    for operator in graph.operators:
        lists += [operator.inputs, operator.outputs]
    used = sorted({int(index) for indices in lists for index in indices if index >= 0})
    place = {old: new for new, old in enumerate(used)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in used]
    for owner in (graph, *graph.operators):
        owner.inputs = [place[int(index)] for index in owner.inputs]
        owner.outputs = [place[int(index)] for index in owner.outputs]


def _named(name: bytes, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def quantize(source: Path, pictures: list[Array], target: Path) -> None:
    """Static int8 by ai-edge-quantizer, with a uint8 input and float32 outputs."""
    work = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    for ends in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", ends, algorithm_key=AlgorithmName.NO_QUANTIZE)
    samples = [{"image": prepare(picture)} for picture in pictures]
    ranges = work.calibrate({"serving_default": samples}, num_threads=2)
    graph = flatbuffer_utils.read_model(source).subgraphs[0]
    pixels = ranges[graph.tensors[graph.inputs[0]].name.decode()]
    pixels["min"], pixels["max"] = (np.full_like(pixels["min"], end) for end in (-1, 1))
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "int8.tflite"
        work.quantize(ranges).export_model(str(between))
        model = flatbuffer_utils.read_model(between)
    take_pixels(model, int(INPUT["mean"]))  # type: ignore[call-overload]
    flatbuffer_utils.write_model(model, target)


def take_pixels(model: Any, zero: int) -> None:
    """Let a quantised model take uint8, pixels as they are: `zero` is the one that it has as 0."""
    graph = model.subgraphs[0]
    (first,) = (one for one in graph.operators if graph.inputs[0] in one.inputs)
    assert kind(model, first) == schema.BuiltinOperator.QUANTIZE
    image, whole = graph.tensors[first.inputs[0]], graph.tensors[first.outputs[0]]
    image.type = schema.TensorType.UINT8
    image.quantization = schema.QuantizationParametersT()
    image.quantization.scale = list(whole.quantization.scale)
    image.quantization.zeroPoint = [int(whole.quantization.zeroPoint[0]) + 128]
    assert image.quantization.zeroPoint == [zero]


def prepare(picture: Array) -> Array:
    """A BGR picture as the float model's input: (1, 300, 300, 3), RGB, -1 to 1."""
    pixels = cv2.cvtColor(cv2.resize(picture, (300, 300)), cv2.COLOR_BGR2RGB)
    return pixels[None].astype(np.float32) / np.float32(127.5) - 1


def illustrate(folder: Path) -> None:
    """Keep a frame of our own clip, for those who want to try the detector."""
    clip = cv2.VideoCapture(str(BUILT_IN.parents[2] / "examples" / "street.mp4"))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 37)  # a car and a chair
    cv2.imwrite(str(folder / EXAMPLE), clip.read()[1], [cv2.IMWRITE_JPEG_QUALITY, 80])


def describe(labels: list[str]) -> None:
    """Write model.yaml."""
    sums = {
        name: hashlib.sha256((BUILT_IN / name).read_bytes()).hexdigest()
        for name in ("model.tflite", "labels.txt", EXAMPLE)
    }
    said = {
        "name": "detector-fast",
        "version": VERSION,
        "task": "object_detection",
        "precision": "int8",
        "threshold": THRESHOLD,
        "example": EXAMPLE,
        "labels": labels,
        "input": INPUT,
        "outputs": {"boxes": "box_encodings", "scores": "class_predictions", "logits": True},
        "boxes": BOXES,
        "sha256": sums,
    }
    header = "# Written by recipes/build_detector_fast.py; MODEL_CARD.md tells what is behind it.\n"
    text = header + yaml.safe_dump(said, sort_keys=False, default_flow_style=None)
    (BUILT_IN / "model.yaml").write_text(text, "utf-8")


class Detector:
    """One file, on one thread."""

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        outputs = self._interpreter.get_output_details()
        self._outputs = sorted(outputs, key=lambda output: output["shape"][-1])
        self._ssd = Ssd(**BOXES)  # type: ignore[arg-type]

    def __call__(self, picture: Array, threshold: float) -> Found:
        """Objects in a BGR picture."""
        pixels = prepare(picture)
        if self._input["dtype"] == np.uint8:
            pixels = np.rint((pixels + 1) * 127.5).astype(np.uint8)  # as they were
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        boxes, scores = (self._interpreter.get_tensor(out["index"])[0] for out in self._outputs)
        return self._ssd.detect(boxes, scores, threshold)

    def milliseconds(self, calls: int = 4) -> float:
        """Of one invoke, the mean of a few."""
        started = time.perf_counter()
        for _ in range(calls):
            self._interpreter.invoke()
        return (time.perf_counter() - started) / calls * 1000


def measure(files: dict[str, Path], pictures: list[Array]) -> dict[str, dict[str, float]]:
    """Size, time and agreement with float16 of each file.

    A box of the float16 model with a score of 0.5 or more is matched if the other model gives one
    of the same class, any score from 0.2 up, at an IoU of 0.5 or more; and the other way round.
    """
    models = {name: Detector(path) for name, path in files.items()}
    sure = {name: [model(picture, 0.5) for picture in pictures] for name, model in models.items()}
    maybe = {name: [model(picture, 0.2) for picture in pictures] for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(25):  # in turns, so that a busy machine is busy for all
        for name, model in models.items():
            times[name].append(model.milliseconds())
    result = {}
    for name, path in files.items():
        changes = _matches(sure["float16"], maybe[name])
        back = _matches(sure[name], maybe["float16"])
        found = [change for change in changes if change is not None]
        result[name] = {
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "milliseconds": round(float(np.median(times[name])), 2),
            "boxes_of_float16": len(changes),
            "matched": round(len(found) / len(changes), 4),
            "boxes": len(back),
            "matched_back": round(sum(change is not None for change in back) / len(back), 4),
            "mean_score_change": round(float(np.abs(found).mean()), 4),
            "largest_score_change": round(float(np.abs(found).max()), 4),
            "mean_signed_score_change": round(float(np.mean(found)), 4),
        }
    return result


def _matches(ours: list[Found], theirs: list[Found]) -> list[float | None]:
    """For each box of ours the change of its score, None where they have no such box."""
    changes: list[float | None] = []
    for one, other in zip(ours, theirs, strict=True):
        same = one.classes[:, None] == other.classes
        overlap = box_iou(one.boxes, other.boxes) * same
        for row, score in zip(overlap, one.scores, strict=True):
            hit = len(row) > 0 and row.max() >= 0.5
            changes.append(float(other.scores[row.argmax()] - score) if hit else None)
    return changes


def box_iou(first: Array, second: Array) -> Array:
    """Intersection over union of each box with each.

    Args:
        first: shape (boxes, 4): two opposite corners, the smaller first.
        second: shape (others, 4).

    Returns:
        Shape (boxes, others); 0 for boxes without an area.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - shared
    iou: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


if __name__ == "__main__":
    main()
