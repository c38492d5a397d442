"""What all contestants do the same way: options, the model's call, the clock, the closing line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clock
import numpy as np

GREEN = (0, 255, 0)


@dataclass(frozen=True)
class Options:
    model: str
    labels: list[str]
    camera: str
    live: bool
    threads: int
    frames: int
    threshold: float
    save: str | None


def options(description: str | None) -> Options:
    command = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    command.add_argument("--model", required=True)
    command.add_argument("--labels", type=Path, required=True)
    command.add_argument("--camera", required=True, help="a video, or the URL of camera.py")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--frames", type=int, required=True, help="stop after so many results")
    command.add_argument("--threshold", type=float, default=0.5)
    command.add_argument("--save")
    given = vars(command.parse_args())
    labels = given.pop("labels").read_text(encoding="utf-8").splitlines()
    return Options(labels=labels, live="://" in given["camera"], **given)


@dataclass
class Meter:
    """Counts results; `seconds` and processor time are from the first to the last of them."""

    options: Options
    frames: int = 0
    found: int = 0
    ages: list[float] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0

    def see(self, picture: Any) -> int:
        """The number that a camera's picture bears, to be read before anything is drawn on it."""
        return clock.read(picture) if self.options.live else 0

    def result(self, number: int, found: int) -> bool:
        """A frame is done, with so many objects. False when there have been enough."""
        self.last = time.monotonic()
        if not self.frames:
            self.first = self.last
        self.frames += 1
        self.found += found
        if self.options.live:
            self.ages.append(clock.age(number, self.last))
        return self.frames < self.options.frames

    def close(self) -> None:
        """The line that every contestant closes with."""
        said = {
            "frames": self.frames,
            "seconds": self.last - self.first,
            "found": self.found,
            "ages": self.ages,
        }
        sys.stdout.write("\n" + json.dumps(said) + "\n")
        sys.stdout.flush()


class Detector:
    """The LiteRT call as every tutorial makes it: resize, colours, set, invoke, get."""

    def __init__(self, options: Options) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(options.model, num_threads=options.threads)
        self.interpreter.allocate_tensors()
        (given,) = self.interpreter.get_input_details()
        self.input = given["index"]
        self.height, self.width = (int(side) for side in given["shape"][1:3])
        boxes, classes, scores, count = self.interpreter.get_output_details()
        self.outputs = [detail["index"] for detail in (boxes, classes, scores, count)]

    def run(self, pixels: Any) -> tuple[Any, Any, Any]:
        """Boxes (n, 4) of y1 x1 y2 x2 relative, classes (n,), scores (n,) from RGB pixels of the
        model's size."""
        self.interpreter.set_tensor(self.input, pixels[None])
        self.interpreter.invoke()
        boxes, classes, scores, count = map(self.interpreter.get_tensor, self.outputs)
        some = int(count[0])
        return boxes[0, :some], classes[0, :some].astype(int), scores[0, :some]

    def __call__(self, picture: Any) -> tuple[Any, Any, Any]:
        """The same from a BGR picture of any size."""
        import cv2

        small = cv2.resize(picture, (self.width, self.height))
        return self.run(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))

    def corners(self, picture: Any, threshold: float) -> tuple[Any, Any, Any]:
        """Boxes in pixels, x1 y1 x2 y2, as supervision takes them; classes; scores."""
        boxes, classes, scores = self(picture)
        sure = scores >= threshold
        height, width = picture.shape[:2]
        scale = np.array([width, height, width, height], np.float32)
        return boxes[sure][:, [1, 0, 3, 2]] * scale, classes[sure], scores[sure]


def draw(picture: Any, box: Sequence[float], text: str) -> None:
    """A green box, y1 x1 y2 x2 relative, with its label at the top left."""
    import cv2

    height, width = picture.shape[:2]
    top, left = max(1, int(box[0] * height)), max(1, int(box[1] * width))
    bottom, right = min(height, int(box[2] * height)), min(width, int(box[3] * width))
    cv2.rectangle(picture, (left, top), (right, bottom), GREEN, 2)
    cv2.putText(picture, text, (left, top - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, GREEN, 2)
