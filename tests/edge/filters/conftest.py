"""Made-up scenes: who walks where is known, and so what has to be counted."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

import mlopsdeploy.edge  # noqa: F401  # sets what OpenCV reads when it is loaded
from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.filters.counting import Counting
from mlopsdeploy.edge.filters.tracking import Tracking
from mlopsdeploy.edge.frames import Frame
from mlopsdeploy.edge.results import Result
from mlopsdeploy.edge.stages import Stats

PICTURE = np.zeros((4, 4, 3), np.uint8)
FPS = 30


def in_picture(x, y, width, height):
    """The box of an object whose lower middle is there, as far as the picture shows it."""
    sides = x - width / 2, y - height, x + width / 2, y
    return tuple(min(max(side, 0.0), 1.0) for side in sides)


@dataclass
class Walker:
    """Who walks along points at constant speed from a frame on."""

    points: list
    seconds: float
    label: str = "Person"
    size: tuple = (0.06, 0.2)
    start: int = 0

    def box(self, frame):
        share = (frame - self.start) / FPS / self.seconds * (len(self.points) - 1)
        if not 0 <= share <= len(self.points) - 1:
            return None
        leg = min(int(share), len(self.points) - 2)
        (x1, y1), (x2, y2) = self.points[leg : leg + 2]
        part = share - leg
        return in_picture(x1 + part * (x2 - x1), y1 + part * (y2 - y1), *self.size)

    @property
    def end(self):
        return self.start + int(self.seconds * FPS)


@dataclass
class Detector:
    """Sees walkers as a detector does: missed, doubled, mistaken, unsure, and where nobody is."""

    seed: int = 0
    missed: float = 0.0
    doubled: float = 0.0
    confused: float = 0.0
    weak: float = 0.0
    false: float = 0.0
    trembling: float = 0.0
    labels: tuple = ("Person", "Bicycle")
    random: random.Random = field(init=False)

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def sees(self, walkers, frame):
        found = []
        for walker in walkers:
            box = walker.box(frame)
            if box is None:
                continue
            shown = (box[2] - box[0]) * (box[3] - box[1]) / np.prod(walker.size)
            found += [
                self._seen(walker, box, self.trembling + 0.05 * again)
                for again in range(1 + (self.random.random() < self.doubled))
                if shown > 0.3 and self.random.random() >= self.missed
            ]
        if self.random.random() < self.false:
            x, y = self.random.random(), self.random.uniform(0.2, 1)
            found.append(Detection("Person", 0.6, in_picture(x, y, 0.06, 0.15)))
        return tuple(found)

    def _seen(self, walker, box, trembling):
        label, chance = walker.label, self.random.random
        if chance() < self.confused:
            label = next(one for one in self.labels if one != label)
        score = self.random.uniform(0.15, 0.5) if chance() < self.weak else 0.5 + chance() / 2
        width, height = box[2] - box[0], box[3] - box[1]
        moved = [self.random.gauss(0, trembling) * one for one in (width, height) * 2]
        sides = [min(max(a + b, 0.0), 1.0) for a, b in zip(box, moved, strict=True)]
        return Detection(label, score, tuple(sides))


class Scene:
    """The real filters on such a scene, frame by frame."""

    def __init__(self, gates=None, zones=None, wanted=lambda _: True):
        self.events, self.results = [], []
        self.tracking = Tracking(lambda _: 0.5)
        self.counting = Counting(
            self.tracking.tracker, gates or {}, zones or {}, wanted, self.events.append
        )

    def frame(self, detections):
        number = len(self.results)
        frame = Frame(number, PICTURE, media_time=number / FPS)
        result = self.counting(self.tracking(Result(frame, tuple(detections), Stats())))
        self.results.append(result)
        return result

    def play(self, walkers, detector=None, frames=None):
        detector = detector or Detector()
        for number in range(frames or max(walker.end for walker in walkers) + 30):
            self.frame(detector.sees(walkers, number))
        self.counting.end()
        return self

    def crossings(self, gate=0):
        counts = self.counting.gates[gate].counts
        return tuple(
            sum(n for (_, way), n in counts.items() if way == one) for one in ("in", "out")
        )


@pytest.fixture(scope="session")
def field_kit():
    class Kit:
        walker, detector, scene, fps = Walker, Detector, Scene, FPS
        box = staticmethod(in_picture)

    return Kit


@pytest.fixture(scope="session")
def crowd():
    """Many who walk through the picture, several at once; some turn back in it."""

    def make(seed, people=60, turning=0.2):
        chance = random.Random(seed)
        walkers, start, truth = [], 10, {"in": 0, "out": 0}
        for _ in range(people):
            width = chance.uniform(0.04, 0.08)
            height, seconds = width * chance.uniform(1.5, 2.5), chance.uniform(3, 8)
            y, right = chance.uniform(height, 1), chance.random() < 0.5
            begin, end = (-width, 1 + width) if right else (1 + width, -width)
            points = [(begin, y), (end, y)]
            truth["out" if right else "in"] += 1
            if chance.random() < turning:
                points, seconds = [(begin, y), (0.7 if right else 0.3, y), (begin, y)], 2 * seconds
                truth["in" if right else "out"] += 1
            label = chance.choice(["Person", "Bicycle"])
            walkers.append(Walker(points, seconds, label, (width, height), start))
            start += int(chance.uniform(0.5, 1.5) * seconds * FPS / 3)
        return walkers, (truth["in"], truth["out"])

    return make
