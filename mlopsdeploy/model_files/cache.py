"""Where compiled models are kept between runs, and what each was made from."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

USED = "used.json"  # its age is the time since the last use


def cache_folder() -> Path:
    """`$MLOPSDEPLOY_CACHE`, else `mlopsdeploy` in the user's cache folder."""
    chosen = os.environ.get("MLOPSDEPLOY_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "mlopsdeploy"


def note_use(file: Path, name: str, reference: str) -> None:
    """Write beside a compiled model what it was made from, and that it is used now.

    Args:
        file: what is run; nothing is done unless it lies in the cache.
        name: the model's.
        reference: what it was loaded by; a path is noted in full.
    """
    cache = cache_folder()
    if not file.is_relative_to(cache):
        return
    place = Path(reference).expanduser()
    said = {"name": name, "reference": str(place.absolute()) if place.exists() else reference}
    note = cache.joinpath(*file.relative_to(cache).parts[:2], USED)  # KIND/KEY
    with suppress(OSError):  # a cache that is read only
        if note_of(note.parent) == said:
            note.touch()
        else:
            note.write_text(json.dumps(said), "utf-8")


def note_of(entry: Path) -> dict[str, str]:
    """What `note_use` wrote into a folder of the cache; empty where it did not, yet."""
    try:
        said = json.loads((entry / USED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
