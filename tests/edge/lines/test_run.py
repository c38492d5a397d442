"""`mlopsdeploy edge --lines` as a process: each line answered, whatever ends it."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from mlopsdeploy.columns import Field, Task
from mlopsdeploy.core.loading import load_model
from mlopsdeploy.edge.events import Event
from mlopsdeploy.edge.lines.answering import Answer, Answers, Form
from mlopsdeploy.edge.lines.run import Readable
from mlopsdeploy.edge.lines.sources import Line
from mlopsdeploy.edge.loading import check_settings
from mlopsdeploy.edge.sinks.events import Events
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.settings import EdgeSettings

from ...answering import answering


@pytest.fixture
def score(churn_onnx):
    """Of a row of the churn model, as it answers alone."""
    model = load_model(str(churn_onnx), runtime="onnxruntime", threads=1)

    def of(age, visits, spend):
        found = model.predict({"features": np.array([[age, visits, spend]])})
        return found["label"][0], pytest.approx(float(found["score"][0]), abs=1e-5)

    return of


def test_each_line_is_answered_before_the_next_is_written(start_lines, churn_onnx, score):
    process = start_lines("--lines", "-", "--model", churn_onnx)
    for number, row in enumerate([(25, 3, 100), (60, 0, 2), (20, 9, 1)], 1):
        time.sleep(0.5 * (number > 1))  # a pipe that brings nothing for a while has not ended
        process.stdin.write(",".join(map(str, row)) + "\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
        assert (said["event"], said["line"]) == ("line", number)
        assert (said["label"], said["score"]) == score(*row)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "lines    3 in" in err
    assert "latency" in err


def test_a_hugging_face_folder_over_a_chat(start_lines, bert, tmp_path, lines_of):
    (tmp_path / "chat.log").write_bytes(b"It was good\n\ncaf\xe9\nthe battery broke")
    process = start_lines(
        "--lines", "chat.log", "--model", bert, "--events", "e.jsonl", "--echo", "--json"
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert (summary["lines"], summary["empty"], summary["unreadable"]) == (4, 1, 1)
    assert sum(summary["labels"].values()) == 2
    lines = lines_of(tmp_path / "e.jsonl")
    assert [line["event"] for line in lines] == [
        "connected", "line", "line", "unreadable", "line", "ended",
    ]  # fmt: skip
    assert lines[1]["text"] == "It was good"
    assert lines[2]["label"] is None
    assert "line 3 is not UTF-8" in err


def test_the_model_that_nobody_named_reads_two_languages_and_says_so(start_lines, tmp_path):
    lines = [
        "Works like a charm, I would buy it again.",
        "太差了，再也不买了",
        "Das ist leider sehr schlecht.",
    ]
    (tmp_path / "mixed.txt").write_text("\n".join(lines), "utf-8")
    process = start_lines("--lines", "mixed.txt", "--threads", "1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["label"] for answer in answers[:2]] == ["POSITIVE", "NEGATIVE"]
    assert [answer.get("unread") for answer in answers] == [None, None, "de"]
    assert "read by  sentiment 2, sentiment-zh 1" in err
    assert "unread   1 de (33%): the model doesn't read these" in err

    process = start_lines("--lines", "-", "--threads", "1", "--json", "--events", "e.jsonl")
    out, err = process.communicate(f"{lines[2]}\n", timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "or --model sentiment,sentiment-zh to score them all the same" in err


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_leaves_no_read_line_unanswered(
    start_lines, churn_onnx, tmp_path, lines_of, wait_for, number, code, word
):
    (tmp_path / "log").write_text("25,3,100\n" * 50, "utf-8")
    process = start_lines(
        "--lines", "log", "--follow", "--model", churn_onnx, "--events", "e.jsonl"
    )
    path = tmp_path / "e.jsonl"
    wait_for(lambda: path.exists() and len(lines_of(path)) == 51)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{word}; all lines that were read are answered" in err
    assert "Traceback" not in err
    lines = lines_of(path)
    assert lines[-1] == {"event": "ended", "time": lines[-1]["time"], "reason": word}
    assert len(lines) == 52


def test_a_signal_that_comes_twice_at_once_is_one(start_lines, churn_onnx, wait_for):
    """`timeout 60 mlopsdeploy edge ...` signals the process, and then its group."""
    process = start_lines("--lines", "-", "--model", churn_onnx)
    process.stdin.write("25,3,100\n")
    process.stdin.flush()
    process.stdout.readline()
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated; all lines that were read are answered" in err


def test_a_serial_device_that_dies_and_comes_back(
    start_lines, sensor, churn_onnx, tmp_path, lines_of, wait_for
):
    process = start_lines(
        "--lines", "ttyUSB0", "--baud", "115200", "--model", churn_onnx, "--events", "e.jsonl"
    )
    path = tmp_path / "e.jsonl"

    def happened():
        return [line["event"] for line in lines_of(path)] if path.exists() else []

    wait_for(lambda: "connected" in happened())
    sensor.send("age,visits,spend\r\n25,3,100\r\n")
    wait_for(lambda: "line" in happened())
    sensor.unplug()
    wait_for(lambda: "lost" in happened())
    sensor.plug_in()
    wait_for(lambda: "reconnected" in happened())
    sensor.send("60,0,1\r\n")
    wait_for(lambda: happened()[-1] == "line")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert happened() == ["connected", "header", "line", "lost", "reconnected", "line", "ended"]
    assert "ttyUSB0: a serial device at 115200 baud" in err
    assert "opening it again" in err


def test_a_reader_that_leaves_ends_it_quietly(start_lines, churn_onnx, tmp_path):
    (tmp_path / "many.csv").write_text("25,3,100\n" * 200_000, "utf-8")
    process = start_lines("--lines", "many.csv", "--model", churn_onnx)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert "Broken" not in process.stderr.read()


def test_answers_to_a_device_wait_for_room_on_the_disk(
    start_lines, sensor, churn_onnx, tmp_path, lines_of, wait_for
):
    """What a sensor sent does not come again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        path = folder / "e.jsonl"
        process = start_lines("--lines", "ttyUSB0", "--model", churn_onnx, "--events", str(path))
        wait_for(lambda: path.exists() and path.stat().st_size > 0)
        filler = folder / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(folder).free))
        for _ in range(60):  # a page of the file has room yet
            sensor.send("25,3,100\r\n")
            time.sleep(0.01)
        for line in process.stderr:
            if "trying again" in line:
                break
        assert "--events: No space left on device; trying again" in line
        filler.unlink()
        for line in process.stderr:
            if "works again" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        answered = [line["line"] for line in lines_of(path) if line["event"] == "line"]
        assert answered == list(range(1, 61))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line(start_lines, churn_onnx, tmp_path):
    (tmp_path / "a.csv").write_text("25,3,100\n" * 10, "utf-8")
    process = start_lines("--lines", "a.csv", "--model", churn_onnx, "--events", "/dev/full")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    said = "--events: No space left on device; nothing more is written there, so this ends"
    assert err.count(said) == 1
    assert "Traceback" not in err


