"""What data mean: one module a task, found by name through the entry points of pyproject.toml."""

import mlopsdeploy.core.images  # noqa: F401  # sets limits of OpenCV, before a task loads it
