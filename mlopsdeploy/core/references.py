"""What a reference to a model looks like; nothing is opened, so that settings may ask."""

from __future__ import annotations

from pathlib import Path

from mlopsdeploy.errors import ModelError


def several(reference: str) -> list[str]:
    """The references that commas separate; empty where it is one, such as a path with a comma.

    Raises:
        ModelError: there is nothing between two commas.
    """
    if "," not in reference or Path(reference).expanduser().exists():
        return []
    parts = [part.strip() for part in reference.split(",")]
    if "" in parts:
        raise ModelError(f"{reference!r}: names no model before or behind a comma")
    return parts
