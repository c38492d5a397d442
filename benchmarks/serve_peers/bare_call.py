"""No server: the LiteRT call in a loop. Prints one JSON line, calls per second."""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import cycle, islice

from litert import Network
from network import folder

CALLS = 1000

if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--seconds", type=float, required=True)
    seconds = command.parse_args().seconds
    requests = json.loads((folder() / "requests.json").read_text(encoding="utf-8"))
    transactions = cycle([request["transaction_data"] for request in requests])
    network = Network()
    calls, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        for transaction in islice(transactions, CALLS):
            network.is_fraud(transaction)
        calls += CALLS
    sys.stdout.write(json.dumps({"calls_per_second": calls / took}) + "\n")
