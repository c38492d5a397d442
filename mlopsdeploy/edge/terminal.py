"""What a person sees of a run: a live panel on a terminal, plain lines elsewhere, a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mlopsdeploy.core.console import facts, plain_table
from mlopsdeploy.core.model import counted
from mlopsdeploy.edge.stages import Stats

if TYPE_CHECKING:  # neither kind of run needs the packages of the other
    from mlopsdeploy.edge.filters.counting import Counting
    from mlopsdeploy.edge.frames import FrameSource
    from mlopsdeploy.edge.lines.sources import LineSource

PLAIN_SECONDS = 10.0  # between lines where there is no terminal
REFRESH = 4  # times a second
WIDE = 90  # columns of a terminal in which tables stand side by side
SHOWN = 8  # labels of a summary

Row = tuple[str, str]


class FrameView:
    """The numbers of a run over frames."""

    shows_stages = True
    """Whether times of stages are shown: they are of one frame, but of many lines."""

    def __init__(
        self,
        stats: Stats,
        source: FrameSource,
        counting: Counting | None = None,
        *,
        counts: bool = True,
        sent: Callable[[], list[Row]] = list,
    ) -> None:
        self.stats, self.sent = stats, sent
        self._source = source
        self._counting = counting
        self._counts = counts  # else the model has arrays alone for an answer

    def line(self) -> list[str]:
        """Parts of a plain line."""
        parts = [f"{self._frames()} frames, {self.stats.fps:.1f} fps"]
        if self._source.live:
            middle, high = self.stats.ages.percentiles()
            parts.append(f"{self._source.dropped:,} dropped, {middle:.0f} ms old (p99 {high:.0f})")
        return parts + [": ".join(row) for row in self._counted() + self.sent()]

    def numbers(self) -> list[Row]:
        """Rows of the panel."""
        rows = [("fps", f"[bold]{self.stats.fps:.1f}[/]"), ("frames", self._frames())]
        if self._source.live:
            middle, high = self.stats.ages.percentiles()
            rows.append(("dropped", f"{self._source.dropped:,}"))
            rows.append(("frame age", f"{middle:.0f} ms, p99 {high:.0f}"))
        more = self._counted() + self.sent()
        return rows + [(escape(name), escape(words)) for name, words in more]

    def summary(self, *, ended: str, seconds: float) -> dict[str, Any]:
        """What the run came to, ready for JSON."""
        stats, source = self.stats, self._source
        middle, high = stats.ages.percentiles()
        age = {"p50": round(middle, 1), "p99": round(high, 1)} if source.live else None
        return {
            "camera": source.name,
            "live": source.live,
            "ended": ended,
            "frames": stats.frames,
            "dropped": source.dropped,
            "cut_off": source.cut_off,
            "seconds": round(seconds, 2),
            "fps": round(stats.mean_fps, 2),
            "frame_age_ms": age,
            "labels": dict(stats.labels.most_common()),
            "numbers": {name: spread.as_dict() for name, spread in stats.numbers.items()},
            **(self._counting.as_dict() if self._counting else {}),
            "stages_ms": stats.latencies(),
            "bottleneck": stats.bottleneck(),
        }

    def rows(self, summary: dict[str, Any]) -> list[Row]:
        """The same for people."""
        slowest = summary["bottleneck"]
        reads = "the camera" if summary["live"] else "reading the file"
        stage = {"capture": reads, "infer": "the model"}.get(slowest, slowest)
        pace = f"{stage} sets the pace" if slowest else "no frame went through"
        rows = [
            ("frames", f"{summary['frames']:,} in {summary['seconds']:.1f} s"),
            ("speed", f"{summary['fps']:.1f} fps; {pace}"),
        ]
        if summary["live"]:
            age, dropped = summary["frame_age_ms"], summary["dropped"]
            rows.append(("frame age", f"{age['p50']:.0f} ms, p99 {age['p99']:.0f} ms"))
            rows.append(("dropped", f"{dropped:,} frames went by while the model was busy"))
        found = [f"{label} {count:,}" for label, count in summary["labels"].items()]
        if not found and not summary["numbers"] and self._counts:
            found = ["nothing was found"]
        counted = [(escape(name), words) for name, words in self._counted()]
        return rows + _under("found", found) + _spreads(self.stats) + counted + self.sent()

    def _counted(self) -> list[Row]:
        return self._counting.rows() if self._counting else []

    def _frames(self) -> str:
        total = self._source.total
        of = f" of {total:,}" if total and not self._source.live else ""
        return f"{self.stats.frames:,}{of}"


class LineView:
    """The numbers of a run over lines; see `FrameView`."""

    shows_stages = False

    def __init__(
        self, stats: Stats, source: LineSource, sent: Callable[[], list[Row]] = list
    ) -> None:
        self.stats, self.sent = stats, sent
        self._source = source

    def line(self) -> list[str]:
        """See `FrameView`."""
        middle, high = self.stats.ages.percentiles()
        return [
            f"{self.stats.frames:,} lines, {self.stats.fps:,.1f} a second",
            f"answered in {middle:.1f} ms (p99 {high:.1f})",
            *(f"{count:,} {word}" for word, count in self._odd().items() if count),
            *(": ".join(row) for row in self.sent()),
        ]

    def numbers(self) -> list[Row]:
        """See `FrameView`."""
        middle, high = self.stats.ages.percentiles()
        return [
            ("lines", f"[bold]{self.stats.frames:,}[/]"),
            ("a second", f"{self.stats.fps:,.1f}"),
            ("answered in", f"{middle:.1f} ms, p99 {high:.1f}"),
            *((word, f"{count:,}") for word, count in self._odd().items() if count),
            *self.sent(),
        ]

    def summary(self, *, ended: str, seconds: float) -> dict[str, Any]:
        """See `FrameView`."""
        stats = self.stats
        middle, high = stats.ages.percentiles()
        return {
            "source": self._source.name,
            "live": self._source.live,
            "ended": ended,
            "lines": stats.frames,
            **self._without_answer(),
            "seconds": round(seconds, 2),
            "lines_per_second": round(stats.mean_fps, 2),
            "latency_ms": {"p50": round(middle, 2), "p99": round(high, 2)},
            "labels": dict(stats.labels.most_common()),
            "numbers": {name: spread.as_dict() for name, spread in stats.numbers.items()},
            "unread": dict(stats.unread.most_common()),
            "models": dict(stats.models.most_common()),
        }

    def rows(self, summary: dict[str, Any]) -> list[Row]:
        """See `FrameView`."""
        stats = self.stats
        lines, latency, labels = summary["lines"], summary["latency_ms"], summary["labels"]
        speed = f", {summary['lines_per_second']:,.0f} lines/s" if lines > 1 else ""
        rows = [("lines", f"{lines:,} in {summary['seconds']:.1f} s{speed}")]
        if lines:
            rows.append(("latency", f"{latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"))
        shares = [
            f"{label} {count:,} ({count / stats.answered:.0%})" for label, count in labels.items()
        ]
        rows += _under("labels", shares) + _spreads(stats)
        if summary["models"]:
            rows.append(("read by", ", ".join(f"{a} {b:,}" for a, b in summary["models"].items())))
        if unread := summary["unread"]:
            share = sum(unread.values()) / max(stats.scored, 1)
            words = f"{counted(unread)} ({share:.0%}): the model doesn't read these"
            rows.append(("unread", words))
        odd = [(word, f"{summary[word]:,}") for word in self._without_answer() if summary[word]]
        return rows + odd + self.sent()

    def _odd(self) -> dict[str, int]:
        return {**self._without_answer(), "unread": self.stats.unread.total()}

    def _without_answer(self) -> dict[str, int]:
        stats = self.stats
        return {"empty": stats.empty, "unreadable": stats.unreadable, "dropped": stats.dropped}


View = FrameView | LineView


class Screen:
    """The run on standard error. `tick` is to be called several times a second.

    Args:
        console: where to.
        title: of the panel.
        view: of the run.
        quiet: show nothing, as the terminal already shows each answer.
    """

    def __init__(self, console: Console, title: str, view: View, *, quiet: bool = False) -> None:
        self._console = console
        self._title = title
        self._view = view
        self._quiet = quiet
        self._shown_at = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The panel, for as long as the body runs."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        self._live = Live(self._panel(), console=self._console, auto_refresh=False, transient=True)
        with self._live:
            yield

    def tick(self) -> None:
        """Show the state of things, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._shown_at < (1 / REFRESH if self._live else PLAIN_SECONDS):
            return
        self._shown_at = now
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
        else:
            labels = self._view.stats.labels.most_common(3)
            parts = [*self._view.line(), *(f"{name} {count:,}" for name, count in labels)]
            parts += [" ".join(row) for row in _spreads(self._view.stats)[:3]]
            degrees = temperature()
            parts += [] if degrees is None else [f"{degrees:.0f} °C"]
            self._console.print(", ".join(parts), soft_wrap=True)

    def _panel(self) -> Panel:
        stats = self._view.stats
        numbers = Table.grid(padding=(0, 2))
        numbers.add_column(style="dim")
        numbers.add_column(justify="right")
        for row in self._view.numbers():
            numbers.add_row(*row)
        degrees = temperature()
        if degrees is not None:
            numbers.add_row("temperature", f"{degrees:.0f} °C")
        labels = plain_table("found", "", right=("",))
        for label, count in stats.labels.most_common(6):
            labels.add_row(Text(label), f"{count:,}")
        for name, spread in _spreads(stats)[:6]:
            labels.add_row(Text(name), spread)
        columns = [numbers, *[stage_table(stats)] * self._view.shows_stages, labels]
        parts = Table.grid(padding=(0, 4))
        if self._console.width >= WIDE:
            parts.add_row(*columns)
        else:
            for column in columns:
                parts.add_row(column)
        hint = Text("Ctrl-C ends", style="dim", justify="right")
        title = Text(self._title, overflow="ellipsis", no_wrap=True)  # no markup in it
        return Panel(Group(parts, hint), title=title, title_align="left")


