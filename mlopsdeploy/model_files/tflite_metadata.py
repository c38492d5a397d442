"""What a `.tflite` file says of itself: graph, TFLite Metadata, files zipped to its end.

A `.tflite` file is a FlatBuffer (https://flatbuffers.dev/internals), and so are TFLite Metadata and
MediaPipe's description of a detector, which travel in its buffers. The few fields of them that
matter here are read in place, with no package and without reading the weights. The numbers of the
fields are those of TensorFlow's `schema.fbs`, tflite-support's `metadata_schema.fbs` and
MediaPipe's `object_detector_metadata_schema.fbs`.
"""

from __future__ import annotations

import ast
import json
import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.labels import parse_labels

_DAMAGED = (
    struct.error, IndexError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError,
    zipfile.BadZipFile,
)  # fmt: skip
_LABEL_FILES = (2, 3)  # AssociatedFileType: TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS
_BOX_ORDERS = {1: "xyxy", 2: "xywh from corner", 3: "xywh"}  # BoundingBoxType
_ULTRALYTICS = ("metadata.json", "temp_meta.txt")
_ULTRALYTICS_TASKS = {"detect": "object_detection", "classify": "image_classification"}
_OPERATORS = {0: "ADD", 18: "MUL", 41: "SUB", 42: "DIV", 114: "QUANTIZE"}


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
    - `starts_with`: what the graph does to its input first, as `_first_operation` gives it.

    Raises:
        ModelError: what it says can't be read.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            return {}  # the runtime will say so
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                said = _graph(_root(data))
                said.update(_metadata(data))
            if zipfile.is_zipfile(path):
                said.update(_zipped(path, said.pop("label_files", [])))
        except _DAMAGED as error:
            raise ModelError(
                f"{path}: its metadata can't be read: it is damaged, cut off or no .tflite"
            ) from error
    said.pop("label_files", None)
    return said


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

    def number(self, field: int, kind: str = "<i", missing: float = 0) -> Any:
        at = self._where(field)
        return self._unpack(kind, at) if at else missing

    def table(self, field: int) -> _Table | None:
        at = self._where(field)
        return _Table(self._data, at + self._unpack("<I", at)) if at else None

    def array(self, field: int, dtype: str) -> Array:
        """A vector of numbers; empty if it is missing."""
        at = self._where(field)
        if not at:
            return np.empty(0, dtype)
        at += self._unpack("<I", at)
        count = self._unpack("<I", at) * np.dtype(dtype).itemsize
        return np.frombuffer(self._data[at + 4 : at + 4 + count], dtype)

    def text(self, field: int) -> str:
        return self.array(field, "u1").tobytes().decode("utf-8", "replace")

    def tables(self, field: int) -> Iterator[_Table]:
        at = self._where(field)
        if at:
            at += self._unpack("<I", at)
            for place in range(at + 4, at + 4 + 4 * self._unpack("<I", at), 4):
                yield _Table(self._data, place + self._unpack("<I", place))


def _root(data: Any) -> _Table:
    return _Table(data, struct.unpack_from("<I", data, 0)[0])


# ---------------------------------------------------------------- the graph


def _graph(model: _Table) -> dict[str, Any]:
    codes = list(model.tables(1))
    said: dict[str, Any] = {}
    custom = tuple(name for name in (code.text(1) for code in codes) if name)
    if custom:
        said["operators"] = custom
    if "TFLite_Detection_PostProcess" in custom:
        said["task"] = "object_detection"
    first = _first_operation(model, codes)
    if first:
        said["starts_with"] = first
    return said


def _first_operation(model: _Table, codes: list[_Table]) -> dict[str, Any]:
    """What the graph does to its first input before all else, where that shows what it takes.

    `{"operator": "MUL", "by": 0.0039}` for arithmetic with a constant (its mean over channels);
    `{"operator": "QUANTIZE", "low": -1.0, "high": 1.0}` for the range that a float is cut to.
    """
    graph = next(model.tables(2))
    inputs = graph.array(1, "<i4")
    tensors, buffers = list(graph.tables(0)), list(model.tables(4))
    for operation in graph.tables(3):
        takes = operation.array(1, "<i4")
        if not len(inputs) or inputs[0] not in takes:
            continue
        code = codes[operation.number(0, "<I")]
        name = _OPERATORS.get(max(code.number(0, "<b"), code.number(3)))
        if name == "QUANTIZE":
            made = tensors[operation.array(2, "<i4")[0]]
            return {"operator": name, **_range(made)} if made.table(4) else {}
        if name is None or len(takes) != 2:
            return {}
        other = tensors[takes[1] if takes[0] == inputs[0] else takes[0]]
        constant = buffers[other.number(2, "<I")].array(0, "u1")
        if other.number(1, "<b") != 0 or not constant.size:  # not float32, or not a constant
            return {}
        return {"operator": name, "by": float(constant.view("<f4").mean())}
    return {}


