"""MLServer: a custom runtime behind the Open Inference Protocol.

Run as a script it writes MLServer's settings and becomes `mlserver start`: inference in the
server's own process (`parallel_workers` 0), which is its fastest with one worker.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from litert import Network
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from network import FEATURES, host, port


class Fraud(MLModel):
    async def load(self) -> bool:
        self.network = Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = payload.inputs[0].data.root
        answers = [
            self.network.is_fraud(values[start : start + FEATURES])
            for start in range(0, len(values), FEATURES)
        ]
        output = ResponseOutput(
            name="is_fraud", shape=[len(answers)], datatype="BOOL", data=answers
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


def free_port() -> int:
    with socket.socket() as free:
        free.bind((host(), 0))
        found: int = free.getsockname()[1]
        return found


if __name__ == "__main__":
    settings = {
        "host": host(),
        "http_port": port(),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {"name": "fraud", "implementation": "mlserver_app.Fraud"}
    for name, content in (("settings.json", settings), ("model-settings.json", model)):
        Path(name).write_text(json.dumps(content), encoding="utf-8")
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", "."])
