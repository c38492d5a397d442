"""The two models of serve_under_fire.py as every peer calls them: many rows at once.

The folder NETWORK has what fire_make.py put there: the very graph that the product runs, for the
same runtime with the same settings and one thread. Beside what network.py reads the environment has

    MODEL     sentiment or fraud
    WORKERS   processes that run the model
    ROWS      of a batch, at most
    WAIT_MS   that a batch may wait for more rows
    SLO_MS    the time that an answer may take
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from network import folder

Answer = dict[str, Any]


def number(name: str) -> int:
    return int(os.environ[name])


class Sentiment:
    """Texts in, label and score out: a tokenizer, OpenVINO, a softmax."""

    def __init__(self) -> None:
        import openvino as ov
        from tokenizers import Tokenizer

        facts = json.loads((folder() / "sentiment.json").read_text(encoding="utf-8"))
        self._labels = facts["labels"]
        self._tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
        self._tokenizer.enable_truncation(facts["tokens"])
        self._tokenizer.enable_padding()
        compiled = ov.Core().compile_model(
            str(folder() / "sentiment.xml"), "CPU", facts["settings"]
        )
        self._request = compiled.create_infer_request()
        self._names = [port.get_any_name() for port in compiled.inputs]
        self._lock = threading.Lock()  # some servers call from several threads

    def answers(self, rows: Sequence[str]) -> list[Answer]:
        encoded = self._tokenizer.encode_batch(list(rows))
        columns = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        with self._lock:
            outputs = self._request.infer({name: columns[name] for name in self._names})
            logits = outputs[0]
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        return [
            {"label": self._labels[label], "score": float(scores[row, label])}
            for row, label in enumerate(best)
        ]


class Fraud:
    """Transactions in, label and score out: LiteRT."""

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        facts = json.loads((folder() / "fraud.json").read_text(encoding="utf-8"))
        self._labels, self._threshold = facts["labels"], facts["threshold"]
        self._interpreter = Interpreter(str(folder() / "fraud.tflite"), num_threads=1)
        self._interpreter.allocate_tensors()
        given = self._interpreter.get_input_details()[0]
        self._input, self._rows = given["index"], int(given["shape"][0])
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._lock = threading.Lock()

    def answers(self, rows: Sequence[Sequence[float]]) -> list[Answer]:
        values = np.array(rows, np.float32)
        with self._lock:
            if len(values) != self._rows:
                self._interpreter.resize_tensor_input(self._input, values.shape)
                self._interpreter.allocate_tensors()
                self._rows = len(values)
            self._interpreter.set_tensor(self._input, values)
            self._interpreter.invoke()
            scores = self._interpreter.get_tensor(self._output)[:, -1].tolist()
        labels, threshold = self._labels, self._threshold
        return [{"label": labels[score >= threshold], "score": score} for score in scores]


def load() -> Sentiment | Fraud:
    """The model that MODEL names, warmed up."""
    model: Sentiment | Fraud = Sentiment() if os.environ["MODEL"] == "sentiment" else Fraud()
    cases = json.loads((folder() / f"{os.environ['MODEL']}.json").read_text(encoding="utf-8"))
    model.answers([cases["cases"][0]["row"]])
    return model
