"""Files, FIFOs and serial devices (pseudo-terminals) as sources, read in this process."""

import errno
import os
import random
import threading
import time

import pytest

from mlopsdeploy.edge import events
from mlopsdeploy.edge.lines.sources import LONGEST, Splitter, open_lines
from mlopsdeploy.errors import ConfigError, InputError
from mlopsdeploy.settings import EdgeSettings


class Reading:
    """A source that is read in a thread."""

    def __init__(self, path, **options):
        self.events = []
        self.lines = []
        self.source = open_lines(EdgeSettings(lines=str(path), **options), self.events.append)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for block in self.source.blocks():
            self.lines += block

    @property
    def texts(self):
        return [line.data.decode() for line in self.lines]

    @property
    def kinds(self):
        return [event.kind for event in self.events]


@pytest.fixture
def reading():
    opened = []

    def read(path, **options):
        opened.append(Reading(path, **options))
        return opened[-1]

    yield read
    for one in opened:
        one.source.stop()
        one.thread.join(60)


def test_a_file_to_its_end(tmp_path, reading):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree", "utf-8")
    read = reading(tmp_path / "a.txt")
    read.thread.join(60)
    assert read.texts == ["one", "two", "three"]
    assert not read.source.live


def test_a_file_that_grows_is_rotated_and_cut(tmp_path, reading, wait_for):
    """As logrotate does it: the writer stays at the old file until it opens the new one."""
    log = tmp_path / "a.log"
    read = reading(log, follow=True)
    log.write_text("1\n2", "utf-8")
    wait_for(lambda: read.texts == ["1"])
    with log.open("a") as old:
        old.write("2\n")
        old.flush()
        wait_for(lambda: read.texts == ["1", "22"])
        log.rename(tmp_path / "a.log.1")
        log.touch()
        time.sleep(0.15)
        old.write("3\n")
        old.flush()
        wait_for(lambda: read.texts[-1] == "3")
        old.write("4")
    log.write_text("5\n", "utf-8")
    wait_for(lambda: read.texts == ["1", "22", "3", "4", "5"])
    assert read.kinds == ["rotated"]
    log.write_text("", "utf-8")
    wait_for(lambda: read.kinds == ["rotated", "truncated"])
    with log.open("a") as file:
        file.write("6\n")
    wait_for(lambda: read.texts[-1] == "6")
    assert [line.number for line in read.lines] == [1, 2, 3, 4, 5, 6]


