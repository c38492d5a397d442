"""What the shell offers when Tab is pressed, beside the commands and flags that Typer knows.

All of it stands here, by the name of a parameter, and is given to the commands only when a shell
asks. It must answer while somebody waits with a finger on Tab: it looks at names and folders and
imports nothing heavy. Where it has nothing to offer, the shell completes file names by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_type_hints

import typer
from typer.models import ParameterInfo

import mlopsdeploy

ASKED = "_MLOPSDEPLOY_COMPLETE"  # the variable by which Typer's scripts ask
_MODELS = (".h5", ".hdf5", ".keras", ".onnx", ".tflite", ".xml")
_CONFIGS = (".yaml", ".yml")
# What no shell wants quoted. A name with anything else in it is left to the shell, which quotes.
_PLAIN = re.compile(r"[\w./+@%,-]*")


def offer(app: typer.Typer) -> None:
    """Give each command's parameters, and those of the groups below, what is offered for them."""
    for command in app.registered_commands:
        function = command.callback
        assert function is not None
        hints = get_type_hints(function, include_extras=True)
        for name, hint in hints.items():
            offered = _OFFERED.get(f"{function.__name__} {name}", _OFFERED.get(name))
            for said in getattr(hint, "__metadata__", ()):
                if isinstance(said, ParameterInfo):
                    said.autocompletion = offered
        function.__annotations__ = hints  # Typer reads these, not the text they were made from
    for group in app.registered_groups:
        if group.typer_instance is not None:
            offer(group.typer_instance)


def model(incomplete: str) -> list[str]:
    """Built-in names, folders, and files of a kind that holds a model."""
    folder = Path(mlopsdeploy.__file__).parent / "builtin"
    names = sorted(path.parent.name for path in folder.glob("*/model.yaml"))
    return [*_beginning(incomplete, names), *_paths(incomplete, _MODELS)]


def config(incomplete: str) -> list[str]:
    """YAML files, and folders on the way to them."""
    return _paths(incomplete, _CONFIGS)


def runtime(incomplete: str) -> list[str]:
    """Runtimes, those of other packages too."""
    from mlopsdeploy.core import plugins

    return _beginning(incomplete, ["auto", *plugins.names("runtimes")])


def one_of(*words: str) -> Callable[[str], list[str]]:
    """One of a few words."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, words)

    return complete


# By the parameter, or by the command's function and the parameter where one name means several
# things. A test holds these words against the settings.
_OFFERED = {
    "config": config,
    "model": model,
    "models": model,
    "first": model,
    "second": model,
    "runtime": runtime,
    "precision": one_of("auto", "float32", "bfloat16", "int8"),
    "if_exists": one_of("replace", "append", "fail"),
    "long_text": one_of("head", "head-tail", "chunks"),
    "engine": one_of("local", "ray"),
    "server": one_of("granian", "gunicorn"),
    "log_format": one_of("auto", "text", "json"),
    "data_at": one_of("server", "device"),
    "choose server": one_of("cloud", "own", "none"),
    "choose data": one_of("table", "text", "pictures"),
    "models_compile to": one_of("onnx", "litert", "openvino"),
    "package_serve to": one_of("docker", "compose", "kubernetes", "systemd", "kserve"),
    "package_batch to": one_of("cron", "systemd", "kubernetes", "airflow", "ray"),
    "package_edge to": one_of("systemd", "docker"),
}


def _beginning(start: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(start)]


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
