"""Make the network that every server serves, and the requests that every server gets.

A Keras network of 30-64-32-1 with a sigmoid at its end, weights drawn from a fixed seed:
network.keras, the same as network.tflite, and requests.json with transactions and their right
answers. Half of the transactions are fraud to this network, and no score is so near the threshold
that rounding could turn the answer. NETWORK says where to put them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf
from litert import Network
from network import FEATURES, THRESHOLD, folder

SEED = 20
REQUESTS = 32
CANDIDATES = 4096
MARGIN = 0.01
TOLERANCE = 1e-5


def network() -> Any:
    tf.keras.utils.set_random_seed(SEED)
    dense = tf.keras.layers.Dense
    return tf.keras.Sequential(
        [
            tf.keras.Input((FEATURES,), name="transaction_data"),
            dense(64, activation="relu"),
            dense(32, activation="relu"),
            dense(1, activation="sigmoid"),
        ]
    )


def convert(model: Any) -> bytes:
    converted: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return converted


def requests(model: Any) -> list[dict[str, Any]]:
    """Transactions with their answers, fraud and no fraud in turn."""
    rows = np.random.default_rng(SEED).normal(size=(CANDIDATES, FEATURES)).round(6)
    scores = model.predict(rows, verbose=0)[:, 0]
    (fraud,) = np.nonzero(scores > THRESHOLD + MARGIN)
    (fair,) = np.nonzero(scores < THRESHOLD - MARGIN)
    chosen = np.stack([fraud[: REQUESTS // 2], fair[: REQUESTS // 2]], axis=1).ravel()
    lite = Network()
    if not np.allclose([lite.score(rows[i].tolist()) for i in chosen], scores[chosen], TOLERANCE):
        raise SystemExit("LiteRT and Keras give different scores")
    return [
        {"transaction_data": rows[i].tolist(), "is_fraud": bool(scores[i] > THRESHOLD)}
        for i in chosen
    ]


if __name__ == "__main__":
    folder().mkdir(parents=True, exist_ok=True)
    keras_model = network()
    keras_model.save(folder() / "network.keras")
    (folder() / "network.tflite").write_bytes(convert(keras_model))
    text = json.dumps(requests(keras_model))
    (folder() / "requests.json").write_text(text, encoding="utf-8")
