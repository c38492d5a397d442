"""An estimate, for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from mlopsdeploy.batch.dry_run.forecast import difference, percent


def show(found: Mapping[str, Any], console: Console) -> None:
    """What `estimate` found, on a terminal."""
    console.print(_input_table(found))
    console.print()
    price = found["price_per_hour"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("precision")
    table.add_column("time")
    table.add_column("done by")
    for name in ("rows/s", "memory", *(["cost"] if price else [])):
        table.add_column(name, justify="right")
    table.add_column("labels changed")
    rows = [row for row in found["precisions"] if "skipped" not in row]
    for row in rows:
        cost = [f"{row['cost']:.2f}"] if price else []
        table.add_row(
            row["precision"],
            _range(row["least_seconds"], row["most_seconds"]),
            _clock_time(row["done_by"]),
            f"{row['rows_per_second']:,.0f}",
            _bytes(row["memory"], row["most_memory"]),
            *cost,
            difference(row).replace(" labels differ", "") if "labels_differ" in row else "",
        )
    console.print(table)
    console.print()
    if price:
        row = rows[0]
        hours = row["seconds"] / 3600
        console.print(f"cost: {hours:.3g} h × {price:g} an hour = {row['cost']:.2f}", style="dim")
    for row in found["precisions"]:
        if "skipped" in row:
            console.print(f"{row['precision']}: {row['skipped']}", style="dim")
    for note in found["notes"]:
        console.print(f"note: {note}")
    console.print(f"take {found['verdict']}")


def _input_table(found: Mapping[str, Any]) -> Table:
    sample = found["sample"]
    rows = max(sample["rows"], 1)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    about = "" if found["counted"] else "about "
    table.add_row("rows", f"{about}{found['rows']:,}")
    windows = sample["windows"]
    place = f"{windows} windows" if windows != 1 else "one window"
    table.add_row("looked at", f"{sample['rows']:,} in {place}, and of these:")
    if sample["texts"]:
        texts, tokens = sample["texts"], max(sample["tokens"], 1)
        lost = f", {percent(sample['lost_tokens'] / tokens)} of the tokens not read"
        cut = f"{sample['truncated']:,} ({percent(sample['truncated'] / texts)})"
        table.add_row("truncated", cut + (lost if sample["truncated"] else ""))
        table.add_row("tokens", f"{sample['tokens'] / texts:.0f} a row")
    for name, key in (("duplicates", "duplicates"), ("known", "known"), ("empty", "empty")):
        if sample[key] or key != "known":
            table.add_row(name, f"{sample[key]:,} ({percent(sample[key] / rows)})")
    table.add_row("bad rows", f"{sample['failed']:,} ({percent(sample['failed'] / rows)})")
    if sample["failed"]:
        table.add_row("", f"the first: {sample['first_failed']}")
    table.add_row("model", f"{found['model']}, {found['runtime']}")
    return table


def _range(least: float, most: float) -> str:
    """`11 to 13 min`, in the unit that the longer one is said in."""
    if most < 120:
        size, unit, digits = 1, "s", 0 if most >= 10 else 1
    elif most < 120 * 60:
        size, unit, digits = 60, "min", 0 if most >= 600 else 1
    else:
        size, unit, digits = 3600, "h", 1
    low, high = (f"{seconds / size:.{digits}f}" for seconds in (least, most))
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _bytes(least: int, most: int) -> str:
    """`640 to 900 MB`."""
    size, unit, digits = (1e9, "GB", 1) if most >= 2e9 else (1e6, "MB", -1)
    low, high = (round(count / size, digits) for count in (least, most))
    return f"{low:g} to {high:g} {unit}"


def _clock_time(when: str) -> str:
    """The time, and the day if it is another one than today."""
    then = datetime.fromisoformat(when)
    days = (then.date() - datetime.now(then.tzinfo).date()).days
    return f"{then:%H:%M}" if not days else f"{then:%a %H:%M}" if days < 7 else f"{then:%b %d}"
