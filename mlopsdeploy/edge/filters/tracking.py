"""The same object over many frames.

Boxes are matched with tracks in rounds, as in ByteTrack (arXiv:2110.06864): sure boxes first, then
unsure ones, which may go on with a track but begin none. From OC-SORT (arXiv:2203.14360) come the
round with where a track was last seen, and the revision of what was guessed during a gap; from
C-BIoU (arXiv:2211.14317) the last round with wider boxes, for what is quick and new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.filters.assignment import assign
from mlopsdeploy.edge.filters.kalman import Floats, MovingBoxes, overlaps
from mlopsdeploy.edge.frames import Frame
from mlopsdeploy.edge.results import Result

UNSURE = 0.1  # least score of a box that a track goes on with
CONFIRMED = 3  # frames that show an object before it is one
MISSES = 1  # frames in a row that may lack what is not confirmed yet
PATIENCE = 2.0  # seconds that an object may be unseen, and
PATIENCE_FRAMES = 5  # at least so many frames
STEPS = 30.0  # a second, of the filter
PICTURES = 25.0  # a second, of a folder: sequences of pictures are usually published so
BONUS = 0.1  # of similarity, where a box has the label of the track
SAME, SAME_PLACE = 0.5, 0.8  # overlap of two boxes of one object, with one label or with two
WIDER = 0.5  # of each side, in the last round

# Rounds: least overlap.
SURE, WEAK, NEW, LAST_SEEN, WIDE = 0.2, 0.4, 0.2, 0.3, 0.1

Rows = npt.NDArray[np.intp]


@dataclass(eq=False)
class Track:
    """One object.

    Attributes:
        number: from 1, once it is confirmed.
        box: x1, y1, x2, y2 as it was seen last, relative to the picture.
        place: the same, smoothed.
        speed: of its centre, shares of the picture a second.
        seconds: when it was seen last.
        unseen: frames since.
        seen: frames that show it.
        double: it is another track's object.
        from_start: it was there when the run began.
        votes: the scores of its labels, added up.
        state: of the filter when it was seen last.
    """

    box: tuple[float, float, float, float]
    seconds: float
    from_start: bool
    number: int | None = None
    place: tuple[float, float, float, float] = (0, 0, 0, 0)
    speed: tuple[float, float] = (0, 0)
    unseen: int = 0
    seen: int = 0
    double: bool = False
    votes: Counter[str] = field(default_factory=Counter)
    state: Floats = field(default_factory=lambda: np.zeros((5, 4)))

    @property
    def label(self) -> str:
        """What it was called most, by the sum of scores."""
        return max(self.votes, key=self.votes.__getitem__)


class Tracker:
    """Tracks over frames.

    Attributes:
        tracks: all that may be seen again.
        gone: those that are given up since the frame before.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.gone: list[Track] = []
        self._boxes = MovingBoxes()
        self._confirmed = 0
        self._seconds: float | None = None

    def update(
        self, boxes: Floats, scores: Floats, labels: Sequence[str], least: Floats, seconds: float
    ) -> list[Track | None]:
        """The track of each box of the next frame; None: it has none, or is another's double.

        Args:
            boxes: shape (n, 4): x1, y1, x2, y2.
            scores: shape (n,).
            labels: n names.
            least: shape (n,): from this score on a box is sure.
            seconds: when the frame was taken.
        """
        first = self._seconds is None
        passed = 0.0 if self._seconds is None else max(seconds - self._seconds, 1e-3)
        self._seconds = seconds
        for track in self.tracks:
            track.unseen += 1
        unseen = np.array([track.unseen > 1 for track in self.tracks], bool)
        self._boxes.predict(passed * STEPS, unseen)
        pairs = _Round(self.tracks, self._boxes.boxes(), boxes, scores, labels, least).all()
        self._seen(pairs, boxes, scores, labels, seconds)
        found: list[Track | None] = [None] * len(boxes)
        for row, column in pairs:
            found[column] = self.tracks[row]
        sure: list[int] = np.flatnonzero(scores >= least).tolist()
        for column in sorted(sure, key=lambda one: -scores[one]):
            if found[column] is None and not self._double(column, boxes, labels, found):
                begun = found[column] = self._begin(boxes[column], seconds, from_start=first)
                begun.votes[labels[column]] += scores[column]
        self._compare()
        self._confirm()
        self._give_up(seconds)
        return found

    def _seen(
        self,
        pairs: list[tuple[int, int]],
        boxes: Floats,
        scores: Floats,
        labels: Sequence[str],
        seconds: float,
    ) -> None:
        if not pairs:
            return
        rows, columns = (np.array(side) for side in zip(*pairs, strict=True))
        self._boxes.update(rows, boxes[columns])
        for row, column in pairs:
            track = self.tracks[row]
            if track.unseen > 1:
                steps = (seconds - track.seconds) * STEPS
                self._boxes.revise(row, track.state, boxes[column], steps, track.unseen)
            track.votes[labels[column]] += scores[column]
            self._note(row, boxes[column], seconds)

    def _begin(self, box: Floats, seconds: float, *, from_start: bool) -> Track:
        self.tracks.append(Track(_sides(box), seconds, from_start))
        self._boxes.add(box[None])
        self._note(len(self.tracks) - 1, box, seconds)
        return self.tracks[-1]

    def _note(self, row: int, box: Floats, seconds: float) -> None:
        """It was seen in this frame."""
        track, state = self.tracks[row], self._boxes.state[row]
        track.box, track.seconds, track.unseen = _sides(box), seconds, 0
        track.seen += 1
        track.state = state.copy()
        x, y, width, height = state[0].tolist()
        track.place = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        track.speed = float(state[1, 0]) * STEPS, float(state[1, 1]) * STEPS

    def _double(
        self, column: int, boxes: Floats, labels: Sequence[str], found: list[Track | None]
    ) -> bool:
        """Whether an object that has a track already was found twice."""
        shares = overlaps(boxes[[column]], boxes)[0].tolist()
        return any(
            share > (SAME if labels[column] in (label, track.label) else SAME_PLACE)
            for share, label, track in zip(shares, labels, found, strict=True)
            if track is not None
        )

    def _confirm(self) -> None:
        for track in self.tracks:
            if track.number is None and track.seen >= CONFIRMED and not track.double:
                self._confirmed += 1
                track.number = self._confirmed

    def _compare(self) -> None:
        """What lies on an older track before it is confirmed is the same object, found twice."""
        new = [row for row, track in enumerate(self.tracks) if track.number is None]
        if new:
            boxes = self._boxes.boxes()
            shared = overlaps(boxes[new], boxes)
            for row, shares in zip(new, shared, strict=True):
                self.tracks[row].double = bool((shares[:row] > SAME).any())

    def _give_up(self, seconds: float) -> None:
        alive = [_alive(track, seconds) and not track.double for track in self.tracks]
        kept = np.array(alive, bool)
        self.gone = [track for track, stays in zip(self.tracks, kept, strict=True) if not stays]
        self.tracks = [track for track, stays in zip(self.tracks, kept, strict=True) if stays]
        self._boxes.keep(kept)


