"""JSON that is no lines: an array of objects, a document with one in it, objects over many lines.

It is read in blocks and an object at a time, by the standard library's decoder, and each object
goes on as a line of its own, spelled as it was. From there on it is JSON Lines.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from mlopsdeploy.data.sources.base import ReadOptions
from mlopsdeploy.data.sources.input_file import HEAD, InputFile
from mlopsdeploy.data.sources.json_lines import JsonLinesSource
from mlopsdeploy.errors import InputError

READ_BYTES = 1 << 20
LONGEST = 64 << 20  # of one object of a list
LARGEST = 128 << 20  # of a document that has to be searched for its list
_LONGEST_WORD = 16  # -Infinity, or an emoji of two escapes
_BLANK = re.compile(r"\s*")
_BETWEEN = re.compile(r"[\s,]*")
_LINE_ENDS = re.compile(r"[\r\n]\s*")
_decode = json.JSONDecoder().raw_decode


def is_json(head: bytes) -> bool:
    """Whether a file that starts with some bytes is JSON of any kind, and hardly anything else."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.replace(b"\0", b"")
    return bool(re.match(rb'(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*(\[\s*)?\{\s*["}]', head))


def open_json(file: InputFile, options: ReadOptions) -> JsonLinesSource:
    """One object a line, or what is no lines, whichever the first bytes show.

    Raises:
        InputError: it has no rows, or can't be read.
    """
    file.decode(options.encoding)
    head = file.peek(HEAD).lstrip()
    named_lines = file.inner.lower().endswith((".jsonl", ".ndjson"))
    if file.transcoded or not _has_lines(head, named=named_lines):
        return JsonDocumentSource(file, options, named_lines=named_lines)
    return JsonLinesSource(file, options)


def _has_lines(head: bytes, *, named: bool) -> bool:
    """Whether each line is a row of its own; `named`: the file is called so."""
    line, ended, rest = (part.strip() for part in head.partition(b"\n"))
    if head.startswith(b"["):
        return named and not re.match(rb"\[\s*(\{|$)", head)
    try:
        json.loads(line)
    except ValueError:
        return named and (not ended or line.endswith(b"}") or not line.startswith(b"{"))
    return named or bool(rest)


