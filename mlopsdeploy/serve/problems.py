"""What is wrong with a request, as RFC 9457 problem details.

A problem names the field and what was expected of it. It repeats neither what was sent (it may be
private, and ends up in logs) nor the whole schema.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818  (it is what RFC 9457 calls it)
    """A request that can't be answered as asked.

    Args:
        status: the HTTP status code.
        kind: what callers can branch on, such as "wrong-length"; stays the same between versions.
        detail: one short sentence for people.
        field: which part of the request, such as `transaction_data[3]`; empty where it is none.
        headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        field: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.field = field
        self.headers = headers

    def body(self, request_id: str) -> bytes:
        """The JSON document."""
        document = {
            "type": f"urn:mlopsdeploy:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field:
            document["field"] = self.field
        document["request_id"] = request_id
        return msgspec.json.encode(document)
