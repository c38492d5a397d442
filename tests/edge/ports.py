"""Ports for servers that go away and come back."""

import contextlib
import random
import socket


def lasting_port():
    """A port that stays free while nobody listens: below those that the system gives away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
