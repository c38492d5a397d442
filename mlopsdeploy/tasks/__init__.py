"""What data mean: one module a task, found by name through the entry points of pyproject.toml."""
