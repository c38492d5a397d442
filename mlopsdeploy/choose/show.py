"""A decision as people read it on a terminal, and as scripts do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlopsdeploy import __version__
from mlopsdeploy.choose.assumptions import NOT_COUNTED, assumed, shown_defaults
from mlopsdeploy.choose.decide import TIE, Decision
from mlopsdeploy.choose.factors import DAYS, FACTORS, Option
from mlopsdeploy.choose.measurements import Measurements
from mlopsdeploy.choose.settings import ChooseSettings
from mlopsdeploy.choose.units import money, number

WIDE = 110  # columns from which a strategy is a row


def as_dict(answers: ChooseSettings, found: Measurements, decision: Decision) -> dict[str, Any]:
    """All of it, ready for JSON; times in seconds, costs by month in `answers.currency`."""
    return {
        "mlopsdeploy": __version__,
        "recommended": decision.recommended,
        "headline": decision.headline,
        "reasons": list(decision.reasons),
        "strategies": {option.strategy: _option(option) for option in decision.options},
        "changes": [asdict(change) for change in decision.changes],
        "tie": TIE,
        "answers": answers.as_dict(),
        "measurements": asdict(found),
        "assumed": {
            name: {"value": value, "why": why} for name, (value, why) in assumed(answers).items()
        },
        "not_counted": list(NOT_COUNTED),
    }


def _option(option: Option) -> dict[str, Any]:
    known = asdict(option)
    del known["strategy"]
    return {"out": option.broken, "factors": known.pop("cells"), **known, "total": option.total}


def show(
    answers: ChooseSettings, found: Measurements, decision: Decision, console: Console, config: str
) -> None:
    """The decision and everything it rests on; `config` is the YAML, or why there is none."""
    color = "bold green" if decision.recommended else "bold red"
    console.print(Text(decision.headline, style=color))
    basis = found.assumed or f"{found.model}, measured on {found.machine}"
    console.print(Text(basis, style="yellow" if found.assumed else "dim"))
    console.print()
    console.print(_table(decision, wide=console.width >= WIDE))
    _section(console, "Why", decision.reasons)
    for option in decision.options:
        title = f"{option.strategy}, reckoned" + (": out" if option.broken else "")
        lines = [
            f"{name}: {cell.arithmetic}" + (f". OUT: {cell.broken}" if cell.broken else "")
            for name, cell in option.cells.items()
        ]
        if not option.broken:
            lines.append(f"together: {together(option, answers)}")
        _section(console, title, lines)
    changes = [
        f"{change.words}: {change.strategy or 'none of the three'}"
        + (f" ({change.why})" if change.why else "")
        for change in decision.changes
    ]
    _section(console, "What would change this", changes or ["no single answer"])
    speeds = [f"{name}: {how}" for name, how in found.measured]
    speeds += [f"{name}: not measured: {why}" for name, why in found.missing.items()]
    _section(console, "Assumed" if found.assumed else "Measured", [*speeds, *found.notes])
    if defaults := shown_defaults(answers):
        lines = [f"{name} {value}: {why}" for name, value, why in defaults]
        _section(console, "Assumed", lines)
    _section(console, "Not counted", NOT_COUNTED)
    _section(console, "The config", ())
    shown = "\n".join(line for line in config.split("\n") if line[:1] != "#")
    console.print(Text(textwrap.indent(shown.rstrip(), "  ")), soft_wrap=True)


def together(option: Option, answers: ChooseSettings) -> str:
    """Machines and upkeep, a month and per million."""
    per_million = option.total / (answers.requests_per_day * DAYS) * 1e6
    return (
        f"{number(option.machine_cost)} for {option.hardware} + {number(option.upkeep_cost)} for "
        f"upkeep = {money(option.total, answers.currency)} a month; ÷ "
        f"{number(answers.requests_per_day)} × {DAYS} predictions = "
        f"{money(per_million, answers.currency)} per million"
    )


def _section(console: Console, title: str, lines: Sequence[str]) -> None:
    """A title and its lines, wrapped with an indent on a terminal, whole in a pipe."""
    console.print()
    console.print(Text(title, style="bold"))
    for line in lines:
        text = f"  · {line}"
        if console.is_terminal:
            text = textwrap.fill(
                text, console.width, subsequent_indent="    ", break_on_hyphens=False
            )
        shown = Text(text)
        shown.highlight_regex("(?s)OUT: .*", "red")
        console.print(shown, soft_wrap=True)


def _table(decision: Decision, *, wide: bool) -> Table:
    """Strategies by factors; the other way round where there is less room."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    options = decision.options
    names = [
        Text(
            f"{option.strategy} (out)" if option.broken else option.strategy,
            style=_style(option, decision) or "bold",
        )
        for option in options
    ]
    if wide:
        for heading in ("", *FACTORS):
            table.add_column(heading)
        for name, option in zip(names, options, strict=True):
            table.add_row(name, *(_cell(option, factor, decision) for factor in FACTORS))
        return table
    table.add_column("")
    for name in names:
        table.add_column(name, ratio=1)
    for factor in FACTORS:
        cells = (_cell(option, factor, decision) for option in options)
        table.add_row(Text(factor, style="dim"), *cells)
    table.expand = True
    return table


def _style(option: Option, decision: Decision) -> str:
    if option.broken:
        return "dim"
    return "bold green" if option.strategy == decision.recommended else ""


def _cell(option: Option, factor: str, decision: Decision) -> Text:
    found = option.cells.get(factor)
    if found is None:
        return Text("–", style="dim")
    if found.broken:
        return Text(f"✗ {found.says}", style="red")
    return Text(found.says, style=_style(option, decision))
