"""`mlopsdeploy edge`: pictures of a camera, or lines of text and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlopsdeploy.settings import EdgeSettings

Run = Callable[[EdgeSettings], tuple[dict[str, Any], int]]


def run_edge(settings: EdgeSettings) -> tuple[dict[str, Any], int]:
    """Do what the settings ask; returns the summary, shown on standard error, and the exit code.

    Raises:
        MlopsDeployError: see `watch.watch_camera` and `lines.command.read_lines`.
    """
    return chosen(settings)(settings)


def chosen(settings: EdgeSettings) -> Run:
    """What runs these settings. Lines are read without OpenCV, which a device then need not have.

    Raises:
        ModuleNotFoundError: a package of the extra is missing.
    """
    if settings.lines is not None:
        from mlopsdeploy.edge.lines.command import read_lines

        return read_lines
    from mlopsdeploy.edge.watch import watch_camera

    return watch_camera
