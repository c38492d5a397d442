"""FastAPI on uvicorn with Keras called directly, `model(x)`. `async`, so no thread is switched."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from fastapi import FastAPI
from network import THRESHOLD, folder
from pydantic import BaseModel

app = FastAPI()
model = tf.keras.models.load_model(folder() / "network.keras")


class Transaction(BaseModel):
    transaction_data: list[float]


@app.post("/detect_fraud")
async def detect_fraud(transaction: Transaction) -> dict[str, bool]:
    prediction = model(np.array([transaction.transaction_data], np.float32))
    return {"is_fraud": bool(prediction[0][0] > THRESHOLD)}
