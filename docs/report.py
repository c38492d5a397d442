"""Take docs/report.png, the README's picture of a report: `python docs/report.py [--dark]`.

Scores examples/reviews.csv for real, as of the spring and then all of it, so that the page has a
last run to compare with, and has Chromium show it. Needs selenium, Chromium and the extra `report`.
"""

from __future__ import annotations

import base64
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1100, 1120  # CSS pixels
SPRING = "2026-06"  # rows before it are the last run's
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


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
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "google-chrome"
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    finally:
        browser.quit()
    return base64.b64decode(taken["data"])


if __name__ == "__main__":
    main()
