"""Answers as bytes."""

import http.client
import io
import json

import pytest

from mlopsdeploy.serve.messages import Problem, problem_answer
from mlopsdeploy.serve.queue import refused
from mlopsdeploy.serve.writing import same_again, written

DATE = "Tue, 01 Dec 2026 05:00:00 GMT"


class Bytes:
    """What `http.client` takes for a connection."""

    def __init__(self, raw):
        self.raw = raw

    def makefile(self, _mode):
        return io.BytesIO(self.raw)


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("request_id", ["1", "0503", "a" * 128, "Retry-After", "busy"])
@pytest.mark.parametrize("problem", [refused("busy", 0.0), refused("busy", 12.3)])
def test_what_is_said_again_and_again_is_what_is_said_once(problem, request_id, error):
    answer = problem_answer(problem, request_id, error=error)
    whole = written(answer, request_id, DATE, keep=True) + answer.body
    for _ in range(2):
        assert same_again(problem, request_id, DATE, error=error) == whole
    got = http.client.HTTPResponse(Bytes(whole))
    got.begin()
    document = json.loads(got.read())
    assert (got.status, document["status"], document["request_id"]) == (503, 503, request_id)
    assert got.headers["X-Request-ID"] == request_id
    assert got.headers["Retry-After"] in {"1", "13"}
    assert got.headers["Date"] == DATE


def test_two_problems_are_two_answers():
    one, other = (Problem(503, "busy", detail) for detail in ("this", "that"))
    assert b"this" in same_again(one, "1", DATE, error=False)
    assert b"that" in same_again(other, "1", DATE, error=False)
