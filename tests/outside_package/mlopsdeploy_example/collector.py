"""A destination: a program on another machine that takes a line for each event, over TCP."""

import socket

from mlopsdeploy.edge.sending import Destination


class Collector(Destination):
    """`--sink collector=HOST:PORT`. It answers a line with `ok`, or why it won't take it."""

    name = "collector"
    together = 50

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.stream = None

    @classmethod
    def opened(cls, value, about):
        return cls(value)

    def send(self, messages):
        """An OSError on the way: the rest is sent again, over another connection."""
        try:
            if self.stream is None:
                self.stream = socket.create_connection(self.address, 5).makefile("rwb")
            for message in messages:
                self.stream.write(message.body + b"\n")
                self.stream.flush()
                answer = self.stream.readline().decode().strip()
                if not answer:
                    raise ConnectionResetError("the collector has left")
                yield "" if answer == "ok" else answer
        except OSError:
            self.close()
            raise

    def close(self):
        if self.stream is not None:
            self.stream.close()
            self.stream = None