def test_a_followed_file_that_can_not_be_opened_is_reported_once_and_read_when_it_can(
    tmp_path, reading, wait_for
):
    log = tmp_path / "a.log"
    read = reading(log, follow=True)
    log.symlink_to(log)  # a loop, which root can't open either
    wait_for(lambda: read.kinds == ["lost"])
    assert "a.log: can't be opened (" in read.events[0].text
    assert read.events[0].facts["reason"] == os.strerror(errno.ELOOP)
    time.sleep(0.2)  # longer than two looks at it
    log.unlink()
    (tmp_path / "whole").write_text("1\n", "utf-8")
    (tmp_path / "whole").rename(log)
    wait_for(lambda: read.texts == ["1"])
    assert read.kinds == ["lost", "reconnected"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_followed_file_without_read_rights_is_reported(tmp_path, reading, wait_for):
    log = tmp_path / "a.log"
    read = reading(log, follow=True)
    (tmp_path / "whole").touch(0)
    (tmp_path / "whole").rename(log)
    wait_for(lambda: read.kinds == ["lost"])
    assert read.events[0].facts["reason"] == os.strerror(errno.EACCES)


def test_a_fifo_ends_with_its_writer(tmp_path, reading):
    os.mkfifo(tmp_path / "fifo")
    read = reading(tmp_path / "fifo")
    (tmp_path / "fifo").write_text("1\n2", "utf-8")
    read.thread.join(60)
    assert read.texts == ["1", "2"]


def test_a_fifo_that_is_followed_waits_for_the_next_writer(tmp_path, reading, wait_for):
    os.mkfifo(tmp_path / "fifo")
    read = reading(tmp_path / "fifo", follow=True)
    for number in range(3):
        (tmp_path / "fifo").write_text(f"{number}\nlast", "utf-8")
        wait_for(lambda: len(read.lines) == 2 * number + 2)  # noqa: B023
        wait_for(lambda: len(read.events) == number + 1)  # noqa: B023
    assert read.texts == ["0", "last", "1", "last", "2", "last"]
    assert read.kinds == ["lost"] * 3


def test_a_serial_device_that_is_unplugged_comes_back(sensor, reading, wait_for, monkeypatch):
    monkeypatch.setattr(events, "FIRST_PAUSE", 0.05)
    read = reading(sensor.path, baud=115200)
    assert read.source.live
    assert "115200 baud" in read.source.description
    sensor.send("21.5,40\r\n21.6,41\r\n")
    wait_for(lambda: read.texts == ["21.5,40", "21.6,41"])
    sensor.send("21.")
    wait_for(lambda: read.source._splitter._rest == b"21.")
    sensor.unplug()
    wait_for(lambda: read.kinds == ["lost"])
    assert read.lines[-1].problem == "was cut off when the device went away"
    time.sleep(0.2)
    sensor.plug_in()
    wait_for(lambda: read.kinds == ["lost", "reconnected"])
    assert read.events[-1].facts["attempts"] >= 1
    sensor.send("22.0,39\n")
    wait_for(lambda: read.texts[-1] == "22.0,39")


def test_a_serial_device_that_is_not_there_at_the_start_is_waited_for(reading, wait_for):
    read = reading("/dev/ttyUSB77")
    wait_for(lambda: read.kinds == ["lost"])
    assert "/dev/ttyUSB77: no such device; th" in read.events[0].text
    assert not read.source.there


def test_the_rest_of_a_line_after_opening_is_not_scored(sensor, reading, wait_for):
    """Of `123.5` the device may have sent `12` before: `3.5` would be a wrong number."""
    sensor.send("3.5\r\n21.5\r")
    read = reading(sensor.path)
    wait_for(lambda: len(read.lines) == 2)
    assert [line.problem for line in read.lines] == ["began before the device was opened", ""]
    assert read.texts == ["", "21.5"]


def test_a_carriage_return_ends_a_line_of_a_device(sensor, reading, wait_for):
    read = reading(sensor.path)
    for part in ("1\r", "\n2\r3\n", "4\r\n", "\r5\r"):
        sensor.send(part)
        time.sleep(0.02)
    wait_for(lambda: len(read.lines) == 6)
    assert read.texts == ["1", "2", "3", "4", "", "5"]


def test_a_device_is_stopped_while_it_is_silent_or_away(sensor, reading, wait_for):
    read = reading(sensor.path)
    read.source.stop()
    read.thread.join(60)
    assert not read.thread.is_alive()
    read = reading(sensor.path)
    sensor.unplug()
    wait_for(lambda: read.kinds == ["lost"])
    read.source.stop()
    read.thread.join(60)
    assert not read.thread.is_alive()
    assert read.kinds == ["lost"]
    sensor.plug_in()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none.txt", {}, r"none\.txt: no such file or device$"),
        ("none/a.txt", {"follow": True}, "no such file or device"),
        (".", {}, "is not a file, a FIFO or a serial device"),
        ("a.txt", {"baud": 9600}, "--baud is of a serial device; .*a.txt is none"),
        ("a.txt", {"realtime": True}, "--realtime is for lines that come by themselves"),
        ("/dev/null", {"follow": True}, "/dev/null has one end only"),
        ("ttyUSB0", {"follow": True}, "is followed anyway"),
        ("ttyUSB0", {"baud": 12345}, "--baud 12345: there are 50, .*115200"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, sensor, name, options, message):
    (tmp_path / "a.txt").write_text("1\n", "utf-8")
    with pytest.raises((InputError, ConfigError), match=message) as raised:
        Reading(tmp_path / name, **options)
    assert "\n" not in str(raised.value)


def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "a.txt").write_text("1\n", "utf-8")
    (tmp_path / "a.txt").chmod(0)
    if os.access(tmp_path / "a.txt", os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(InputError, match="no permission to read it"):
        Reading(tmp_path / "a.txt")


# ---------------------------------------------------------------- cut into lines


def data_of(lines):
    return [line.data for line in lines]


def test_blocks_cut_anywhere_give_the_same_lines():
    data = b"one\r\ntwo\n\nthree, \xe2\x82\xac\nfour"
    whole = Splitter()
    expected = data_of(whole.feed(data) + whole.rest())
    assert expected == [b"one", b"two", b"", b"three, \xe2\x82\xac", b"four"]
    generator = random.Random(1)
    for _ in range(20):
        splitter, found, at = Splitter(), [], 0
        while at < len(data):
            size = generator.randint(1, 6)
            found += splitter.feed(data[at : at + size])
            at += size
        found += splitter.rest()
        assert data_of(found) == expected
        assert [line.number for line in found] == [1, 2, 3, 4, 5]


def test_a_byte_order_mark_is_no_text():
    assert data_of(Splitter().feed(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n")) == [b"a", b"\xef\xbb\xbfb"]


def test_a_line_without_end_takes_no_memory_and_is_one_problem():
    splitter, found = Splitter(), []
    for _ in range(100):
        found += splitter.feed(b"x" * LONGEST)
        assert len(splitter._rest) <= LONGEST
    found += splitter.feed(b"the end of it\nnext\n")
    assert [line.problem for line in found] == ["is longer than 65,536 bytes", ""]
    assert (found[1].number, found[1].data) == (2, b"next")


def test_a_long_line_that_comes_at_once():
    first, second = Splitter().feed(b"x" * (LONGEST + 1) + b"\n" + b"y" * LONGEST + b"\n")
    assert (first.problem, first.data) == ("is longer than 65,536 bytes", b"")
    assert (second.problem, len(second.data)) == ("", LONGEST)


def test_what_was_cut_off_is_told():
    splitter = Splitter()
    splitter.feed(b"12.5,3")
    (line,) = splitter.rest("was cut off")
    assert line.problem == "was cut off"
    assert splitter.rest() == []


@pytest.mark.parametrize("nothing", [b"", b"abc"])
def test_no_line_end_no_line(nothing):
    assert Splitter().feed(nothing) == []
