"""Where boxes are and how they move: a Kalman filter for each, all computed at once.

Centre, width and height move at a constant speed and know nothing of each other, as in BoT-SORT
(arXiv:2206.14651). So the filter with eight states is four with two, and needs no matrices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PLACE = 1 / 20  # how exact a box is, as a share of its size
SPEED = 1 / 160  # how much its speed changes in a step, likewise
SMALLEST = 1e-4  # sides of a box, as a share of the picture


class MovingBoxes:
    """Boxes by row; `state` has shape (boxes, 5, 4).

    Its five are place, speed (per step), and the variance of place, of both, and of speed; its
    four are centre x and y, width, height.
    """

    def __init__(self) -> None:
        self.state: Floats = np.zeros((0, 5, 4))

    def __len__(self) -> int:
        return len(self.state)

    def boxes(self) -> Floats:
        """x1, y1, x2, y2 of all, shape (boxes, 4)."""
        return corners(self.state[:, 0])

    def add(self, boxes: Floats) -> None:
        """New ones at rest, shape (boxes, 4): x1, y1, x2, y2."""
        place = middles(boxes)
        size = _sizes(place)
        still = np.zeros_like(place)
        variances = (2 * PLACE * size) ** 2, still, (10 * SPEED * size) ** 2
        made = np.stack([place, still, *variances], axis=1)
        self.state = np.concatenate([self.state, made])

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Only these."""
        self.state = self.state[rows]

    def predict(self, steps: float, unseen: npt.NDArray[np.bool_]) -> None:
        """Let time go by; what is unseen keeps its size."""
        self.state[unseen, 1, 2:] = 0
        _predict(self.state, steps)

    def update(self, rows: npt.NDArray[np.intp], boxes: Floats) -> None:
        """These were seen there."""
        state = self.state[rows]
        _update(state, middles(boxes))
        self.state[rows] = state

    def revise(self, row: int, before: Floats, box: Floats, steps: float, times: int) -> None:
        """Seen again after a gap: it went straight there from where it was seen last.

        What a filter guesses while it sees nothing drifts away; this undoes it (the observation-
        centric update of OC-SORT, arXiv:2203.14360).

        Args:
            row: of the box.
            before: its state when it was seen last, shape (5, 4).
            box: where it is now.
            steps: how long the gap was.
            times: in how many parts.
        """
        state = before[None].copy()
        start, end = before[0], middles(box[None])[0]
        for part in range(1, times + 1):
            _predict(state, steps / times)
            _update(state, (start + (end - start) * part / times)[None])
        self.state[row] = state[0]


def middles(boxes: Floats) -> Floats:
    """x1, y1, x2, y2 -> centre x and y, width, height."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, np.maximum(high - low, SMALLEST)], axis=1)


def corners(places: Floats) -> Floats:
    """Centre x and y, width, height -> x1, y1, x2, y2."""
    half = places[:, 2:] / 2
    return np.concatenate([places[:, :2] - half, places[:, :2] + half], axis=1)


def overlaps(some: Floats, others: Floats) -> Floats:
    """Intersection over union of each with each, shape (some, others)."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(one[:, 2:] - one[:, :2], 0).prod(1) for one in (some, others)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12))


def _predict(state: Floats, steps: float) -> None:
    size = _sizes(state[:, 0])
    state[:, 0] += steps * state[:, 1]
    state[:, 0, 2:] = np.maximum(state[:, 0, 2:], SMALLEST)
    state[:, 2] += steps * (2 * state[:, 3] + steps * state[:, 4] + (PLACE * size) ** 2)
    state[:, 3] += steps * state[:, 4]
    state[:, 4] += steps * (SPEED * size) ** 2


def _update(state: Floats, places: Floats) -> None:
    seen = state[:, 2] + (PLACE * _sizes(places)) ** 2
    for_place, for_speed = state[:, 2] / seen, state[:, 3] / seen
    surprise = places - state[:, 0]
    state[:, 0] += for_place * surprise
    state[:, 1] += for_speed * surprise
    state[:, 4] -= for_speed * state[:, 3]
    state[:, 2] *= 1 - for_place
    state[:, 3] *= 1 - for_place


def _sizes(places: Floats) -> Floats:
    return places[:, [2, 3, 2, 3]]
