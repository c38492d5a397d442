"""Lines, tables and progress as a terminal and a pipe get them."""

import io

import pytest
from rich.console import Console

from mlopsdeploy.core.console import facts, plain_table, print_line, progress_log


@pytest.mark.parametrize(("terminal", "lines"), [(True, 2), (False, 1)])
def test_a_sentence_is_wrapped_on_a_terminal_and_whole_in_a_pipe(terminal, lines):
    file = io.StringIO()
    console = Console(file=file, width=20, force_terminal=terminal, highlight=False)
    print_line(console, "[b]twelve and more words")
    assert len(file.getvalue().splitlines()) == lines
    assert "[b]" in file.getvalue()


def test_progress_is_whole_lines_as_they_are():
    file = io.StringIO()
    progress_log(Console(file=file, width=10))("reading [red]a.csv")
    assert file.getvalue() == "reading [red]a.csv\n"


def test_empty_facts_are_left_out_and_numbers_stand_to_the_right():
    file = io.StringIO()
    console = Console(file=file, width=40)
    console.print(facts([("one", "1"), ("two", ""), ("three", "[3]")]))
    table = plain_table("name", "ms", right=("ms",))
    table.add_row("a", "1")
    table.add_row("b", "100")
    console.print(table)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines == ["one    1", "three  [3]", "name   ms", "a       1", "b     100"]
