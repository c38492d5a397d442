"""Write the models of serve_under_fire.py, by the product's own interpreter, into NETWORK.

`sentiment.xml` is the graph that the product makes of its model's `model.onnx` (int8 weights, the
last layer for one token alone), so that all servers run the same one.
`sentiment.json` and `fraud.json` have what else a peer must know, and the cases: rows with their
right answers. No score is so near the threshold that the rows beside it in a batch could turn it.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from network import folder

from mlopsdeploy.core.loading import load_model
from mlopsdeploy.runtimes import openvino_graph

MARGIN = 0.1
MOST_TOKENS = 512


def sentiment(source: Path, reviews: Path) -> dict[str, Any]:
    core = ov.Core()
    graph = core.read_model(str(source / "model.onnx"))
    has_scales = openvino_graph.has_scales(graph)
    if not has_scales:
        openvino_graph.keep_first_token(graph)
        openvino_graph.weights_to_int8(graph)
    ov.save_model(graph, str(folder() / "sentiment.xml"), compress_to_fp16=False)
    shutil.copy(source / "tokenizer.json", folder())
    bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with reviews.open(encoding="utf-8", newline="") as file:
        texts = [row["review_text"] for row in csv.DictReader(file)]
    model = load_model(str(source), runtime="openvino", threads=1)
    task: Any = model.task
    answers = model.predict_columns({"text": np.array(texts, object)})
    sure = np.flatnonzero(answers["scores"].max(axis=1) > 0.5 + MARGIN)
    return {
        "labels": list(task.labels),
        "tokens": MOST_TOKENS,
        "settings": {
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and not has_scales else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0 if has_scales else 128,
        },
        "cases": [{"row": texts[row], "answer": answers["label"][row]} for row in sure],
    }


def fraud(source: Path, transactions: Path) -> dict[str, Any]:
    shutil.copy(source / "model.tflite", folder() / "fraud.tflite")
    with transactions.open(encoding="utf-8", newline="") as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    model = load_model(str(source), runtime="litert", threads=1)
    task: Any = model.task
    names = [field.name for field in task.inputs]
    table = np.array(rows, np.float32)
    columns = {names[0]: table} if len(names) == 1 else dict(zip(names, table.T, strict=True))
    answers = model.predict_columns(columns)
    sure = np.flatnonzero(np.abs(answers["scores"][:, -1] - task.threshold) > MARGIN)
    return {
        "labels": list(task.labels),
        "threshold": task.threshold,
        "cases": [{"row": rows[row], "answer": answers["label"][row]} for row in sure],
    }


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    for option in ("sentiment", "fraud", "reviews", "transactions"):
        command.add_argument(f"--{option}", type=Path, required=True)
    given = command.parse_args()
    folder().mkdir(parents=True, exist_ok=True)
    for name, facts in (
        ("sentiment", sentiment(given.sentiment, given.reviews)),
        ("fraud", fraud(given.fraud, given.transactions)),
    ):
        (folder() / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
