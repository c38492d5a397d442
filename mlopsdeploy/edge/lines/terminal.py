"""What a person sees of a run over lines, beside the answers: how it goes, and a summary."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mlopsdeploy.edge import terminal
from mlopsdeploy.edge.lines.pipeline import LineStats
from mlopsdeploy.edge.lines.sources import Source

SHOWN = 8  # labels


class Screen(terminal.Screen):
    """The run on standard error. `tick` is to be called several times a second."""

    _stats: LineStats

    def _line(self) -> str:
        stats = self._stats
        middle, high = stats.ages.percentiles()
        parts = [
            f"{stats.frames:,} lines, {stats.fps:,.1f} a second",
            f"answered in {middle:.1f} ms (p99 {high:.1f})",
        ]
        parts += [f"{count:,} {word}" for word, count in _odd(stats).items() if count]
        parts += [f"{name} {count:,}" for name, count in stats.labels.most_common(3)]
        return ", ".join(parts)

    def _panel(self) -> Panel:
        stats = self._stats
        numbers = Table.grid(padding=(0, 2))
        numbers.add_column(style="dim")
        numbers.add_column(justify="right")
        numbers.add_row("lines", f"[bold]{stats.frames:,}[/]")
        numbers.add_row("a second", f"{stats.fps:,.1f}")
        middle, high = stats.ages.percentiles()
        numbers.add_row("answered in", f"{middle:.1f} ms, p99 {high:.1f}")
        for word, count in _odd(stats).items():
            if count:
                numbers.add_row(word, f"{count:,}")
        labels = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        labels.add_column("label")
        labels.add_column("", justify="right")
        for label, count in stats.labels.most_common(6):
            labels.add_row(Text(label), f"{count:,}")
        side_by_side = Table.grid(padding=(0, 4))
        side_by_side.add_row(numbers, labels)
        hint = Text("Ctrl-C ends", style="dim", justify="right")
        return Panel(Group(side_by_side, hint), title=self._title, title_align="left")


def _odd(stats: LineStats) -> dict[str, int]:
    return {"empty": stats.empty, "unreadable": stats.unreadable, "dropped": stats.dropped}


def summarise(stats: LineStats, source: Source, *, ended: str, seconds: float) -> dict[str, Any]:
    """What a run came to, ready for JSON."""
    middle, high = stats.ages.percentiles()
    return {
        "source": source.name,
        "live": source.live,
        "ended": ended,
        "lines": stats.frames,
        **_odd(stats),
        "seconds": round(seconds, 2),
        "lines_per_second": round(stats.mean_fps, 2),
        "latency_ms": {"p50": round(middle, 2), "p99": round(high, 2)},
        "labels": dict(stats.labels.most_common()),
    }


def show_summary(console: Console, summary: dict[str, Any], written: str | None) -> None:
    """The same for people.

    Args:
        console: where to.
        summary: of `summarise`.
        written: the file that was written.
    """
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    lines, seconds = summary["lines"], summary["seconds"]
    speed = f", {summary['lines_per_second']:,.0f} lines/s" if lines > 1 else ""
    table.add_row("lines", f"{lines:,} in {seconds:.1f} s{speed}")
    latency = summary["latency_ms"]
    if lines:
        table.add_row("latency", f"{latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms")
    labels = list(summary["labels"].items())
    whole = sum(summary["labels"].values())
    for place, (label, count) in enumerate(labels[:SHOWN]):
        shown = Text(f"{label} {count:,} ({count / whole:.0%})")
        table.add_row("" if place else "labels", shown)
    if len(labels) > SHOWN:
        table.add_row("", f"and {len(labels) - SHOWN} more")
    for word in ("empty", "unreadable", "dropped"):
        if summary[word]:
            table.add_row(word, f"{summary[word]:,}")
    if written:
        table.add_row("written to", Text(written))
    console.print(table)
