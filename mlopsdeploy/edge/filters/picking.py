"""What is left of what was found: by label, by score, by size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.results import Result


class Picking:
    """A filter that leaves out detections.

    Args:
        wanted: whether one stays.
    """

    def __init__(self, wanted: Callable[[Detection], bool]) -> None:
        self._wanted = wanted

    def __call__(self, result: Result) -> Result:
        """The next frame."""
        return replace(result, detections=tuple(filter(self._wanted, result.detections)))

    def end(self) -> None:
        """Nothing is left to do."""


def labelled(wanted: Callable[[str], bool]) -> Callable[[Detection], bool]:
    """With a label that is wanted."""
    return lambda found: wanted(found.label)


def sure(threshold: Callable[[str], float]) -> Callable[[Detection], bool]:
    """With the least score of its label; what has no probability stays."""

    def wanted(found: Detection) -> bool:
        judged = found.score is not None and found.answer.is_probability
        return not judged or found.order >= threshold(found.label)

    return wanted


def large(share: float) -> Callable[[Detection], bool]:
    """Of that share of the picture or more; answers to the whole picture stay."""

    def wanted(found: Detection) -> bool:
        if found.box is None:
            return True
        x1, y1, x2, y2 = found.box
        return (x2 - x1) * (y2 - y1) >= share

    return wanted
