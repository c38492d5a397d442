"""Points, gates and zones in shares of the picture, measured in sizes of the object in question."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Sides = tuple[float, float, float, float]

BORDER = 0.01  # of the picture: a box that comes so near to its border is cut by it,
NEAR = 0.1  # or so near in its own size
REACH = 0.02  # of the picture: a gate that comes so near to the border goes on beyond it
FAR = 10.0


def foot(box: Sides) -> Point:
    """Where an object stands: the middle of its lower edge."""
    return (box[0] + box[2]) / 2, box[3]


def middle(box: Sides) -> Point:
    """Its centre."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def scaled(point: Point, size: Point) -> Point:
    """A point in sizes of the object, so that a distance of 1 is as wide or high as it is."""
    return point[0] / size[0], point[1] / size[1]


def side(point: Point, start: Point, end: Point) -> float:
    """Distance from a straight line; above 0 to the right of who walks from `start` to `end`."""
    x, y = end[0] - start[0], end[1] - start[1]
    return (x * (point[1] - start[1]) - y * (point[0] - start[0])) / max(math.hypot(x, y), 1e-12)


def meet(first: Point, second: Point, start: Point, end: Point) -> bool:
    """Whether the way between two points goes through the line from `start` to `end`."""
    before, after = side(first, start, end), side(second, start, end)
    if before * after > 0 or before == after:
        return False
    share = before / (before - after)
    at = [a + share * (b - a) for a, b in zip(first, second, strict=True)]
    along = [b - a for a, b in zip(start, end, strict=True)]
    place = sum((x - a) * b for x, a, b in zip(at, start, along, strict=True))
    return 0 <= place <= sum(b * b for b in along)


def inside(point: Point, corners: Sequence[Point]) -> float:
    """Distance from the edge of a polygon; above 0 within it."""
    within, nearest = False, math.inf
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (start[1] > point[1]) != (end[1] > point[1]):
            share = (point[1] - start[1]) / (end[1] - start[1])
            within ^= point[0] < start[0] + share * (end[0] - start[0])
        nearest = min(nearest, _distance(point, start, end))
    return nearest if within else -nearest


def _distance(point: Point, start: Point, end: Point) -> float:
    along = end[0] - start[0], end[1] - start[1]
    off = point[0] - start[0], point[1] - start[1]
    squared = along[0] ** 2 + along[1] ** 2
    share = (off[0] * along[0] + off[1] * along[1]) / squared if squared else 0.0
    share = min(max(share, 0.0), 1.0)
    return math.hypot(off[0] - share * along[0], off[1] - share * along[1])


def reaching(start: Point, end: Point) -> tuple[Point, Point]:
    """A gate whose ends at the border of the picture go on beyond it."""
    return _beyond(start, end), _beyond(end, start)


def _beyond(end: Point, other: Point) -> Point:
    if all(REACH < one < 1 - REACH for one in end):
        return end
    length = math.dist(end, other)
    return tuple(a + FAR * (a - b) / length for a, b in zip(end, other, strict=True))  # type: ignore[return-value]


def cut_by_border(box: Sides) -> list[Point]:
    """The ways on which a box at the border would leave the picture: (1, 0) is to the right."""
    width, height = box[2] - box[0], box[3] - box[1]
    wide, high = max(BORDER, NEAR * width), max(BORDER, NEAR * height)
    ways = {
        (-1.0, 0.0): box[0] < wide,
        (1.0, 0.0): box[2] > 1 - wide,
        (0.0, -1.0): box[1] < high,
        (0.0, 1.0): box[3] > 1 - high,
    }
    return [way for way, near in ways.items() if near]


def moved(way: Point, before: Sides, after: Sides) -> float:
    """How far the middle of a box went that way, in sizes of the box after."""
    (old_x, old_y), (x, y) = middle(before), middle(after)
    width, height = max(after[2] - after[0], 1e-6), max(after[3] - after[1], 1e-6)
    return way[0] * (x - old_x) / width + way[1] * (y - old_y) / height


def outside(box: Sides, way: Point) -> Point:
    """Where an object stands that has just left the picture that way, or is about to come in."""
    x, y = foot(box)
    width, height = box[2] - box[0], box[3] - box[1]
    x = {-1: -width / 2, 1: 1 + width / 2}.get(round(way[0]), x)
    return x, {-1: -height / 2, 1: 1 + height}.get(round(way[1]), y)
