"""Where answers go: lines of JSON, or lines for people."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from mlopsdeploy.edge.events import Event, iso
from mlopsdeploy.edge.lines.pipeline import Answer
from mlopsdeploy.errors import ConfigError

COLORS = ("cyan", "magenta", "yellow", "green", "blue")  # of labels, by their place
UNSURE = 0.6  # a score below it is shown dim
WIDEST = 24  # columns of a label

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Writer(Protocol):
    """Writes answers somewhere."""

    name: str

    def write(self, answers: Sequence[Answer]) -> None:
        """Write some answers, in order.

        Raises:
            OSError: it can't.
        """
        ...

    def tell(self, event: Event) -> None:
        """Write what happened to the source.

        Raises:
            OSError: it can't.
        """
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Output:
    """A writer that is given up when it fails, so that the others go on.

    Attributes:
        failed: the error it was given up for, or None.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.failed: OSError | None = None
        self._lock = threading.Lock()  # what happens to the source is told by another thread

    def write(self, answers: Sequence[Answer]) -> None:
        """Write answers, unless it was given up."""
        with self._lock:
            if self.failed is None:
                try:
                    self.writer.write(answers)
                except OSError as error:
                    self.failed = error

    def tell(self, event: Event) -> None:
        """Write what happened, unless it was given up."""
        with self._lock:
            if self.failed is None:
                try:
                    self.writer.tell(event)
                except OSError as error:
                    self.failed = error

    def close(self) -> None:
        """Nothing more comes."""
        with self._lock:
            self.writer.close()


class JsonLines:
    """`--events`: a line of JSON for each line.

    A file also gets what happens to the source. Standard output has a line for each of the input
    and nothing else, so that they can be put side by side.

    Args:
        path: of the file, or `-`.
        echo: whether to write the line itself too.
        keep: append to a file that is there, as answers of lines that do not come again.
    """

    def __init__(self, path: str, *, echo: bool, keep: bool = False) -> None:
        self.name = "standard output" if path == "-" else "--events"
        self._echo = echo
        self._to_file = path != "-"
        self._stamp = 0.0, ""
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if keep else os.O_TRUNC)
        try:
            self._fd = os.open(path, flags, 0o666) if self._to_file else 1
        except OSError as error:
            raise ConfigError(f"--events {path}: {error.strerror}") from error

    def write(self, answers: Sequence[Answer]) -> None:
        """Append their lines at once: a reader sees each whole, a crash cuts none in two."""
        self._append("".join([f"{_encode(self._said(answer))}\n" for answer in answers]))

    def tell(self, event: Event) -> None:
        """A line too, in a file."""
        if self._to_file:
            self._append(_encode(event.as_dict()) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._to_file:
            os.close(self._fd)

    def _append(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(self._fd, data) :]

    def _said(self, answer: Answer) -> dict[str, object]:
        line = answer.line
        if line.time != self._stamp[0]:  # lines that came together have one time
            self._stamp = line.time, iso(line.time)
        kind = "unreadable" if answer.problem else "header" if answer.header else "line"
        said: dict[str, object] = {"event": kind, "time": self._stamp[1], "line": line.number}
        if answer.problem:
            said["reason"] = answer.problem
        elif not answer.header:
            said["label"] = answer.label
            said["score"] = None if answer.score is None else round(answer.score, 6)
        if answer.truncated:
            said["truncated"] = True
        if self._echo:
            said["text"] = answer.text
        return said


class Readable:
    """A coloured line for each line, on a terminal.

    Args:
        console: of standard output.
        labels: that the model gives; each has its colour.
        echo: whether to show the line itself: not where it was typed on the same terminal.
    """

    name = "standard output"

    def __init__(self, console: Console, labels: Sequence[str], *, echo: bool) -> None:
        self._console = console
        self._echo = echo
        self._colors = {label: COLORS[place % len(COLORS)] for place, label in enumerate(labels)}
        self._width = min(max(map(len, labels), default=8), WIDEST)

    def write(self, answers: Sequence[Answer]) -> None:
        """Show them."""
        for answer in answers:
            self._console.print(self._line(answer), no_wrap=True, overflow="ellipsis", crop=True)

    def tell(self, event: Event) -> None:
        """Standard error says it."""

    def close(self) -> None:
        """Nothing is open."""

    def _line(self, answer: Answer) -> Text:
        text = _printable(answer.text or "") if self._echo else ""
        if answer.problem:
            said = f"line {answer.line.number}: {_printable(answer.problem)}"
            return Text.assemble((said, "red"), "  ", (text, "dim"))
        if answer.header:
            return Text.assemble(("the header  ", "dim"), (text, "dim"))
        if answer.label is None or answer.score is None:
            return Text("–", "dim")
        label = _printable(answer.label) or "–"
        style = self._colors.setdefault(answer.label, COLORS[len(self._colors) % len(COLORS)])
        style += " dim" if answer.score < UNSURE else " bold"
        return Text.assemble((label.ljust(self._width), style), f"  {answer.score:.3f}  ", text)


def _printable(text: str) -> str:
    """Without what would move the cursor or change colours: a line may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else " " if letter == "\t" else "·" for letter in text
    )
