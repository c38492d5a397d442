"""What is written and shown of answers."""

import io
import json

import pytest
from rich.console import Console

from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.lines.answering import Answer
from mlopsdeploy.edge.lines.sources import Line
from mlopsdeploy.edge.lines.writing import LineEvents, Outputs, Readable
from mlopsdeploy.errors import ConfigError


def answer(text, number=1, **facts):
    return Answer(Line(number, text.encode(), 0.0, 1_700_000_000.0), text, **facts)


ANSWERS = [
    answer("fine", 1, label="POSITIVE", score=0.99),
    answer("", 2),
    answer("x,y", 3, problem="'age' is not a number"),
    answer("age", 4, header=True),
    answer("long", 5, label="NEGATIVE", score=0.51, truncated=True),
]


@pytest.mark.parametrize("echo", [False, True])
def test_a_line_of_json_for_each_and_the_text_only_where_it_is_asked_for(tmp_path, echo):
    writer = LineEvents(str(tmp_path / "e.jsonl"), echo=echo)
    writer.write(ANSWERS)
    writer.report(Event("lost", "gone", {"source": "x"}))
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text("utf-8").splitlines()]
    when = "2023-11-14T22:13:20.000Z"
    texts = [line.pop("text", None) for line in lines]
    assert texts == (["fine", "", "x,y", "age", "long", None] if echo else [None] * 6)
    assert lines[:5] == [
        {"event": "line", "time": when, "line": 1, "label": "POSITIVE", "score": 0.99},
        {"event": "line", "time": when, "line": 2, "label": None, "score": None},
        {"event": "unreadable", "time": when, "line": 3, "reason": "'age' is not a number"},
        {"event": "header", "time": when, "line": 4},
        {
            "event": "line", "time": when, "line": 5, "label": "NEGATIVE", "score": 0.51,
            "truncated": True,
        },
    ]  # fmt: skip
    assert lines[5]["event"] == "lost"


@pytest.mark.parametrize("keep", [False, True])
def test_answers_of_lines_that_do_not_come_again_are_kept(tmp_path, keep):
    for _ in range(2):
        writer = LineEvents(str(tmp_path / "e.jsonl"), echo=False, keep=keep)
        writer.write(ANSWERS[:1])
        writer.close()
    assert len((tmp_path / "e.jsonl").read_text("utf-8").splitlines()) == 1 + keep


def test_a_place_that_can_not_be_written_to(tmp_path):
    with pytest.raises(ConfigError, match=r"--events .*e\.jsonl: No such file or directory"):
        LineEvents(str(tmp_path / "none" / "e.jsonl"), echo=False)


def test_a_full_disk_is_kept_and_tried_no_more(tmp_path):
    log, stopped = [], []
    good = LineEvents(str(tmp_path / "e.jsonl"), echo=False)
    outputs = Outputs([LineEvents("/dev/full", echo=False), good], log.append, stopped.append)
    outputs.write(ANSWERS[:1])
    assert outputs.failed == ["--events: No space left on device"]
    outputs.write(ANSWERS[:1])
    outputs.report(Event("lost", "gone"))
    outputs.close()
    assert len(outputs.failed) == 1
    assert log == [outputs.failed[0] + "; nothing more is written there, the rest goes on"]
    assert stopped == []
    assert len((tmp_path / "e.jsonl").read_text("utf-8").splitlines()) == 3


def test_without_an_output_left_it_ends():
    log, stopped = [], []
    outputs = Outputs([LineEvents("/dev/full", echo=False)], log.append, stopped.append)
    outputs.write(ANSWERS[:1])
    outputs.write(ANSWERS[:1])
    outputs.close()
    assert log[0].endswith("nothing more is written there, so this ends")
    assert stopped == ["nothing to write to"]


def shown(answers, *, echo=True, width=60, color=False):
    console = Console(
        file=io.StringIO(), force_terminal=color, width=width, highlight=False,
        color_system="standard" if color else None,
    )  # fmt: skip
    Readable(console, ("NEGATIVE", "POSITIVE"), echo=echo).write(answers)
    return console.file.getvalue()


def test_lines_for_people():
    assert shown(ANSWERS).splitlines() == [
        "POSITIVE  0.990  fine",
        "–",
        "line 3: 'age' is not a number  x,y",
        "the header  age",
        "NEGATIVE  0.510  long",
    ]
    assert shown(ANSWERS[:1], echo=False).rstrip() == "POSITIVE  0.990"
    assert "\x1b[1;35mPOSITIVE" in shown(ANSWERS[:1], color=True)


def test_a_line_stays_one_line_and_can_not_drive_the_terminal():
    (line,) = shown([answer("x" * 200, label="POSITIVE", score=1.0)]).splitlines()
    assert len(line) == 60
    assert line.endswith("…")
    text = shown([answer("a\x1b[2J\x07b\rc\u202e[red]", label="POSITIVE", score=1.0)])
    assert text == "POSITIVE  1.000  a·[2J·b·c·[red]\n"
