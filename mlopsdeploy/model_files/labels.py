"""Label files: one name a line, `number name` a line, or a label map in protobuf's text format."""

from __future__ import annotations

import re
from pathlib import Path

# Beside a model `detect.tflite`, the likeliest first.
_NAMES = (
    "{stem}.txt",
    "{stem}.labels.txt",
    "{stem}_labels.txt",
    "{stem}-labels.txt",
    "{stem}_labelmap.txt",
    "{stem}.names",
    "labelmap.txt",
    "labels.txt",
    "label_map.txt",
    "label.txt",
    "classes.txt",
    "coco_labels.txt",
    "imagenet_labels.txt",
    "obj.names",
    "coco.names",
    "labelmap.pbtxt",
    "label_map.pbtxt",
)
_NUMBERED = re.compile(r"\s*(\d+)\s*[:,;\t ]\s*(\S.*)")
_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)


def find_labels(model: Path) -> Path | None:
    """The label file beside a model's file, if there is one."""
    places = (model.parent / name.format(stem=model.stem) for name in _NAMES)
    return next((place for place in places if place.is_file()), None)


def parse_labels(text: str) -> tuple[str, ...]:
    """Names by class number; "???" stands for a number that the file leaves out."""
    items = _ITEM.findall(text)
    if items:
        return _by_number({_item_id(item): _item_name(item) for item in items})
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


def _item_id(item: str) -> int:
    found = re.search(r"\bid\s*:\s*(\d+)", item)
    return int(found[1]) if found else 0


def _item_name(item: str) -> str:
    for key in ("display_name", "name"):
        found = re.search(rf"\b{key}\s*:\s*(\"[^\"]*\"|'[^']*')", item)
        if found:
            return found[1][1:-1]
    return "???"
