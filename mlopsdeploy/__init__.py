"""Put a trained model to work: score a file, serve requests, watch a camera.

The names below are the public interface. They are imported on first use, so that
`import mlopsdeploy` costs nothing and needs no runtime to be installed.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Columns", "MlopsDeployError", "Model", "__version__", "load_model"]

if TYPE_CHECKING:
    from mlopsdeploy.columns import Columns
    from mlopsdeploy.core.loading import load_model
    from mlopsdeploy.core.model import Model
    from mlopsdeploy.errors import MlopsDeployError

_HOME = {
    "Columns": "mlopsdeploy.columns",
    "MlopsDeployError": "mlopsdeploy.errors",
    "Model": "mlopsdeploy.core.model",
    "load_model": "mlopsdeploy.core.loading",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
