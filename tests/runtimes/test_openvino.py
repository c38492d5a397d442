"""What only OpenVINO does."""

import signal
import sys

FREED_IN_ORDER = """
import gc, signal, sys
from pathlib import Path
from mlopsdeploy.runtimes.openvino import OpenVino

signal.signal(signal.SIGTERM, lambda number, _: print("handled", number))
models = [OpenVino(Path(sys.argv[1]), precision="float32") for _ in range(2)]
while models:
    del models[0]
    gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_handled_after_models_were_freed_in_the_order_they_were_made(forks, bert):
    """A server that has loaded new versions is told to end."""
    graph = bert / "onnx" / "model.onnx"
    done = forks.run([sys.executable, "-c", FREED_IN_ORDER, graph], text=True)
    assert (done.returncode, done.stdout) == (0, f"handled {signal.SIGTERM:d}\n"), done.stderr
