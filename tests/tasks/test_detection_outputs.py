"""The readers alone, where a real model would hide what they do."""

import numpy as np
import pytest

from mlopsdeploy.tasks.detection_outputs import (
    Coordinates,
    EndToEnd,
    Listed,
    Scored,
    Yolo,
    surest,
    which_are_scores,
    yolo_positions,
)

SIZE = (100, 200)  # height, width


def listed(**how):
    where = Coordinates("yxyx", SIZE, pixels=False)
    return Listed("b", "s", "c", "n", where, **how)


def tensors(scores, classes, count):
    boxes = np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (len(scores), 1))
    return {
        "b": boxes[None],
        "s": np.float32([scores]),
        "c": np.float32([classes]),
        "n": np.float32([count]),
    }


def test_entries_past_the_count_are_left_over_from_other_pictures():
    found = listed()(tensors([0.9, 0.95, 0.99], [1, 2, np.nan], 1), 0, 0.5)
    np.testing.assert_allclose(found.boxes, [[0.2, 0.1, 0.4, 0.3]])
    assert found.classes.tolist() == [1]
    for count in (0, -1):
        assert len(listed()(tensors([0.9], [1], count), 0, 0.5).scores) == 0
    assert len(listed()(tensors([0.9], [1], 7), 0, 0.5).scores) == 1


def test_scores_and_classes_are_told_apart_once_a_picture_shows_them():
    reader = listed(settled=False)
    turned = {"s": "c", "c": "s", "b": "b", "n": "n"}

    def read(*values):
        made = tensors(*values)
        return reader({name: made[turned[name]] for name in made}, 0, 0.5)

    assert len(read([0.0, 0.0], [0, 0], 0).scores) == 0
    assert not reader.settled
    found = read([0.9, 0.7], [3, 1], 2)
    assert reader.settled
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.classes.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.9, 0.1], [3, 1], 0),
        ([3, 1], [0.9, 0.1], 1),
        ([0, 1], [1, 1], None),
        ([], [], None),
        ([0.5, 2.5], [1, 1], None),
        ([0.5, 0.2], [0.1, 0.4], None),
    ],
)
def test_which_are_scores(first, second, expected):
    assert which_are_scores(np.float32(first), np.float32(second)) == expected


@pytest.mark.parametrize(
    ("order", "box"),
    [("xyxy", [20, 10, 60, 50]), ("yxyx", [10, 20, 50, 60]), ("xywh", [40, 30, 40, 40])],
)
def test_boxes_in_every_order_and_unit(order, box):
    expected = [[0.1, 0.1, 0.3, 0.5]]
    where = Coordinates(order, SIZE, pixels=True)
    np.testing.assert_allclose(where.corners(np.float32([box])), expected, atol=1e-6)
    sides = [200, 100] if order != "yxyx" else [100, 200]
    relative = Coordinates(order, SIZE, pixels=False)
    parts = np.float32([box]) / np.float32(sides * 2)
    np.testing.assert_allclose(relative.corners(parts), expected, atol=1e-6)
    assert not relative.pixels


def test_pixels_are_noticed_late_if_need_be():
    where = Coordinates("xyxy", SIZE, pixels=False)
    where.corners(np.float32([[0, 0, 1, 1]]))
    np.testing.assert_allclose(where.corners(np.float32([[0, 0, 200, 100]])), [[0, 0, 1, 1]])
    assert where.pixels


def yolo(rows, *, objectness=True, **how):
    """Read rows of x, y, w, h, mostly an objectness, and the scores of two classes."""
    where = Coordinates("xywh", SIZE, pixels=False)
    reader = Yolo("t", where, objectness=objectness, classes=2, **{"transposed": False, **how})
    return reader({"t": np.float32(rows)[None]}, 0, 0.5)


