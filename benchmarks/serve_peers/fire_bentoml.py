"""BentoML with adaptive batching, told the time that an answer may take: `bentoml serve
fire_bentoml:Batching`. Whom it can't answer in that time it refuses with 503."""

# No `from __future__ import annotations`: BentoML reads these types.

import os
from typing import Any

import bentoml
from fire_models import load, number

Row = str if os.environ["MODEL"] == "sentiment" else list[float]


@bentoml.service(workers=number("WORKERS"), logging={"access": {"enabled": False}})
class Batching:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(
        route="/predict",
        batchable=True,
        max_batch_size=number("ROWS"),
        max_latency_ms=number("SLO_MS"),
    )
    def predict(self, input: list[Row]) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        return self.model.answers(input)
