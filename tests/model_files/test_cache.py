"""The cache between processes: one builds, who uses an entry keeps it, none is ever half there."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mlopsdeploy.errors import ConfigError
from mlopsdeploy.model_files import cache
from mlopsdeploy.models.catalogue import list_models, prune, show_prune

# Takes an entry, slowly where it is the one that builds: it ends when there is a file `go`, and
# says what it does line by line.
TAKE = """
import os, sys
from pathlib import Path
from mlopsdeploy.model_files import cache
from mlopsdeploy.errors import MlopsDeployError

def say(line):
    print(line, flush=True)

def build(folder):
    (folder / "first").write_text(str(os.getpid()))
    say("building")
    sys.stdin.readline()
    if sys.argv[2:] == ["fail"]:
        raise SystemExit("failed")
    (folder / "second").write_text(str(os.getpid()))

entry = cache.cached(Path(sys.argv[1]), build, say)
say("has " + (entry / "first").read_text() + " " + (entry / "second").read_text())
sys.stdin.readline()
"""


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx" / ("ab" * 16)


@pytest.fixture
def take(entry):
    """`take()` is a process that runs TAKE."""
    made = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE, str(entry), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        made.append(process)
        return process

    yield start
    for process in made:
        process.kill()
        process.communicate()


def line(process):
    return process.stdout.readline().strip()


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def end(process):
    process.communicate("\n", timeout=30)
    return process.returncode


def test_of_two_first_uses_one_builds_and_the_other_waits_for_it(entry, take):
    first = take()
    assert line(first) == "building"
    second = take()
    assert line(second) == f"waiting for another process that makes onnx/{entry.name[:12]}"
    assert not entry.exists(), "half an entry"
    go_on(first)
    assert line(first) == f"has {first.pid} {first.pid}"
    assert line(second) == f"has {first.pid} {first.pid}"
    assert (end(first), end(second)) == (0, 0)
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


@pytest.mark.parametrize(
    ("stop", "left"), [(end, []), (subprocess.Popen.kill, ["an unfinished compilation"])]
)
def test_who_waits_builds_where_the_first_fails_or_is_killed(entry, take, stop, left):
    first = take("fail")
    assert line(first) == "building"
    second = take()
    assert line(second).startswith("waiting for another process")
    assert prune(["all"])["deleted"] == [], "it is being built"
    stop(first)
    assert line(second) == "building"
    go_on(second)
    assert line(second) == f"has {second.pid} {second.pid}"
    assert first.wait() == (-signal.SIGKILL if left else 1)
    assert [one["made_from"] for one in prune(["all"])["deleted"]] == left
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_prune_keeps_what_a_process_uses(entry, take):
    user = take()
    assert line(user) == "building"
    go_on(user)
    assert line(user).startswith("has")
    found = prune(["all"])
    assert (found["deleted"], [kept["key"] for kept in found["kept"]]) == ([], [entry.name])
    console = Console(file=io.StringIO(), width=200)
    show_prune(found, console)
    assert f"onnx/{entry.name}  kept: in use" in console.file.getvalue()
    assert (entry / "second").exists()
    assert end(user) == 0
    assert [gone["key"] for gone in prune(["all"])["deleted"]] == [entry.name]
    assert list(entry.parent.iterdir()) == []


def test_an_entry_that_is_pruned_is_built_anew(entry, take):
    entry.mkdir(parents=True)
    for name in ("first", "second"):
        (entry / name).write_text("1", "utf-8")
    user = take()
    assert line(user) == "has 1 1"
    assert end(user) == 0
    assert cache.use(entry)
    assert prune(["all"])["kept"] == [], "this process knows what it deletes"
    assert not cache.use(entry)
    another = take()
    assert line(another) == "building"
    assert list_models(cache=True)["compiled"][0]["made_from"] == "an unfinished compilation"


def test_whoever_is_faster_wins_on_a_file_system_without_locks(entry, monkeypatch):
    monkeypatch.setattr(cache, "_lock", lambda *_, **__: True)

    def build(folder):
        (folder / "mine").touch()
        entry.mkdir()
        (entry / "theirs").touch()

    assert cache.cached(entry, build) == entry
    assert sorted(path.name for path in entry.iterdir()) == ["theirs", cache.USED]
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError) as raised:
        cache.cached(cache.cache_folder() / "onnx" / "key", lambda _: None)
    reason = "can't be written (Not a directory); set MLOPSDEPLOY_CACHE to a folder that can"
    assert str(raised.value) == f"{tmp_path / 'file' / 'onnx'}: {reason}"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder is read only here")
def test_a_cache_that_is_read_only_is_read(tmp_path, monkeypatch):
    assert cache.use(Path("/proc/self/fd"))
    monkeypatch.setenv("MLOPSDEPLOY_CACHE", "/proc/self/cache")
    with pytest.raises(ConfigError, match=r"can't be written \(.*\); set MLOPSDEPLOY_CACHE"):
        cache.cached(cache.cache_folder() / "onnx" / "key", lambda _: None)


def test_an_output_is_replaced_whole_or_not_at_all(tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    (place / "old").touch()
    with pytest.raises(RuntimeError), cache.appearing(place, replace=True) as building:
        (building / "new").touch()
        raise RuntimeError
    assert [path.name for path in place.iterdir()] == ["old"]
    with cache.appearing(place, replace=True) as building:
        (building / "new").touch()
        assert [path.name for path in place.iterdir()] == ["old"]
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_commands_compile_one_checkpoint_at_once(forks, bert_checkpoint, entry, tmp_path):
    (tmp_path / "r.csv").write_text("id,review_text\n1,good\n", "utf-8")
    started = [
        forks.popen(
            "batch", "r.csv", "-o", f"{name}.csv", "--model", bert_checkpoint,
            cwd=tmp_path, env=dict(os.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    texts = []
    for process in started:
        with process:
            texts.append(process.communicate(timeout=120)[1].decode())
    assert [process.returncode for process in started] == [0, 0], texts
    assert "".join(texts).count("to ONNX, once") == 1, texts
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    (made,) = (tmp_path / "cache" / "onnx").iterdir()
    assert json.loads((made / "parity.json").read_text("utf-8"))["label_flips"] == 0
