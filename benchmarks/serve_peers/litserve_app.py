"""LitServe: one API server, one inference worker."""

# No `from __future__ import annotations`: LitServe reads these types. They are its defaults.

from typing import Any

import litserve
from litert import Network
from network import host, port


class Fraud(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.network = Network()

    def decode_request(self, request: litserve.Request) -> Any:
        return request["transaction_data"]

    def predict(self, transaction: list[float]) -> bool:
        return self.network.is_fraud(transaction)

    def encode_response(self, fraud: bool) -> litserve.Response:
        return {"is_fraud": fraud}


if __name__ == "__main__":
    api = Fraud(api_path="/detect_fraud")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host=host(),
        port=port(),
        num_api_servers=1,
        generate_client_file=False,
        access_log=False,
    )
