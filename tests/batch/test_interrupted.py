"""Whatever ends a run, the same command goes on, and its output is that of an undisturbed run."""

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet
import pytest

from mlopsdeploy.batch.unfinished import UnfinishedRun
from mlopsdeploy.data.sources import open_source
from mlopsdeploy.errors import InputError

from .conftest import Processes

ROWS = 2000
NAMES = ["o.csv", "o.csv.gz", "o.jsonl", "o.parquet"]


@pytest.fixture(scope="module")
def content(quick_reviews):
    """A file with a bit of everything: repeated and empty texts, and rows that can't be read."""
    generator = random.Random(4)
    lines = [b"id,review_text"]
    for number, text in enumerate(quick_reviews(ROWS)):
        wrong = (
            [b'"', b"\xff,x", b"1,2,3", b"only"]
            if generator.random() < 0.01 or number == 100
            else []
        )
        empty = generator.random() < 0.02
        lines.append(
            generator.choice(wrong[1:]) if wrong else f"{number},{'' if empty else text}".encode()
        )
    return b"\n".join(lines) + b"\n"


@pytest.fixture
def batch(processes, bag, tmp_path, content):
    """`batch("o.csv", ...)`: a run over `r.csv`, as a process of its own."""
    (tmp_path / "r.csv").write_bytes(content)

    def run(name, *more, source="r.csv", **how):
        return processes.run(
            tmp_path, source, "-o", name, "--model", bag, "--runtime", "onnxruntime",
            "--batch-size", "20", "--max-errors", "none", *more, **how,
        )  # fmt: skip

    return run


def result(folder, name):
    """The output and the rows set aside; and nothing else is left of a run."""
    errors, manifest = (f"{name}.{more}" for more in ("errors.jsonl", "manifest.json"))
    left = {path.name for path in folder.iterdir() if not path.name.startswith("r.")}
    assert left == {name, errors, manifest}
    return (folder / name).read_bytes(), (folder / errors).read_bytes()


def clear(folder, name):
    for path in folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def undisturbed(batch, tmp_path):
    """`undisturbed("o.csv")`: what such a run makes, and its seconds."""

    def run(name, *more, **how):
        ended = batch(name, *more, **how)
        assert ended.code == 0, ended.said
        made = result(tmp_path, name)
        clear(tmp_path, name)
        return made, ended.seconds

    return run


def rows_written(folder, name):
    """Whether a run has begun to write rows."""
    rows = folder / f"{name}.unfinished" / "rows"
    return lambda: rows.exists() and rows.stat().st_size > 0


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(batch, undisturbed, tmp_path, some, name):
    """Some runs are killed once, some many times, until one comes to its end."""
    expected, seconds = undisturbed(name)
    generator = random.Random(name)
    kills = 0
    while kills < some(3, 8):
        attempts = generator.randint(1, 4)
        for _ in range(attempts):
            ended = batch(
                name,
                commit=generator.choice([0, 0, 0.05]),
                kill=generator.uniform(0.02, seconds),
                number=generator.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]),
            )
            assert ended.code in (0, -signal.SIGKILL, -signal.SIGTERM, 143), ended.said
            kills += ended.code != 0
        ended = batch(name)
        assert ended.code == 0, ended.said
        assert result(tmp_path, name) == expected
        clear(tmp_path, name)


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_every_step(batch, undisturbed, tmp_path, some, name):
    """At each opening, renaming, linking and removing of a file, publishing included; some of the
    runs that go on are killed as well. Without `--all`, each format has a part of the steps, and
    the four of them have all."""
    stride, first = some(4, 1), some(1 + NAMES.index(name), 1)
    arguments = ("--limit", "300")
    expected, _ = undisturbed(name, *arguments)
    step = first
    while (ended := batch(name, *arguments, step=step)).code:
        assert ended.code == -signal.SIGKILL, ended.said
        if step % 3 == 0:
            assert batch(name, *arguments, step=1 + step % 10).code in (0, -signal.SIGKILL)
        assert batch(name, *arguments).code == 0, f"killed at step {step}"
        assert result(tmp_path, name) == expected, f"killed at step {step}"
        clear(tmp_path, name)
        step += stride
    assert step > 15, "a run changes more files than that"
    assert result(tmp_path, name) == expected


