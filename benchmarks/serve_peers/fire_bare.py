"""No server: the model in a loop. Prints one JSON line: rows per second by the rows of a call."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import cycle, islice

from fire_models import load, number
from network import folder

if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--seconds", type=float, required=True, help="of each size")
    seconds = command.parse_args().seconds
    facts = json.loads((folder() / f"{os.environ['MODEL']}.json").read_text(encoding="utf-8"))
    rows = cycle([case["row"] for case in facts["cases"]])
    model, found, size = load(), {}, 1
    while size <= number("ROWS"):
        done, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            model.answers(list(islice(rows, size)))
            done += size
        found[size] = done / took
        size *= 2
    sys.stdout.write(json.dumps(found) + "\n")
