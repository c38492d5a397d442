"""What the pages that we write and serve have in common: colours, type, and plots within them."""

from __future__ import annotations

from pathlib import Path

import jinja2

FOLDER = Path(__file__).parent
"""Where `look.css`, of all pages, and `report.css`, of those that are one file, are."""


def report_environment(templates: Path) -> jinja2.Environment:
    """Jinja for a page that is one file: its own templates may include the shared CSS."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, FOLDER]),
        autoescape=True,  # rows hold what anybody wrote
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
