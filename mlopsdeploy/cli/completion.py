"""What the shell offers when Tab is pressed, other than the commands and flags that Typer knows.

It must answer while somebody waits with a finger on Tab: it looks at names and folders and imports
nothing heavy. Where it has nothing to offer, the shell completes file names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import mlopsdeploy
from mlopsdeploy.settings import Setting

_MODELS = (".h5", ".hdf5", ".keras", ".onnx", ".tflite", ".xml")
_CONFIGS = (".yaml", ".yml")
# What no shell wants quoted. A name with anything else in it is left to the shell, which quotes.
_PLAIN = re.compile(r"[\w./+@%,-]*")
Offer = Callable[..., list[str]]  # of which Typer leaves out what begins otherwise


def of(setting: Setting) -> Offer | None:
    """What is offered for a setting: its words, models, runtimes; None: the shell's files."""
    if setting.choices:
        return lambda: list(setting.choices)
    offers: dict[str, Offer] = {
        "model": _model,
        "runtime": _runtime,
        "task": _task,
        "config": config,
    }
    return offers.get(setting.offers or "")


def _model(incomplete: str) -> list[str]:
    """Built-in names, folders, and files of a kind that holds a model; after a comma too."""
    folder = Path(mlopsdeploy.__file__).parent / "builtin"
    names = sorted(path.parent.name for path in folder.glob("*/model.yaml"))
    before, comma, last = incomplete.rpartition(",")
    others = [f"{before},{one}" for one in _model(last)] if comma else []
    return [*names, *_paths(incomplete, _MODELS), *others]


def config(incomplete: str) -> list[str]:
    """YAML files, and folders on the way to them."""
    return _paths(incomplete, _CONFIGS)


def _runtime() -> list[str]:
    """Runtimes, those of other packages too."""
    from mlopsdeploy.core import plugins

    return ["auto", *plugins.names("runtimes")]


def _task() -> list[str]:
    """Tasks, those of other packages too."""
    from mlopsdeploy.core import plugins

    return list(plugins.names("tasks"))


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files that end so, and folders.

    A folder that is alone comes with what is in it: shells put a space behind the only answer.
    """
    found = _entries(incomplete, suffixes)
    if len(found) == 1 and found[0].endswith("/"):
        found += _entries(found[0], suffixes)
    return found


def _entries(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    head, start = os.path.split(incomplete)
    before = incomplete[: len(incomplete) - len(start)]
    found = []
    try:
        with os.scandir(head or ".") as entries:
            for entry in entries:
                name = before + entry.name
                hidden = entry.name.startswith(".") and not start.startswith(".")
                if hidden or not entry.name.startswith(start) or not _PLAIN.fullmatch(name):
                    continue
                if entry.is_dir():
                    found.append(f"{name}/")
                elif name.endswith(suffixes):
                    found.append(name)
    except OSError:  # no such folder, or not ours to read
        return []
    return sorted(found)
