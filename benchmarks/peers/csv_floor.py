"""The bare cost of a CSV: read it with pyarrow, write it with pyarrow, nothing in between."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from common import module, peak_mb

if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--input", type=Path, required=True)
    command.add_argument("--output", type=Path, required=True)
    arguments = command.parse_args()
    start = time.perf_counter()
    arrow_csv: Any = module("pyarrow.csv")
    imported = time.perf_counter()
    table = arrow_csv.read_csv(arguments.input)
    read = time.perf_counter()
    arrow_csv.write_csv(table, arguments.output)
    written = time.perf_counter()
    figures = {
        "load": imported - start,
        "read": read - imported,
        "write": written - read,
        "seconds": written - imported,
        "rows": table.num_rows,
        "peak_mb": peak_mb(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
