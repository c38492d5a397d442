"""The folder of a run: what is certain, what is cut off, who may write."""

import errno
import json
import os
import threading

import pytest

from mlopsdeploy.batch import unfinished
from mlopsdeploy.batch.unfinished import UnfinishedRun
from mlopsdeploy.data.destinations import destination
from mlopsdeploy.data.files import copy_whole
from mlopsdeploy.errors import ConfigError, MlopsDeployError

IDENTITY = {"model": "a" * 64, "batch size": 1000}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "o.csv"


@pytest.fixture
def begin(output):
    """`begin()`: the run that writes `o.csv`."""

    def run(identity=IDENTITY, **more):
        return UnfinishedRun(output, "o.csv", identity, **more)

    return run


def write(run, rows, errors=b""):
    """So many more rows, certain."""
    for number in range(run.rows, run.rows + rows):
        run.file.write(b"%d\n" % number)
    run.errors.write(errors)
    run.commit(run.rows + rows, f"digest of {run.rows + rows}", {"rows": run.rows + rows})


def publish(output):
    return destination(str(output))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_commit_lasts_and_what_follows_it_is_cut_off(begin, output):
    with begin() as run:
        assert run.rows == 0
        write(run, 3, b"bad\n")
        run.file.write(b"torn")
        run.errors.write(b"torn too")
    with begin() as run:
        assert run.rows == 3
        assert run.done["input_digest"] == "digest of 3"
        assert run.done["state"] == {"rows": 3}
        write(run, 2)
        run.finish(publish(output), {"rows": 5})
    assert output.read_bytes() == b"0\n1\n2\n3\n4\n"
    assert output.with_name("o.csv.errors.jsonl").read_bytes() == b"bad\n"
    manifest = json.loads(output.with_name("o.csv.manifest.json").read_bytes())
    assert manifest["rows"] == 5
    assert set(manifest["written"]) == {"o.csv", "o.csv.errors.jsonl"}
    assert names(output.parent) == ["o.csv", "o.csv.errors.jsonl", "o.csv.manifest.json"]


def test_without_bad_rows_there_is_no_file_of_them(begin, output):
    output.with_name("o.csv.errors.jsonl").write_text("of yesterday", "utf-8")
    with begin() as run:
        write(run, 1)
        run.finish(publish(output), {})
    assert names(output.parent) == ["o.csv", "o.csv.manifest.json"]


def test_nothing_done_leaves_nothing(begin, output):
    with begin() as run:
        run.file.write(b"not certain")
    assert names(output.parent) == []


@pytest.mark.parametrize("length", [0, 1, 5, 100])
def test_files_shorter_than_what_is_certain_are_not_trusted(begin, length):
    """As a disk without barriers may leave them."""
    with begin() as run:
        write(run, 50)
    os.truncate(run.folder / "rows", length)
    with begin() as run:
        assert run.rows == 0
        assert run.file.tell() == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"7", b"\xff", b'{"rows": 3}', b'{"rows_bytes": 0}']
)
def test_a_manifest_that_can_t_be_read_is_none(begin, content):
    with begin() as run:
        write(run, 3)
    (run.folder / "manifest.json").write_bytes(content)
    with begin() as run:
        assert run.rows == 0
        write(run, 1)
    with begin() as run:
        assert run.rows == 1


def test_what_has_changed_is_named(begin):
    with begin() as run:
        write(run, 1234)
    with pytest.raises(ConfigError) as caught:
        begin({"model": "b" * 64, "batch size": 1000, "prefix": "new_"})
    said = str(caught.value)
    assert "o.csv.unfinished: holds an unfinished run, 1,234 rows done" in said
    assert "model was aaaaaaaaaaaa… and is now bbbbbbbbbbbb…" in said
    assert "prefix was not set and is now new_" in said
    assert "batch size" not in said
    assert "start over with --fresh" in said
    with begin() as run:
        assert run.rows == 1234, "nothing was lost, and the lock was let go"


def test_fresh_forgets(begin):
    with begin() as run:
        write(run, 5)
    with begin({"model": "another"}, fresh=True) as run:
        assert run.rows == 0
        assert names(run.folder) == ["errors.jsonl", "lock", "rows"]


def test_starting_over(begin, output):
    with begin() as run:
        write(run, 5, b"bad\n")
    with begin() as run:
        run.start_over()
        assert run.rows == 0
        write(run, 2)
        run.finish(publish(output), {})
    assert output.read_bytes() == b"0\n1\n"
    assert names(output.parent) == ["o.csv", "o.csv.manifest.json"]


