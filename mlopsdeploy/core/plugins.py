"""Names to classes, through entry points: the one place of lazy imports.

A runtime, a task or a sink of `edge` is a module that imports its heavy package at the top. Nobody
imports such a module but this function, so that nothing heavy is loaded before it is needed, and an
outside package adds one by declaring an entry point.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mlopsdeploy.errors import ConfigError, RowError, did_you_mean, one_line

EXTRAS = {
    "image_classification": "edge", "image_multi_output": "edge", "image_regression": "edge",
    "object_detection": "edge",
    "text_classification": "text", "text_regression": "text",
    "events": "edge", "preview": "edge", "save": "edge", "snapshots": "edge", "mqtt": "mqtt",
}  # fmt: skip
"""What to install for a task or a sink; batch brings what others need."""

# Where a runtime's package has another name than the runtime.
_PACKAGES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}


def names(kind: str) -> tuple[str, ...]:
    """What there is of a kind ("runtimes", "tasks", "sinks"), installed or not."""
    return tuple(point.name for point in _points(kind))


def load(kind: str, name: str) -> Any:
    """The class that `name` stands for.

    A class of an outside package gets what it doesn't declare of the protocols in `columns`, and
    its `run` raises `RowError`.

    Raises:
        ConfigError: there is none of that name, or a package that it needs is not installed.
    """
    point = next((point for point in _points(kind) if point.name == name), None)
    if point is None:
        raise ConfigError(f"no {kind[:-1]} called {name!r}; {did_you_mean(name, names(kind))}")
    try:
        loaded = point.load()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "mlopsdeploy", _package(point)):  # a mistake of ours, or the plug-in's
            raise
        extra = name if kind == "runtimes" else EXTRAS.get(name, "batch")
        hint = f": pip install 'mlopsdeploy[{extra}]'"
        if _is_outside(point):
            hint = f", which {_package(point)} should have brought: pip install {missing}"
        raise ConfigError(f"{kind[:-1]} {name!r} needs the package {missing!r}{hint}") from error
    if _is_outside(point) and kind != "sinks":  # these inherit
        _complete(kind, loaded)
    return loaded


def _complete(kind: str, loaded: Any) -> None:
    """Add to an outside class what the protocols have and it lacks; done once."""
    from mlopsdeploy.columns import NEWER, Runtime, Task  # which needs NumPy

    protocol = Runtime if kind == "runtimes" else Task
    for name in NEWER[protocol]:
        if not hasattr(loaded, name):
            setattr(loaded, name, vars(protocol)[name])
    if protocol is Runtime and not hasattr(loaded.run, "__wrapped__"):
        loaded.run = _raising_row_errors(loaded.run)


# What Python and NumPy raise over values; a KeyError or a TypeError is a mistake of the class.
_OF_VALUES = (ValueError, RuntimeError, ArithmeticError, IndexError, MemoryError)


def _raising_row_errors(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def checked(runtime: Any, tensors: Any) -> Any:
        try:
            return run(runtime, tensors)
        except _OF_VALUES as error:
            raise RowError(f"the model can't compute these values ({one_line(error)})") from error

    return checked


def installed(runtime: str) -> bool:
    """Whether the package of a runtime is there. Imports nothing."""
    outside = (point for point in _points("runtimes") if _is_outside(point))
    if any(point.name == runtime for point in outside):  # and with it what it needs
        return True
    return importlib.util.find_spec(_PACKAGES.get(runtime, runtime)) is not None


def runtimes_for(format_: str) -> tuple[str, ...]:
    """The runtimes of outside packages that open files of a format, such as "npz".

    Imports these packages: ask for formats that no runtime of ours opens.

    Raises:
        ConfigError: one of them needs a package that is not installed.
    """
    outside = [point.name for point in _points("runtimes") if _is_outside(point)]
    return tuple(name for name in outside if format_ in load("runtimes", name).formats)


def _points(kind: str) -> list[EntryPoint]:
    found = _all_points(tuple(sys.path)).select(group=f"mlopsdeploy.{kind}")
    return sorted(found, key=lambda point: point.name)


@functools.cache
def _all_points(_path: tuple[str, ...]) -> Any:  # EntryPoints, from Python 3.12 on
    """Those of all packages, each of which has a file to be read: 15 ms where they are many."""
    return entry_points()


def _package(point: EntryPoint) -> str:
    return point.module.partition(".")[0]


def _is_outside(point: EntryPoint) -> bool:
    return _package(point) != "mlopsdeploy"
