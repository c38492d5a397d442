"""What a person sees of a run: a live panel on a terminal, plain lines elsewhere, a summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mlopsdeploy.edge.stages import Stats

if TYPE_CHECKING:  # with OpenCV, which lines do without
    from mlopsdeploy.edge.sources import Source

PLAIN_SECONDS = 10.0  # between lines where there is no terminal
REFRESH = 4  # times a second


class Screen:
    """The run on standard error. `tick` is to be called several times a second.

    Args:
        console: where to.
        title: of the panel.
        stats: of the run.
        source: of the frames.
    """

    def __init__(self, console: Console, title: str, stats: Stats, source: Source) -> None:
        self._console = console
        self._title = title
        self._stats = stats
        self._source = source
        self._said = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The panel, for as long as the body runs."""
        if not self._console.is_terminal:
            yield
            return
        self._live = Live(self._panel(), console=self._console, auto_refresh=False, transient=True)
        with self._live:
            yield

    def tick(self) -> None:
        """Show the state of things, if it is time to."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._said >= 1 / REFRESH:
                self._said = now
                self._live.update(self._panel(), refresh=True)
        elif now - self._said >= PLAIN_SECONDS:
            self._said = now
            self._console.print(self._line(), soft_wrap=True)

    def _line(self) -> str:
        stats, source = self._stats, self._source
        of = f" of {source.total:,}" if source.total and not source.live else ""
        parts = [f"{stats.frames:,}{of} frames, {stats.fps:.1f} fps"]
        if source.live:
            age = stats.ages.percentiles()
            parts.append(f"{source.dropped:,} dropped, {age[0]:.0f} ms old (p99 {age[1]:.0f})")
        parts += [f"{name} {count:,}" for name, count in stats.labels.most_common(3)]
        degrees = temperature()
        if degrees is not None:
            parts.append(f"{degrees:.0f} °C")
        return ", ".join(parts)

    def _panel(self) -> Panel:
        stats, source = self._stats, self._source
        numbers = Table.grid(padding=(0, 2))
        numbers.add_column(style="dim")
        numbers.add_column(justify="right")
        numbers.add_row("fps", f"[bold]{stats.fps:.1f}[/]")
        of = f" of {source.total:,}" if source.total and not source.live else ""
        numbers.add_row("frames", f"{stats.frames:,}{of}")
        if source.live:
            numbers.add_row("dropped", f"{source.dropped:,}")
            middle, high = stats.ages.percentiles()
            numbers.add_row("frame age", f"{middle:.0f} ms, p99 {high:.0f}")
        degrees = temperature()
        if degrees is not None:
            numbers.add_row("temperature", f"{degrees:.0f} °C")
        side_by_side = Table.grid(padding=(0, 4))
        side_by_side.add_row(numbers, stage_table(stats), _labels(stats))
        hint = Text("Ctrl-C ends", style="dim", justify="right")
        return Panel(Group(side_by_side, hint), title=self._title, title_align="left")


def summarise(stats: Stats, source: Source, *, ended: str, seconds: float) -> dict[str, Any]:
    """What a run came to, ready for JSON."""
    middle, high = stats.ages.percentiles()
    return {
        "camera": source.name,
        "live": source.live,
        "ended": ended,
        "frames": stats.frames,
        "dropped": source.dropped,
        "seconds": round(seconds, 2),
        "fps": round(stats.mean_fps, 2),
        "frame_age_ms": {"p50": round(middle, 1), "p99": round(high, 1)} if source.live else None,
        "labels": dict(stats.labels.most_common()),
        "stages_ms": stats.latencies(),
        "bottleneck": stats.bottleneck(),
    }


def show_summary(
    console: Console, summary: dict[str, Any], stats: Stats, written: list[str]
) -> None:
    """The same for people.

    Args:
        console: where to.
        summary: of `summarise`.
        stats: of the run.
        written: what was written, a line each.
    """
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("frames", f"{summary['frames']:,} in {summary['seconds']:.1f} s")
    table.add_row("speed", f"{summary['fps']:.1f} fps; {_why(summary)}")
    if summary["live"]:
        age = summary["frame_age_ms"]
        table.add_row("frame age", f"{age['p50']:.0f} ms, p99 {age['p99']:.0f} ms")
        table.add_row("dropped", f"{summary['dropped']:,} frames went by while the model was busy")
    labels = list(summary["labels"].items())
    for place, (label, count) in enumerate(labels[:8] or [("nothing", 0)]):
        shown = f"{label} {count:,}" if count else "nothing was found"
        table.add_row("" if place else "found", shown)
    if len(labels) > 8:
        table.add_row("", f"and {len(labels) - 8} more labels")
    for place, line in enumerate(written):
        table.add_row("" if place else "written to", line)
    console.print(table)
    if stats.stages:
        console.print(stage_table(stats))


def stage_table(stats: Stats) -> Table:
    """How long each stage took, the slowest marked."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("stage")
    table.add_column("p50", justify="right")
    table.add_column("p99, ms", justify="right")
    slowest = stats.bottleneck()
    for name, time_ in stats.latencies().items():
        style = "green" if name == slowest else ""
        table.add_row(name, f"{time_['p50']:.1f}", f"{time_['p99']:.1f}", style=style)
    return table


def temperature() -> float | None:
    """The hottest sensor of the system in °C; None where it tells none."""
    degrees = []
    for file in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            degrees.append(int(file.read_text("ascii")) / 1000)
        except (OSError, ValueError):  # a sensor that is switched off
            continue
    return max(degrees, default=None)


def _labels(stats: Stats) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("found")
    table.add_column("", justify="right")
    for label, count in stats.labels.most_common(6):
        table.add_row(Text(label), f"{count:,}")
    return table


def _why(summary: dict[str, Any]) -> str:
    slowest = summary["bottleneck"]
    if slowest == "capture":
        return "the camera sets the pace" if summary["live"] else "reading the file sets the pace"
    return {
        "infer": "the model sets the pace",
        "": "no frame went through",
    }.get(slowest, f"{slowest} sets the pace")
