"""Draw docs/batch.svg, the README's picture of a run: `python docs/terminal.py`.

Runs the two commands of `make demo` for real, in a scratch folder, and renders what they print.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "100"


def main() -> None:
    """Write the picture."""
    console = Console(record=True, width=int(COLUMNS), force_terminal=True)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "examples", Path(scratch) / "examples")
        command = ["mlopsdeploy", "batch", "examples/reviews.csv"]
        shown = _run([sys.executable, "-m", *command], scratch)
        table = _run(
            [sys.executable, "examples/show.py", "examples/reviews.predictions.csv"], scratch
        )
    console.print(Text("$ " + " ".join(command), style="bold"))
    console.print(Text.from_ansi(shown))
    console.print()
    console.print(Text.from_ansi(table))
    console.save_svg(str(ROOT / "docs" / "batch.svg"), title="mlopsdeploy batch")


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"COLUMNS": COLUMNS, "FORCE_COLOR": "1", "PATH": "", "TTY_INTERACTIVE": "0"},
    )
    return done.stdout.rstrip()


if __name__ == "__main__":
    main()