def test_what_is_done_is_not_done_again(batch, tmp_path):
    stop_early(batch, tmp_path)
    ended = batch("o.csv", "--json")
    said = re.search(r"going on after ([\d,]+) rows that are done", ended.said)[1]
    done = int(said.replace(",", ""))
    assert done % 160 == 0
    assert 0 < done < ROWS
    summary = json.loads(ended.out)
    assert summary["attempts"] == 2
    assert summary["rows"] == sum(summary["labels"].values()) + summary["empty"] + summary["failed"]


def test_killed_within_a_window(processes, bert, tmp_path, quick_reviews):
    """A slow model's window takes long: what is computed of it is kept, whoever kills the run."""
    texts = [f"{text} {number}" for number, text in enumerate(quick_reviews(6000))]
    (tmp_path / "r.csv").write_text("review_text\n" + "\n".join(texts) + "\n", "utf-8")

    def batch(name, *more, **how):
        return processes.run(
            tmp_path, "r.csv", "-o", name, "--model", bert, "--runtime", "onnxruntime",
            "--batch-size", "800", "--json", *more, **how,
        )  # fmt: skip

    assert batch("clean.csv", commit=5).code == 0
    folder = tmp_path / "o.csv.unfinished"
    for more in ([], ["--incremental"]):
        for number in (signal.SIGKILL, signal.SIGINT):
            before = {*folder.glob("computed-*")}
            ended = batch(
                "o.csv", *more, number=number,
                kill=lambda: (folder / "manifest.json").exists()
                and {*folder.glob("computed-*")} - before,  # noqa: B023
            )  # fmt: skip
            assert ended.code in (-signal.SIGKILL, 130), ended.said
        said = ended.said.replace(",", "")
        found = int(re.search(r"going on with (\d+) rows from 1 on that are computed", said)[1])
        kept = int(re.search(r"interrupted; (\d+) rows are kept", said)[1])
        assert 0 < found < kept
        ended = batch("o.csv", *more, commit=5)
        assert ended.code == 0, ended.said
        if kept < 6000:  # else it was written before the signal came
            assert f"going on with {kept:,} rows from 1 on that are computed" in ended.said
        assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "clean.csv").read_bytes()
        summary = json.loads(ended.out)
        assert (summary["rows"], summary["attempts"]) == (6000, 3)
        assert not folder.exists()


def test_what_is_computed_of_other_rows_is_not_taken(processes, bert, tmp_path, quick_reviews):
    """The rows of the window that was on its way have changed since; and a report is wanted now."""
    texts = [f"{text} {number}" for number, text in enumerate(quick_reviews(600))]

    def batch(name, *more, **how):
        (tmp_path / "r.csv").write_text("review_text\n" + "\n".join(texts) + "\n", "utf-8")
        return processes.run(
            tmp_path, "r.csv", "-o", name, "--model", bert, "--runtime", "onnxruntime", *more, **how
        )

    folder = tmp_path / "o.csv.unfinished"
    assert batch("o.csv", kill=lambda: [*folder.glob("computed-*")] != []).code == -signal.SIGKILL
    texts[0], texts[1] = texts[1], texts[0]
    ended = batch("o.csv", "--report", "r.html")
    assert ended.code == 0
    assert "going on" not in ended.said
    assert batch("clean.csv", "--report", "r.html").code == 0
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "clean.csv").read_bytes()
    statistics = [
        json.loads((tmp_path / f"{name}.csv.manifest.json").read_bytes())["statistics"]
        for name in ("o", "clean")
    ]
    assert statistics[0] == statistics[1]


def test_killed_from_a_database_to_a_database(batch, tmp_path, some, quick_reviews):
    """At steps and moments; the rows are those that the first attempt fetched."""
    texts = [f"{text} {number}" for number, text in enumerate(quick_reviews(1500))]
    with closing(sqlite3.connect(tmp_path / "r.db")) as shop, shop:
        shop.execute("CREATE TABLE reviews (id INTEGER PRIMARY KEY, review_text TEXT)")
        shop.executemany("INSERT INTO reviews VALUES (?, ?)", enumerate(texts))

    def score(name, **how):
        return batch(f"sqlite:///{name}.db#scored", source="sqlite:///r.db#reviews", **how)

    def rows(name):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as made:
            return made.execute("SELECT * FROM scored").fetchall()

    assert score("clean").code == 0
    assert len(rows("clean")) == 1500
    for step in (*range(3, 40, some(9, 1)), 1000):
        kill = None if step < 1000 else 0.5
        assert score("r.o", step=step if step < 1000 else 0, kill=kill).code in (0, -signal.SIGKILL)
        ended = score("r.o")
        assert ended.code == 0, ended.said
        assert rows("r.o") == rows("clean"), f"killed at step {step}"
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".unfinished")]


