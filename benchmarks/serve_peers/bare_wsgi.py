"""No framework: a WSGI callable that does the work and nothing else. The limit on its server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from litert import Network

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Transaction(msgspec.Struct):
    transaction_data: list[float]


network = Network()
decoder = msgspec.json.Decoder(Transaction)
encoder = msgspec.json.Encoder()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    transaction = decoder.decode(environ["wsgi.input"].read())
    body = encoder.encode({"is_fraud": network.is_fraud(transaction.transaction_data)})
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return (body,)