def show_summary(console: Console, view: View, summary: dict[str, Any], written: list[str]) -> None:
    """A summary for people.

    Args:
        console: where to.
        view: of the run.
        summary: of `view.summary`.
        written: what was written, a line each.
    """
    console.print(facts(view.rows(summary) + _under("written to", written, most=len(written))))
    if view.shows_stages and view.stats.stages:
        console.print(stage_table(view.stats))


def stage_table(stats: Stats) -> Table:
    """How long each stage took, the slowest marked."""
    table = plain_table("stage", "p50", "p99, ms", right=("p50", "p99, ms"))
    slowest = stats.bottleneck()
    for name, times in stats.latencies().items():
        style = "green" if name == slowest else ""
        table.add_row(name, f"{times['p50']:.1f}", f"{times['p99']:.1f}", style=style)
    return table


def temperature() -> float | None:
    """The hottest sensor of the system in °C; None where it has none."""
    degrees = []
    for file in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            degrees.append(int(file.read_text("ascii")) / 1000)
        except (OSError, ValueError):  # a sensor that is switched off
            continue
    return max(degrees, default=None)


def _spreads(stats: Stats) -> list[Row]:
    return [(name, spread.words) for name, spread in tuple(stats.numbers.items())]


def _under(name: str, values: list[str], most: int = SHOWN) -> list[Row]:
    """Rows under one name, and how many more there are."""
    shown = values[:most] + [f"and {len(values) - most} more"] * (len(values) > most)
    return [("" if place else name, value) for place, value in enumerate(shown)]
