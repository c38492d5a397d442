"""Packed files: read by what is in them, written by their name.

Each packed part that is written stands for itself, and what unpacks such files reads parts that
follow each other as one: so a file can grow, and be cut off between two of them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any, cast

import pyarrow as pa

# What reading a file that was cut off or damaged raises.
BROKEN: tuple[type[Exception], ...] = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowInvalid,
)  # fmt: skip
ZIP = b"PK\x03\x04", b"PK\x05\x06"  # the latter of one with nothing in it

_OPENERS: dict[bytes, Callable[[Any], IO[bytes]]] = {
    b"\x1f\x8b": lambda raw: cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb")),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda raw: io.BufferedReader(
        pa.CompressedInputStream(raw, "zstd"), 1 << 16
    ),
}
_COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    # No name and no time in it: the same rows make the same bytes.
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}
_SUFFIXES = (*_COMPRESSED, ".zip")


def opener(head: bytes) -> Callable[[Any], IO[bytes]] | None:
    """What opens a packed file that starts with some bytes; None for one that isn't packed.

    A zip, which has files of its own, is none of them.
    """
    return next((opened for magic, opened in _OPENERS.items() if _is_packed(head, magic)), None)


def _is_packed(head: bytes, magic: bytes) -> bool:
    # "BZh" might be the start of a text; a digit and the number pi follow in a packed file.
    return head.startswith(magic) and (magic != b"BZh" or head[4:10] == b"1AY&SY")


def split_packing(name: str) -> tuple[str, str]:
    """`Reviews.csv.gz` -> `Reviews.csv` and `.gz`; "" where the name says nothing of it."""
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)], suffix


def compressor(name: str) -> Callable[[bytes], bytes] | None:
    """What packs a part of an output of this name; None where it isn't packed."""
    return _COMPRESSED.get(split_packing(name)[1])


def members(archive: zipfile.ZipFile) -> list[str]:
    """The files of a zip, without those that systems and editors hide in it."""
    return [
        name
        for name in archive.namelist()
        if name[-1] != "/" and not name.startswith("__MACOSX/")
        and not name.rpartition("/")[2].startswith((".", "_"))
    ]  # fmt: skip
