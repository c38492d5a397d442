"""How many go through a gate, each way, and how long they stay in a zone.

An object counts once it is confirmed; what it did before counts then. It has crossed a gate when
frames show it on both sides, clear of the line: neither a box that trembles on the line counts
nor a single wrong one. The border of the picture is a side too: who comes in or goes out
there was outside, so that a gate along the border counts although no frame shows its far side.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from mlopsdeploy.edge.draw import Place
from mlopsdeploy.edge.events import Event, Report
from mlopsdeploy.edge.filters.geometry import (
    Point,
    Sides,
    cut_by_border,
    foot,
    inside,
    meet,
    moved,
    outside,
    reaching,
    scaled,
    side,
)
from mlopsdeploy.edge.filters.tracking import Track, Tracker, seconds_of
from mlopsdeploy.edge.results import Result

FRAMES = 2  # on either side
CLEAR = 0.1  # of its own size: an object that is nearer to a line is on neither side
LEAVING = 0.25  # of its own size within LATELY: an object that went less does not leave
LATELY = 1.0  # seconds
ENTERED = 0.5  # of its own size: so far from where it was first, it has come in
AWAY, AWAY_FRAMES = 0.3, 3  # seconds and frames unseen: then an object at the border is outside

Direction = Literal["in", "out"]


@dataclass
class Presence:
    """On which side of something an object is.

    Attributes:
        side: 1 or -1, and 0 until frames have shown it.
        last: where it was on that side.
        first: where it was when it was first known on a side, and on which.
    """

    side: int = 0
    last: Point = (0, 0)
    first: tuple[int, Point] | None = None
    _other: int = 0
    _frames: int = 0
    _point: Point = (0, 0)
    _since: float = 0.0

    def see(self, distance: float, point: Point, seconds: float) -> tuple[Point, float] | None:
        """Another frame; where and when it came to another side, as soon as that is sure.

        Args:
            distance: from the line, in sizes of the object; its sign is the side.
            point: where the object is.
            seconds: when.
        """
        now = 0 if abs(distance) < CLEAR else 1 if distance > 0 else -1
        if not now:
            return None
        if now == self.side:
            self.last, self._frames = point, 0
            return None
        if not self._frames or now != self._other:
            self._other, self._frames, self._point, self._since = now, 0, point, seconds
        self._frames += 1
        return (self._point, self._since) if self._frames >= FRAMES else None

    def settle(self, now: int, point: Point) -> None:
        """It is on this side."""
        self.first = self.first or (now, point)
        self.side, self.last, self._frames = now, point, 0


class Gate:
    """A line that is crossed: `in` to the right of who walks from its first point to its second.

    Attributes:
        name: of the gate.
        ends: two points.
        counts: how often it was crossed, by label and direction.
    """

    def __init__(self, name: str, ends: Sequence[Point]) -> None:
        self.name, self.ends = name, tuple(ends)
        self.counts: Counter[tuple[str, Direction]] = Counter()
        self._reach = reaching(*ends)

    def distance(self, point: Point, size: Point = (1, 1)) -> float:
        """Of an object of that size, in its sizes."""
        start, end = self._reach
        return side(scaled(point, size), scaled(start, size), scaled(end, size))

    def lies_between(self, before: Point, after: Point) -> bool:
        """Whether the way between two points goes through it, and not past its ends."""
        return meet(before, after, *self._reach)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Counts for JSON."""
        found = sorted(self.counts.items())
        labels = {label: {"in": 0, "out": 0} for (label, _), _ in found}
        for (label, direction), count in found:
            labels[label][direction] = count
        return labels

    def words(self) -> str:
        """The same for people."""
        parts = [
            f"{name} {one['in']:,} in, {one['out']:,} out" for name, one in self.as_dict().items()
        ]
        return "; ".join(parts) or "nothing crossed"

    def place(self) -> Place:
        """As it is drawn."""
        counted = tuple(self.counts.items())
        ways = {
            way: sum(count for (_, one), count in counted if one == way) for way in ("in", "out")
        }
        return Place(f"{self.name}: {ways['in']} in, {ways['out']} out", self.ends, closed=False)


