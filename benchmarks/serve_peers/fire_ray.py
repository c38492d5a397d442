"""Ray Serve with its batching: replicas that take two batches of requests at a time."""

from __future__ import annotations

from typing import Any

import ray
from fire_models import load, number
from network import host, port
from ray import serve


class Batching:
    def __init__(self) -> None:
        self.model = load()

    @serve.batch(max_batch_size=number("ROWS"), batch_wait_timeout_s=number("WAIT_MS") / 1000)
    async def answers(self, rows: list[Any]) -> list[Any]:
        return self.model.answers(rows)

    async def __call__(self, request: Any) -> Any:
        return await self.answers((await request.json())["input"])


if __name__ == "__main__":
    ray.init(address="local", num_cpus=number("WORKERS"), include_dashboard=False)
    serve.start(http_options={"host": host(), "port": port()})
    quiet = {"enable_access_log": False}
    serving = serve.deployment(
        Batching,
        num_replicas=number("WORKERS"),
        max_ongoing_requests=2 * number("ROWS"),
        logging_config=quiet,
    )
    serve.run(serving.bind(), route_prefix="/predict", blocking=True, logging_config=quiet)