def _range(tensor: _Table) -> dict[str, float]:
    """The real numbers that a tensor of eight bits can hold."""
    quantization = tensor.table(4)
    assert quantization is not None
    scale = float(quantization.array(2, "<f4")[0])
    zero = int(quantization.array(3, "<i8")[0])
    lowest = -128 if tensor.number(1, "<b") == 9 else 0  # TensorType: INT8, else UINT8
    return {"low": (lowest - zero) * scale, "high": (lowest + 255 - zero) * scale}


# ---------------------------------------------------------------- TFLite Metadata


def _metadata(data: Any) -> dict[str, Any]:
    model = _root(data)
    entry = next((item for item in model.tables(6) if item.text(0) == "TFLITE_METADATA"), None)
    if entry is None:
        return {}
    buffer = list(model.tables(4))[entry.number(1, "<I")]
    metadata = _root(buffer.array(0, "u1").tobytes())
    graph = next(metadata.tables(3), None)
    texts = {"name": metadata.text(0), "description": metadata.text(1)}
    said: dict[str, Any] = {key: text for key, text in texts.items() if text}
    if graph is None:
        return said
    given, gives = list(graph.tables(2)), list(graph.tables(3))
    if given:
        said.update(_input(given[0]))
    for output in gives:
        said.update(_output(output))
    if gives:
        said["outputs"] = [output.text(0) for output in gives]
    for custom in graph.tables(9):
        if custom.text(0) == "DETECTOR_METADATA":
            said.update(_detector(_root(custom.array(1, "u1").tobytes())))
    return said


def _input(tensor: _Table) -> dict[str, Any]:
    said: dict[str, Any] = {}
    content = tensor.table(3)
    image = content.table(1) if content and content.number(0, "<B") == 2 else None
    if image:
        color = image.number(0, "<b")
        if color in (1, 2):
            said["color"] = "rgb" if color == 1 else "gray"
        size = image.table(1)
        if size and size.number(0, "<I"):
            said["size"] = (size.number(1, "<I"), size.number(0, "<I"))
    for unit in tensor.tables(4):
        options = unit.table(1)
        if options and unit.number(0, "<B") == 1:  # NormalizationOptions
            said["mean"] = options.array(0, "<f4").tolist()
            said["std"] = options.array(1, "<f4").tolist()
    return said


def _output(tensor: _Table) -> dict[str, Any]:
    said: dict[str, Any] = {}
    files = [file.text(0) for file in tensor.tables(6) if file.number(2, "<b") in _LABEL_FILES]
    if files:
        said["label_files"] = files
    content = tensor.table(3)
    box = content.table(1) if content and content.number(0, "<B") == 3 else None
    if box:
        index = tuple(box.array(0, "<u4").tolist())
        order = _BOX_ORDERS.get(box.number(1, "<b"), "")
        if order == "xyxy" and index == (1, 0, 3, 2):
            order = "yxyx"
        if order and index in ((), (0, 1, 2, 3), (1, 0, 3, 2)):
            said["box_order"] = order
        said["pixels"] = box.number(2, "<b") == 1
    for unit in tensor.tables(4):
        options = unit.table(1)
        if options and unit.number(0, "<B") == 3:  # ScoreThresholdingOptions
            said["threshold"] = float(options.number(0, "<f"))
    return said


def _detector(options: _Table) -> dict[str, Any]:
    """MediaPipe's description of a detector without non-maximum suppression."""
    anchors, decoding = options.table(1), options.table(2)
    fixed = anchors.table(0) if anchors else None
    if fixed is None or decoding is None:
        return {}
    x_center, y_center, width, height = range(4)
    boxes = [
        [anchor.number(field, "<f") for field in (y_center, x_center, height, width)]
        for anchor in fixed.tables(0)
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


def _zipped(path: Path, label_files: list[str]) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
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
    """JSON, or in older files the `repr` of a dict.

    Raises:
        ValueError, SyntaxError: it is neither, or holds something else than it should.
    """
    try:
        meta = json.loads(text)
    except ValueError:
        meta = ast.literal_eval(text)
    if not isinstance(meta, dict):
        raise ValueError(f"{where}: expected an object")
    found: dict[str, Any] = {}
    names = meta.get("names")
    if names:
        if not isinstance(names, dict | list):
            raise ValueError(f"{where}: names is neither a map nor a list")
        entries = names.items() if isinstance(names, dict) else enumerate(names)
        ordered = sorted((int(number), str(name)) for number, name in entries)
        found["labels"] = tuple(name for _, name in ordered)
        found["labels_from"] = where
    task = meta.get("task")
    if isinstance(task, str) and task in _ULTRALYTICS_TASKS:
        found["task"] = _ULTRALYTICS_TASKS[task]
    size = meta.get("imgsz")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        found["size"] = (size[0], size[1])
    return found
