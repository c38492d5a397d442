"""Tables that batch tests write and read."""

import csv
import json


def write(path, rows, header=("id", "review_text")):
    """A CSV file; returns its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read(path):
    """The rows of a CSV or JSON Lines file."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        return list(csv.DictReader(file))
