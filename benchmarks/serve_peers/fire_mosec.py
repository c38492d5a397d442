"""mosec with dynamic batching; msgspec in place of its own `json`, which is its fastest."""

from __future__ import annotations

import sys
from typing import Any

import mosec
import msgspec
from fire_models import load, number
from network import host, port


class Batching(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = load()

    def deserialize(self, data: bytes) -> Any:
        return msgspec.json.decode(data)

    def forward(self, data: list[Any]) -> list[Any]:
        return self.model.answers([one["input"] for one in data])

    def serialize(self, data: Any) -> bytes:
        return msgspec.json.encode(data)


if __name__ == "__main__":
    sys.argv[1:] += ["--address", host(), "--port", str(port())]  # mosec reads these itself
    server = mosec.Server()
    server.append_worker(
        Batching,
        num=number("WORKERS"),
        max_batch_size=number("ROWS"),
        max_wait_time=number("WAIT_MS"),
        route="/predict",
    )
    server.run()
