"""The outbox: in order, within its caps, for one process, whatever ends it or damages its file."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from mlopsdeploy.edge.outbox import Envelopes, Outbox, check_ours, look_into, new_id
from mlopsdeploy.errors import ConfigError

ENVELOPE = Envelopes("cam7")


def events(count, size=0, start=0):
    for number in range(start, start + count):
        document = {"event": "crossed", "time": "2026-01-01T00:00:00.000Z", "number": number}
        yield ENVELOPE(new_id(), {**document, "filler": "x" * size})


@pytest.fixture
def outbox(tmp_path):
    opened = []

    def make(*names, limit=10**8, age=1e6, log=print):
        path = str(tmp_path / "outbox.db")
        opened.append(Outbox(path, names or ("mqtt",), limit=limit, age=age, log=log))
        return opened[-1]

    yield make
    for one in opened:
        one._close()


def numbers(messages):
    return [json.loads(one.body)["data"]["number"] for one in messages]


def drain(box, name, most=7):
    found = []
    while waiting := box.waiting(name, most):
        found += waiting
        box.mark(name, waiting[-1].seq, len(waiting))
    return found


def test_an_envelope_is_what_cloud_events_have():
    id_, kind, body = ENVELOPE("7", {"event": "crossed", "time": "2026-01-01T00:00:00.000Z"})
    assert (id_, kind) == ("7", "crossed")
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "7",
        "source": "/mlopsdeploy/edge/cam7",
        "type": "mlopsdeploy.edge.crossed",
        "time": "2026-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {"event": "crossed", "time": "2026-01-01T00:00:00.000Z"},
    }


def test_each_destination_gets_all_in_order_and_then_they_are_gone(outbox):
    box = outbox("mqtt", "webhook")
    box.add(events(30))
    assert numbers(drain(box, "mqtt")) == list(range(30))
    assert box.standing()["webhook"].waiting == 30
    box.add(events(3, start=30))
    assert numbers(drain(box, "webhook")) == list(range(33))
    assert numbers(drain(box, "mqtt")) == [30, 31, 32]
    standing = box.standing()
    assert [(one.waiting, one.delivered, one.since) for one in standing.values()] == [
        (0, 33, None), (0, 33, None),
    ]  # fmt: skip
    (left,) = box._store.execute("SELECT count(*) FROM events").fetchone()
    assert left == 0


def test_the_next_run_goes_on(outbox):
    box = outbox()
    box.add(events(5))
    first = box.waiting("mqtt", 2)
    box.mark("mqtt", first[-1].seq, 2)
    box.close()
    again = outbox()
    assert numbers(drain(again, "mqtt")) == [2, 3, 4]
    assert again.standing()["mqtt"].delivered == 5


def test_a_new_destination_gets_what_comes_and_an_old_one_what_waited(tmp_path):
    said, path = [], str(tmp_path / "o.db")

    def opened(*names, limit=10**8):
        return Outbox(path, names, limit=limit, age=1e6, log=said.append)

    box = opened("mqtt")
    box.add(events(4))
    box.close()
    box = opened("mqtt", "webhook")
    box.add(events(2, start=4))
    assert numbers(box.waiting("webhook", 9)) == [4, 5]
    box.close()
    assert said == []
    box = opened("webhook")
    (line,) = said
    assert line.startswith(f"--outbox {path}: 6 events wait for mqtt; a run with --mqtt sends them")
    taken = box.waiting("webhook", 9)
    assert numbers(taken) == [4, 5]
    box.mark("webhook", taken[-1].seq, 2)
    assert {name: one.waiting for name, one in box.standing().items()} == {"mqtt": 6, "webhook": 0}
    box.close()
    box = opened("mqtt")
    assert numbers(box.waiting("mqtt", 9)) == [0, 1, 2, 3, 4, 5]
    assert [*box.standing()] == ["mqtt"], "nothing waits for the other one"
    box.close()
    box = opened("webhook", limit=1)  # what nobody fetches is not kept for ever
    box.add(events(1, start=6))
    assert [*box.standing()] == ["webhook"]
    box.close()


def test_of_more_than_may_wait_the_oldest_go_and_are_counted(outbox):
    box = outbox("mqtt", "webhook", limit=20_000)
    box.add(events(10, size=500))
    drain(box, "webhook")
    discarded = [box.add(events(10, size=500, start=10 * n)) for n in range(1, 10)]
    left = box.waiting("mqtt", 1000)
    assert sum(len(one.body) for one in left) <= 20_000
    assert numbers(left) == list(range(100 - len(left), 100))
    standing = box.standing()
    assert standing["mqtt"].discarded == sum(discarded) == 100 - len(left)
    assert standing["webhook"].discarded == 90 - len(left), "what it has is not discarded"
    assert len(left) > 20


def test_one_that_is_larger_than_all_may_be_does_not_block_the_others(outbox):
    box = outbox(limit=2000)
    assert box.add(events(1, size=5000)) == 1
    assert box.add(events(1, start=1)) == 0
    assert numbers(drain(box, "mqtt")) == [1]


def test_what_is_too_old_goes_also_where_nothing_new_comes(tmp_path):
    box = Outbox(str(tmp_path / "o.db"), ("mqtt",), limit=10**8, age=3600, log=print)
    box.add(events(6))
    box._store.execute("UPDATE events SET time = time - 7200 WHERE seq <= 4")
    assert numbers(box.waiting("mqtt", 9)) == [4, 5]
    assert box.standing()["mqtt"].discarded == 4
    box.close()


def test_what_is_refused_is_kept_to_be_looked_at(outbox):
    box = outbox()
    box.add(events(3))
    waiting = box.waiting("mqtt", 3)
    box.mark("mqtt", waiting[-1].seq, 2, [(waiting[1], "status 422")])
    standing = box.standing()["mqtt"]
    assert (standing.waiting, standing.delivered, standing.refused) == (0, 2, 1)
    rows = box._store.execute("SELECT destination, id, reason, body FROM refused").fetchall()
    assert rows == [("mqtt", waiting[1].id, "status 422", waiting[1].body)]


def test_two_processes_do_not_share_one(outbox, tmp_path):
    box = outbox()
    with pytest.raises(ConfigError, match="outbox.db: another process uses it; give each its own"):
        Outbox(box.path, ("mqtt",), limit=1, age=1, log=print)
    box.add(events(2))
    assert look_into(box.path)["mqtt"].waiting == 2, "looking is allowed"
    box.close()
    Outbox(box.path, ("mqtt",), limit=10**6, age=10**6, log=print).close()


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 3\0" + bytes(4080), None])
def test_what_is_no_outbox_is_left_alone(tmp_path, content):
    path = tmp_path / "o.db"
    if content is None:
        sqlite3.connect(path).execute("CREATE TABLE mine (a)").connection.close()
        content = path.read_bytes()
    path.write_bytes(content)
    for attempt in (check_ours, look_into, lambda p: Outbox(p, "a", limit=1, age=1, log=print)):
        with pytest.raises(ConfigError, match="is there already, and is no outbox; name another"):
            attempt(str(path))
    assert path.read_bytes() == content


def test_a_damaged_one_is_put_aside_and_a_new_one_begun(tmp_path):
    path, said = tmp_path / "o.db", []
    box = Outbox(str(path), ("mqtt",), limit=10**8, age=1e6, log=said.append)
    box.add(events(500, size=100))
    box.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 8192) + whole[-4096:])
    box = Outbox(str(path), ("mqtt",), limit=10**8, age=1e6, log=said.append)
    box.add(events(1))
    assert len(box.waiting("mqtt", 9)) == 1
    box.close()
    (line,) = said
    assert "is damaged" in line
    assert "put aside as" in line
    assert any(one.stat().st_size == len(whole) for one in tmp_path.glob("o.db.damaged-*Z"))


def test_power_that_goes_in_the_middle_of_a_commit_costs_no_earlier_one(tmp_path):
    """Any end of the log may be missing, or be rubbish: all commits before it are there."""
    live = tmp_path / "live"
    live.mkdir()
    box = Outbox(str(live / "o.db"), ("mqtt",), limit=10**8, age=1e6, log=print)
    ends = []
    for number in range(12):
        box.add(events(1, size=200, start=number))
        ends.append((live / "o.db-wal").stat().st_size)
    image = {name: (live / name).read_bytes() for name in ("o.db", "o.db-wal")}
    box.close()
    log = image["o.db-wal"]
    assert ends[-1] == len(log)
    for cut in [*ends, *(end - 1 for end in ends), *(end - 3000 for end in ends)]:
        for rubbish in (b"", b"\xa5" * 3000):
            folder = tmp_path / "image"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "o.db").write_bytes(image["o.db"])
            (folder / "o.db-wal").write_bytes(log[:cut] + rubbish)
            again = Outbox(str(folder / "o.db"), ("mqtt",), limit=10**8, age=1e6, log=print)
            whole = sum(end <= cut for end in ends)
            assert numbers(again.waiting("mqtt", 99)) == list(range(whole))
            again.add(events(1, start=99))
            again.close()


WRITER = """
import sys
from mlopsdeploy.edge.outbox import Envelopes, Outbox, new_id
box = Outbox(sys.argv[1], ("mqtt",), limit=10**8, age=1e6, log=print)
envelope, number = Envelopes("cam7"), 0
while True:
    document = {"event": "crossed", "time": "2026-01-01T00:00:00.000Z", "number": number}
    box.add([envelope(new_id(), document)])
    print(number, flush=True)
    number += 1
