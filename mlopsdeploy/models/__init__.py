"""From what a user calls a model to files on disk that a runtime can open."""

from mlopsdeploy.models.files import ModelFiles, find_model

__all__ = ["ModelFiles", "find_model"]
