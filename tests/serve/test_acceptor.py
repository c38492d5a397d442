"""Taking connections; what callers see of it is in test_under_fire and test_connection."""

import contextlib
import socket
import sys

import pytest

from mlopsdeploy.serve.acceptor import is_hung_up


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_who_has_hung_up_before_the_connection_is_taken(sent):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        gone, there = (socket.create_connection(listener.getsockname()) for _ in range(2))
        for caller in (gone, there):
            caller.sendall(sent)
        gone.close()
        stack.enter_context(there)
        taken = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        assert [is_hung_up(one) for one in taken] == [True, False]
