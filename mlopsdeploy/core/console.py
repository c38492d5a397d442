"""What people read on a terminal: lines of progress, and tables without rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text


def progress_log(console: Console | None = None) -> Callable[[str], None]:
    """Prints each line of progress, dimmed; on standard error, unless a console is given."""
    printed = console or Console(stderr=True, highlight=False)

    def log(line: str) -> None:
        printed.print(line, style="dim", soft_wrap=True, markup=False)

    return log


def print_line(console: Console, text: str, style: str = "") -> None:
    """A sentence: wrapped on a terminal, whole in a pipe, for grep."""
    console.print(text, style=style, soft_wrap=not console.is_terminal, markup=False)


def counted(count: int, what: str) -> str:
    """`1 core`, `2 cores`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def plain_table(*headings: str, right: Iterable[str] = ()) -> Table:
    """A table without rules, nor headings if all are empty; `right` are those of right columns."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim",
        show_header=any(headings),
    )  # fmt: skip
    for heading in headings:
        table.add_column(
            heading, overflow="fold", justify="right" if heading in set(right) else "left"
        )
    return table


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values in two columns; what is empty is left out."""
    table = plain_table("", "")
    table.columns[0].style, table.columns[0].no_wrap = "dim", True
    for name, value in pairs:
        if value:
            table.add_row(name, Text(value))  # no markup in it
    return table
