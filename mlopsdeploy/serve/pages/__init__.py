"""The page at `/`: try a model by hand, and see how the server is doing."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

from mlopsdeploy.serve.endpoint import Served


def add(app: Flask, served: Mapping[str, Served]) -> None:
    """The page and what it is made of."""
