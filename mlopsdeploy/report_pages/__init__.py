"""What the pages that we write have in common: their look, and how plots become part of them."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where `base.css` is."""
