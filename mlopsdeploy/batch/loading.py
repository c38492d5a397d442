"""The model that a job's settings name."""

from __future__ import annotations

from typing import Any

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.core.model import Model
from mlopsdeploy.settings import BatchSettings

_OPTIONS = (
    "runtime", "precision", "threads", "task", "threshold", "features", "long_text", "digest",
    "trust_model", "max_flips",
)  # fmt: skip


def load_for(settings: BatchSettings, precision: str | None = None, **more: Any) -> Model:
    """The model of some settings; with `functools.partial`, what loads it in another process.

    Args:
        settings: `model`, and how it runs.
        precision: instead of the settings'.
        more: other arguments of `load_model`.

    Raises:
        MlopsDeployError: see `load_model`.
    """
    options = {name: getattr(settings, name) for name in _OPTIONS}
    if precision is not None:
        options["precision"] = precision
    chosen = settings.model if "model" in settings.given else None
    return load_model(chosen, **options, **more)
