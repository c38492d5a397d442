"""The one reader of YAML: configs, `model.yaml` and MLflow's `MLmodel`.

YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so that `no`, `on` and
`12:30` stay text. Numbers keep the text that they were written as, for fields that want text.
Keys that stand twice are refused, as are files that expand to more than a person would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from mlopsdeploy.errors import MlopsDeployError

MAX_BYTES = 4 << 20
MAX_NODES = 100_000  # with aliases expanded; each takes a parser in Python some 40 µs
MAX_DEPTH = 50
LONG = 100  # characters of a text that count as a value more

_TAG = "tag:yaml.org,2002:"


class WrittenInt(int):
    """An integer that isn't written as Python would write it: `007`, `0x1F`."""

    text: str


class WrittenFloat(float):
    """A float that isn't written as Python would write it: `1.10`, `1e3`."""

    text: str


def text_of(value: object) -> object:
    """A number as it was written, for a field that wants text; anything else as it is."""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def read_yaml(path: str | Path, error: type[MlopsDeployError]) -> dict[str, Any]:
    """The mapping that a file holds; empty for an empty file.

    Raises:
        MlopsDeployError: of the class `error`; one line names the file and, if known, the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as missing:
        raise error(f"{path}: no such file") from missing
    except OSError as failed:
        raise error(f"{path}: can't be read ({failed.strerror})") from failed
    if len(content) > MAX_BYTES:
        raise error(f"{path}: larger than {MAX_BYTES >> 20} MiB, too large for a YAML file")
    try:
        return _mapping(content.decode("utf-8-sig"))
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        raise error(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from wrong
    except _RefusedError as wrong:
        raise error(f"{path}, line {wrong.line}: {wrong}") from wrong


def front_matter(path: Path) -> dict[str, Any]:
    """The mapping between two lines of `---` at the start of a Markdown file.

    Empty where there is none, or it can't be read: it is there for others.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return {}
    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    try:
        return _mapping(found[1]) if found else {}
    except _RefusedError:
        return {}


class _RefusedError(Exception):
    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def _refuse(node: Node, problem: str) -> _RefusedError:
    return _RefusedError(problem, node.start_mark.line + 1)


def _mapping(text: str) -> dict[str, Any]:
    try:
        node = _Loader(text).get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _RefusedError(f"holds the control character {error.character:#04x}", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        if "'\\t'" in problem:
            problem = "begins with a tab; indent with spaces"
        raise _RefusedError(f"not YAML ({problem[:160]})", mark.line + 1 if mark else 1) from error
    if node is None or (isinstance(node, ScalarNode) and node.tag == _TAG + "null"):
        return {}
    if not isinstance(node, MappingNode):
        raise _refuse(node, "expected 'key: value' lines")
    mapping: dict[str, Any] = _value(node)
    return mapping


class _Loader(yaml.BaseLoader):
    """From text to nodes, as deep and as many, aliases expanded, as a person would write."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0
        self._sizes: dict[Node, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is not None and target not in self._sizes:  # it isn't complete: we are in it
                raise _RefusedError(f"*{event.anchor} stands within what it names", line)
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"nested deeper than {MAX_DEPTH}", line)
        if self._count > MAX_NODES:
            raise _RefusedError(f"holds more than {MAX_NODES:,} values", line)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node not in self._sizes:
            size = 1 + sum(self._sizes[child] for child in _children(node))
            if isinstance(node, ScalarNode):
                size += len(node.value) // LONG
            if size > MAX_NODES:
                raise _refuse(node, f"expands to more than {MAX_NODES:,} values")
            self._sizes[node] = size
        return node


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, SequenceNode) else []


def _value(node: Node) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, MappingNode) and kind == "map":
        return _mapping_value(node)
    if isinstance(node, SequenceNode) and kind == "seq":
        return [_value(child) for child in node.value]
    if not isinstance(node, ScalarNode) or kind not in _SCALARS:
        raise _refuse(node, f"has the tag {node.tag.replace(_TAG, '!!')}; write plain YAML")
    try:
        return _SCALARS[kind](node.value)
    except (ValueError, OverflowError) as error:
        raise _refuse(node, f"{node.value[:40]!r} can't be read as {kind}") from error


def _mapping_value(node: MappingNode) -> dict[Any, Any]:
    value: dict[Any, Any] = {}
    merged: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == _TAG + "merge":  # of several, as of keys, the first wins
            parts = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for part in parts:
                if not isinstance(part, MappingNode):
                    raise _refuse(part, "<< takes a map, or a list of maps")
                merged = {**_mapping_value(part), **merged}
            continue
        if not isinstance(key_node, ScalarNode):
            raise _refuse(key_node, "a key can't be a list or a map")
        key = _value(key_node)
        if key in value:
            raise _refuse(key_node, f"the key {key!r} stands there twice")
        value[key] = _value(value_node)
    return {**merged, **value}


def _number(value: float, text: str) -> float:
    """With the text that it has in the file, where Python would write it otherwise."""
    if str(value) == text:
        return value
    written = WrittenInt(value) if isinstance(value, int) else WrittenFloat(value)
    written.text = text
    return written


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "merge": str,  # a value, or a list's item, that reads <<
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: _number(int(text, 0 if text.startswith(("0o", "0x")) else 10), text),
    "float": lambda text: _number(float(re.sub(r"\.(?=[a-zA-Z])", "", text)), text),  # .inf, .nan
}


def _dump_written(dumper: yaml.SafeDumper, value: WrittenInt | WrittenFloat) -> ScalarNode:
    kind = "int" if isinstance(value, int) else "float"
    return dumper.represent_scalar(_TAG + kind, value.text)


yaml.SafeDumper.add_multi_representer(WrittenInt, _dump_written)
yaml.SafeDumper.add_multi_representer(WrittenFloat, _dump_written)
