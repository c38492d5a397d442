"""Counts, percentiles, and which stage sets the pace."""

import time

import pytest

from mlopsdeploy.core.detections import OBJECT
from mlopsdeploy.edge.stages import Stats, Values


def test_percentiles_are_in_milliseconds():
    values = Values()
    assert values.percentiles() == (0, 0)
    for milliseconds in range(1, 101):
        values.add(milliseconds / 1000)
    middle, high = values.percentiles()
    assert middle == pytest.approx(50.5)
    assert high == pytest.approx(99.01)
    assert values.total == pytest.approx(5.05)


def finished(stats, frames):
    for _ in range(frames):
        stats.note(OBJECT, ["cat"], [0.9])
        stats.finish([time.monotonic()])


def test_the_stage_with_the_most_time_per_frame_sets_the_pace():
    stats = Stats()
    for _ in range(10):
        stats.add("infer", 0.02)
        stats.add("capture", 0.005)
    stats.add("snapshots", 0.1)  # once in ten frames: 10 ms each
    finished(stats, 10)
    assert stats.bottleneck() == "infer"
    for _ in range(3):
        stats.add("snapshots", 0.1)
    assert stats.bottleneck() == "snapshots"


def test_a_camera_read_more_often_than_the_model_runs_is_not_the_slowest():
    stats = Stats()
    for _ in range(30):
        stats.add("capture", 1 / 30)  # waiting included
    for _ in range(10):
        stats.add("infer", 0.1)
    finished(stats, 10)
    assert stats.bottleneck() == "infer"


def test_counts():
    stats = Stats()
    assert (stats.fps, stats.mean_fps, stats.bottleneck()) == (0, 0, "")
    stats.add("save", 0.1)  # events alone, as of a camera that isn't there
    assert stats.bottleneck() == ""
    finished(stats, 3)
    assert stats.frames == 3
    assert stats.labels == {"cat": 3}
    with stats.timing("decode"):
        pass
    stats.add("save", 0.001)
    stats.add("capture", 0.001)
    assert list(stats.latencies()) == ["capture", "decode", "save"]