class JsonDocumentSource(JsonLinesSource):
    """The objects of an array, or of the one list in a document, or objects in a row.

    Args:
        file: decoded already.
        options: its `sheet` is the path of the list, as `data.reviews`, where there are several.
        named_lines: it is called `.jsonl`: a single object is a row, and no document.

    Raises:
        InputError: which list is meant is not clear.
        NoRows: it has none.
    """

    has_lines = False

    def __init__(self, file: InputFile, options: ReadOptions, *, named_lines: bool = False) -> None:
        self._to_text = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at = "", 0  # what was read, and where the next row is in it
        self._read = 0  # characters of the file
        self._given = 0  # bytes of lines
        self._given_rows = 0
        self._in_list = self._ended = False
        self._list = ""
        self._file = file
        self._find_first(options.sheet, named_lines=named_lines)
        super().__init__(file, options)

    def _find_first(self, part: str | None, *, named_lines: bool) -> None:
        if self._skip(_BLANK) == "[":
            self._at += 1
            self._in_list = True
            return
        if named_lines or not self._is_one_object():
            return
        lists = dict(_lists(self._text, self._at))
        if part in lists:
            lists = {part: lists[part]}
        elif len(lists) > 1 or (part and part != self._file.member):
            which = ", ".join(list(lists)[:6]) or "none"
            raise InputError(
                f"{self._file.name}: lists of objects in it are {which}: say --sheet NAME"
            )
        for self._list, place in lists.items():
            self._at = place + 1
            self._in_list = True

    def _is_one_object(self) -> bool:
        """Whether there is nothing else in the file; it is all read then."""
        while True:
            complete = False
            try:
                value, end = _decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._is_wrong(error):
                    return False
            else:
                complete = isinstance(value, dict)
                if not complete or self._text[end:].strip():
                    return False
            if len(self._text) > LARGEST:
                raise InputError(
                    f"{self._file.name}: one JSON object of more than {LARGEST >> 20} MB, too "
                    "large to look for the list in it; take that out: jq -c '.reviews[]'"
                )
            if not self._more():
                return complete

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        block = self._file.read(max(READ_BYTES, len(self._text) - self._at))
        text = self._to_text.decode(block, not block)
        self._text, self._at = self._text[self._at :] + text, 0
        self._read += len(text)
        return bool(block)

    def _skip(self, blank: re.Pattern[str]) -> str:
        """Move past blanks; the next character, or "" at the end of the file."""
        while True:
            found = blank.match(self._text, self._at)
            assert found
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _next(self) -> str | None:
        """The text of the next object; None behind the last one."""
        following = self._skip(_BETWEEN)
        while self._in_list and following == "]":
            self._at += 1
            if self._list or not (following := self._skip(_BLANK)):
                return None
            if following != "[":
                raise self._wrong(f"{following!r} stands behind the end of the list")
            self._at += 1  # one list after the other, as where pages were appended
            following = self._skip(_BETWEEN)
        if not following:
            if self._in_list:
                raise self._wrong("the file ends before its list does; was it cut off?")
            return None
        return self._object()

    def _object(self) -> str:
        """The text of the object that starts here; also that of a line that holds none."""
        while True:
            try:
                _, end = _decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                too_long = len(self._text) - self._at > LONGEST
                if not too_long and not self._is_wrong(error) and self._more():
                    continue
                end = self._end_of_line(error)
            else:
                if end == len(self._text) and self._more():  # a number may go on
                    continue
            found, self._at = self._text[self._at : end], end
            return found

    def _end_of_line(self, error: Exception) -> int:
        """Where the line ends that is no JSON, if the next one may be a row again.

        Raises:
            InputError: what is wrong is in a list, or in an object of several lines.
        """
        place = self._text.find("\n", self._at)
        end = len(self._text) if place < 0 else place
        wrong_at = getattr(error, "pos", self._at)
        if self._in_list or wrong_at > end or not self._text[self._at : end].strip("{[ \r\t"):
            reason = getattr(error, "msg", error)
            raise self._wrong(f"not JSON, or cut off ({reason})") from error
        return end

    def _is_wrong(self, error: Exception) -> bool:
        """Whether reading on won't help: more follows than a word that was read half."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        after = error.doc[error.pos :].strip()
        return len(after) > _LONGEST_WORD and not error.msg.startswith("Unterminated")

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self._file.name}: after row {self._given_rows:,}: {what}")

    def _read_lines(self, count: int) -> list[bytes]:
        lines: list[bytes] = []
        while len(lines) < count and not self._ended:
            if (found := self._next()) is None:
                self._ended = True
                break
            line = _LINE_ENDS.sub(" ", found) if "\n" in found or "\r" in found else found
            lines.append(line.encode("utf-8", "surrogateescape") + b"\n")
            self._given += len(lines[-1])
            self._given_rows += 1
        return lines

    def _share(self, content: bytes) -> float | None:
        taken = self._read - (len(self._text) - self._at)
        part = len(content) / self._given * taken / self._read
        return self._file.share(part * self._file.content)

    def how_read(self) -> dict[str, Any]:
        """See `Source`; `list` is the path of the list in a document."""
        within = {"list": self._list} if self._list else {}
        return {**super().how_read(), "format": "json", **within}


def _lists(text: str, at: int, path: str = "") -> Iterator[tuple[str, int]]:
    """The lists of objects in the object that starts there: their paths and where they start."""
    place = _after(text, at + 1)
    while text[place] != "}":
        key, place = _decode(text, place)
        place = _after(text, _after(text, place) + 1)
        value, end = _decode(text, place)
        where = f"{path}{key}"
        if isinstance(value, dict):
            yield from _lists(text, place, f"{where}.")
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield where, place
        place = _after(text, end)
        if text[place] == ",":
            place = _after(text, place + 1)


def _after(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    assert found
    return found.end()
