"""Tiny models of TensorFlow's kind, made once in a process that may import it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(once_by):
    """The folder that tiny_models.py fills."""
    return once_by(Path(__file__).with_name("tiny_models.py"))
