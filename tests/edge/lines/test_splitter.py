"""Lines come out whole however the bytes come in."""

import random

import pytest

from mlopsdeploy.edge.lines.sources import LONGEST, Splitter


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
