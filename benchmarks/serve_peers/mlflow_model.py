"""The model that MLflow serves around the LiteRT call, as a "model from code"."""

from __future__ import annotations

from typing import Any

import mlflow
from litert import Network


class Fraud(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:  # noqa: ARG002
        self.network = Network()

    def predict(self, context: Any, model_input: Any) -> list[dict[str, bool]]:  # noqa: ARG002
        return [{"is_fraud": self.network.is_fraud(row)} for row in model_input]


mlflow.models.set_model(Fraud())
