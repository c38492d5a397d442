"""The limit: `invoke`, again and again, on one frame. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import cv2
from ai_edge_litert.interpreter import Interpreter

FRAME = 50  # of the clip: one with something on it

if __name__ == "__main__":
    command = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    command.add_argument("--model", required=True)
    command.add_argument("--camera", required=True)
    command.add_argument("--threads", type=int, required=True)
    command.add_argument("--seconds", type=float, required=True)
    given = command.parse_args()
    interpreter = Interpreter(given.model, num_threads=given.threads)
    interpreter.allocate_tensors()
    (takes,) = interpreter.get_input_details()
    capture = cv2.VideoCapture(given.camera)
    capture.set(cv2.CAP_PROP_POS_FRAMES, FRAME)
    _, picture = capture.read()
    small = cv2.resize(picture, tuple(int(side) for side in takes["shape"][2:0:-1]))
    interpreter.set_tensor(takes["index"], cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None])
    interpreter.invoke()  # the first call sets up
    times: list[float] = []
    start = end = time.perf_counter()
    while end - start < given.seconds or len(times) < 3:
        before = end
        interpreter.invoke()
        end = time.perf_counter()
        times.append(end - before)
    said = {"fps": len(times) / (end - start), "ms": 1000 * median(times)}
    sys.stdout.write(json.dumps(said) + "\n")
