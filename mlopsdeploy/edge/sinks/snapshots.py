"""`--snapshots`: pictures, now and then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from mlopsdeploy.edge.events import iso
from mlopsdeploy.edge.outputs import About, Sink
from mlopsdeploy.edge.results import Result, encode_jpeg
from mlopsdeploy.errors import ConfigError


class Snapshots(Sink):
    """`--snapshots`: a JPEG of a frame with something on it, at most one every few seconds.

    Args:
        folder: made if it isn't there.
        seconds: the least time between two, in the video's own time where it has one.
    """

    name = "snapshots"

    def __init__(self, folder: str, *, seconds: float) -> None:
        self._folder = Path(folder)
        self._seconds = seconds
        self._last = float("-inf")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--snapshots {folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"--snapshots {folder}: no permission to write there")

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Sink`."""
        return cls(value, seconds=about.settings.snapshot_seconds)

    def pick(self, result: Result) -> Result | None:
        """The frame, if there is something on it and the last one is long enough ago."""
        frame = result.frame
        now = frame.captured if frame.media_time is None else frame.media_time
        often = frame.name is None and now - self._last < self._seconds  # every picture of a folder
        if not result.detections or often:
            return None
        self._last = now
        return result

    def write(self, item: Result) -> None:
        """Write `20261122T185012.345Z-000123.jpg`; it appears whole or not at all."""
        stamp = iso(item.frame.time).replace("-", "").replace(":", "")
        path = self._folder / f"{stamp}-{item.frame.number:06d}.jpg"
        part = path.with_suffix(".part")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(encode_jpeg(item.drawn(), 92))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
