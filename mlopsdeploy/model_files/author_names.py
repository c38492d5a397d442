"""Names that an author wrote beside a graph, as texts by key."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping

_CLASS_KEYS = ("classes", "class_names", "labels", "names")
_WITH_CLASSES = ("softmax", "sigmoid", "logits", "linear", "label", "")


def classes_in(metadata: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The names of classes, for each output of a kind that has some."""
    names = next(filter(None, (names_in(metadata.get(key, "")) for key in _CLASS_KEYS)), ())
    return {name: names for name, kind in kinds.items() if names and kind in _WITH_CLASSES}


def names_in(text: str) -> tuple[str, ...]:
    """Of a JSON list, or of a dict by number in JSON or as Python writes it; else none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
    if isinstance(found, dict):
        try:
            found = [found[key] for key in sorted(found, key=int)]
        except (ValueError, TypeError):
            return ()
    return tuple(str(name) for name in found) if isinstance(found, list | tuple) else ()
