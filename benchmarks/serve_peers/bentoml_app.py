"""BentoML: a service of one worker; `bentoml serve bentoml_app:Fraud`."""

from __future__ import annotations

import bentoml
from litert import Network


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Fraud:
    def __init__(self) -> None:
        self.network = Network()

    @bentoml.api(route="/detect_fraud")
    def detect_fraud(self, transaction_data: list[float]) -> dict[str, bool]:
        return {"is_fraud": self.network.is_fraud(transaction_data)}
