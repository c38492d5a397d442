"""MLServer with adaptive batching, behind the Open Inference Protocol.

Run as a script it writes MLServer's settings and becomes `mlserver start`. With one worker
inference is in the server's own process (`parallel_workers` 0), which is its fastest; with more
these are processes of its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fire_models import load, number
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver_app import free_port
from network import FEATURES, host, port


class Batching(MLModel):
    async def load(self) -> bool:
        self.model = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        rows = given.data.root
        if given.datatype == "FP32":
            rows = [rows[start : start + FEATURES] for start in range(0, len(rows), FEATURES)]
        else:
            rows = [row.decode() if isinstance(row, bytes) else row for row in rows]
        labels = [answer["label"] for answer in self.model.answers(rows)]
        output = ResponseOutput(name="label", shape=[len(labels), 1], datatype="BYTES", data=labels)
        return InferenceResponse(model_name=self.name, outputs=[output])


if __name__ == "__main__":
    workers = number("WORKERS")
    settings = {
        "host": host(),
        "http_port": port(),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": workers if workers > 1 else 0,
        "debug": False,
    }
    model = {
        "name": "model",
        "implementation": "fire_mlserver.Batching",
        "max_batch_size": number("ROWS"),
        "max_batch_time": number("WAIT_MS") / 1000,
    }
    for name, content in (("settings.json", settings), ("model-settings.json", model)):
        Path(name).write_text(json.dumps(content), encoding="utf-8")
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", "."])
