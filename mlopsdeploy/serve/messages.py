"""Requests and responses as bytes: bodies that are read, answers, and what is wrong with a request.

A problem (RFC 9457) names the field and what was expected of it. It repeats neither what was sent
(it may be private, and ends up in logs) nor the whole schema.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from flask import Response

log = logging.getLogger("mlopsdeploy.serve")
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
_DISCARDED = 32 * 1024 * 1024  # bytes of a body that is too long, read so that its sender goes on

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises where a body is not JSON."""
Environ = Mapping[str, Any]


class Answer(NamedTuple):
    """A response before it is one."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    """How many were predicted."""


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818  (it is what RFC 9457 calls it)
    """A request that can't be answered as asked.

    Attributes:
        status: the HTTP status code.
        kind: what callers can branch on, such as "wrong-length"; stays the same between versions.
        detail: one short sentence for people.
        field: which part of the request, such as `transaction_data[3]`; empty where it is none.
        headers: further response headers.
    """

    status: int
    kind: str
    detail: str
    field: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def misfit(status: int, kind: str, where: str, rest: str) -> Problem:
    """A problem with one part of a request: a sentence that begins with it."""
    return Problem(status, kind, where + rest, where)


def too_many(where: str, limit: int) -> Problem:
    """A refusal of more rows than a request may have."""
    return misfit(
        413,
        "too-many-rows",
        where,
        f" may have {limit:,} rows at most; the server's max_rows says so",
    )


def explained(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says of a value, and where it is: `rows[3].f2`, a missing field's name too."""
    message, _, path = str(error).partition(" - at `$")
    where = path[:-1].lstrip(".")
    if message.startswith("Object missing required field"):
        where = f"{where}.{message.split('`')[1]}".lstrip(".")
    return message, where


def is_json(kind: str) -> bool:
    """Whether a media type, in lower case and without parameters, is JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def expect_json(environ: Environ) -> None:
    """Refuses other content types.

    Raises:
        Problem: 415.
    """
    content_type = environ.get("CONTENT_TYPE", "")
    if content_type == JSON:
        return
    kind = content_type.partition(";")[0].strip().lower()
    if not is_json(kind):
        raise Problem(415, "not-json", "send JSON, with the header Content-Type: application/json")


def read_body(environ: Environ, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413 where it is longer than `limit` bytes, 415 where it is compressed, 400 and 411
            where its length is no number or can't be known.
    """
    coding = environ.get("HTTP_CONTENT_ENCODING")
    if coding and coding.lower() != "identity":
        detail = "send the body as it is, without Content-Encoding"
        raise Problem(415, "encoded", detail, headers=(("Accept-Encoding", "identity"),))
    header = environ.get("CONTENT_LENGTH")
    if header and not (header.isascii() and header.isdigit()):
        raise Problem(400, "bad-length", "the header Content-Length is not a number")
    length = int(header) if header else None
    if length is not None and length > limit:
        raise _too_long(limit, environ, length)
    if length is None and environ.get("HTTP_TRANSFER_ENCODING") is None:
        return b""
    if length is None and not environ.get("wsgi.input_terminated"):
        raise Problem(411, "no-length", "send the header Content-Length")
    body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise _too_long(limit, environ)
    if length is not None and len(body) < length:
        raise Problem(400, "cut-off", "the body ended before its Content-Length")
    return body


def problem_answer(problem: Exception, request_id: str, *, error: bool = False) -> Answer:
    """A problem as an answer.

    Of another exception, which is our own fault, it says nothing: the log does, under the same id.

    Args:
        problem: what was raised.
        request_id: of the request.
        error: add the member `error`, where Open Inference clients look.
    """
    if not isinstance(problem, Problem):
        log.error("request failed", exc_info=problem, extra={"request_id": request_id})
        problem = Problem(500, "server-fault", "the server failed; its log has the reason")
    document = {
        "type": f"urn:mlopsdeploy:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **({"field": problem.field} if problem.field else {}),
        "request_id": request_id,
        **({"error": problem.detail} if error else {}),
    }
    body = msgspec.json.encode(document)
    return Answer(problem.status, PROBLEM_JSON, body, problem.headers)


def _too_long(limit: int, environ: Environ, length: int | None = None) -> Problem:
    """A refusal that arrives: many clients read no answer before their whole body is sent."""
    left = _DISCARDED
    while left > 0 and (length is None or length <= _DISCARDED):
        read = len(environ["wsgi.input"].read(min(left, 65536)))
        if not read:
            break
        left -= read
    detail = f"the body may have at most {limit:,} bytes; the server's max_body says so"
    return Problem(413, "too-long", detail, headers=(("Connection", "close"),))


def json_response(document: Any) -> Response:
    """A document as JSON."""
    return Response(msgspec.json.encode(document), content_type=JSON)


def flask_response(answer: Answer) -> Response:
    """An endpoint's answer."""
    return Response(
        answer.body, answer.status, content_type=answer.content_type, headers=list(answer.headers)
    )
