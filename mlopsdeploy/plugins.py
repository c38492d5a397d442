"""Names to classes, through entry points: the one place of lazy imports.

A runtime or a task is a module that imports its heavy package at the top. Nobody imports such a
module but this function, so that nothing heavy is loaded before it is needed, and an outside
package adds one by declaring an entry point.
"""

from __future__ import annotations

import difflib
import importlib.util
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mlopsdeploy.errors import ConfigError

# What to install for tasks that are not a batch's.
_EXTRAS = {"image_classification": "edge", "object_detection": "edge"}
# Where a runtime's package has another name than the runtime.
_PACKAGES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}


def names(kind: str) -> tuple[str, ...]:
    """What there is of a kind ("runtimes" or "tasks"), installed or not."""
    return tuple(sorted(point.name for point in entry_points(group=f"mlopsdeploy.{kind}")))


def load(kind: str, name: str) -> Any:
    """The class that `name` stands for.

    Raises:
        ConfigError: there is none of that name, or a package that it needs is not installed.
    """
    point = _find(kind, name)
    try:
        return point.load()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "mlopsdeploy"):  # a mistake of ours, or the plug-in's own
            raise
        extra = name if kind == "runtimes" else _EXTRAS.get(name, "batch")
        raise ConfigError(
            f"{kind[:-1]} {name!r} needs the package {missing!r}: "
            f"pip install 'mlopsdeploy[{extra}]'"
        ) from error


def installed(runtime: str) -> bool:
    """Whether the package of a runtime is there. Imports nothing."""
    return importlib.util.find_spec(_PACKAGES.get(runtime, runtime)) is not None


def _find(kind: str, name: str) -> EntryPoint:
    for point in entry_points(group=f"mlopsdeploy.{kind}", name=name):
        return point
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise ConfigError(f"no {kind[:-1]} called {name!r}; {hint}")
