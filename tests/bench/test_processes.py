"""Real processes: their end, their output, what they took."""

import sys
import time
from pathlib import Path

import pytest

from mlopsdeploy.bench import processes
from mlopsdeploy.bench.processes import OURS, CommandError, run, start
from mlopsdeploy.errors import MlopsDeployError

PYTHON = (sys.executable, "-c")


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_tells_what_it_took(tmp_path):
    code = "import os, time; held = b'x' * 60_000_000; time.sleep(0.5); print(os.getcwd())"
    finished = run([*PYTHON, code], tmp_path / "log", cwd=tmp_path)
    assert finished.stdout == f"{tmp_path}\n"
    assert finished.peak_memory > 60e6
    assert finished.cpu > 0
    assert 0 <= finished.others <= 1
    assert finished.wall > 0.5


@pytest.mark.parametrize(("code", "ours"), [(1, 1), (2, 2), (3, 1)])
def test_a_command_that_fails_ends_with_its_message(tmp_path, code, ours):
    script = f"import sys; print('mlopsdeploy: it broke', file=sys.stderr); sys.exit({code})"
    with pytest.raises(CommandError, match="^it broke$") as raised:
        run([*PYTHON, script], tmp_path)
    assert raised.value.exit_code == ours


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(99)\n"
    )
    monkeypatch.setattr(processes, "STOP", 0.1)
    with start([*PYTHON, script], tmp_path) as process:
        process.wait_until(lambda: process.stdout.endswith("\n"), 60, "the script")
        child = int(process.stdout)
        with pytest.raises(CommandError, match="not done after 0 s"):
            process.wait(0.01)
    assert not process.runs
    end = time.monotonic() + 30
    while lives(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_waiting_ends_with_the_process_or_the_time(tmp_path):
    with start([*PYTHON, "raise SystemExit('no room')"], tmp_path) as process:
        with pytest.raises(MlopsDeployError, match="the server ended at once: no room"):
            process.wait_until(lambda: False, 60, "the server")
    with start([*PYTHON, "import time; time.sleep(99)"], tmp_path) as process:
        with pytest.raises(MlopsDeployError, match="the server was not ready after 0 s"):
            process.wait_until(lambda: False, 0.1, "the server")
        assert process.runs
    assert not process.runs


def test_settings_in_the_environment_are_not_those_of_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_LIMIT", "1")
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", "here")
    code = "import os; print({k: v for k, v in os.environ.items() if k.startswith('MLOPS')})"
    found = run([*PYTHON, code], tmp_path, environment={"MLOPSDEPLOY_MODEL": "added"}).stdout
    assert eval(found) == {"MLOPSDEPLOY_CACHE": "here", "MLOPSDEPLOY_MODEL": "added"}


def test_a_command_of_ours(tmp_path):
    with pytest.raises(CommandError, match="nothing.csv") as raised:
        run([*OURS, "batch", "nothing.csv"], tmp_path, cwd=tmp_path)
    assert raised.value.exit_code == 2
    assert {file.name for file in tmp_path.iterdir()} == {"stdout", "stderr"}


def test_only_a_200_is_an_answer():
    assert not processes.answers("http://127.0.0.1:9/")
