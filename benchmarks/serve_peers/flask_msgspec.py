"""Plain Flask with msgspec for the JSON: what Flask can do by itself."""

from __future__ import annotations

import msgspec
from flask import Flask, Response, request
from litert import Network


class Transaction(msgspec.Struct):
    transaction_data: list[float]


app = Flask(__name__)
network = Network()
decoder = msgspec.json.Decoder(Transaction)
encoder = msgspec.json.Encoder()


@app.route("/detect_fraud", methods=["POST"])
def detect_fraud() -> Response:
    transaction = decoder.decode(request.get_data())
    answer = {"is_fraud": network.is_fraud(transaction.transaction_data)}
    return Response(encoder.encode(answer), mimetype="application/json")
