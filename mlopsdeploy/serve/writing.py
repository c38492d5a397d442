"""Answers as bytes."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from mlopsdeploy.serve.messages import Answer, Problem, problem_answer

_STATUS_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n" for one in HTTPStatus}


def written(answer: Answer, request_id: str, date: str, *, keep: bool, old: bool = False) -> bytes:
    """An answer's head.

    Args:
        answer: the answer.
        request_id: of its request.
        date: as HTTP has it.
        keep: whether the connection lives on.
        old: whether its caller speaks HTTP/1.0, and must be told so.
    """
    more = "".join([f"{name}: {value}\r\n" for name, value in answer.headers])
    if not keep:
        more = more.replace("Connection: close\r\n", "") + "Connection: close\r\n"
    elif old:
        more += "Connection: keep-alive\r\n"
    text = (
        f"{_STATUS_LINES[answer.status]}Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nX-Request-ID: {request_id}\r\n"
        f"Date: {date}\r\n{more}\r\n"
    )
    return text.encode("latin-1")


def same_again(problem: Problem, request_id: str, date: str, *, error: bool) -> bytes:
    """A problem as an answer, on a connection that lives on: of one that many requests have.

    Args:
        problem: what is said.
        request_id: of the request.
        date: as HTTP has it.
        error: see `problem_answer`.
    """
    parts = _around_ids(
        problem.status, problem.kind, problem.detail, problem.headers, len(request_id), date, error
    )
    return request_id.encode().join(parts)


@lru_cache
def _around_ids(
    status: int, kind: str, detail: str, headers: tuple[tuple[str, str], ...], id_size: int,
    date: str, error: bool,
) -> list[bytes]:  # fmt: skip
    """The bytes before, between and behind the two places of an id of so many characters."""
    mark = "\0" * id_size
    answer = problem_answer(Problem(status, kind, detail, headers=headers), mark, error=error)
    whole = written(answer, mark, date, keep=True) + answer.body
    return whole.split(mark.encode())