def test_killed_while_the_input_grows(batch, tmp_path, content):
    """Each attempt reads what is there when it begins, and half a line at the end belongs to the
    next one."""
    whole = content.replace(b'"', b"") * 2
    whole = whole.replace(b"\nid,review_text\n", b"\n")
    before = 0
    for part in (0.3, 0.55, 0.8):
        (tmp_path / "r.csv").write_bytes(whole[: int(len(whole) * part)])
        ended = batch("o.csv", kill=Processes.has_rows(tmp_path / "o.csv", before))
        assert ended.code == -signal.SIGKILL, ended.said
        before = Processes.rows_done(tmp_path / "o.csv")
    (tmp_path / "r.csv").write_bytes(whole)
    ended = batch("o.csv")
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    made = result(tmp_path, "o.csv")
    clear(tmp_path, "o.csv")
    assert batch("o.csv").code == 0
    assert result(tmp_path, "o.csv") == made


def test_the_output_of_last_night_stays_until_the_new_one_is_whole(batch, undisturbed, tmp_path):
    expected, seconds = undisturbed("o.csv")
    (tmp_path / "o.csv").write_text("from yesterday", "utf-8")
    (tmp_path / "o.csv.errors.jsonl").write_text("of yesterday", "utf-8")
    for delay in (0.3, 0.6):
        killed = batch("o.csv", "--overwrite", kill=seconds * delay).code
        if killed and (tmp_path / "o.csv").read_bytes() != expected[0]:  # else it came too late
            assert (tmp_path / "o.csv").read_text("utf-8") == "from yesterday"
            assert (tmp_path / "o.csv.errors.jsonl").read_text("utf-8") == "of yesterday"
    assert batch("o.csv", "--overwrite").code == 0
    assert result(tmp_path, "o.csv") == expected
    assert batch("o.csv").code == 0, "its own output is replaced every night"


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_what_is_done_also_between_commits(
    processes, bert, tmp_path, quick_reviews, number, code
):
    """Each window is many batches of a slow model: some are always under way."""
    texts = "".join(
        f"{number},{text} {number}\n" for number, text in enumerate(quick_reviews(9000))
    )
    (tmp_path / "r.csv").write_text("id,review_text\n" + texts, "utf-8")
    (tmp_path / "o.csv").write_text("from yesterday", "utf-8")
    ended = processes.run(
        tmp_path, "r.csv", "-o", "o.csv", "--model", bert, "--runtime", "onnxruntime",
        "--batch-size", "40", "--overwrite",
        commit=1000, kill=rows_written(tmp_path, "o.csv"), number=number,
    )  # fmt: skip
    assert ended.code == code, ended.said
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    line = rf"mlopsdeploy: {word}; [\d,]+ rows are kept: the same command goes on with the rest\n"
    assert re.fullmatch(line, ended.said)
    assert (tmp_path / "o.csv").read_text("utf-8") == "from yesterday"


def start(folder, model, source, output, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "mlopsdeploy", "batch", source, "-o", output),
            *("--model", str(model), "--runtime", "onnxruntime", "--batch-size", "50"),
        ],
        cwd=folder, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_while_a_pipe_is_silent(tmp_path, bag, number, code):
    """Rows were read, more may come, none does: the process ends all the same."""
    process = start(tmp_path, bag, "-", "o.csv", stdin=subprocess.PIPE)
    try:
        # The reader reads in blocks of a megabyte.
        rows = "".join(f"{number},good food,{'x' * 1000}\n" for number in range(2500))
        process.stdin.write(b"review_id,review_text,more\n" + rows.encode())
        process.stdin.flush()
        end = time.monotonic() + 60
        while not rows_written(tmp_path, "o.csv")():
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(60) == code
        assert not (tmp_path / "o.csv").exists()
        assert b"rows are kept" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- at the end


