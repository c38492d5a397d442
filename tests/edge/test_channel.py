"""A channel that keeps loses nothing; one that forgets gives the newest; both can end."""

import threading

import pytest

from mlopsdeploy.edge.channel import Channel, Closed, feed


def test_a_channel_that_keeps_makes_the_sender_wait_and_loses_nothing():
    channel = Channel(2, keep=True)
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    feed(items(), channel, "test")
    received = []
    for item in channel:
        received.append(item)
        assert len(made) <= item + 5  # two wait, one is being sent, one is in hand
    assert received == list(range(50))
    assert channel.dropped == 0


def test_a_channel_that_forgets_gives_the_newest():
    channel = Channel(1, keep=False)
    for number in range(10):
        assert channel.put(number)
    assert channel.take(0) == 9
    assert channel.dropped == 9
    with pytest.raises(TimeoutError):
        channel.take(0)


def test_what_was_sent_before_the_end_can_still_be_taken():
    channel = Channel(4, keep=True)
    channel.put(1)
    channel.put(2)
    channel.close()
    assert not channel.put(3)
    assert list(channel) == [1, 2]
    with pytest.raises(Closed):
        channel.take()


def test_an_error_of_the_sender_is_raised_where_its_items_are_taken():
    def items():
        yield 1
        raise ValueError("broken")

    channel = Channel(1, keep=True)
    feed(items(), channel, "test")
    assert channel.take() == 1
    with pytest.raises(ValueError, match="broken"):
        channel.take()


def test_a_receiver_that_leaves_lets_a_waiting_sender_go_and_its_generator_close():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    channel = Channel(1, keep=True)
    feed(items(), channel, "test")
    channel.take()
    channel.cancel()
    assert closed.wait(10)


def test_a_waiting_receiver_sees_the_end():
    channel = Channel(1, keep=False)
    threading.Timer(0.05, channel.cancel).start()
    with pytest.raises(Closed):
        channel.take(10)
