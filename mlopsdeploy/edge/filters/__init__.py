"""What happens to a result between decoding and the outputs: filters, one after the other.

A filter gets the result of each frame, in the order of the frames and in one thread, so it may
remember what it saw; it returns that result or another one.
"""

from __future__ import annotations

from typing import Protocol

from mlopsdeploy.edge.results import Result


class Filter(Protocol):
    """Result in, result out."""

    def __call__(self, result: Result) -> Result:
        """What is left of the next frame's result."""

    def end(self) -> None:
        """No frame comes any more."""
