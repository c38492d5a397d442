"""Answers as Flask's responses, for the routes that go through Flask."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response

from mlopsdeploy.serve.endpoint import JSON, Answer


def json_response(document: Any) -> Response:
    """A document as JSON."""
    return Response(msgspec.json.encode(document), content_type=JSON)


def flask_response(answer: Answer) -> Response:
    """An endpoint's answer."""
    return Response(
        answer.body, answer.status, content_type=answer.content_type, headers=list(answer.headers)
    )
