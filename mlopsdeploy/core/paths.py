"""Where files that a model's author names may lie: in the model's own folder."""

from __future__ import annotations

from pathlib import Path


def within(folder: Path, name: str) -> Path | None:
    """The place of a file that is named by its path from a folder; None where it lies outside.

    Links count by where they lead. In the cache of the Hugging Face hub they lead from
    `models--…/snapshots/…` to `models--…/blobs`, which is the model's own, too.

    Args:
        folder: the model's, or the one in it that holds the file which names the other.
        name: as the author wrote it; whether there is such a file is not looked at.
    """
    path = folder / name
    try:
        home = folder.resolve()
        inside = path.resolve().is_relative_to(_whole(home))
    except (OSError, RuntimeError, ValueError):  # a link to itself, a name that none can be
        return None
    return (
        path if inside and not Path(name).is_absolute() and ".." not in Path(name).parts else None
    )


def _whole(folder: Path) -> Path:
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and (place.parent.parent / "blobs").is_dir():
            return place.parent.parent
    return folder
