"""FastAPI on uvicorn with the LiteRT call. `async`, so no thread is switched."""

from __future__ import annotations

from fastapi import FastAPI
from litert import Network
from pydantic import BaseModel

app = FastAPI()
network = Network()


class Transaction(BaseModel):
    transaction_data: list[float]


@app.post("/detect_fraud")
async def detect_fraud(transaction: Transaction) -> dict[str, bool]:
    return {"is_fraud": network.is_fraud(transaction.transaction_data)}
