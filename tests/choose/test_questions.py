"""The questions: with a scripted reader, and on a real terminal."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from mlopsdeploy.choose.questions import QUESTIONS, interview
from mlopsdeploy.choose.settings import ChooseSettings


def ask(*lines, settings=None):
    """The settings after these lines, and what was printed."""
    out = io.StringIO()
    rest = iter([f"{line}\n" for line in lines])
    answered = interview(
        settings or ChooseSettings(), Console(file=out, width=200), lambda: next(rest, "")
    )
    return answered, out.getvalue()


def test_enter_keeps_every_default_and_they_stay_known_as_such():
    answered, said = ask(*[""] * len(QUESTIONS))
    assert answered == ChooseSettings()
    assert not answered.given
    assert "no more answers" not in said
    for question in QUESTIONS:  # each says why it is asked
        if question.when(ChooseSettings()):
            assert question.asks in said
            assert question.why in said


def test_answers_are_checked_and_asked_again_and_an_end_of_input_keeps_the_rest():
    answered, said = ask("", "tables", "text", "soon", "200ms", "1M", "5", "50", "no")
    assert "tables: input should be" in said
    assert "soon: expected a time: a number" in said
    assert "less than the mean" in said  # a peak of 5/s for a million a day
    assert (answered.data, answered.response_time, answered.peak) == ("text", 0.2, 50)
    assert answered.user_facing is False
    assert "defaults for the rest" in said


def test_what_flags_said_is_not_asked_nor_what_does_not_matter():
    given = ChooseSettings(model="fraud", sample="a.csv", devices=0)
    _, said = ask(*[""] * len(QUESTIONS), settings=given)
    assert "Which model?" not in said
    assert "table, text or pictures?" not in said
    assert "What does a device cost?" not in said


def test_a_model_needs_a_sample_that_is_there(customers):
    answered, said = ask("churn.onnx", "", "no-such.csv", str(customers), "1h")
    assert "a model is measured on a sample" in said
    assert "no-such.csv: no such file or folder" in said
    assert (answered.model, answered.sample) == ("churn.onnx", str(customers))
    assert answered.response_time == 3600
    assert "table, text or pictures?" not in said


PROGRAM = """
import sys
from mlopsdeploy import cli
from mlopsdeploy.choose.command import run_choose
from mlopsdeploy.choose.settings import ChooseSettings
cli.app = lambda **_: run_choose(ChooseSettings(), ask=True)
cli.main()
"""


@pytest.fixture
def terminal():
    """The interview in a process of its own, on a terminal: its process and what it prints."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(slave)

    def read(until, seconds=60):
        text, end = "", time.monotonic() + seconds
        while until not in text and time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    text += os.read(master, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
        return text

    yield process, master, read
    process.kill()
    process.wait()
    os.close(master)


def test_on_a_terminal_it_asks_and_answers(terminal):
    process, master, read = terminal
    assert "Which model?" in read("> ")
    os.write(master, b"\n" * len(QUESTIONS))
    assert "a service" in read("Not counted")
    assert process.wait(60) == 0


def test_ctrl_c_ends_it_in_one_line(terminal):
    process, _, read = terminal
    read("> ")
    process.send_signal(signal.SIGINT)
    said = read("nothing was written")
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert process.wait(60) == 130