@dataclass
class Stays:
    """Of one label in a zone: how many came and left, and how long those stayed."""

    entered: int = 0
    left: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class Zone:
    """A part of the picture in which objects stay.

    Attributes:
        name: of the zone.
        corners: three points or more.
        within: who is in it, and since when.
        stays: by label.
    """

    def __init__(self, name: str, corners: Sequence[Point]) -> None:
        self.name, self.corners = name, tuple(corners)
        self.within: dict[Track, float] = {}
        self.stays: dict[str, Stays] = {}

    def distance(self, point: Point, size: Point = (1, 1)) -> float:
        """From its edge, of an object of that size, in its sizes; above 0 within."""
        return inside(scaled(point, size), [scaled(one, size) for one in self.corners])

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Counts for JSON."""
        now = Counter(track.label for track in tuple(self.within))
        return {
            label: {
                "entered": one.entered,
                "left": one.left,
                "inside": now[label],
                "seconds": {
                    "mean": round(one.seconds / one.left, 2) if one.left else None,
                    "longest": round(one.longest, 2) if one.left else None,
                },
            }
            for label, one in sorted(self.stays.items())
        }

    def words(self) -> str:
        """The same for people."""
        parts = []
        for label, one in self.as_dict().items():
            mean, longest = one["seconds"]["mean"], one["seconds"]["longest"]
            stayed = "" if mean is None else f", stayed {mean:.1f} s (longest {longest:.1f})"
            parts.append(f"{label} {one['inside']:,} inside, {one['entered']:,} entered{stayed}")
        return "; ".join(parts) or "nobody was there"

    def place(self) -> Place:
        """As it is drawn."""
        return Place(f"{self.name}: {len(self.within)} inside", self.corners, closed=True)


@dataclass
class _Known:
    """What is remembered of a track."""

    first: Sides
    borders: list[Point]
    lately: deque[tuple[float, Sides]] = field(default_factory=deque)
    gates: dict[Gate, Presence] = field(default_factory=dict)
    zones: dict[Zone, Presence] = field(default_factory=dict)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    away: bool = False


class Counting:
    """A filter, behind the one that tracks: counts, draws gates and zones, changes nothing else.

    Args:
        tracker: of the filter before.
        gates: by name, two points each.
        zones: by name, three points or more each.
        wanted: whether objects with that label count.
        report: called with an event for each crossing, and each entering and leaving of a zone.
    """

    def __init__(
        self,
        tracker: Tracker,
        gates: Mapping[str, Sequence[Point]],
        zones: Mapping[str, Sequence[Point]],
        wanted: Callable[[str], bool],
        report: Report,
    ) -> None:
        self.gates = [Gate(name, ends) for name, ends in gates.items()]
        self.zones = [Zone(name, corners) for name, corners in zones.items()]
        self._tracker, self._wanted, self._report = tracker, wanted, report
        self._places: list[Gate | Zone] = [*self.gates, *self.zones]
        self._known: dict[Track, _Known] = {}
        self._facts: dict[str, Any] = {}
        self._time = 0.0

    def __call__(self, result: Result) -> Result:
        """The next frame."""
        frame, seconds = result.frame, seconds_of(result.frame)
        self._time, self._facts = frame.time, {"frame": frame.number}
        if frame.media_time is not None:
            self._facts["media_time"] = round(frame.media_time, 3)
        for track in self._tracker.tracks:
            if track.unseen:
                self._miss(track, seconds)
            else:
                self._see(track)
        for track in self._tracker.gone:
            self._lose(track)
        return replace(result, places=[one.place() for one in self._places])

    def end(self) -> None:
        """Whom the last frames no longer show has left; the others are still there."""
        for track in self._tracker.tracks:
            if track.unseen:
                self._lose(track)

    def as_dict(self) -> dict[str, Any]:
        """All counts for JSON: `gates` and `zones`, where there are any."""
        found: dict[str, Sequence[Gate | Zone]] = {"gates": self.gates, "zones": self.zones}
        return {
            kind: {one.name: one.as_dict() for one in places}
            for kind, places in found.items()
            if places
        }

    def rows(self) -> list[tuple[str, str]]:
        """The same for people: a name and its counts."""
        return [(one.name, one.words()) for one in self._places]

    def _see(self, track: Track) -> None:
        known = self._known.get(track)
        if known is None:
            borders = [] if track.from_start else cut_by_border(track.box)
            gates = {gate: Presence() for gate in self.gates}
            zones = {zone: Presence() for zone in self.zones}
            known = self._known[track] = _Known(track.place, borders, gates=gates, zones=zones)
        known.away = False
        known.lately.append((track.seconds, track.place))
        while known.lately[0][0] < track.seconds - LATELY:
            known.lately.popleft()
        box = track.place
        point, size = foot(box), (box[2] - box[0], box[3] - box[1])
        for gate, presence in known.gates.items():
            if came := presence.see(gate.distance(point, size), point, track.seconds):
                self._pass(track, gate, presence, came[0])
        for zone, presence in known.zones.items():
            if came := presence.see(zone.distance(point, size), point, track.seconds):
                self._move(track, zone, presence, *came)
        self._come_in(track, known)
        if track.number is not None:
            for happen in known.waiting:
                happen()
            known.waiting.clear()

    def _come_in(self, track: Track, known: _Known) -> None:
        """Who was at the border first and has gone inwards since was outside before."""
        for way in known.borders:
            if moved(way, known.first, track.place) <= -ENTERED:
                known.borders = []
                point = outside(known.first, way)
                for gate, presence in known.gates.items():
                    before = 1 if gate.distance(point) > 0 else -1
                    if presence.first is None:
                        presence.settle(before, point)
                    elif presence.first[0] != before:
                        self._cross(track, gate, point, presence.first[1])
                return

    def _miss(self, track: Track, seconds: float) -> None:
        known = self._known[track]
        if track.unseen >= AWAY_FRAMES and seconds - track.seconds >= AWAY and not known.away:
            self._go_out(track, known)

    def _go_out(self, track: Track, known: _Known) -> None:
        """Who is no longer seen, and went for the border, is outside."""
        known.away = True
        way = max(
            cut_by_border(track.box),
            key=lambda way: moved(way, known.lately[0][1], track.place),
            default=None,
        )
        if way is None or moved(way, known.lately[0][1], track.place) < LEAVING:
            return
        point = outside(track.box, way)
        for gate, presence in known.gates.items():
            distance = gate.distance(point)
            if presence.side * distance < 0:
                self._pass(track, gate, presence, point)

    def _pass(self, track: Track, gate: Gate, presence: Presence, point: Point) -> None:
        """On the other side of a gate, or for the first time on one."""
        if presence.side:
            self._cross(track, gate, presence.last, point)
        presence.settle(1 if gate.distance(point) > 0 else -1, point)

    def _cross(self, track: Track, gate: Gate, before: Point, after: Point) -> None:
        if gate.lies_between(before, after):
            way: Direction = "in" if gate.distance(after) > 0 else "out"
            self._when_confirmed(track, partial(self._crossed, track, gate, way))

    def _move(
        self, track: Track, zone: Zone, presence: Presence, point: Point, seconds: float
    ) -> None:
        """Into a zone or out of it; who is outside at first did not leave it."""
        now = 1 if zone.distance(point) > 0 else -1
        if now > 0:
            self._when_confirmed(track, partial(self._entered, track, zone, seconds))
        elif presence.side:
            self._when_confirmed(track, partial(self._left, track, zone, seconds))
        presence.settle(now, point)

    def _lose(self, track: Track) -> None:
        """It will not be seen again."""
        known = self._known.pop(track, None)
        if known is None or track.number is None:
            return
        if not known.away:
            self._go_out(track, known)
        for zone in self.zones:
            self._left(track, zone, track.seconds)

    def _when_confirmed(self, track: Track, happen: Callable[[], None]) -> None:
        if track.number is None:
            self._known[track].waiting.append(happen)
        else:
            happen()

    def _crossed(self, track: Track, gate: Gate, way: Direction) -> None:
        if self._wanted(track.label):
            gate.counts[track.label, way] += 1
            self._tell(
                "crossed", track, f"crossed {gate.name} ({way})", gate=gate.name, direction=way
            )

    def _entered(self, track: Track, zone: Zone, seconds: float) -> None:
        if self._wanted(track.label):
            zone.within[track] = seconds
            zone.stays.setdefault(track.label, Stays()).entered += 1
            self._tell("entered", track, f"entered {zone.name}", zone=zone.name)

    def _left(self, track: Track, zone: Zone, seconds: float) -> None:
        since = zone.within.pop(track, None)
        if since is not None:
            stayed = max(seconds - since, 0.0)
            stays = zone.stays.setdefault(track.label, Stays())
            stays.left += 1
            stays.seconds += stayed
            stays.longest = max(stays.longest, stayed)
            text = f"left {zone.name} after {stayed:.1f} s"
            self._tell("left", track, text, zone=zone.name, seconds=round(stayed, 2))

    def _tell(self, kind: str, track: Track, text: str, **facts: Any) -> None:
        named = {"track": track.number, "label": track.label}
        text = f"{track.label} {track.number} {text}"
        facts = {**self._facts, **facts, **named}
        self._report(Event(kind, text, facts, self._time, of_source=False))