def test_a_signal_when_the_output_is_written_takes_nothing_back(batch, listener, tmp_path):
    listener.answers.clear()
    ended = batch(
        "o.csv", "--notify-success", listener.url, number=signal.SIGTERM,
        kill=lambda: listener.calls != [],
    )  # fmt: skip
    assert ended.code == 143
    assert ended.said.endswith("mlopsdeploy: terminated; the output is written\n")
    assert (tmp_path / "o.csv").exists()


LEAVES = """
import os, sys, time

class Slow:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"leaving")
        sleep(1)

slow = Slow()
sys.argv = ["mlopsdeploy", "--version"]
from mlopsdeploy.cli import main
main()
"""


def test_a_signal_while_the_program_leaves_does_not_change_how_it_ended():
    with subprocess.Popen([sys.executable, "-c", LEAVES], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"mlopsdeploy ")
        assert process.stdout.read(7) == b"leaving"
        process.terminate()
        assert process.wait(30) == 0


# ---------------------------------------------------------------- on time

# From 02:39:50 UTC on, a minute goes by in half a second.
FAST = """
import time
from mlopsdeploy.batch import schedule

looks = []

def now():
    looks.append(time.monotonic())
    return 1795228790 + (looks[-1] - looks[0]) * 120

time.tzset()
schedule.SLICE = 0.05
schedule.run_on_schedule.__kwdefaults__["now"] = now
"""


