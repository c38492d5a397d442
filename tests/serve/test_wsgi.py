"""Requests that other servers hand over."""

import io

import pytest

from mlopsdeploy.serve.messages import Problem, expect_json
from mlopsdeploy.serve.wsgi import wsgi_environ, wsgi_request

LIMIT = 100
CHUNKS = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}


class Body(io.BytesIO):
    """A stream that remembers how far it was asked to read."""

    asked = 0

    def read(self, size=-1):
        assert size >= 0, "never without a limit"
        self.asked += size
        return super().read(size)


def environ(body, **more):
    base = {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "wsgi.input": Body(body)}
    return {**base, "CONTENT_LENGTH": str(len(body)), **more}


def read(given):
    return wsgi_request(given, "an-id", LIMIT).body


def test_bodies_that_are_read():
    for body in (b"", b"x", b"x" * LIMIT):
        assert read(environ(body)) == body
    assert read(environ(b"more", CONTENT_LENGTH="")) == b""
    assert read(environ(b"x" * LIMIT, CONTENT_LENGTH="", **CHUNKS)) == b"x" * LIMIT


def refused(given):
    with pytest.raises(Problem) as raised:
        read(given)
    return raised.value.status, raised.value.kind


def test_bodies_that_are_refused():
    assert refused(environ(b"x" * 101)) == (413, "too-long")
    assert refused(environ(b"x" * 101, CONTENT_LENGTH="", **CHUNKS)) == (413, "too-long")
    unknown = environ(b"x", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert refused(unknown) == (411, "no-length")
    assert refused(environ(b"x", CONTENT_LENGTH="5")) == (400, "cut-off")
    assert refused(environ(b"x", HTTP_CONTENT_ENCODING="gzip")) == (415, "encoded")
    for length in ("-1", "x", "1.0", "+1", "1_0", "\xb2", " 1"):
        assert refused(environ(b"x", CONTENT_LENGTH=length)) == (400, "bad-length"), length


def test_what_is_too_long_is_let_run_out_but_not_for_ever():
    """A client that is not read from reads no answer; one that sends without end gets none."""
    given = environ(b"x" * 1_000_000)
    refused(given)
    assert given["wsgi.input"].read(1) == b""
    given = environ(b"x", CONTENT_LENGTH=str(10**12))
    refused(given)
    assert given["wsgi.input"].asked == 0

    class Endless(Body):
        def read(self, size=-1):
            super().read(size)
            return b"x" * size

    given = environ(b"", CONTENT_LENGTH="", **CHUNKS)
    given["wsgi.input"] = Endless()
    refused(given)
    assert given["wsgi.input"].asked < 50_000_000


def test_json_is_expected_and_something_else_refused():
    for kind in ("application/json", "application/x+json ; charset=utf-8"):
        expect_json({"content-type": kind})
    for kind in ("", "text/json", "image/svg+json", "application/jsonp"):
        with pytest.raises(Problem) as raised:
            expect_json({"content-type": kind})
        assert raised.value.status == 415, kind


def test_there_and_back_again():
    given = environ(
        b"{}", CONTENT_TYPE="application/json", HTTP_X_A="b", QUERY_STRING="q=1", REMOTE_ADDR="::1"
    )
    asked = wsgi_request(given, "an-id", LIMIT)
    assert asked.headers == {"content-type": "application/json", "content-length": "2", "x-a": "b"}
    back = wsgi_environ(asked, "localhost", 8080)
    names = ("REQUEST_METHOD", "PATH_INFO", "CONTENT_TYPE", "HTTP_X_A", "QUERY_STRING")
    assert {name: back[name] for name in names} == {name: given[name] for name in names}
    assert back["wsgi.input"].read() == b"{}"
    assert back["HTTP_X_REQUEST_ID"] == "an-id"
