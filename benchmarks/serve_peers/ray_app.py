"""Ray Serve: one replica behind its HTTP proxy, which may send on as many requests as come.

serve.py runs it as it is by default, and with the settings that its documentation gives for high
throughput: HAProxy as the proxy, and the user's code on the replica's own thread.
"""

from __future__ import annotations

from typing import Any

import ray
from litert import Network
from network import host, port
from ray import serve


class Fraud:
    def __init__(self) -> None:
        self.network = Network()

    async def __call__(self, request: Any) -> dict[str, bool]:
        transaction = (await request.json())["transaction_data"]
        return {"is_fraud": self.network.is_fraud(transaction)}


if __name__ == "__main__":
    ray.init(address="local", num_cpus=1, include_dashboard=False)
    serve.start(http_options={"host": host(), "port": port()})
    quiet = {"enable_access_log": False}
    serving = serve.deployment(
        Fraud, num_replicas=1, max_ongoing_requests=100, logging_config=quiet
    )
    serve.run(serving.bind(), route_prefix="/detect_fraud", blocking=True, logging_config=quiet)
