"""`--events`: lines of JSON, in a file or on standard output."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Self

from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.outputs import About, Found, Sink
from mlopsdeploy.errors import ConfigError

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Events(Sink):
    """A line of JSON for each frame or line, and for what happens to the source.

    Of a live source only frames with something on them get a line, and the first one after: a
    camera that looks at an empty room for a year fills no disk. What comes but once is appended to
    a file that is there; of a video, pictures or a file of lines it is written anew.

    Args:
        path: of the file; `-` is standard output.
        live: what it gets does not come again.
        happenings: write what happens to the source, too.
    """

    name = "events"
    waiting = 1000
    together = 100

    def __init__(self, path: str, *, live: bool, happenings: bool = True) -> None:
        self._live = live
        self._happenings = happenings
        self._something = True
        self._file = JsonLinesFile(path, keep=live)
        self.ends_with_reader = path == "-"
        if path == "-":
            self.called = "standard output"

    @classmethod
    def opened(cls, value: str, about: About) -> Self:
        """See `Sink`. Standard output has a line for each of the input and nothing else."""
        beside = about.settings.lines is not None and value == "-"
        return cls(value, live=about.live, happenings=not beside)

    def pick(self, result: Found) -> list[dict[str, Any]] | None:
        """The lines, without the picture."""
        before, self._something = self._something, result.something
        if self._live and not (before or self._something):
            return None
        return result.documents()

    def pick_event(self, event: Event) -> list[dict[str, Any]] | None:
        """A line too."""
        return [event.as_dict()] if self._happenings else None

    def write(self, item: Sequence[dict[str, Any]]) -> None:
        """Append them."""
        self._file.append(item)

    def write_all(self, items: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Append them at once."""
        self._file.append(chain.from_iterable(items))

    def reopen(self) -> None:
        """Open the file again: its disk may have been mounted anew."""
        self._file.reopen()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonLinesFile:
    """A file of JSON, an object a line: a reader sees each line whole, a crash cuts none in two.

    Args:
        path: of the file; `-` is standard output.
        keep: append to a file that is there, because what it holds does not come again.
    """

    def __init__(self, path: str, *, keep: bool) -> None:
        self._path = path
        try:
            self._fd = 1 if path == "-" else self._open(os.O_APPEND if keep else os.O_TRUNC)
        except OSError as error:
            raise ConfigError(f"--events {path}: {error.strerror}") from error

    def append(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Write some lines at once, all of them or none.

        Raises:
            OSError: they can't be written.
        """
        text = "".join([f"{_encode(document)}\n" for document in documents])
        data = memoryview(text.encode("utf-8", "replace"))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self._take_back(written)
            raise

    def reopen(self) -> None:
        """Open the file again, to be gone on with; it may be another one now.

        Raises:
            OSError: it can't be opened.
        """
        if self._fd != 1:
            fd = self._open(os.O_APPEND)
            os.close(self._fd)
            self._fd = fd

    def _open(self, how: int) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o666)

    def _take_back(self, written: int) -> None:
        """Cut off the part of a line that a full disk had room for."""
        about = os.fstat(self._fd)
        if written and stat.S_ISREG(about.st_mode) and self._fd != 1:
            with suppress(OSError):
                os.ftruncate(self._fd, about.st_size - written)

    def close(self) -> None:
        """Close the file."""
        if self._fd != 1:
            os.close(self._fd)
