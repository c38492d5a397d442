"""What a `.tflite` file says of itself: graph, TFLite Metadata, files zipped to its end; labels.

A `.tflite` file is a FlatBuffer, and so are TFLite Metadata and MediaPipe's description of a
detector, which travel in its buffers. The few fields of them that matter here are read with no
package and without reading the weights. The numbers of the fields are those of TensorFlow's
`schema.fbs`, tflite-support's `metadata_schema.fbs` and MediaPipe's
`object_detector_metadata_schema.fbs`.

A label file, at its end or next to it, has one name a line, `number name` a line, or is a label map
in protobuf's text format.
"""

from __future__ import annotations

import ast
import json
import mmap
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.core.paths import within
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files import tflite_graph
from mlopsdeploy.model_files.flat_buffers import NO_FIELDS, Table, root

_DAMAGED = (
    struct.error, IndexError, ValueError, TypeError, AttributeError, SyntaxError, RecursionError,
    MemoryError, zipfile.BadZipFile,
)  # fmt: skip
_MAX_TEXT = 16 << 20  # bytes of a label file, or of one at the end of a model's
_MAX_CLASS = 1_000_000
_LABEL_FILES = (2, 3)  # AssociatedFileType: TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS
_COLORS = {1: "rgb", 2: "gray"}  # ColorSpaceType
_BOX_ORDERS = {1: "xyxy", 2: "xywh from corner", 3: "xywh"}  # BoundingBoxType
_ULTRALYTICS = ("metadata.json", "temp_meta.txt")
_ULTRALYTICS_TASKS = {"detect": "object_detection", "classify": "image_classification"}
_QUANTIZE = 114  # BuiltinOperator
CARRIED = "mlopsdeploy.json"
# Next to a model `detect.tflite`, the likeliest first.
_NAMES = (
    "{stem}.txt", "{stem}.labels.txt", "{stem}_labels.txt", "{stem}-labels.txt",
    "{stem}_labelmap.txt", "{stem}.names", "labelmap.txt", "labels.txt", "label_map.txt",
    "label.txt", "classes.txt", "coco_labels.txt", "imagenet_labels.txt", "obj.names",
    "coco.names", "labelmap.pbtxt", "label_map.pbtxt",
)  # fmt: skip
_NUMBERED = re.compile(r"\s*(\d+)\s*[:,;\t ]\s*(\S.*)")
_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
_NAME = re.compile(r"\b(display_name|name)\s*:\s*(['\"])(.*?)\2", re.DOTALL)


