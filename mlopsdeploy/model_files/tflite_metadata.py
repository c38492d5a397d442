"""What a `.tflite` file says of itself: graph, TFLite Metadata, files zipped to its end; labels.

A `.tflite` file is a FlatBuffer (https://flatbuffers.dev/internals), and so are TFLite Metadata and
MediaPipe's description of a detector, which travel in its buffers. The few fields of them that
matter here are read in place, with no package and without reading the weights. The numbers of the
fields are those of TensorFlow's `schema.fbs`, tflite-support's `metadata_schema.fbs` and
MediaPipe's `object_detector_metadata_schema.fbs`.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array
from mlopsdeploy.errors import ModelError

_DAMAGED = (
    struct.error, IndexError, ValueError, TypeError, AttributeError, SyntaxError, RecursionError,
    MemoryError, zipfile.BadZipFile,
)  # fmt: skip
_LABEL_FILES = (2, 3)  # AssociatedFileType: TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS
_COLORS = {1: "rgb", 2: "gray"}  # ColorSpaceType
_BOX_ORDERS = {1: "xyxy", 2: "xywh from corner", 3: "xywh"}  # BoundingBoxType
_ULTRALYTICS = ("metadata.json", "temp_meta.txt")
_ULTRALYTICS_TASKS = {"detect": "object_detection", "classify": "image_classification"}
_OPERATORS = {0: "ADD", 18: "MUL", 41: "SUB", 42: "DIV", 114: "QUANTIZE"}
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
    - `size`: height and width of the input; `color`: "rgb" or "gray".
    - `mean`, `std`: lists of one number or one per channel, in steps of 0 to 255.
    - `labels`, a tuple of names, and `labels_from`, where they stand.
    - `outputs`: a list of names, in the order of the file's tensors.
    - `box_order`: "yxyx", "xyxy" or "xywh"; `pixels`: whether boxes are in pixels.
    - `anchors`: (anchors, 4): y and x of the centre, height, width; with them `coder`, four
      divisors, and `sigmoid`, whether scores are logits.
    - `threshold`: the least score that its author deems good.
    - `operators`: names of its custom operators.
    - `starts_with`: what the graph does to its input first, as `_first_operation` has it.
    - `written`, and more, that `carry` put there.

    Raises:
        ModelError: what it says can't be read.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            return {}  # the runtime will say so
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                model = _root(data)
                found = {**_graph(model), **_metadata(model)}
            label_files = found.pop("label_files", [])
            return found | (_zipped(path, label_files) if zipfile.is_zipfile(path) else {})
        except _DAMAGED as error:
            raise ModelError(
                f"{path}: its metadata can't be read: it is damaged, cut off or no .tflite"
            ) from error


# ---------------------------------------------------------------- FlatBuffers


class _Table:
    """A table: fields by number, each of which may be missing."""

    def __init__(self, data: Any, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - self._unpack("<i", at)
        self._size = self._unpack("<H", self._vtable)

    def _unpack(self, kind: str, at: int) -> Any:
        return struct.unpack_from(kind, self._data, at)[0]

    def _where(self, field: int) -> int:
        """Where a field stands, 0 if it is missing."""
        slot = 4 + 2 * field
        offset = self._unpack("<H", self._vtable + slot) if slot < self._size else 0
        return self._at + offset if offset else 0

    def _follow(self, at: int) -> int:
        return at + int(self._unpack("<I", at))

    def number(self, field: int, kind: str = "<i") -> Any:
        """0 if it is missing."""
        at = self._where(field)
        return self._unpack(kind, at) if at else 0

    def table(self, field: int) -> _Table:
        """One without fields if it is missing."""
        at = self._where(field)
        return _Table(self._data, self._follow(at)) if at else _NO_FIELDS

    def union(self, kind: int) -> _Table:
        """Field 1, if field 0 says that it is of this kind."""
        return self.table(1) if self.number(0, "<B") == kind else _NO_FIELDS

    def array(self, field: int, dtype: str) -> Array:
        """A vector of numbers; empty if it is missing."""
        at = self._where(field)
        if not at:
            return np.empty(0, dtype)
        at = self._follow(at)
        count = self._unpack("<I", at) * np.dtype(dtype).itemsize
        return np.frombuffer(self._data[at + 4 : at + 4 + count], dtype)

    def text(self, field: int) -> str:
        return self.array(field, "u1").tobytes().decode("utf-8", "replace")

    def tables(self, field: int) -> Iterator[_Table]:
        if at := self._where(field):
            at = self._follow(at)
            for place in range(at + 4, at + 4 + 4 * self._unpack("<I", at), 4):
                yield _Table(self._data, self._follow(place))


_NO_FIELDS = _Table(struct.pack("<HHi", 4, 8, 4), 4)


def _root(data: Any) -> _Table:
    return _Table(data, struct.unpack_from("<I", data, 0)[0])


# ---------------------------------------------------------------- the graph


def _graph(model: _Table) -> dict[str, Any]:
    codes = list(model.tables(1))
    found: dict[str, Any] = {}
    if custom := tuple(name for name in (code.text(1) for code in codes) if name):
        found["operators"] = custom
    if "TFLite_Detection_PostProcess" in custom:
        found["task"] = "object_detection"
    if first := _first_operation(model, codes):
        found["starts_with"] = first
    return found


def _first_operation(model: _Table, codes: list[_Table]) -> dict[str, Any]:
    """What the graph does to its first input before all else, where that shows what it takes.

    `{"operator": "MUL", "by": 0.0039}` for arithmetic with a constant (its mean over channels);
    `{"operator": "QUANTIZE", "low": -1.0, "high": 1.0}` for the range that a float is cut to.
    """
    graph = next(model.tables(2))
    first = graph.array(1, "<i4")[:1]
    tensors, buffers = list(graph.tables(0)), list(model.tables(4))
    for operation in graph.tables(3):
        inputs = operation.array(1, "<i4")
        if not len(first) or first[0] not in inputs:
            continue
        code = codes[operation.number(0, "<I")]
        name = _OPERATORS.get(max(code.number(0, "<b"), code.number(3)))
        if name == "QUANTIZE":
            range_ = _range(tensors[operation.array(2, "<i4")[0]])
            return {"operator": name, **range_} if range_ else {}
        if name is None or len(inputs) != 2:
            return {}
        other = tensors[inputs[1] if inputs[0] == first[0] else inputs[0]]
        constant = buffers[other.number(2, "<I")].array(0, "u1")
        if other.number(1, "<b") != 0 or not constant.size:  # not float32, or not a constant
            return {}
        return {"operator": name, "by": float(constant.view("<f4").mean())}
    return {}


def _range(tensor: _Table) -> dict[str, float]:
    """The real numbers that a tensor of eight bits can hold; empty where none are known."""
    quantization = tensor.table(4)
    if quantization is _NO_FIELDS:
        return {}
    scale = float(quantization.array(2, "<f4")[0])
    zero = int(quantization.array(3, "<i8")[0])
    lowest = -128 if tensor.number(1, "<b") == 9 else 0  # TensorType: INT8, else UINT8
    return {"low": (lowest - zero) * scale, "high": (lowest + 255 - zero) * scale}


# ---------------------------------------------------------------- TFLite Metadata


def _metadata(model: _Table) -> dict[str, Any]:
    entry = next((item for item in model.tables(6) if item.text(0) == "TFLITE_METADATA"), None)
    if entry is None:
        return {}
    buffer = list(model.tables(4))[entry.number(1, "<I")]
    metadata = _root(buffer.array(0, "u1").tobytes())
    graph = next(metadata.tables(3), _NO_FIELDS)
    texts = {"name": metadata.text(0), "description": metadata.text(1)}
    found: dict[str, Any] = {key: text for key, text in texts.items() if text}
    for tensor in list(graph.tables(2))[:1]:
        found.update(_input(tensor))
    for output in graph.tables(3):
        found.update(_output(output))
        found.setdefault("outputs", []).append(output.text(0))
    for custom in graph.tables(9):
        if custom.text(0) == "DETECTOR_METADATA":
            found.update(_detector(_root(custom.array(1, "u1").tobytes())))
    return found


def _input(tensor: _Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    image = tensor.table(3).union(2)  # ImageProperties
    if color := _COLORS.get(image.number(0, "<b")):
        found["color"] = color
    size = image.table(1)
    if width := size.number(0, "<I"):
        found["size"] = (size.number(1, "<I"), width)
    for options in (unit.union(1) for unit in tensor.tables(4)):  # NormalizationOptions
        if options is not _NO_FIELDS:
            found["mean"] = options.array(0, "<f4").tolist()
            found["std"] = options.array(1, "<f4").tolist()
    return found


def _output(tensor: _Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if files := [file.text(0) for file in tensor.tables(6) if file.number(2, "<b") in _LABEL_FILES]:
        found["label_files"] = files
    box = tensor.table(3).union(3)  # BoundingBoxProperties
    if box is not _NO_FIELDS:
        index = tuple(box.array(0, "<u4").tolist())
        order = _BOX_ORDERS.get(box.number(1, "<b"), "")
        if order == "xyxy" and index == (1, 0, 3, 2):
            order = "yxyx"
        if order and index in ((), (0, 1, 2, 3), (1, 0, 3, 2)):
            found["box_order"] = order
        found["pixels"] = box.number(2, "<b") == 1
    for options in (unit.union(3) for unit in tensor.tables(4)):  # ScoreThresholdingOptions
        if options is not _NO_FIELDS:
            found["threshold"] = float(options.number(0, "<f"))
    return found


def _detector(options: _Table) -> dict[str, Any]:
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


def _zipped(path: Path, label_files: list[str]) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if CARRIED in names:
            return {**json.loads(archive.read(CARRIED))}
        for name in _ULTRALYTICS:
            if name in names:
                return _ultralytics(archive.read(name).decode("utf-8"), f"{name} within the file")
        texts = [name for name in names if name.endswith(".txt")]
        likely = [name for name in texts if "label" in name.lower()]
        for name in [*label_files, *likely, *(texts if len(texts) == 1 else [])]:
            if name in names:
                labels = parse_labels(archive.read(name).decode("utf-8"))
                return {"labels": labels, "labels_from": f"{name} within the file"}
    return {}


def _ultralytics(text: str, where: str) -> dict[str, Any]:
    """JSON, or in older files the `repr` of a dict; one of `_DAMAGED` where it is neither."""
    try:
        meta = json.loads(text)
    except ValueError:
        meta = ast.literal_eval(text)
    found: dict[str, Any] = {}
    if names := meta.get("names"):
        entries = enumerate(names) if isinstance(names, list) else names.items()
        ordered = sorted((int(number), str(name)) for number, name in entries)
        found |= {"labels": tuple(name for _, name in ordered), "labels_from": where}
    if task := _ULTRALYTICS_TASKS.get(str(meta.get("task"))):
        found["task"] = task
    size = meta.get("imgsz")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        found["size"] = (size[0], size[1])
    return found


# ---------------------------------------------------------------- label files


def find_labels(model: Path) -> Path | None:
    """The label file next to a model's file, if there is one."""
    places = (model.parent / name.format(stem=model.stem) for name in _NAMES)
    return next((place for place in places if place.is_file()), None)


def parse_labels(text: str) -> tuple[str, ...]:
    """Names by class number; "???" stands for a number that the file leaves out."""
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
    return tuple(names.get(number, "???") for number in range(max(names) + 1))


def _item(text: str) -> tuple[int, str]:
    number = re.search(r"\bid\s*:\s*(\d+)", text)
    names = {key: value for key, _, value in _NAME.findall(text)}
    name = names.get("display_name", names.get("name", "???"))
    return int(number[1]) if number else 0, name