def test_on_a_terminal_people_read_it(churn_onnx, tmp_path):
    wire, terminal = pty.openpty()
    (tmp_path / "a.csv").write_text("25,3,100\nx,1,1\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mlopsdeploy", "edge", "--threads", "1", "--lines", "a.csv",
         "--model", str(churn_onnx)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}, timeout=60, check=True,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(wire, 10_000).decode()
    os.close(wire)
    assert "0.512  25,3,100" in shown
    assert "line 2: 'age' is not a number" in shown
    assert "\x1b[" in shown
    assert "{" not in shown
    assert "is not a number" not in done.stderr  # said once is enough


WRONG = {
    "a model of pictures": (["-m", "detector"], "--model detector: takes pictures: name --camera"),
    "camera": (["--camera", "1"], "--camera is for a camera, not for --lines"),
    "json": (["--json"], "--json: answers go to standard output too"),
    "follow": (["--follow"], "standard input has one end only"),
    "events": (["--events", "none/e.jsonl"], "--events none/e.jsonl: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_asked_wrongly_gets_one_line(start_lines, churn_onnx, case):
    arguments, message = WRONG[case]
    process = start_lines(
        "--lines", "-", "--model", churn_onnx, *arguments, stdin=subprocess.DEVNULL
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("mlopsdeploy: ")]
    assert message in line
    assert "Traceback" not in err


def test_settings_of_the_other_kind_of_source_are_refused():
    cameras = {
        "camera": "1", "width": 640, "height": 480, "fps": 9, "window": True,
        "save": "o.mp4", "snapshots": "o", "snapshot_seconds": 9, "preview": "0",
    }  # fmt: skip
    for name, value in cameras.items():
        flag = "--" + name.replace("_", "-")
        with pytest.raises(ConfigError, match=f"{flag} is for a camera, not for --lines"):
            check_settings(EdgeSettings(lines="-", **{name: value}))
    lines = {"follow": True, "baud": 9600, "echo": True, "features": ("a",), "long_text": "chunks"}
    for name, value in lines.items():
        flag = "--" + name.replace("_", "-")
        with pytest.raises(ConfigError, match=f"{flag} is for --lines, not for a camera"):
            check_settings(EdgeSettings(**{name: value}))
    check_settings(EdgeSettings(lines="-", window=False))


def test_a_model_of_numbers_needs_no_camera_to_be_told_from_one_of_pictures(edge):
    code, _, err = edge("--model", "fraud", "--no-window")
    assert code == 2
    assert "--model fraud: takes Time, V1, V2, not pictures: name --lines" in err
    assert "Traceback" not in err


BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
sys.argv = ["mlopsdeploy", "edge", "--threads", "1", *{arguments!r}]
from mlopsdeploy.cli import main
main()
"""


def run_without(blocked, *arguments, line):
    script = BLOCKED.format(blocked=blocked, arguments=["--lines", "-", *arguments])
    return subprocess.run(
        [sys.executable, "-c", script], input=line + "\n", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("extra", ["text", "litert"])
def test_a_device_needs_neither_opencv_nor_what_batch_needs(bert, extra):
    """`pip install 'mlopsdeploy[text]'`, or for numbers `[litert]`."""
    blocked = ["cv2", "pyarrow", "filelock", "cronsim", "flask", "httptools", "torch",
               "transformers", "pandas", "onnxruntime", "onnx", "tensorflow"]  # fmt: skip
    blocked += ["ai_edge_litert"] if extra == "text" else ["openvino", "tokenizers"]
    model, line = (bert, "it was good") if extra == "text" else ("fraud", ",".join(["1"] * 30))
    done = run_without(blocked, "--model", str(model), line=line)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"]


def test_without_tokenizers_it_says_what_to_install(bert):
    done = run_without(["tokenizers"], "-m", str(bert), line="")
    assert done.returncode == 2
    assert "pip install 'mlopsdeploy[text]'" in done.stderr


def test_memory_does_not_grow_with_the_lines(churn_onnx, tmp_path):
    """Of a new interpreter: a forked one begins with the memory of what it was forked from."""

    def most(lines):
        (tmp_path / "many.csv").write_text("25,3,100\n" * lines, "utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "mlopsdeploy", "edge", "--threads", "1",
             "--lines", "many.csv", "--model", str(churn_onnx)],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_maxrss

    assert most(100_000) < most(2_000) + 16_384  # KiB


# ---------------------------------------------------------------- what is written and shown


def answer(text, number=1, said=None, **facts):
    if isinstance(said, tuple):
        said = dict(zip(("label", "score"), said, strict=True))
    return Answer(Line(number, text.encode(), 0.0, 1_700_000_000.0), text, said, **facts)


class Feelings(Task):
    """A classifier as far as its outputs go."""

    inputs = (Field("text", "str"),)
    labels = ("NEGATIVE", "POSITIVE")
    outputs = Field("label", "str"), Field("score", "float32"), Field("truncated", "bool")


FEELINGS = Feelings()


ANSWERS = [
    answer("fine", 1, said=("POSITIVE", 0.99)),
    answer("", 2),
    answer("x,y", 3, problem="'age' is not a number"),
    answer("age", 4, header=True),
    answer("long", 5, said=("NEGATIVE", 0.51), truncated=True),
]


@pytest.mark.parametrize("echo", [False, True])
def test_a_line_of_json_for_each_and_the_text_only_where_it_is_asked_for(tmp_path, echo):
    sink = Events(str(tmp_path / "e.jsonl"), live=False)
    sink.write(sink.pick(Answers(ANSWERS, Form(FEELINGS, echo=echo))))
    sink.write(sink.pick_event(Event("lost", "gone", {"source": "x"})))
    sink.close()
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


@pytest.mark.parametrize(("echo", "named"), [(False, "text"), (True, "output_text")])
def test_an_output_called_as_a_key_of_the_event_is_renamed(echo, named):
    values = {"time": 0.25, "text": 3.0, "heat": 1.5}
    task = answering(*(Field(name, "float32") for name in values), answers=())
    (line,) = Answers([answer("1,2", said=values)], Form(task, echo=echo)).documents()
    assert (line["time"], line["output_time"]) == ("2023-11-14T22:13:20.000Z", 0.25)
    assert (line[named], line["heat"], line.get("text")) == (3.0, 1.5, "1,2" if echo else 3.0)


@pytest.mark.parametrize("live", [False, True])
def test_answers_of_lines_that_do_not_come_again_are_kept(tmp_path, live):
    for _ in range(2):
        sink = Events(str(tmp_path / "e.jsonl"), live=live)
        sink.write(sink.pick(Answers(ANSWERS[:1], Form(FEELINGS, echo=False))))
        sink.close()
    assert len((tmp_path / "e.jsonl").read_text("utf-8").splitlines()) == 1 + live


def shown(answers, *, task=FEELINGS, echo=True, width=60, color=False):
    console = Console(
        file=io.StringIO(), force_terminal=color, width=width, highlight=False,
        color_system="standard" if color else None,
    )  # fmt: skip
    Readable(console, task, echo=echo).write(answers)
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
    unread = answer("gut", said=("POSITIVE", 0.99), unread="de")
    assert shown([unread]) == "POSITIVE  0.990  not read (de)  gut\n"
    assert "\x1b[1;35mPOSITIVE" in shown(ANSWERS[:1], color=True)


def test_a_line_stays_one_line_and_can_not_drive_the_terminal():
    (line,) = shown([answer("x" * 200, said=("POSITIVE", 1.0))]).splitlines()
    assert len(line) == 60
    assert line.endswith("…")
    text = shown([answer("a\x1b[2J\x07b\rc\u202e[red]", said=("POSITIVE", 1.0))])
    assert text == "POSITIVE  1.000  a·[2J·b·c·[red]\n"