@pytest.fixture
def scheduled(batch, forks, bag, tmp_path, content):
    """`scheduled("* * * * *")`: the same over more rows, again and again."""
    header, rows = content.split(b"\n", 1)
    (tmp_path / "r.csv").write_bytes(header + b"\n" + rows * 8)
    started = []

    def start(expression, *more):
        process = forks.popen(
            "batch", "r.csv", "-o", "o.csv", "--model", bag, "--runtime", "onnxruntime",
            "--batch-size", "20", "--max-errors", "none", "--schedule", expression, *more,
            prelude=FAST, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "MLOPSDEPLOY_COMMIT_SECONDS": "0", "TZ": "UTC"},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def the_run_of(parent):
    """The process that a schedule has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text("utf-8").rpartition(")")[2].split()[1] == str(parent.pid):
                return int(path.parent.name)
    return None


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def said_until(process, text):
    """Its log up to a line with `text`."""
    lines = []
    while text not in "".join(lines[-1:]):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    return "".join(lines)


def test_a_run_of_a_schedule_is_killed_and_tried_again(scheduled, undisturbed, listener, tmp_path):
    expected, _ = undisturbed("o.csv")
    told = ("--notify-success", f"{listener.url}/done", f"--notify-failure={listener.url}/failed")
    parent = scheduled("40 2 * * *", *told)
    wait_for(Processes.has_rows(tmp_path / "o.csv"))
    run = the_run_of(parent)
    assert listener.url.encode() not in Path(f"/proc/{run}/cmdline").read_bytes()
    os.kill(run, signal.SIGKILL)
    said = said_until(parent, " run 1 done")
    assert "run 1 failed: killed by SIGKILL, " in said
    assert "going on after" in said.partition("run 1 started again, retry 1 of 3")[2]
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 0
    assert [(path, message["tries"]) for path, message in listener.calls] == [("/done", 2)]
    assert result(tmp_path, "o.csv") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_schedule_is_killed_and_begins_again(scheduled, undisturbed, tmp_path):
    """Its run ends with it, and leaves the output to the next one."""
    expected, _ = undisturbed("o.csv")
    parent = scheduled("* * * * *")
    wait_for(Processes.has_rows(tmp_path / "o.csv"))
    run = the_run_of(parent)
    parent.kill()
    wait_for(lambda: not is_running(run), 10)
    assert not (tmp_path / "o.csv").exists()
    parent = scheduled("* * * * *")
    assert "going on after" in said_until(parent, " run 1 done")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 0
    assert result(tmp_path, "o.csv") == expected


def test_a_run_of_another_night_does_not_block_a_schedule(scheduled, batch, undisturbed, tmp_path):
    """Nobody is there to say what becomes of it."""
    expected, _ = undisturbed("o.csv")
    stop_early(batch, tmp_path, "--threshold", "0.9")
    parent = scheduled("* * * * *")
    said = said_until(parent, " run 1 done")
    assert "threshold was 0.9 and is now not set: starting over" in said
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 0
    assert result(tmp_path, "o.csv") == expected


# ---------------------------------------------------------------- the input is another one


def stop_early(batch, folder, *more, **how):
    """A run that is killed with some rows done."""
    ended = batch("o.csv", *more, kill=Processes.has_rows(folder / "o.csv"), **how)
    assert ended.code == -signal.SIGKILL, ended.said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content.replace(b"\n3,", b"\n3,awful "),
            "r.csv: its first rows are not the .*starting over",
        ),
        (
            lambda content: content[: len(content) * 9 // 10] + b"\n77,one more\n78,and more\n",
            "going on after",
        ),
    ],
)
def test_rows_have_changed(batch, tmp_path, content, change, message):
    """Some that are done, or only others."""
    stop_early(batch, tmp_path)
    (tmp_path / "r.csv").write_bytes(change(content))
    ended = batch("o.csv")
    assert ended.code == 0, ended.said
    assert re.search(message, ended.said)
    done = result(tmp_path, "o.csv")
    clear(tmp_path, "o.csv")
    assert batch("o.csv").code == 0
    assert result(tmp_path, "o.csv") == done


@pytest.mark.parametrize("header", [b"review_text,id", b"ID,review_text"])
def test_columns_have_changed(batch, tmp_path, content, header):
    stop_early(batch, tmp_path)
    (tmp_path / "r.csv").write_bytes(header + content[content.index(b"\n") :])
    ended = batch("o.csv")
    assert ended.code == 0, ended.said
    assert "starting over" in ended.said
    assert (tmp_path / "o.csv").read_bytes().startswith(header + b",label,")


def test_an_input_that_is_shorter_now(batch, tmp_path, content):
    stop_early(batch, tmp_path)
    (tmp_path / "r.csv").write_bytes(content[:300])
    ended = batch("o.csv")
    assert ended.code == 0
    assert "starting over" in ended.said
    assert (tmp_path / "o.csv").read_bytes().count(b"\n") < 30


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_an_input_that_is_cut_while_it_is_read(tmp_path, name):
    """Half a file is not to pass for a whole one."""
    row = "1,good\n" if name == "r.csv" else '{"text": "good"}\n'
    path = tmp_path / name
    path.write_text("id,text\n" + row * 400_000 if name == "r.csv" else row * 400_000, "utf-8")
    with closing(open_source(str(path))) as source:
        assert source.read(1000).rows == 1000
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(InputError, match=f"{name}: was cut while it was read"):
            while source.read(1000):
                pass


@pytest.mark.parametrize(("setting", "before", "after"), [("limit", 1500, 1900), ("threads", 2, 1)])
def test_another_limit_or_number_of_threads_goes_on(
    batch, undisturbed, tmp_path, setting, before, after
):
    expected, _ = undisturbed("o.csv", f"--{setting}", after)
    stop_early(batch, tmp_path, f"--{setting}", before)
    assert batch("o.csv", f"--{setting}", after).code == 0
    assert result(tmp_path, "o.csv") == expected


def test_another_setting_is_refused_by_name(batch, undisturbed, tmp_path):
    expected, _ = undisturbed("o.csv")
    stop_early(batch, tmp_path)
    ended = batch("o.csv", "--threshold", "0.9", "--prefix", "my_")
    assert ended.code == 2
    assert "threshold was not set and is now 0.9, prefix was not set and is now my_" in ended.said
    assert "go on with what it was, or start over with --fresh" in ended.said
    assert batch("o.csv").code == 0, "what was done is still there"
    assert result(tmp_path, "o.csv") == expected


@pytest.mark.parametrize("change", ["labels", "threshold"])
def test_a_model_that_has_changed_is_refused(batch, undisturbed, bag, tmp_path, change):
    """One output never holds the answers of two models, though their weights are the same."""
    model = tmp_path / "r.model"
    shutil.copytree(bag, model)
    expected, _ = undisturbed("o.csv", "--model", model)
    stop_early(batch, tmp_path, "--model", model)
    before = (model / "config.json").read_bytes()
    if change == "labels":
        (model / "config.json").write_bytes(before.replace(b"NEGATIVE", b"BAD"))
    else:
        (model / "model.yaml").write_text("threshold: 0.9\n", "utf-8")
    ended = batch("o.csv", "--model", model)
    assert ended.code == 2
    assert re.search(r"rows done, but model was [0-9a-f]+… and is now [0-9a-f]+…", ended.said)
    (model / "config.json").write_bytes(before)
    (model / "model.yaml").unlink(missing_ok=True)
    assert batch("o.csv", "--model", model).code == 0
    assert result(tmp_path, "o.csv") == expected


def test_another_setting_may_discard_what_is_done(batch, undisturbed, tmp_path):
    expected, _ = undisturbed("o.csv", "--threshold", "0.9")
    stop_early(batch, tmp_path)
    for unfinished, code in (("refuse", 2), ("discard", 0)):
        ended = batch("o.csv", "--threshold", "0.9", "--unfinished", unfinished)
        assert ended.code == code, ended.said
        assert "rows done, but threshold was not set and is now 0.9" in ended.said
    assert ": starting over" in ended.said
    assert result(tmp_path, "o.csv") == expected


def test_what_can_be_gone_on_with_is_not_discarded(batch, tmp_path):
    stop_early(batch, tmp_path)
    ended = batch("o.csv", "--unfinished", "discard")
    assert ended.code == 0
    assert "going on after" in ended.said


def test_standard_input_that_differs_may_discard_what_is_done(batch, tmp_path, content):
    stop_early(batch, tmp_path, source="-", stdin=tmp_path / "r.csv")
    (tmp_path / "r.other.csv").write_bytes(content.replace(b"\n3,", b"\n3,awful "))
    other = {"source": "-", "stdin": tmp_path / "r.other.csv"}
    assert batch("o.csv", "--unfinished", "discard", **other).code == 0
    made = result(tmp_path, "o.csv")
    assert b"\n3,awful " in made[0]
    assert batch("o.csv", "--overwrite", **other).code == 0
    assert result(tmp_path, "o.csv") == made


def test_fresh_starts_over(batch, tmp_path):
    stop_early(batch, tmp_path)
    ended = batch("o.csv", "--prefix", "my_", "--fresh")
    assert ended.code == 0, ended.said
    assert "going on" not in ended.said
    assert (tmp_path / "o.csv").read_bytes().startswith(b"id,review_text,my_label,")


def test_standard_input_is_piped_again(batch, undisturbed, tmp_path, content):
    pipe = {"source": "-", "stdin": tmp_path / "r.csv"}
    expected, _ = undisturbed("o.csv", **pipe)
    stop_early(batch, tmp_path, **pipe)
    ended = batch("o.csv", **pipe)
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    assert result(tmp_path, "o.csv") == expected


def test_standard_input_that_differs_is_refused(batch, tmp_path, content):
    stop_early(batch, tmp_path, source="-", stdin=tmp_path / "r.csv")
    (tmp_path / "r.other.csv").write_bytes(content.replace(b"\n3,", b"\n3,awful "))
    ended = batch("o.csv", source="-", stdin=tmp_path / "r.other.csv")
    assert ended.code == 2
    assert "standard input: has other rows than the unfinished run began with" in ended.said
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("name", ["r.gz", "r.jsonl", "r.parquet"])
def test_inputs_of_other_formats_go_on(batch, undisturbed, tmp_path, content, name):
    rows = [line.split(b",") for line in content.splitlines()[1:]]
    texts = [row[1].decode() for row in rows if len(row) == 2 and row[0] != b"\xff"]
    if name == "r.gz":
        (tmp_path / (name := "r.csv.gz")).write_bytes(gzip.compress(content))
    elif name == "r.jsonl":
        lines = [f'{{"review_text": "{text}", "more": [1, null]}}\n' for text in texts]
        (tmp_path / name).write_text("".join(["{}\n", *lines, "no JSON\n"]), "utf-8")
    else:
        table = pyarrow.table({"review_text": [*texts, None], "more": range(len(texts) + 1)})
        pyarrow.parquet.write_table(table, tmp_path / name)

    def made():
        return [
            path.read_bytes()
            for path in sorted(tmp_path.glob("o.*"))
            if not path.name.endswith(".manifest.json")
        ]

    assert batch("o.jsonl", source=name).code == 0
    expected = made()
    clear(tmp_path, "o.jsonl")
    ended = batch("o.jsonl", source=name, kill=Processes.has_rows(tmp_path / "o.jsonl"))
    assert ended.code == -signal.SIGKILL
    ended = batch("o.jsonl", source=name)
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    assert made() == expected


# ---------------------------------------------------------------- the disk


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_and_then_room(batch, undisturbed, tmp_path, name):
    """No file may grow past so many bytes: the write fails as on a full disk."""
    expected, _ = undisturbed(name)
    for biggest in (2_000, len(expected[0]) // 3, len(expected[0]) // 2):
        ended = batch(name, biggest=biggest)
        assert ended.code == 1, ended.said
        line = [line for line in ended.said.splitlines() if line.startswith("mlopsdeploy: ")]
        assert len(line) == 1
        assert line[0].startswith(f"mlopsdeploy: {name}: can't be written (File too large")
        assert line[0].count("rows are kept") == (biggest > 2_000), line
        assert not (tmp_path / name).exists()
    ended = batch(name)
    assert ended.code == 0, ended.said
    assert "going on after" in ended.said
    assert result(tmp_path, name) == expected


def test_a_disk_that_is_full_from_the_start_leaves_nothing(batch, tmp_path):
    ended = batch("o.csv", biggest=300)
    assert ended.code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk(tmp_path, bag, content):
    (tmp_path / "r.csv").write_bytes(content[:2000])
    with Path("/dev/full").open("wb") as full:
        process = start(tmp_path, bag, "r.csv", "-", stdout=full)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert len(said.decode().splitlines()) == 1, said.decode()
    assert said.startswith(b"mlopsdeploy: ")


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path, bag, quick_reviews):
    """As `mlopsdeploy batch r.csv -o - | head -1` does."""
    (tmp_path / "r.csv").write_text("review_text\n" + "\n".join(quick_reviews(30_000)), "utf-8")
    process = start(tmp_path, bag, "r.csv", "-")
    assert process.stdout.readline() == b"review_text,label,score,truncated\n"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert said == b""


# ---------------------------------------------------------------- others

PEAK = """
import re, runpy, sys
sys.argv = ["mlopsdeploy", *sys.argv[1:]]
try:
    runpy.run_module("mlopsdeploy", run_name="__main__")
