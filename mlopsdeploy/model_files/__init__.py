"""From what a user calls a model to files on disk that a runtime can open."""

from mlopsdeploy.model_files.resolve import find_model

__all__ = ["find_model"]
