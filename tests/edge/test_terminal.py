"""What a person sees: a panel, plain lines, a summary."""

import io

import pytest
from rich.console import Console

from mlopsdeploy.core.detections import OBJECT
from mlopsdeploy.edge import terminal
from mlopsdeploy.edge.stages import Stats


class Source:
    name, live, total, dropped, cut_off = "camera 0", True, None, 12, False


@pytest.fixture
def stats():
    made = Stats()
    for number in range(20):
        made.add("capture", 0.005)
        made.add("infer", 0.02)
        made.note(OBJECT, ["cat"] * (number % 2), [0.9] * (number % 2))
        made.finish([made.started])
    return made


def console(terminal_):
    return Console(file=io.StringIO(), force_terminal=terminal_, width=100, highlight=False)


def test_the_panel(stats, monkeypatch):
    monkeypatch.setattr(terminal, "temperature", lambda: 51.4)
    screen_console = console(True)
    screen = terminal.Screen(
        screen_console, "camera 0 · detector", terminal.FrameView(stats, Source)
    )
    with screen.shown():
        screen._shown_at = 0
        screen.tick()
        shown = screen_console.file.getvalue()
    for part in ("camera 0 · detector", "fps", "dropped", "12", "frame age", "51 °C", "infer",
                 "20.0", "cat", "10", "Ctrl-C ends"):  # fmt: skip
        assert part in shown


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_panel_fits_a_narrow_terminal_and_names_with_brackets(stats, width):
    narrow = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
    view = terminal.FrameView(stats, Source)
    narrow.print(terminal.Screen(narrow, "[/b] clip[1].mp4 · detector", view)._panel())
    shown = narrow.file.getvalue()
    for part in ("clip[1].mp4", "dropped", "p99, ms", "infer", "20.0", "cat"):
        assert part in shown
    assert "…" not in shown


def test_plain_lines_now_and_then_where_there_is_no_terminal(stats, monkeypatch):
    monkeypatch.setattr(terminal, "temperature", lambda: None)
    plain = console(False)
    screen = terminal.Screen(plain, "camera 0", terminal.FrameView(stats, Source))
    with screen.shown():
        screen.tick()
        assert plain.file.getvalue() == ""
        screen._shown_at -= 11
        screen.tick()
        screen.tick()
    (line,) = plain.file.getvalue().splitlines()
    assert line.startswith("20 frames, ")
    assert "12 dropped" in line
    assert line.endswith("cat 10")


def test_the_summary_names_the_bottleneck(stats):
    view = terminal.FrameView(stats, Source)
    summary = view.summary(ended="end", seconds=2.0)
    assert summary["bottleneck"] == "infer"
    assert summary["labels"] == {"cat": 10}
    plain = console(False)
    terminal.show_summary(plain, view, summary, ["out.mp4"])
    shown = plain.file.getvalue()
    for part in ("the model sets the pace", "12 frames went by", "cat 10", "out.mp4", "infer"):
        assert part in shown


def test_the_temperature_is_that_of_the_hottest_sensor(tmp_path, monkeypatch):
    for number, said in enumerate(("41000", "55500", "off")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(said + "\n", "ascii")
    monkeypatch.setattr(terminal, "Path", lambda _: tmp_path)
    assert terminal.temperature() == 55.5
    monkeypatch.setattr(terminal, "Path", lambda _: tmp_path / "none")
    assert terminal.temperature() is None
