"""The one call of the network that all servers make which are not bound to Keras."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from network import THRESHOLD, folder


class Network:
    """network.tflite in an interpreter with one thread."""

    def __init__(self) -> None:
        self._interpreter = Interpreter(str(folder() / "network.tflite"), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._lock = threading.Lock()  # some servers call from several threads

    def score(self, transaction: Sequence[float]) -> float:
        row = np.array([transaction], np.float32)
        with self._lock:
            self._interpreter.set_tensor(self._input, row)
            self._interpreter.invoke()
            return float(self._interpreter.get_tensor(self._output)[0, 0])

    def is_fraud(self, transaction: Sequence[float]) -> bool:
        return self.score(transaction) > THRESHOLD
