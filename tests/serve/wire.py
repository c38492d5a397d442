"""Requests as bytes, and what comes back."""

from __future__ import annotations

import json

ROW = [0.0] * 30
GOOD = json.dumps({"transaction_data": ROW}).encode()
HEAD = b"POST /detect_fraud HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
POST = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD


def read_all(connection):
    """Until the other side closes."""
    got = b""
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return got
        if not more:
            return got
        got += more


def read_answers(connection, count):
    """The statuses and bodies of so many answers that bear their lengths."""
    file = connection.makefile("rb")
    answers = []
    for _ in range(count):
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.append((status, file.read(length)))
    return answers
