"""Settings: a flag wins over the environment, that over the YAML file, that over the default.

Each is declared once, with its type, default, bounds, help and group: `strategies.py` has those of
batch, serve and edge. `declaring.py` says how.
"""

from mlopsdeploy.settings.declaring import Declared, Options, Setting, SettingError, setting
from mlopsdeploy.settings.loading import load, unknown_variables
from mlopsdeploy.settings.strategies import (
    BODIES_HELD,
    DEFAULT_MODEL,
    MAX_BODY,
    MAX_BODY_OF_PICTURES,
    MAX_PICTURES,
    MAX_ROWS,
    MAX_TEXTS,
    BatchSettings,
    EdgeSettings,
    Route,
    Running,
    ServedModel,
    ServeSettings,
    Settings,
)

__all__ = [
    "BODIES_HELD", "DEFAULT_MODEL", "MAX_BODY", "MAX_BODY_OF_PICTURES", "MAX_PICTURES", "MAX_ROWS",
    "MAX_TEXTS",
    "BatchSettings", "Declared", "EdgeSettings", "Options", "Route", "Running", "ServeSettings",
    "ServedModel", "Setting", "SettingError", "Settings", "load", "setting", "unknown_variables",
]  # fmt: skip
