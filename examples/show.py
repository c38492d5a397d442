"""Show what a run of `mlopsdeploy batch` on examples/reviews.csv came to: `make demo` ends here."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

ROWS = 12


def main(path: str) -> None:
    """Print rows from over the whole file, those where stars and label disagree among them."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = [row for row in rows if row["label"]]
    surprising = [row for row in known if (row["rating"] in "12") == (row["label"] == "POSITIVE")]
    shown = known[:: len(known) // (ROWS - 4)][: ROWS - 4] + surprising[:4]
    table = Table(
        title=f"{path} (every {len(known) // (ROWS - 4)}th row, and four surprises)",
        box=box.SIMPLE_HEAD,
        expand=True,
    )
    table.add_column("stars", justify="right", min_width=5)
    table.add_column("review_text", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("label", min_width=8)
    table.add_column("score", justify="right", min_width=5)
    for row in shown:
        style = "green" if row["label"] == "POSITIVE" else "red"
        text = " ".join(row["review_text"].split())
        table.add_row(
            row["rating"], text, f"[{style}]{row['label']}[/]", f"{float(row['score']):.3f}"
        )
    console = Console()
    console.print(table, width=min(console.width, 100))


if __name__ == "__main__":
    main(sys.argv[1])
