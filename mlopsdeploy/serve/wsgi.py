"""Between WSGI and requests: for other servers that host us, and for Flask under our own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import msgspec
from flask import Response

from mlopsdeploy.serve.messages import (
    DISCARDED,
    JSON,
    Answer,
    Problem,
    Request,
    expect_length,
    too_long,
)

Environ = Mapping[str, Any]


def wsgi_request(environ: Environ, request_id: str, limit: int) -> Request:
    """A request of another server, whose body is read here.

    Raises:
        Problem: see `expect_length`; 411 where the server can't tell where the body ends, 400
            where it ends before its length.
    """
    arrived = perf_counter()
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(("HTTP_", "CONTENT_")) and value
    }
    body = _read(environ, headers, limit)
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    remote, query = environ.get("REMOTE_ADDR", ""), environ.get("QUERY_STRING", "")
    return Request(method, path, headers, body, request_id, arrived, remote, query)


def _read(environ: Environ, headers: Mapping[str, str], limit: int) -> bytes:
    stream = environ["wsgi.input"]
    try:
        length = expect_length(headers, limit)
    except Problem as problem:
        if problem.status == 413:
            _discard(stream, int(headers["content-length"]))
        raise
    if length is None and not environ.get("wsgi.input_terminated"):
        raise Problem(411, "no-length", "send the header Content-Length")
    body: bytes = stream.read(limit + 1 if length is None else length) if length != 0 else b""
    if len(body) > limit:
        _discard(stream, None)
        raise too_long(limit)
    if length is not None and len(body) < length:
        raise Problem(400, "cut-off", "the body ended before its Content-Length")
    return body


def _discard(stream: Any, length: int | None) -> None:
    """Reads on, so that a refusal arrives: many clients read none before all of a body is sent."""
    left = DISCARDED
    while left > 0 and (length is None or length <= DISCARDED):
        read = len(stream.read(min(left, 65536)))
        if not read:
            break
        left -= read


def wsgi_environ(request: Request, host: str, port: int) -> dict[str, Any]:
    """A request as a WSGI application takes it."""
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "REMOTE_ADDR": request.remote,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    environ["HTTP_X_REQUEST_ID"] = request.id
    return environ


def json_response(document: Any) -> Response:
    """A document as JSON."""
    return Response(msgspec.json.encode(document), content_type=JSON)


def flask_response(answer: Answer) -> Response:
    """An endpoint's answer."""
    return Response(
        answer.body, answer.status, content_type=answer.content_type, headers=list(answer.headers)
    )
