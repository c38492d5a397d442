"""A channel that keeps loses nothing; one that forgets gives the newest; both can end."""

import threading

import pytest

from mlopsdeploy.edge.channel import Channel, Closed, feed


def test_a_channel_may_become_longer_and_shorter():
    channel = Channel(1, keep=True)
    channel.resize(3)
    assert channel.put_all([1, 2, 3])
    channel.resize(1)
    sent = threading.Thread(target=channel.put, args=(4,))
    sent.start()
    assert channel.take_all(2) == [1, 2]
    assert channel.take() == 3
    sent.join(5)
    assert channel.take_all(9) == [4]


def test_several_at_once_keep_their_order_or_drop_the_oldest():
    kept = Channel(2, keep=True)
    sending = threading.Thread(target=kept.put_all, args=(list(range(100)),))
    sending.start()
    taken = []
    while len(taken) < 100:
        taken += kept.take_all(7)
    assert taken == list(range(100))
    sending.join(5)
    live = Channel(3, keep=False)
    live.put_all([1, 2])
    live.put_all(list(range(10, 20)))
    assert live.take_all(9) == [17, 18, 19]
    assert live.dropped == 9


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