def read(path: Path) -> dict[str, Any]:
    """What the file says, as far as it says it; each key may be missing.

    - `name`, `description`: of the model.
    - `task`: "object_detection" or "image_classification".
    - `refused`: what it is for, if that is none of these; `rotated`: whether its boxes are, so that
      they are no objects' either.
    - `objectness`: False of a detector that has none beside the scores of its classes.
    - `size`: height and width of the input; `color`: "rgb" or "gray".
    - `mean`, `std`: lists of one number or one per channel, in steps of 0 to 255.
    - `labels`, a tuple of names, and `labels_from`, where they stand.
    - `outputs`: a list of names, in the order of the file's tensors.
    - `box_order`: "yxyx", "xyxy" or "xywh"; `pixels`: whether boxes are in pixels.
    - `anchors`: (anchors, 4): y and x of the centre, height, width; with them `coder`, four
      divisors, and `sigmoid`, whether scores are logits.
    - `threshold`: the least score that its author deems good.
    - `operators`: names of its custom operators.
    - `quantises_to`: the range that the graph quantises its input to first, `low` and `high`.
    - `graph`: a `Written`, what its operators tell, and the labels of each of several outputs.
    - `written`, and `answers`, which of NaN and infinite numbers have one: what `carry` put there.

    Raises:
        ModelError: what it says can't be read.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if not start:
            raise ModelError(f"{path}: is empty; fetch it again")
        if start[4:] != b"TFL3":
            return {}  # the runtime will say so
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                model = root(data)
                if elsewhere := [group.text(0) for group in model.tables(8)]:
                    raise ModelError(
                        f"{path}: keeps weights in another file, {elsewhere[0][:80]!r}, which is "
                        "not read; convert the model into one file"
                    )
                found = {**_graph(model), **_metadata(model)}
                found["graph"] = tflite_graph.read_graph(model)
            if zipfile.is_zipfile(path):
                found |= _zipped(path, found)
            return found
        except _DAMAGED as error:
            raise ModelError(
                f"{path}: its metadata can't be read: it is damaged, cut off or no .tflite"
            ) from error


# ---------------------------------------------------------------- the graph


def _graph(model: Table) -> dict[str, Any]:
    codes = list(model.tables(1))
    found: dict[str, Any] = {}
    if custom := tuple(name for name in (code.text(1) for code in codes) if name):
        found["operators"] = custom
    if "TFLite_Detection_PostProcess" in custom:
        found["task"] = "object_detection"
    if first := _first_operation(model, codes):
        found["quantises_to"] = first
    return found


def _first_operation(model: Table, codes: list[Table]) -> dict[str, float]:
    """The range that the graph cuts its first input to, where it quantises that before all else.

    `{"low": -1.0, "high": 1.0}`; empty where it begins with something else.
    """
    graph = next(model.tables(2))
    first = graph.array(1, "<i4")[:1]
    tensors = list(graph.tables(0))
    for operation in graph.tables(3):
        if not len(first) or first[0] not in operation.array(1, "<i4"):
            continue
        code = codes[operation.number(0, "<I")]
        if max(code.number(0, "<b"), code.number(3)) != _QUANTIZE:
            return {}
        return _range(tensors[operation.array(2, "<i4")[0]])
    return {}


def _range(tensor: Table) -> dict[str, float]:
    """The real numbers that a tensor of eight bits can hold; empty where none are known."""
    quantization = tensor.table(4)
    if quantization is NO_FIELDS:
        return {}
    scale = float(quantization.array(2, "<f4")[0])
    zero = int(quantization.array(3, "<i8")[0])
    lowest = -128 if tensor.number(1, "<b") == 9 else 0  # TensorType: INT8, else UINT8
    return {"low": (lowest - zero) * scale, "high": (lowest + 255 - zero) * scale}


# ---------------------------------------------------------------- TFLite Metadata


def _metadata(model: Table) -> dict[str, Any]:
    entry = next((item for item in model.tables(6) if item.text(0) == "TFLITE_METADATA"), None)
    if entry is None:
        return {}
    buffer = list(model.tables(4))[entry.number(1, "<I")]
    metadata = root(buffer.array(0, "u1").tobytes())
    graph = next(metadata.tables(3), NO_FIELDS)
    texts = {"name": metadata.text(0), "description": metadata.text(1)}
    found: dict[str, Any] = {key: text for key, text in texts.items() if text}
    for tensor in list(graph.tables(2))[:1]:
        found.update(_input(tensor))
    for output in graph.tables(3):
        about = _output(output)
        found.setdefault("label_files_by_output", []).append(about.get("label_files", []))
        found.update(about)
        found.setdefault("outputs", []).append(output.text(0))
    for custom in graph.tables(9):
        if custom.text(0) == "DETECTOR_METADATA":
            found.update(_detector(root(custom.array(1, "u1").tobytes())))
    return found


def _input(tensor: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    image = tensor.table(3).union(2)  # ImageProperties
    if color := _COLORS.get(image.number(0, "<b")):
        found["color"] = color
    size = image.table(1)
    if width := size.number(0, "<I"):
        found["size"] = (size.number(1, "<I"), width)
    for options in (unit.union(1) for unit in tensor.tables(4)):  # NormalizationOptions
        if options is not NO_FIELDS:
            found["mean"] = options.array(0, "<f4").tolist()
            found["std"] = options.array(1, "<f4").tolist()
    return found


def _output(tensor: Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if files := [file.text(0) for file in tensor.tables(6) if file.number(2, "<b") in _LABEL_FILES]:
        found["label_files"] = files
    box = tensor.table(3).union(3)  # BoundingBoxProperties
    if box is not NO_FIELDS:
        index = tuple(box.array(0, "<u4").tolist())
        order = _BOX_ORDERS.get(box.number(1, "<b"), "")
        if order == "xyxy" and index == (1, 0, 3, 2):
            order = "yxyx"
        if order and index in ((), (0, 1, 2, 3), (1, 0, 3, 2)):
            found["box_order"] = order
        found["pixels"] = box.number(2, "<b") == 1
    for options in (unit.union(3) for unit in tensor.tables(4)):  # ScoreThresholdingOptions
        if options is not NO_FIELDS:
            found["threshold"] = float(options.number(0, "<f"))
    return found


def _detector(options: Table) -> dict[str, Any]:
    """MediaPipe's description of a detector without non-maximum suppression."""
    anchors, decoding = options.table(1).table(0).tables(0), options.table(2)
    x_center, y_center, width, height = range(4)
    boxes = [
        [anchor.number(field, "<f") for field in (y_center, x_center, height, width)]
        for anchor in anchors
    ]
    if not boxes or not decoding.number(10, "<B"):  # sizes that are no logarithms
        return {}
    x, y, w, h = (decoding.number(field, "<f") for field in (6, 7, 8, 9))
    return {
        "anchors": np.array(boxes, np.float32),
        "coder": (y, x, h, w),
        "sigmoid": bool(decoding.number(11, "<B")),
    }


# ---------------------------------------------------------------- files at its end


