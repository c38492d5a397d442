"""Where compiled models are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$MLOPSDEPLOY_CACHE`, else `mlopsdeploy` in the user's cache folder."""
    chosen = os.environ.get("MLOPSDEPLOY_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "mlopsdeploy"
