"""A Keras model or SavedModel to LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlopsdeploy.errors import ModelError


def compile_model(
    source: Path,
    cache: Path,
    digest: str,
    *,
    target: str = "auto",
    trust_model: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Not written yet."""
    raise ModelError(f"{source}: Keras models can't be compiled yet")