def carry(path: Path, facts: Mapping[str, Any]) -> None:
    """Put what is known of a model at the end of its file, so that it goes where that goes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CARRIED, json.dumps(facts))


def _zipped(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What the files at its end add to what was found before."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if CARRIED in names:
            facts = json.loads(_text_in(archive, CARRIED))
            answers = facts.get("answers", [])
            if not isinstance(answers, list) or not {*answers} <= {"NaN", "infinity"}:
                raise ValueError(f"{CARRIED}: answers")
            return {key: facts[key] for key in ("written", "answers") if key in facts}
        for name in _ULTRALYTICS:
            if name in names:
                return _ultralytics(_text_in(archive, name), f"{name} within the file")

        def labels_in(name: str) -> tuple[str, ...]:
            return parse_labels(_text_in(archive, name))

        each = [
            next(filter(names.__contains__, files), None)
            for files in found.get("label_files_by_output", [])
        ]
        more: dict[str, Any] = {}
        if len(list(filter(None, each))) > 1:
            outputs = zip(found["graph"].outputs, each, strict=False)
            classes = {output: labels_in(name) for output, name in outputs if name}
            more = {"graph": replace(found["graph"], classes=classes)}
        texts = [name for name in names if name.endswith(".txt")]
        likely = [name for name in texts if "label" in name.lower()]
        for name in [*found.get("label_files", []), *likely, *(texts if len(texts) == 1 else [])]:
            if name in names:
                named = {"labels": labels_in(name), "labels_from": f"{name} within the file"}
                return {**more, **named}
    return more


def _text_in(archive: zipfile.ZipFile, name: str) -> str:
    if archive.getinfo(name).file_size > _MAX_TEXT:  # and no more of it is unpacked than that
        raise ValueError(f"{name} is too large")
    return archive.read(name).decode("utf-8")


def _ultralytics(text: str, where: str) -> dict[str, Any]:
    """JSON, or in older files the `repr` of a dict; one of `_DAMAGED` where it is neither."""
    try:
        meta = json.loads(text)
    except ValueError:
        meta = ast.literal_eval(text)
    return ultralytics(meta, where)


def ultralytics(meta: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What Ultralytics writes into each model that it exports, as `read` has it."""
    found: dict[str, Any] = {}
    if names := meta.get("names"):
        entries = enumerate(names) if isinstance(names, list) else names.items()
        ordered = sorted((int(number), str(name)) for number, name in entries)
        found |= {"labels": tuple(name for _, name in ordered), "labels_from": where}
    if task := meta.get("task"):
        found["objectness"] = False  # which older makers' detectors have
        if known := _ULTRALYTICS_TASKS.get(str(task)):
            found["task"] = known
        else:
            found["refused"] = (
                f"is for Ultralytics' task {str(task)[:40]!r}, by {where}, which is not one of "
                f"{', '.join(_ULTRALYTICS_TASKS)}; put 'task: tensors' into a YAML beside the file "
                "for its outputs as they are"
            )
            found["rotated"] = task == "obb"
    size = meta.get("imgsz")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        found["size"] = (size[0], size[1])
    return found


# ---------------------------------------------------------------- label files


def find_labels(model: Path) -> Path | None:
    """The label file next to a model's file, if there is one."""
    places = (within(model.parent, name.format(stem=model.stem)) for name in _NAMES)
    return next((place for place in places if place and place.is_file()), None)


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in a label file.

    Raises:
        ModelError: it can't be read, or is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TEXT + 1)
        if len(content) > _MAX_TEXT:
            raise ValueError("it is too large")
        return parse_labels(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a label file in UTF-8 ({error})") from error


def parse_labels(text: str) -> tuple[str, ...]:
    """Names by class number; "???" stands for a number that the file leaves out.

    Raises:
        ValueError: it has a number that no class has.
    """
    if items := _ITEM.findall(text):
        return _by_number(dict(map(_item, items)))
    lines = [line.strip() for line in text.lstrip("\ufeff").strip("\r\n").splitlines()]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = [(int(match[1]), match[2].strip()) for match in matches if match]
    numbers = [number for number, _ in numbered]
    # "7 up" is a name; a whole file of rising numbers from 0 or 1 is a list of them.
    if len(numbered) == len(lines) > 1 and numbers[0] < 2 and numbers == sorted(set(numbers)):
        return _by_number(dict(numbered))
    return tuple(lines)


def _by_number(names: dict[int, str]) -> tuple[str, ...]:
    if max(names) > _MAX_CLASS:
        raise ValueError(f"it numbers a class {str(max(names))[:20]}")
    return tuple(names.get(number, "???") for number in range(max(names) + 1))


def _item(text: str) -> tuple[int, str]:
    number = re.search(r"\bid\s*:\s*(\d+)", text)
    names = {key: value for key, _, value in _NAME.findall(text)}
    name = names.get("display_name", names.get("name", "???"))
    return int(number[1]) if number else 0, name