def test_a_commit_is_due_after_so_many_seconds(begin):
    with begin(every=1000) as run:
        assert run.due_in() > 900
    with begin(every=0) as run:
        assert run.due_in() == 0


# ---------------------------------------------------------------- the lock


def test_two_runs_are_kept_apart(begin):
    with begin() as run:
        write(run, 1)
        with pytest.raises(MlopsDeployError, match="another run is writing it; wait for its end"):
            begin()
        with pytest.raises(MlopsDeployError, match="another run is writing it"):
            begin(fresh=True)
        write(run, 1)
    assert (run.folder / "lock").exists(), "as a dead process leaves it"
    with begin() as run:
        assert run.rows == 2


def test_runs_that_start_while_others_finish(begin, output):
    """However they meet, no two are on at a time, and each that gets through does all of it."""
    on = threading.Lock()
    finished, refused, broken = [], [], []

    def work():
        for _ in range(40):
            try:
                with begin() as run:
                    if not on.acquire(blocking=False):
                        broken.append("two at a time")
                        return
                    assert run.rows == 0
                    write(run, 3)

                    def leave(rows):
                        copy_whole(rows, output)
                        on.release()

                    place = publish(output)
                    place.publish = leave
                    run.finish(place, {})
                finished.append(1)
            except MlopsDeployError as error:
                refused.append(str(error))
            except BaseException as error:  # noqa: BLE001
                broken.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert finished
    assert set(refused) <= {
        "o.csv: another run is writing it; wait for its end, or name another --output"
    }
    assert output.read_bytes() == b"0\n1\n2\n"
    assert names(output.parent) == ["o.csv", "o.csv.manifest.json"]


# ---------------------------------------------------------------- publishing


def test_a_published_file_never_changes_in_place(begin, output, monkeypatch):
    """A crash between publishing and the end: the next run has the same file under two names."""
    with begin() as run:
        write(run, 3)
        monkeypatch.setattr(run, "_forget", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.finish(publish(output), {})
    assert (run.folder / "rows").samefile(output)
    with output.open("rb") as reader, begin() as run:
        assert run.rows == 3
        write(run, 3)
        run.file.write(b"more")
        run.file.flush()
        assert output.read_bytes() == b"0\n1\n2\n"
        run.finish(publish(output), {})
        assert reader.read() == b"0\n1\n2\n", "who has it open reads on"
    assert output.read_bytes().startswith(b"0\n1\n2\n3\n4\n5\n")


def test_a_disk_without_links(begin, output, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with begin() as run:
        write(run, 3, b"bad\n")
        run.finish(publish(output), {})
    assert output.read_bytes() == b"0\n1\n2\n"
    assert output.with_name("o.csv.errors.jsonl").read_bytes() == b"bad\n"


def test_publishing_that_fails_loses_nothing(begin, output):
    def fail(rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    with begin() as run:
        write(run, 3)
        place = publish(output)
        place.publish = fail
        with pytest.raises(MlopsDeployError, match=r"o.csv: can't be written \(No space left"):
            run.finish(place, {})
        assert run.kept == "3 rows are kept: the same command goes on with the rest"
    with begin() as run:
        assert run.rows == 3
        run.finish(publish(output), {})
    assert output.read_bytes() == b"0\n1\n2\n"


# ---------------------------------------------------------------- the disk


def test_a_disk_that_fills_at_a_commit(begin, monkeypatch):
    """What the commit before said holds, also in words."""
    with begin() as run:
        write(run, 3)

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(unfinished, "whole_file", fail)
            with pytest.raises(MlopsDeployError, match="No space left on device"):
                write(run, 4)
        assert run.kept == "3 rows are kept: the same command goes on with the rest"
    with begin() as run:
        assert run.rows == 3


def test_a_folder_that_is_taken_away(begin):
    with begin() as run:
        write(run, 3)
        for path in run.folder.iterdir():
            path.unlink()
        run.folder.rmdir()
        with pytest.raises(MlopsDeployError, match=r"can't be written \(No such file or directory"):
            write(run, 3)
        assert run.kept == "nothing was written"


def test_a_file_in_the_folder_s_place(begin, output):
    output.with_name("o.csv.unfinished").write_text("", "utf-8")
    with pytest.raises(MlopsDeployError, match=r"o.csv: can't be written \(File exists: .*unfin"):
        begin()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_t_be_written(begin, output):
    output.parent.chmod(0o555)
    try:
        with pytest.raises(MlopsDeployError, match=r"o.csv: can't be written \(Permission denied"):
            begin()
    finally:
        output.parent.chmod(0o755)
