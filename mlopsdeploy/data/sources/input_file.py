"""An open input file: unpacked, as UTF-8, and with errors that name it."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import signal
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mlopsdeploy.data import packing
from mlopsdeploy.data.addresses import file_part, is_remote, shown
from mlopsdeploy.data.packing import BROKEN
from mlopsdeploy.errors import InputError

HEAD = 4096  # bytes from which a format is told
_BUFFER = 1 << 17
_LAYERS = 3  # that a file is packed in: a server may pack a .gz once more
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


# The file that tells a workbook, of Excel or of OpenDocument, from any other zip.
_WORKBOOK = {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}


def split_name(path: str) -> str:
    """A name without what it says of packing and, of an address, without a signature."""
    return packing.split_packing(file_part(path))[0]


class NoRows(InputError):  # noqa: N818  # what it says is an error
    """A file holds nothing to score."""


class _AsOpened(io.RawIOBase):
    """A file up to the end that it had when it was opened, whatever is written to it since."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._end = os.fstat(file.fileno()).st_size

    def readinto(self, buffer: Any) -> int | None:
        left = max(self._end - self._file.tell(), 0)
        return self._file.readinto(memoryview(buffer)[:left]) if left else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            offset, whence = self._end + offset, io.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(path: Path) -> IO[bytes]:
    file = path.open("rb", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return io.BufferedReader(file)
    return io.BufferedReader(_AsOpened(file), _BUFFER)


def _is_open_to_write(file: int) -> bool:
    """Whether any process of this machine may still write to a file; False where nobody knows."""
    import fcntl  # not on every system

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # Who opens it in the moment that we hold the lease makes a signal: one that does no harm.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class InputFile:
    """A file that is read from its start to its end: the end that it has when it is opened.

    Attributes:
        path: as the user wrote it, without secrets.
        name: what messages call it.
        raw: the file as it is stored.
        inner: the name of what is packed in it, by which its format is told.
        member: the file of a zip that is read; "" where there is no zip.
        content: how many bytes were read, unpacked.
        encoding: what it is stored in; known after `decode`.
        byte_order_mark: whether it starts with that of UTF-8; known after `decode`.
        transcoded: whether it is stored in something else than UTF-8; known after `decode`.
        held_back: lines at its end that weren't read, because somebody is still writing them.
    """

    def __init__(self, raw: IO[bytes], path: str) -> None:
        self.raw, self.path = raw, path
        self.name = "standard input" if path == "-" else path
        self.inner, self.member = split_name(path), ""
        self.byte_order_mark = self.transcoded = False
        self.encoding = "utf-8"
        self._stream: Any = raw
        self._decoder: codecs.IncrementalDecoder | None = None
        self.content = self.held_back = 0
        self._size = self._start = 0
        if raw.seekable():
            self._start = raw.tell()
            self._size = raw.seek(0, io.SEEK_END)
            raw.seek(self._start)

    @classmethod
    def open(cls, path: str) -> InputFile:
        """Open a file, an object of a store, or standard input for "-".

        Raises:
            InputError: it isn't there, or can't be opened.
        """
        if path == "-":
            return cls(sys.stdin.buffer, path)
        if is_remote(path):
            from mlopsdeploy.data import object_stores

            return cls(object_stores.open_remote(path), shown(path))
        try:
            return cls(_opened(Path(path)), shown(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{path}: no such file") from error
        except OSError as error:
            raise InputError(f"{path}: can't be opened ({error.strerror})") from error

    def unpack(self, part: str | None, is_data: Callable[[str], bool]) -> None:
        """Read what is packed in it, which its first bytes tell: gzip, bzip2, xz, zstd or zip.

        A workbook, which is a zip too, stays as it is.

        Args:
            part: of a zip with several files, the one to read.
            is_data: whether a file of a zip is one to read by its name.

        Raises:
            InputError: it is damaged, or a zip of several files.
        """
        for _ in range(_LAYERS):
            head = self.peek(HEAD)
            if head.startswith(packing.ZIP):
                if not self._unzip(part, is_data):
                    return
            elif opened := packing.opener(head):
                self._stream = opened(self._stream)
            else:
                return

    def _unzip(self, part: str | None, is_data: Callable[[str], bool]) -> bool:
        """Read a file of a zip; False for a workbook."""
        try:
            archive = zipfile.ZipFile(self.seekable())
            found = packing.members(archive)
            if _WORKBOOK.intersection(found):
                self.seekable()  # from its start again
                return False
            self.member = self._chosen(found, part, is_data)
            self._stream = archive.open(self.member)
        except BROKEN as error:
            raise self._broken(error) from error
        except RuntimeError as error:
            raise InputError(f"{self.name}: {self.member} in it needs a password") from error
        self.inner = split_name(self.member)
        return True

    def _chosen(self, found: list[str], part: str | None, is_data: Callable[[str], bool]) -> str:
        """The only file of a zip, or the only one with data, or the one that is asked for."""
        if not found:
            raise NoRows(f"{self.name}: a zip with no file in it")
        if part in found:
            return part
        data = found if len(found) == 1 else list(filter(is_data, found))
        if len(data) != 1:
            names = ", ".join((data or found)[:6]) + (" …" if len(data or found) > 6 else "")
            raise InputError(f"{self.name}: a zip of {names}: which one? say --sheet NAME")
        return data[0]

    def seekable(self) -> IO[bytes]:
        """What is in it, unpacked, at its start, as a file that can be read here and there.

        A pipe, or what is packed, is copied to a temporary file first.
        """
        packed = self._stream is not self.raw
        if self.raw.seekable() and not packed:
            self.raw.seek(self._start)
            return self.raw
        kept: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        try:
            shutil.copyfileobj(self._stream, kept, 1 << 20)
        except BROKEN as error:
            kept.close()
            raise self._broken(error) from error
        kept.seek(0)
        self.close()
        self._stream = self.raw = kept
        self._size, self._start = os.fstat(kept.fileno()).st_size, 0
        return kept

    def decode(self, encoding: str) -> None:
        """Read it as UTF-8 without a byte order mark, whatever it is stored in.

        Args:
            encoding: its own; "auto" is what a byte order mark says, UTF-16 where every other byte
                is NUL, else UTF-8.

        Raises:
            InputError: there is no such encoding.
        """
        head = self.peek(HEAD)
        self.byte_order_mark = head.startswith(codecs.BOM_UTF8)
        if encoding == "auto":
            marks = (mark for mark in _BYTE_ORDER_MARKS if head.startswith(mark))
            encoding = _BYTE_ORDER_MARKS.get(next(marks, b""), _unmarked(head))
        try:
            "".encode(encoding)  # of a text, and not base64
            encoding = codecs.lookup(encoding).name  # UTF-8, utf8 and utf_8 are one
            if encoding not in ("utf-8", "utf-8-sig"):
                self._decoder = codecs.getincrementaldecoder(encoding)()
                self.transcoded = True
            elif self.byte_order_mark:
                self._stream.read(len(codecs.BOM_UTF8))
        except LookupError as error:
            raise InputError(f"{self.name}: unknown encoding {encoding!r}") from error
        self.encoding = encoding

    def peek(self, size: int) -> bytes:
        """The first bytes, unpacked and left in place."""
        try:
            return bytes(self._stream.peek(size)[:size])
        except BROKEN as error:
            raise self._broken(error) from error

    def read(self, size: int) -> bytes:
        """The next bytes, about so many; b"" at the end."""
        try:
            stored = self._stream.read(size)
            content = self._decoder.decode(stored, not stored).encode() if self._decoder else stored
        except BROKEN as error:
            raise self._broken(error) from error
        except UnicodeError as error:
            other = "latin-1" if self.encoding == "cp1252" else "cp1252"
            raise InputError(
                f"{self.name}: is not {self.encoding}; name its encoding, as --encoding {other} or "
                "gb18030, or leave --encoding out to be asked"
            ) from error
        if stored and not content:  # a part of a character
            return self.read(size)
        return self._noted(content)

    def read_line(self) -> bytes:
        """The next line of a file in UTF-8; b"" at the end, also of what is not yet written."""
        try:
            line = self._noted(self._stream.readline())
        except BROKEN as error:
            raise self._broken(error) from error
        if line and not line.endswith(b"\n") and self.is_growing():
            self.held_back += 1
            return b""
        return line

    def is_growing(self) -> bool:
        """Whether it has grown since it was opened, or somebody has it open to write to it."""
        try:
            now = os.fstat(self.raw.fileno())
            regular = stat.S_ISREG(now.st_mode)
            return regular and (now.st_size > self._size or _is_open_to_write(self.raw.fileno()))
        except (OSError, ValueError, ImportError):  # no file of the system's, or closed
            return False

    def left_out(self) -> dict[str, Any]:
        """What of it was not read, for the summary."""
        return {"lines held back": self.held_back} if self.held_back else {}

    def _noted(self, content: bytes) -> bytes:
        if not content:
            self._check_end()
        self.content += len(content)
        return content

    def _check_end(self) -> None:
        """Raise if it ends before the end that it had when it was opened."""
        try:
            size = os.fstat(self.raw.fileno()).st_size
        except OSError:  # no file of the system's
            return
        if size < self._size:
            raise InputError(f"{self.name}: was cut while it was read; run again when it is whole")

    def _broken(self, error: Exception) -> InputError:
        return InputError(f"{self.name}: can't be read ({error})")

    def share(self, size: float) -> float | None:
        """The part of the whole that so many bytes of content are, also where it is packed.

        Content read and bytes taken from the file are compared as they come, so no size of the
        unpacked content is needed.
        """
        if not self._size or not self.content:
            return None
        return size / self.content * self.raw.tell() / self._size

    def close(self) -> None:
        """Close it, but not standard input: it isn't ours, and its reader may sit in a read."""
        if self.raw is not sys.stdin.buffer:
            self.raw.close()


def _unmarked(head: bytes) -> str:
    """The encoding of a file without a byte order mark: UTF-16 has NULs at every other place."""
    nuls = [head[start::2].count(0) for start in (0, 1)]
    if not any(nuls) or all(nuls) or max(nuls) < 0.4 * len(head) / 2:
        return "utf-8"
    return "utf-16-le" if nuls[1] else "utf-16-be"