class _Round:
    """The rounds of one frame: what is matched takes no part in the next."""

    def __init__(
        self,
        tracks: list[Track],
        expected: Floats,
        boxes: Floats,
        scores: Floats,
        labels: Sequence[str],
        least: Floats,
    ) -> None:
        self._tracks, self._expected = tracks, expected
        self._boxes, self._scores, self._labels = boxes, scores, labels
        self._sure = scores >= least
        self._free = np.ones(len(tracks), bool), np.ones(len(boxes), bool)
        self._pairs: list[tuple[int, int]] = []

    def all(self) -> list[tuple[int, int]]:
        """Pairs of track and box."""
        if not len(self._tracks) or not len(self._boxes):
            return []
        known = np.array([track.number is not None for track in self._tracks])
        lately = np.array([track.unseen <= 2 for track in self._tracks])
        middles = (self._expected[:, :2] + self._expected[:, 2:]) / 2
        # Who left is not looked for where it was.
        here = np.all((middles > 0) & (middles < 1), axis=1)
        self._match(known, self._sure, self._expected, SURE)
        self._match(known & lately, ~self._sure, self._expected, WEAK)
        self._match(~known, self._sure, self._expected, NEW)
        seen = np.array([track.box for track in self._tracks])
        self._match(here, self._sure, seen, LAST_SEEN)
        self._match(here & ~known, self._sure, self._expected, WIDE, wider=WIDER)
        return self._pairs

    def _match(
        self,
        tracks: npt.NDArray[np.bool_],
        boxes: npt.NDArray[np.bool_],
        places: Floats,
        least: float,
        wider: float = 0.0,
    ) -> None:
        rows = np.flatnonzero(tracks & self._free[0])
        columns = np.flatnonzero(boxes & self._free[1])
        if not len(rows) or not len(columns):
            return
        shared = overlaps(_wider(places[rows], wider), _wider(self._boxes[columns], wider))
        bonus = BONUS * self._same_label(rows, columns) + 0.05 * self._scores[columns]
        for row, column in assign(np.where(shared >= least, shared + bonus, 0.0)):
            self._pairs.append((int(rows[row]), int(columns[column])))
            self._free[0][rows[row]] = self._free[1][columns[column]] = False

    def _same_label(self, rows: Rows, columns: Rows) -> npt.NDArray[np.bool_]:
        names = [self._tracks[row].label for row in rows]
        return np.array([[name == self._labels[column] for column in columns] for name in names])


class Tracking:
    """A filter: `track` of each object, and the label that its track has by vote.

    What is unsure stays where it goes on with a track; doubles of one object are left out.

    Args:
        threshold: the score from which on an object with that label is sure.

    Attributes:
        tracker: of what this has seen.
    """

    def __init__(self, threshold: Callable[[str], float]) -> None:
        self.tracker = Tracker()
        self._threshold = threshold

    def __call__(self, result: Result) -> Result:
        """The next frame."""
        objects = [one for one in result.detections if one.box is not None]
        boxes = np.array([one.box for one in objects], float).reshape(-1, 4)
        scores = np.array([1.0 if one.score is None else one.score for one in objects], float)
        labels = [one.label for one in objects]
        least = np.array([self._threshold(label) for label in labels], float)
        found = self.tracker.update(boxes, scores, labels, least, seconds_of(result.frame))
        kept = [
            _named(one, track)
            for one, track in zip(objects, found, strict=True)
            if track is not None and not track.double
        ]
        return replace(result, detections=tuple(kept))

    def end(self) -> None:
        """Nothing is left to do."""


def seconds_of(frame: Frame) -> float:
    """When a frame was taken: in the video's own time, or a live source's."""
    if frame.media_time is not None:
        return frame.media_time
    return frame.captured if frame.name is None else frame.number / PICTURES


def _named(found: Detection, track: Track) -> Detection:
    return replace(found, label=track.label, track=track.number)


def _alive(track: Track, seconds: float) -> bool:
    if track.number is None:
        return track.unseen <= MISSES
    return track.unseen <= PATIENCE_FRAMES or seconds - track.seconds <= PATIENCE


def _sides(box: Floats) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


def _wider(boxes: Floats, share: float) -> Floats:
    if not share:
        return boxes
    by = share * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - by, boxes[:, 2:] + by], axis=1)
