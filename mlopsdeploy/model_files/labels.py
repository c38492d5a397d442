"""Label files: one name a line, `number name` a line, or a label map in protobuf's text format."""

from __future__ import annotations

import re
from pathlib import Path

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
