"""Identities: one object, one number, one label."""

import numpy as np
import pytest

from mlopsdeploy.edge.filters.kalman import MovingBoxes, overlaps

NOISY = {"missed": 0.15, "doubled": 0.1, "confused": 0.2, "weak": 0.2, "trembling": 0.02}


def numbers(scene, frames=slice(None)):
    """Of the tracks on each of some results."""
    return [[one.track for one in result.detections] for result in scene.results[frames]]


def test_an_object_has_a_number_from_its_third_frame_on(field_kit):
    walker = field_kit.walker([(0.2, 0.5), (0.8, 0.5)], 2)
    scene = field_kit.scene().play([walker], frames=60)
    assert numbers(scene) == [[None]] * 2 + [[1]] * 58


def test_an_identity_is_kept_through_an_occlusion(field_kit):
    """A second behind a wall, at an even pace."""
    walker = field_kit.walker([(0.1, 0.5), (0.9, 0.5)], 5)
    scene, detector = field_kit.scene(), field_kit.detector(trembling=0.02)
    for frame in range(150):
        scene.frame(() if 60 <= frame < 90 else detector.sees([walker], frame))
    assert numbers(scene, slice(90, 150)) == [[1]] * 60


def test_two_who_meet_keep_their_numbers(field_kit):
    walkers = [
        field_kit.walker([(0.1, 0.50), (0.9, 0.50)], 4),
        field_kit.walker([(0.9, 0.53), (0.1, 0.53)], 4),
    ]
    scene = field_kit.scene().play(walkers, field_kit.detector(3, trembling=0.01), frames=119)
    before = {one.track: one.box[0] < 0.5 for one in scene.results[10].detections}
    after = {one.track: one.box[0] < 0.5 for one in scene.results[-1].detections}
    assert before.keys() == after.keys() == {1, 2}
    assert all(before[number] != after[number] for number in before)


def test_a_label_is_voted(field_kit):
    walker = field_kit.walker([(0.1, 0.5), (0.9, 0.5)], 6)
    scene = field_kit.scene().play([walker], field_kit.detector(1, **NOISY), frames=180)
    assert {one.label for result in scene.results[20:] for one in result.detections} == {"Person"}
    assert {one for found in numbers(scene, slice(5, None)) for one in found} == {1}


def test_an_object_found_twice_is_one(field_kit):
    walker = field_kit.walker([(0.1, 0.5), (0.9, 0.5)], 6)
    noise = field_kit.detector(2, doubled=0.9, trembling=0.01)
    scene = field_kit.scene().play([walker], noise, frames=180)
    assert {one for found in numbers(scene, slice(5, None)) for one in found} == {1}


def test_what_is_unsure_goes_on_with_a_track_but_begins_none(field_kit):
    weak, sure = field_kit.detector(weak=1.0), field_kit.detector()
    walker = field_kit.walker([(0.1, 0.5), (0.9, 0.5)], 6)
    scene = field_kit.scene()
    for frame in range(90):
        scene.frame((weak if frame < 30 or frame >= 60 else sure).sees([walker], frame))
    assert numbers(scene) == [[]] * 30 + [[None]] * 2 + [[1]] * 58


def test_an_empty_run_has_no_tracks(field_kit):
    scene = field_kit.scene()
    for _ in range(5):
        scene.frame(())
    assert numbers(scene) == [[]] * 5


def test_the_filter_is_the_one_with_matrices():
    """Against the textbook's, for one coordinate and its speed."""
    boxes = MovingBoxes()
    first = np.array([[0.1, 0.2, 0.3, 0.6]])
    boxes.add(first)
    size = 0.2
    mean, covariance = np.array([0.2, 0.0]), np.diag([(size / 10) ** 2, (size / 16) ** 2])
    for step in range(1, 8):
        box = first + 0.01 * step * np.array([[1, 0, 1, 0]])
        boxes.predict(2.0, np.zeros(1, bool))
        boxes.update(np.array([0]), box)
        move = np.array([[1, 2.0], [0, 1]])
        mean = move @ mean
        noise = np.diag([2 * (size / 20) ** 2, 2 * (size / 160) ** 2])
        covariance = move @ covariance @ move.T + noise
        gain = covariance[:, 0] / (covariance[0, 0] + (size / 20) ** 2)
        mean = mean + gain * ((box[0, 0] + box[0, 2]) / 2 - mean[0])
        covariance = covariance - np.outer(gain, covariance[0])
        assert boxes.state[0, :2, 0] == pytest.approx(mean, rel=1e-6)


def test_overlap():
    some = np.array([[0, 0, 2, 2], [0, 0, 1, 1]], float)
    others = np.array([[1, 1, 3, 3], [0, 0, 1, 1], [5, 5, 6, 6]], float)
    assert overlaps(some, others) == pytest.approx(np.array([[1 / 7, 1 / 4, 0], [0, 1, 0]]))