"""


def test_what_was_committed_survives_a_kill(tmp_path, some):
    for attempt in range(some(3, 20)):
        path = str(tmp_path / f"{attempt}.db")
        command = [sys.executable, "-c", WRITER, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            committed = -1
            while committed < 20 + attempt:
                committed = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            committed += process.stdout.read().count("\n")
        box = Outbox(path, ("mqtt",), limit=10**8, age=1e6, log=print)
        found = numbers(box.waiting("mqtt", 10**6))
        assert found == list(range(len(found)))
        assert len(found) > committed
        box.close()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_it_does_not_fill_the_disk_so_that_it_can_be_emptied(small_disk):
    box = Outbox(str(small_disk / "o.db"), ("mqtt",), limit=10**8, age=1e6, log=print)
    added = 0
    with pytest.raises(OSError, match="No space left on device"):
        while True:
            box.add(events(10, size=2000, start=added))
            added += 10
    assert added > 500
    assert numbers(drain(box, "mqtt")) == list(range(added))
    box.close()


def test_what_is_delivered_while_the_disk_is_full_is_not_sent_twice(small_disk):
    box = Outbox(str(small_disk / "o.db"), ("mqtt",), limit=10**8, age=1e6, log=print)
    box.add(events(200, size=2000))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert numbers(drain(box, "mqtt")) == list(range(200))
    filler.unlink()
    box.add(events(1, start=200))
    assert numbers(drain(box, "mqtt")) == [200]
    assert box.standing()["mqtt"].delivered == 201
    box.close()


def test_how_it_stands_in_words(outbox):
    box = outbox()
    assert box.standing()["mqtt"].words() == "0 wait; none delivered yet"
    box.add(events(3))
    box._store.execute("UPDATE events SET time = ?", (time.time() - 4 * 3600,))
    waiting = box.waiting("mqtt", 1)
    box.mark("mqtt", waiting[0].seq, 1)
    words = box.standing()["mqtt"].words()
    assert words == "2 wait, the oldest for 4 h; 1 delivered, the last 0 s ago"


def test_a_closed_one_says_so(outbox):
    box = outbox()
    box.close()
    with pytest.raises(OSError, match="is closed"):
        box.add(events(1))
