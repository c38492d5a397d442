"""Tracking and counting of `edge` beside `trackers` and `supervision`, on the same boxes.

    pip install trackers supervision motmetrics pytest    # in an environment with mlopsdeploy
    python benchmarks/edge_field.py

**Identities.** The ground truth of TUD-Campus and TUD-Stadtmitte, which travels in motmetrics'
package, as a detector would see it: 15 % of boxes missed, 2 % of their size of tremble, a fifth
of scores between 0.15 and 0.5, one false box in five frames. HOTA, IDF1 and MOTA by `trackers`' own
evaluation, which is TrackEval's; the mean over seeds. Each tracker runs with its defaults but
for the score from which on a box is sure (0.5).

**Counts.** The scenes of tests/edge/filters: people who walk through the picture and turn
back, missed, doubled, mistaken for each other, with false boxes; a gate in the middle, and one at
2 % from the border. The error is the sum of differences from the truth, both ways, over the
crossings that happened. supervision's LineZone looks at its usual four corners, or at the middle of
the lower edge, behind `trackers`' ByteTrack.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlopsdeploy.edge  # noqa: F401  # sets what OpenCV reads when it is loaded

import motmetrics as mm  # isort: skip
import numpy as np
import pandas as pd
import supervision as sv
from trackers import ByteTrackTracker, OCSORTTracker
from trackers.eval.clear import compute_clear_metrics
from trackers.eval.hota import compute_hota_metrics
from trackers.eval.identity import compute_identity_metrics

from mlopsdeploy.edge.filters.kalman import overlaps
from mlopsdeploy.edge.filters.tracking import Tracker

SEEDS = range(5)
FPS = 25.0
SURE = 0.5
ROOT = Path(__file__).resolve().parents[1]
Seen = dict[int, tuple[Any, Any]]  # by frame: boxes (n, 4) in pixels, scores (n,)


def seen(truth: pd.DataFrame, seed: int) -> Seen:
    """The boxes of a detector that makes mistakes."""
    chance = np.random.default_rng(seed)
    found: Seen = {}
    for frame, rows in truth.groupby(level=0):
        boxes = rows[["X", "Y", "Width", "Height"]].to_numpy(float, copy=True)
        boxes = boxes[chance.random(len(boxes)) >= 0.15]
        boxes += chance.normal(0, 0.02, boxes.shape) * boxes[:, [2, 3, 2, 3]]
        if chance.random() < 0.2:
            boxes = np.vstack([boxes, [*chance.uniform(0, 400, 2), 50, 120]])
        scores = np.where(
            chance.random(len(boxes)) < 0.2,
            chance.uniform(0.15, 0.5, len(boxes)), chance.uniform(0.5, 1, len(boxes)),
        )  # fmt: skip
        boxes[:, 2:] += boxes[:, :2]
        found[cast("int", frame)] = boxes, scores
    return found


def ours(found: Seen, _: float) -> list[tuple[int, int, Any]]:
    """Frame, number and box of each confirmed track."""
    tracker, rows = Tracker(), []
    size = np.array([640.0, 480, 640, 480])
    for frame, (boxes, scores) in found.items():
        least = np.full(len(boxes), SURE)
        tracks = tracker.update(boxes / size, scores, ["person"] * len(boxes), least, frame / FPS)
        rows += [
            (frame, track.number, box)
            for track, box in zip(tracks, boxes, strict=True)
            if track is not None and track.number is not None
        ]
    return rows


def theirs(make: Callable[[], Any]) -> Callable[[Seen, float], list[tuple[int, int, Any]]]:
    """The same of a tracker of `trackers`."""

    def run(found: Seen, _: float) -> list[tuple[int, int, Any]]:
        tracker, rows = make(), []
        for frame, (boxes, scores) in found.items():
            given = sv.Detections(
                xyxy=boxes.astype(np.float32), confidence=scores.astype(np.float32),
                class_id=np.zeros(len(boxes), int),
            )  # fmt: skip
            kept = tracker.update(given)
            if kept.tracker_id is not None:
                rows += [
                    (frame, int(number), box)
                    for number, box in zip(kept.tracker_id, kept.xyxy, strict=True)
                    if number >= 0
                ]
        return rows

    return run


TRACKERS: dict[str, Callable[[Seen, float], list[tuple[int, int, Any]]]] = {
    "mlopsdeploy": ours,
    "trackers ByteTrack": theirs(
        lambda: ByteTrackTracker(
            frame_rate=FPS, track_activation_threshold=SURE, high_conf_det_threshold=SURE
        )
    ),
    "trackers OC-SORT": theirs(lambda: OCSORTTracker(frame_rate=FPS, high_conf_det_threshold=SURE)),
}


def scores(truth: pd.DataFrame, rows: list[tuple[int, int, Any]]) -> tuple[float, float, float]:
    """HOTA, IDF1, MOTA."""
    index = pd.MultiIndex.from_tuples([row[:2] for row in rows], names=["FrameId", "Id"])
    boxes = np.array([row[2] for row in rows], float)
    boxes[:, 2:] -= boxes[:, :2]
    found = pd.DataFrame(boxes, index=index, columns=["X", "Y", "Width", "Height"])
    found["Confidence"] = 1.0
    ids: tuple[list[Any], list[Any]] = ([], [])
    similar = []
    for frame in truth.index.get_level_values(0).unique():
        both: list[Any] = []
        for known, table in zip(ids, (truth, found), strict=True):
            here = table[table.index.get_level_values(0) == frame]
            known.append(here.index.get_level_values(1).to_numpy())
            corners = here[["X", "Y", "Width", "Height"]].to_numpy(float, copy=True)
            corners[:, 2:] += corners[:, :2]
            both.append(corners)
        similar.append(overlaps(*both))
    given = _from_zero(ids[0]), _from_zero(ids[1]), similar
    return (
        float(compute_hota_metrics(*given)["HOTA"]),
        float(compute_identity_metrics(*given)["IDF1"]),
        float(compute_clear_metrics(*given)["MOTA"]),
    )


def _from_zero(ids: list[Any]) -> list[Any]:
    known = np.unique(np.concatenate(ids))
    return [np.searchsorted(known, one) for one in ids]


def identities() -> None:
    """A table of trackers."""
    data = Path(mm.__file__).parent / "data"
    print("| tracker | HOTA | IDF1 | MOTA | ms a frame |\n|---|---|---|---|---|")
    for name, run in TRACKERS.items():
        found, took, frames = [], 0.0, 0
        for sequence in ("TUD-Campus", "TUD-Stadtmitte"):
            truth = mm.io.loadtxt(data / sequence / "gt.txt", fmt="mot15-2D")
            for seed in SEEDS:
                boxes = seen(truth, seed)
                start = time.perf_counter()
                rows = run(boxes, FPS)
                took, frames = took + time.perf_counter() - start, frames + len(boxes)
                found.append(scores(truth, rows))
        hota, idf1, mota = np.mean(found, axis=0)
        print(f"| {name} | {hota:.3f} | {idf1:.3f} | {mota:.3f} | {took / frames * 1000:.2f} |")


def counts() -> None:
    """A table of counting errors."""
    kit = _scenes()
    noise = {"missed": 0.15, "doubled": 0.1, "confused": 0.15, "weak": 0.2, "false": 0.2}
    print("\n| counted by | gate in the middle | gate at the border |\n|---|---|---|")
    rows: dict[str, list[float]] = {}
    for x in (0.5, 0.98):
        wrong: dict[str, int] = {}
        total = 0
        for seed in SEEDS:
            walkers, truth = kit.crowd.__wrapped__()(seed, turning=0.2 if x == 0.5 else 0.0)
            if x != 0.5:  # who enters at the right goes in, who leaves there goes out
                ins = sum(one.points[0][0] > 1 for one in walkers)
                truth = ins, len(walkers) - ins
            total += sum(truth)
            detector = kit.Detector(seed, trembling=0.02, **noise)
            last = max(one.end for one in walkers) + 30
            frames = [detector.sees(walkers, frame) for frame in range(last)]
            scene = kit.Scene({"gate": ((x, 0), (x, 1))})
            for one in frames:
                scene.frame(one)
            scene.counting.end()
            for name, got in {
                "mlopsdeploy": scene.crossings(),
                "supervision, four corners": _line_zone(frames, x, None),
                "supervision, lower middle": _line_zone(frames, x, [sv.Position.BOTTOM_CENTER]),
            }.items():
                # Which of its two ways a rival calls in is not the question.
                ways = (got, got[::-1]) if name != "mlopsdeploy" else (got,)
                missed = min(
                    sum(abs(a - b) for a, b in zip(one, truth, strict=True)) for one in ways
                )
                wrong[name] = wrong.get(name, 0) + missed
        for name, errors in wrong.items():
            rows.setdefault(name, []).append(errors / total)
    for name, errors_of in rows.items():
        print(f"| {name} | " + " | ".join(f"{one:.1%}" for one in errors_of) + " |")


def _line_zone(frames: Any, x: float, anchors: Any) -> tuple[int, int]:
    """Both ways, by LineZone behind ByteTrack."""
    kwargs = {"triggering_anchors": anchors} if anchors else {}
    zone = sv.LineZone(start=sv.Point(x * 1000, -10), end=sv.Point(x * 1000, 1010), **kwargs)
    tracker = ByteTrackTracker(
        frame_rate=30, track_activation_threshold=SURE, high_conf_det_threshold=SURE
    )
    for found in frames:
        if found:
            given = sv.Detections(
                xyxy=np.array([one.box for one in found], np.float32) * 1000,
                confidence=np.array([one.score for one in found], np.float32),
                class_id=np.zeros(len(found), int),
            )
        else:
            given = sv.Detections.empty()
        kept = tracker.update(given)
        if kept.tracker_id is not None:
            zone.trigger(kept[kept.tracker_id >= 0])
    return zone.in_count, zone.out_count


def _scenes() -> Any:
    """The scenes that the tests are made of."""
    place = ROOT / "tests" / "edge" / "filters" / "conftest.py"
    spec = importlib.util.spec_from_file_location("scenes", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scenes"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    identities()
    counts()
