"""The article's app: Flask, Keras, `model.predict` on one row.

Run as a script it is Flask's development server; `gunicorn article:app` serves the same.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from flask import Flask, Response, jsonify, request
from network import THRESHOLD, folder, host, port

app = Flask(__name__)
model = tf.keras.models.load_model(folder() / "network.keras")


@app.route("/detect_fraud", methods=["POST"])
def detect_fraud() -> Response:
    transaction = np.array(request.json["transaction_data"]).reshape(1, -1)
    prediction = model.predict(transaction)
    return jsonify({"is_fraud": bool(prediction[0][0] > THRESHOLD)})


if __name__ == "__main__":
    app.run(host=host(), port=port())
