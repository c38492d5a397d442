"""Files of which only Git-LFS's pointer was fetched."""

from __future__ import annotations

from pathlib import Path

from mlopsdeploy.errors import ModelError

_POINTER = b"version https://git-lfs.github.com/spec"
_LARGEST = 1024  # bytes, by its specification


def refuse_pointer(path: Path) -> None:
    """Say what a file is where it is none of what its name says.

    Raises:
        ModelError: it is a pointer.
    """
    try:
        if path.stat().st_size >= _LARGEST:
            return
        with path.open("rb") as file:
            found = file.read(len(_POINTER)) == _POINTER
    except OSError:  # whoever needs it says so
        return
    if found:
        raise ModelError(f"{path}: a Git LFS pointer, not the file; run 'git lfs pull' there")