def test_yolo_with_objectness_multiplies_and_suppresses_within_a_class():
    rows = [
        [0.5, 0.5, 0.4, 0.4, 0.9, 0.1, 1.0],
        [0.5, 0.5, 0.4, 0.42, 0.8, 0.1, 1.0],  # the same object
        [0.5, 0.5, 0.4, 0.4, 0.9, 0.7, 0.1],  # another class at the same place
        [0.2, 0.2, 0.1, 0.1, 0.9, 0.5, 0.5],  # 0.45
        [0.2, 0.2, 0.1, 0.1, 0.1, 1.0, 1.0],  # nothing there
    ]
    found = yolo(rows)
    assert found.classes.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.63])
    np.testing.assert_array_equal(yolo(np.transpose(rows), transposed=True).boxes, found.boxes)


def test_yolo_without_objectness_reads_only_its_classes():
    rows = [[0.5, 0.5, 0.4, 0.4, 0.2, 0.8, 0.99]]  # the last is a mask's coefficient
    found = yolo(rows, objectness=False)
    assert (found.classes.tolist(), found.scores.tolist()) == ([1], [pytest.approx(0.8)])


def test_yolo_logits():
    rows = [[0.5, 0.5, 0.4, 0.4, 3.0, 2.0, -5.0], [0.5, 0.5, 0.4, 0.4, -3.0, 9.0, -5.0]]
    expected = 1 / (1 + np.exp(-3)) / (1 + np.exp(-2))
    assert yolo(rows, logits=True).scores.tolist() == pytest.approx([expected])


def test_end_to_end_rows():
    rows = np.float32([[[20, 10, 60, 50, 0.9, 7], [0, 0, 0, 0, 0, 0]]])
    found = EndToEnd("t", Coordinates("xyxy", SIZE, pixels=True))({"t": rows}, 0, 0.5)
    np.testing.assert_allclose(found.boxes, [[0.1, 0.1, 0.3, 0.5]])
    assert found.classes.tolist() == [7]


def test_boxes_with_scores_of_all_classes_or_of_the_best():
    boxes = np.float32([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.52], [0.6, 0.6, 1, 1]]])
    where = Coordinates("xyxy", SIZE, pixels=False)
    table = np.float32([[[0.9, 0.1, 0.8], [0.9, 0.1, 0.7], [0.1, 0.6, 0.2]]])
    every = Scored("b", "s", None, where, logits=False, background=0)
    found = every({"b": boxes, "s": table}, 0, 0.5)
    assert found.classes.tolist() == [1, 0]
    best = Scored("b", "s", "c", where, logits=False)
    found = best(
        {"b": boxes, "s": np.float32([[0.8, 0.7, 0.6]]), "c": np.float32([[1, 1, 0]])}, 0, 0.5
    )
    assert found.classes.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6])
    lone = Scored("b", "s", None, where, logits=False)
    found = lone({"b": boxes, "s": np.float32([[0.8, 0.7, 0.6]])}, 0, 0.5)
    assert (found.classes.tolist(), found.scores.tolist()) == ([0, 0], pytest.approx([0.8, 0.6]))


def test_a_small_object_among_many_boxes_of_a_surer_one():
    """The 300 surest boxes were all that counted; here they are of one object."""
    boxes = np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), (1, 900, 1))
    boxes[0, 850] = [0.7, 0.7, 0.8, 0.8]
    scores = np.linspace(0.99, 0.6, 900, dtype=np.float32)[None]
    reader = Scored("b", "s", None, Coordinates("xyxy", SIZE, pixels=False), logits=False)
    found = reader({"b": boxes, "s": scores}, 0, 0.5)
    np.testing.assert_allclose(found.scores, scores[0, [0, 850]])
    np.testing.assert_allclose(found.boxes, boxes[0, [0, 850]])


@pytest.mark.parametrize("logits", [False, True])
def test_the_surest_from_the_threshold_on(logits):
    scores = np.float32([0.2, 0.5, 0.9, 0.7])
    given = np.log(scores / (1 - scores)) if logits else scores
    assert surest(given, 0.7 - 1e-6, logits=logits).tolist() == [2, 3]


def test_grids_of_yolo():
    assert yolo_positions((640, 640)) == 8400
    assert yolo_positions((320, 320)) == 2100
