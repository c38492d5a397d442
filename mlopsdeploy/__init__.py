"""Put a trained model to work: score a file, serve requests, watch a camera.

The names below are the public interface. They are imported on first use, so that
`import mlopsdeploy` costs nothing and needs no runtime to be installed.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlopsdeploy.batch.from_python import ScoredFile, score_file
    from mlopsdeploy.columns import (
        Columns,
        Field,
        ModelFiles,
        Runtime,
        Task,
        TaskOptions,
        objects,
        rows_of,
        take,
    )
    from mlopsdeploy.core.loading import load_model
    from mlopsdeploy.core.model import LanguageWarning, Model
    from mlopsdeploy.errors import ConfigError, InputError, MlopsDeployError, ModelError, RowError

__all__ = [
    "Columns", "ConfigError", "Field", "InputError", "LanguageWarning", "MlopsDeployError", "Model",
    "ModelError", "ModelFiles", "RowError", "Runtime", "ScoredFile", "Task", "TaskOptions",
    "__version__", "load_model", "objects", "rows_of", "score_file", "take",
]  # fmt: skip

_MODULES = {
    "batch.from_python": ("ScoredFile", "score_file"),
    "core.loading": ("load_model",),
    "core.model": ("LanguageWarning", "Model"),
    "errors": ("ConfigError", "InputError", "MlopsDeployError", "ModelError", "RowError"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = next((module for module, names in _MODULES.items() if name in names), "columns")
    if not module.startswith("batch"):
        return getattr(import_module(f"mlopsdeploy.{module}"), name)
    from mlopsdeploy.errors import needs

    with needs(name, "batch"):
        return getattr(import_module(f"mlopsdeploy.{module}"), name)


def __dir__() -> list[str]:
    return __all__
