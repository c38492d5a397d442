"""The output appears whole or not at all, whatever ends the run; and memory stays bounded."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = [
    "good",
    "bad",
    "food",
    "room",
    "cable",
    "great",
    "awful",
    "never",
    "again",
    "but",
    "very",
    "slow",
    "quiet",
    "box",
    "price",
]


def texts_file(path, rows):
    generator = random.Random(5)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,review_text\n")
        for number in range(rows):
            text = " ".join(generator.choice(WORDS) for _ in range(60))
            file.write(f"{number},{text} {number}\n")
    return path


def start(folder, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "mlopsdeploy", "batch", *map(str, arguments)],
        cwd=folder, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def parts(folder):
    return list(Path(folder).glob(".*.part"))


def wait_for_rows(process, folder):
    """Until the run has written some rows of its output."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(part.stat().st_size for part in parts(folder)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    raise AssertionError("nothing was written within two minutes")


@pytest.fixture
def run(tmp_path, bert):
    """A run that goes on for long, and is in the middle of its rows."""
    texts_file(tmp_path / "r.csv", 100_000)
    process = start(
        tmp_path, "r.csv", "--model", bert, "--runtime", "onnxruntime", "--batch-size", "50",
        "--threads", "1",
    )  # fmt: skip
    try:
        wait_for_rows(process, tmp_path)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_kill_9_in_the_middle_leaves_no_output(run, tmp_path, score):
    run.kill()
    assert run.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "r.predictions.csv").exists()
    # What it left does not stand in the way of the next run.
    summary = score(tmp_path / "r.csv", limit=20)
    assert summary["rows"] == 20
    with (tmp_path / "r.predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_in_the_middle_leave_nothing(run, tmp_path, number, code):
    (tmp_path / "r.predictions.csv").write_text("from yesterday", "utf-8")
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert b"Traceback" not in said
    assert len(said.splitlines()) <= 1
    assert parts(tmp_path) == []
    assert (tmp_path / "r.predictions.csv").read_text("utf-8") == "from yesterday"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_while_a_pipe_is_silent(tmp_path, bert, number, code):
    """Rows were read, more may come, none does: the process ends all the same."""
    process = start(
        tmp_path, "-", "-o", "o.csv", "--model", bert, "--runtime", "onnxruntime",
        "--batch-size", "50", stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        # The reader reads in blocks of a megabyte.
        rows = "".join(f"{number},good food,{'x' * 1000}\n" for number in range(2500))
        process.stdin.write(b"review_id,review_text,more\n" + rows.encode())
        process.stdin.flush()
        wait_for_rows(process, tmp_path)
        time.sleep(0.5)
        process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            pytest.fail("still running 15 seconds after the signal")
        assert process.returncode == code
        assert parts(tmp_path) == []
        assert not (tmp_path / "o.csv").exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.jsonl", "o.parquet"])
def test_a_full_disk(tmp_path, churn_onnx, name):
    """No file may grow past 20 kB: the write fails as on a full disk."""
    rows = "".join(
        f"{number % 90},{number % 10},{number * 7.919:.3f}\n" for number in range(60_000)
    )
    (tmp_path / "c.csv").write_text("age,visits,spend\n" + rows, "utf-8")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(tmp_path, "c.csv", "-o", name, "--model", churn_onnx, preexec_fn=limit)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert len(said.decode().splitlines()) == 1, said.decode()
    assert said.startswith(f"mlopsdeploy: {name}: can't be written".encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk(tmp_path, bert):
    texts_file(tmp_path / "r.csv", 200)
    with Path("/dev/full").open("wb") as full:
        process = start(
            tmp_path, "r.csv", "-o", "-", "--model", bert, "--runtime", "onnxruntime", stdout=full
        )
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert len(said.decode().splitlines()) == 1, said.decode()
    assert said.startswith(b"mlopsdeploy: ")


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path, bert):
    """As `mlopsdeploy batch r.csv -o - | head -1` does."""
    texts_file(tmp_path / "r.csv", 20_000)
    process = start(
        tmp_path, "r.csv", "-o", "-", "--model", bert, "--runtime", "onnxruntime",
        "--batch-size", "20",
    )  # fmt: skip
    assert process.stdout.readline() == b"id,review_text,label,score,truncated\n"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert b"Traceback" not in said
    assert said == b""


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
    peaks = {}
    for rows in (20_000, 200_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text(
            "age,visits,spend,note\n"
            + "".join(f"{n % 90},{n % 10},{n * 7.9:.2f},{'x' * 300}\n" for n in range(rows)),
            "utf-8",
        )
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "batch", str(path), "--model", str(churn_onnx)],
            capture_output=True, text=True, check=True, timeout=240,
        )  # fmt: skip
        peaks[rows] = int(done.stdout)
        assert (tmp_path / f"{rows}.predictions.csv").stat().st_size > path.stat().st_size
    # Ten times the rows are 60 MB more of file.
    assert peaks[200_000] - peaks[20_000] < 30, peaks


def test_two_runs_at_once_do_not_mix(tmp_path, bert):
    texts_file(tmp_path / "r.csv", 2000)
    both = [
        start(tmp_path, "r.csv", "--model", bert, "--runtime", "onnxruntime", "--json")
        for _ in range(2)
    ]
    for process in both:
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert json.loads(out)["rows"] == 2000
    with (tmp_path / "r.predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(number) for number in range(2000)]
    assert parts(tmp_path) == []


def test_a_new_output_has_the_rights_of_any_new_file(tmp_path, score):
    texts_file(tmp_path / "r.csv", 3)
    old = os.umask(0o027)
    try:
        score(tmp_path / "r.csv")
    finally:
        os.umask(old)
    assert (tmp_path / "r.predictions.csv").stat().st_mode & 0o777 == 0o640
