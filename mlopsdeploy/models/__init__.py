"""`mlopsdeploy models`: list, inspect, compile, quantise, compare, verify; a module for each."""

from mlopsdeploy.models.inspect import inspect_model, show

__all__ = ["inspect_model", "show"]
