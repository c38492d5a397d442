"""LitServe with its batching: one API server, WORKERS inference workers that it restarts."""

# No `from __future__ import annotations`: LitServe reads these types. They are its defaults.

from typing import Any

import litserve
from fire_models import load, number
from network import host, port


class Batching(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = load()

    def decode_request(self, request: litserve.Request) -> Any:
        return request["input"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, rows: list[Any]) -> list[Any]:
        return self.model.answers(rows)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, answer: Any) -> litserve.Response:
        return answer


if __name__ == "__main__":
    api = Batching(
        api_path="/predict",
        max_batch_size=number("ROWS"),
        batch_timeout=number("WAIT_MS") / 1000,
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=number("WORKERS"),
        fast_queue=True,
        restart_workers=True,
    )
    server.run(
        host=host(),
        port=port(),
        num_api_servers=1,
        generate_client_file=False,
        access_log=False,
    )
