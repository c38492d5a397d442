"""Take docs/choose.png, the README's picture of a decision: `python docs/choose.py [--dark]`.

Measures the built-in fraud model for real, on a machine that ought to be idle, asks what a shop
asks whose customers wait, and has Chromium show the page that comes of it: the answer, and the
three over six factors. Needs selenium, Chromium and the extras `batch`, `serve` and `report`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import chromium, png_of
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1100, 2000  # CSS pixels; what is below the story is cut off
ASKED = (
    "--model", "fraud", "--sample", str(ROOT / "examples" / "transactions.csv"),
    "--response-time", "200ms", "--requests-per-day", "100k", "--yes",
)  # fmt: skip
MARGIN = 12  # below the last part
COLOURS = 256  # of the file: a third of the bytes, and nobody sees it
LAST = "#factors"  # of the page, the last part that is shown


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "choose.html"
        command = [sys.executable, "-m", "mlopsdeploy", "choose", *ASKED, "--report", str(page)]
        subprocess.run(command, cwd=scratch, check=True)
        picture = _picture(page, dark="--dark" in sys.argv)
    (ROOT / "docs" / "choose.png").write_bytes(picture)


def _picture(page: Path, *, dark: bool) -> bytes:
    with chromium(WIDTH, HEIGHT, dark=dark) as browser:
        browser.get(page.as_uri())
        end = browser.execute_script(
            f"return document.querySelector({LAST!r}).getBoundingClientRect().bottom"
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end + MARGIN, "scale": 1}
        taken = png_of(browser, clip=clip)
    drawn = Image.open(io.BytesIO(taken)).convert("RGB")
    small = io.BytesIO()
    drawn.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


if __name__ == "__main__":
    main()
