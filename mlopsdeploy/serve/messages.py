"""Requests and responses as bytes: what came, what is answered, and what is wrong with a request.

A problem (RFC 9457) names the field and what was expected of it. It repeats neither what was sent
(it may be private, and ends up in logs) nor the whole schema.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import msgspec

log = logging.getLogger("mlopsdeploy.serve")
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
DISCARDED = 32 << 20
"""Bytes of a body that is refused which are read all the same, so that its sender goes on."""

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises where a body is not JSON."""

BUDGET_HEADERS = (("x-request-timeout", 1.0), ("x-envoy-expected-rq-timeout-ms", 0.001))
"""Headers that say how long a caller waits, and the unit of each in seconds."""
BULK_URGENCY = 5
"""From here on a request is bulk, by its `Priority: u=0` to `u=7` (RFC 9218)."""
_URGENCY = re.compile(r"(?:^|[,;\s])u=([0-7])(?:$|[,;\s])")
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass(slots=True, eq=False)
class Request:
    """A request whose body has arrived.

    Attributes:
        method: in upper case.
        path: decoded, without the query.
        headers: by name in lower case; several of one name are joined by commas.
        body: all of it.
        id: of the caller's choice (`X-Request-ID`), or made here.
        arrived: when all of it can have been here first, by `time.perf_counter`.
        remote: the caller's address.
        query: what stands behind the path's question mark.
        gone: whether its caller has hung up.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    id: str
    arrived: float
    remote: str = ""
    query: str = ""
    gone: bool = False


class RequestIds:
    """Ids of requests: the caller's own where it is one, else one that no other worker gives."""

    def __init__(self) -> None:
        self._numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))
        self._prefix = os.urandom(4).hex()

    def of(self, given: str | None) -> str:
        """The id of a request with this header `X-Request-ID`."""
        if given is not None and _ID.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers):x}"


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


def patience(headers: Mapping[str, str]) -> float | None:
    """The seconds that a caller says it waits; None if it says nothing.

    Raises:
        Problem: 400 where it is no number above 0.
    """
    for name, unit in BUDGET_HEADERS:
        if name not in headers:
            continue
        try:
            seconds = float(headers[name]) * unit
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise Problem(400, "bad-timeout", f"the header {name} must be a number above 0")
        return seconds
    return None


def is_bulk(headers: Mapping[str, str]) -> bool:
    """Whether a caller says that others go first."""
    if "priority" not in headers:
        return False
    found = _URGENCY.search(headers["priority"])
    return found is not None and int(found[1]) >= BULK_URGENCY


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


def expect_json(headers: Mapping[str, str]) -> None:
    """Refuses other content types.

    Raises:
        Problem: 415.
    """
    content_type = headers.get("content-type", "")
    if content_type == JSON:
        return
    kind = content_type.partition(";")[0].strip().lower()
    if not is_json(kind):
        raise Problem(415, "not-json", "send JSON, with the header Content-Type: application/json")


def expect_length(headers: Mapping[str, str], limit: int) -> int | None:
    """How long the body is by its head; None where that shows only at its end.

    Raises:
        Problem: 413 where it is longer than `limit` bytes, 415 where it is compressed, 400 where
            its length is no number.
    """
    coding = headers.get("content-encoding")
    if coding and coding.lower() != "identity":
        detail = "send the body as it is, without Content-Encoding"
        raise Problem(415, "encoded", detail, headers=(("Accept-Encoding", "identity"),))
    header = headers.get("content-length")
    if header and not (header.isascii() and header.isdigit()):
        raise Problem(400, "bad-length", "the header Content-Length is not a number")
    length = int(header) if header else None
    if length is None and "transfer-encoding" not in headers:
        return 0
    if length is not None and length > limit:
        raise too_long(limit)
    return length


def too_long(limit: int) -> Problem:
    """What is said of a body of more than `limit` bytes."""
    detail = f"the body may have at most {limit:,} bytes; the server's max_body says so"
    return Problem(413, "too-long", detail, headers=(("Connection", "close"),))


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
    before, after = _around_id(problem.status, problem.kind, problem.detail, problem.field, error)
    body = before + request_id.encode() + after
    return Answer(problem.status, PROBLEM_JSON, body, problem.headers)


@lru_cache
def _around_id(status: int, kind: str, detail: str, field: str, error: bool) -> tuple[bytes, bytes]:
    """The same problem again and again is what an overloaded server says: ids apart, it is one."""
    document = {
        "type": f"urn:mlopsdeploy:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **({"field": field} if field else {}),
        **({"error": detail} if error else {}),
        "request_id": "",
    }
    return msgspec.json.encode(document)[:-2], b'"}'
