"""What every peer script knows of the benchmark.

serve.py puts into the environment

    NETWORK   a folder with network.keras, network.tflite and requests.json (make_network.py)
    HOST      the address to listen on
    PORT      the port to listen on

Each script is one server, in the environment of its own tool, with one worker, written as the
tool's documentation shows. So that servers are compared and not frameworks, all but the ones named
after Keras make the same LiteRT call (litert.py).
"""

from __future__ import annotations

import os
from pathlib import Path

FEATURES = 30
THRESHOLD = 0.5


def folder() -> Path:
    return Path(os.environ["NETWORK"])


def host() -> str:
    return os.environ["HOST"]


def port() -> int:
    return int(os.environ["PORT"])
