"""How threads hand things on: a bounded queue that either waits or forgets, and can end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Closed(Exception):  # noqa: N818  # not an error: it ends a loop, as StopIteration does
    """Nothing more comes."""


class Channel(Generic[T]):
    """At most `size` items on their way from one thread to another.

    Args:
        size: items that may wait.
        keep: a full channel makes the sender wait, so that nothing is lost; otherwise it forgets
            the oldest item, so that the sender never waits and the receiver gets the newest.

    Attributes:
        dropped: items forgotten so far.
    """

    def __init__(self, size: int, *, keep: bool) -> None:
        self._size = size
        self._keep = keep
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0

    def resize(self, size: int) -> None:
        """From now on so many items may wait; more that wait already go on waiting."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def put(self, item: T) -> bool:
        """Send an item; False if nobody takes it any more."""
        return self.put_all((item,))

    def put_all(self, items: Sequence[T]) -> bool:
        """Send items, in their order and as room comes; False if nobody takes them any more."""
        sent = 0
        with self._changed:
            while sent < len(items):
                while self._keep and len(self._items) >= self._size and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return False
                room = self._size - len(self._items) if self._keep else self._size
                part = items[sent : sent + room]
                for _ in range(len(self._items) + len(part) - self._size):
                    self._items.popleft()
                    self.dropped += 1
                self._items.extend(part)
                sent += len(part)
                self._changed.notify_all()
        return True

    def push(self, item: T) -> bool:
        """Send an item without waiting: past the size, where none may be forgotten."""
        with self._changed:
            if self._closed:
                return False
            if not self._keep and len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
        return True

    def take(self, timeout: float | None = None) -> T:
        """The next item.

        Raises:
            Closed: there will be none.
            TimeoutError: there was none within `timeout` seconds.
        """
        return self.take_all(1, timeout)[0]

    def take_all(self, most: int, timeout: float | None = None) -> list[T]:
        """The items that wait, `most` of them at most and one at least; raises as `take` does."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                raise TimeoutError
            if self._items:
                taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
                self._changed.notify_all()
                return taken
            if self._error is not None:
                raise self._error
            raise Closed

    def rest(self, seconds: float) -> None:
        """Let items come together for so long, unless the sender has to wait for that."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._keep and len(self._items) >= self._size), seconds
            )

    def close(self, error: BaseException | None = None) -> None:
        """The sender's end: what was sent can still be taken; after it, `error` is raised."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """The receiver's end: nothing more will be taken; a waiting sender goes on."""
        with self._changed:
            self._items.clear()
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                yield self.take()
            except Closed:
                return


def feed(
    items: Iterable[U], channel: Channel[T], name: str, put: Callable[[U], bool] | None = None
) -> None:
    """Run through `items` in a thread that sends them, and ends with them or with the channel.

    Sent by the channel's `put`, or by what is given as `put`: its `put_all`, for sequences. The
    thread is a daemon: it may sit in a read that never returns, and nobody waits for it.
    """
    send: Callable[[Any], bool] = put or channel.put
    # Closing a generator that has a camera open is for the thread that runs it.
    close: Callable[[], None] = getattr(items, "close", lambda: None)

    def run() -> None:
        try:
            for item in items:
                if not send(item):
                    break
            close()
            channel.close()
        except BaseException as error:  # noqa: BLE001  # raised again by the one who takes
            channel.close(error)

    threading.Thread(target=run, name=name, daemon=True).start()