except SystemExit as done:
    assert not done.code, done.code
# Not getrusage: its peak is inherited from the process that started this one.
print(int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path, churn_onnx):
    """Both files are longer than what the pipeline holds at once: some 40,000 rows."""
    peaks = {}
    for rows in (60_000, 600_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("age,visits,spend,note\n")
            file.writelines(f"{n % 90},{n % 10},{n * 7.9:.2f},{'x' * 300}\n" for n in range(rows))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "batch", str(path), "--model", str(churn_onnx)],
            capture_output=True, text=True, check=True, timeout=240,
        )  # fmt: skip
        peaks[rows] = int(done.stdout)
        assert (tmp_path / f"{rows}.predictions.csv").stat().st_size > path.stat().st_size
    # Ten times the rows are 170 MB more of file.
    assert peaks[600_000] - peaks[60_000] < 30, peaks


def test_a_second_run_at_the_same_time_is_turned_away(batch, undisturbed, tmp_path):
    expected, _ = undisturbed("o.csv")
    with UnfinishedRun(tmp_path / "o.csv", "o.csv", {}):
        ended = batch("o.csv")
        assert ended.code == 1
        assert ended.said.splitlines()[-1] == (
            "mlopsdeploy: o.csv: another run is writing it; wait for its end, or name another "
            "--output"
        )
    assert batch("o.csv").code == 0
    assert result(tmp_path, "o.csv") == expected


def test_a_new_output_has_the_rights_of_any_new_file(tmp_path, score, content):
    (tmp_path / "r.csv").write_bytes(content[:100])
    old = os.umask(0o027)
    try:
        score(tmp_path / "r.csv", limit=3)
    finally:
        os.umask(old)
    for path in tmp_path.glob("r.predictions.*"):
        assert path.stat().st_mode & 0o777 == 0o640, path
