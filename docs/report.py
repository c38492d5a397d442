"""Take docs/report.png, the README's picture of a report: `python docs/report.py [--dark]`.

Scores examples/reviews.csv for real, as of the spring and then all of it, so that the page has a
last run to compare with, and has Chromium show it. Needs selenium, Chromium and the extra `report`.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import chromium, png_of

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1100, 1120  # CSS pixels
SPRING = "2026-06"  # rows before it are the last run's


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (ROOT / "examples" / "reviews.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for until in (SPRING, "9999"):
            with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(row for row in rows if row["date"] < until)
            command = ["batch", "reviews.csv", "--report", "report.html"]
            subprocess.run([sys.executable, "-m", "mlopsdeploy", *command], cwd=folder, check=True)
        picture = _picture(folder / "report.html", dark="--dark" in sys.argv)
    (ROOT / "docs" / "report.png").write_bytes(picture)


def _picture(page: Path, *, dark: bool) -> bytes:
    with chromium(WIDTH, HEIGHT, dark=dark) as browser:
        browser.get(page.as_uri())
        return png_of(browser)


if __name__ == "__main__":
    main()
