"""mosec: one worker. With `--msgspec` that reads and writes the JSON in place of its own `json`."""

from __future__ import annotations

import sys
from typing import Any

import mosec
import msgspec
from litert import Network
from network import host, port


class Fraud(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, data: Any) -> dict[str, bool]:
        return {"is_fraud": self.network.is_fraud(data["transaction_data"])}


class Transaction(msgspec.Struct):
    transaction_data: list[float]


decoder = msgspec.json.Decoder(Transaction)
encoder = msgspec.json.Encoder()


class MsgspecFraud(Fraud):
    def deserialize(self, data: bytes) -> Transaction:
        return decoder.decode(data)

    def forward(self, data: Any) -> dict[str, bool]:
        return {"is_fraud": self.network.is_fraud(data.transaction_data)}

    def serialize(self, data: dict[str, bool]) -> bytes:
        return encoder.encode(data)


if __name__ == "__main__":
    worker = MsgspecFraud if "--msgspec" in sys.argv else Fraud
    sys.argv[1:] = ["--address", host(), "--port", str(port())]  # mosec reads these itself
    server = mosec.Server()
    server.append_worker(worker, num=1, route="/detect_fraud")
    server.run()
