"""Anchors, boxes and non-maximum suppression of SSD detectors."""

import cv2
import numpy as np
import pytest

from mlopsdeploy.tasks import ssd
from mlopsdeploy.tasks.scores import sigmoid
from mlopsdeploy.tasks.ssd import Ssd, decode_boxes, non_max_suppression

# Of SSD MobileNet: 19² places of 3 anchors, then 10² + 5² + 3² + 2² + 1² of 6.
SSD = Ssd(size=(300, 300), strides=(16, 32, 64, 128, 256, 512))


def overlap(box, other):
    """Intersection over union of two boxes."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    areas = [np.prod(one[2:] - one[:2]) for one in (box, other)]
    return np.prod(shared) / (sum(areas) - np.prod(shared))


def greedy(boxes, scores, classes, iou, limit):
    """Non-maximum suppression as the textbook has it, a box at a time."""
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if all(overlap(boxes[index], boxes[other]) <= iou for other in rivals):
            kept.append(index)
    return kept[:limit]


def random_boxes(generator, count):
    corners = generator.random((count, 2), np.float32) * 0.7
    return np.concatenate([corners, corners + generator.random((count, 2), np.float32) * 0.3], 1)


def test_anchors_of_ssd_mobilenet():
    assert SSD.anchors.shape == (19 * 19 * 3 + (100 + 25 + 9 + 4 + 1) * 6, 4)
    assert SSD.anchors.dtype == np.float32
    half = 0.5 / 19
    np.testing.assert_allclose(SSD.anchors[0], [half, half, 0.1, 0.1], rtol=1e-6)
    wide, tall = 0.2 * np.sqrt(2), 0.2 / np.sqrt(2)
    np.testing.assert_allclose(SSD.anchors[1], [half, half, tall, wide], rtol=1e-6)
    np.testing.assert_allclose(SSD.anchors[2], [half, half, wide, tall], rtol=1e-6)
    np.testing.assert_allclose(SSD.anchors[3, :2], [half, 3 * half], rtol=1e-6)
    np.testing.assert_allclose(SSD.anchors[-6], [0.5, 0.5, 0.95, 0.95], rtol=1e-6)
    np.testing.assert_allclose(SSD.anchors[-1, 2:], np.sqrt(0.95), rtol=1e-6)


def test_anchors_of_a_wide_input_without_the_reduced_map():
    ssd = Ssd(size=(10, 20), strides=(10,), aspect_ratios=(1, 2), reduced_lowest=False)
    y, x = ssd.anchors[:, 0], ssd.anchors[:, 1]
    assert y.tolist() == [0.5] * 6
    assert x.tolist() == [0.25] * 3 + [0.75] * 3


def test_an_offset_of_nothing_is_the_anchor():
    anchors = np.array([[0.5, 0.4, 0.2, 0.1]], np.float32)
    boxes = decode_boxes(np.zeros((1, 4), np.float32), anchors, SSD.coder)
    np.testing.assert_allclose(boxes, [[0.4, 0.35, 0.6, 0.45]], rtol=1e-6)


def test_offsets_move_the_centre_and_stretch_the_size():
    anchors = np.array([[0.5, 0.5, 0.2, 0.1]], np.float32)
    # Down by half the anchor's height, right by its width; twice as high, half as wide.
    encoded = np.array([[5, 10, 5 * np.log(2), -5 * np.log(2)]], np.float32)
    boxes = decode_boxes(encoded, anchors, (10, 10, 5, 5))
    np.testing.assert_allclose(boxes, [[0.4, 0.575, 0.8, 0.625]], rtol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_suppression_is_the_greedy_one(seed, monkeypatch):
    monkeypatch.setattr(ssd, "AT_ONCE", (1000, 30)[seed % 2])
    generator = np.random.default_rng(seed)
    boxes = random_boxes(generator, 200)
    scores = np.round(generator.random(200, np.float32), 2)  # with ties
    classes = generator.integers(0, 3, 200)
    iou = (0.1, 0.3, 0.5)[seed % 3]
    kept = non_max_suppression(boxes, scores, classes, iou, 50)
    assert kept.tolist() == greedy(boxes, scores, classes, iou, 50)
    one_class = np.zeros(200, np.intp)
    alone = non_max_suppression(boxes, scores, one_class, iou, 300)
    assert alone.tolist() == greedy(boxes, scores, one_class, iou, 300)
    assert len(alone) < 200


def test_a_box_that_fell_suppresses_none():
    # Each overlaps the next; the second falls to the first and so cannot fell the third.
    boxes = np.array([[0, 0, 1, 1], [0, 0.3, 1, 1.3], [0, 0.6, 1, 1.6]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert non_max_suppression(boxes, scores, np.zeros(3, np.intp), iou=0.5).tolist() == [0, 2]


def test_a_model_gone_mad_is_compared_with_what_is_kept_only(monkeypatch):
    generator = np.random.default_rng(0)
    corners = generator.random((40_000, 2), np.float32)
    apart = np.concatenate([corners, corners + 1e-4], 1)
    scores = generator.random(40_000, np.float32)
    sizes = []
    once = cv2.dnn.NMSBoxesBatched

    def counted(boxes, *arguments):
        sizes.append(len(boxes))
        return once(boxes, *arguments)

    monkeypatch.setattr(cv2.dnn, "NMSBoxesBatched", counted)
    classes = np.zeros(40_000, np.intp)
    kept = non_max_suppression(apart, scores, classes)
    assert kept.tolist() == np.argsort(-scores, kind="stable")[:100].tolist()
    assert sizes == [1000]
    # All but one lie on the surest; that one counts if it is among the 30,000 surest.
    same = np.tile(np.float32([0, 0, 1, 1]), (40_000, 1))
    order = np.argsort(-scores, kind="stable")
    for place, found in ((29_999, [order[0], order[29_999]]), (30_000, order[:1])):
        boxes = same.copy()
        boxes[order[place]] += 5
        assert non_max_suppression(boxes, scores, classes).tolist() == list(found)
    assert max(sizes) == 1001


def test_nothing_to_suppress():
    none = np.empty(0, np.float32)
    empty = non_max_suppression(np.empty((0, 4), np.float32), none, none.astype(np.intp))
    assert empty.tolist() == []


def raw(objects, classes=3):
    """Raw outputs with the given {anchor: (class, logit)}, the background's logit above all."""
    logits = np.full((len(SSD.anchors), 1 + classes), -8, np.float32)
    logits[:, 0] = 9
    for anchor, (class_, logit) in objects.items():
        logits[anchor, 1 + class_] = logit
    return np.zeros((len(SSD.anchors), 4), np.float32), logits


def test_objects_from_raw_outputs():
    found = SSD.detect(*raw({30: (2, 1.0), 900: (0, 3.0), 901: (1, -1.0)}))
    assert found.classes.tolist() == [0, 2]
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-3.0, -1.0])), rtol=1e-6)
    y, x, height, width = SSD.anchors[900]
    expected = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
    np.testing.assert_allclose(found.boxes[0], expected, rtol=1e-5)
    assert found.boxes[1, 0] == 0, "an anchor at the edge is cut at the edge"
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_the_threshold_is_a_score():
    objects = {900: (0, 3.0), 300: (1, -1.0)}
    just = float(sigmoid(np.float32(-1.0)))
    assert SSD.detect(*raw(objects), threshold=just - 1e-4).classes.tolist() == [0, 1]
    assert SSD.detect(*raw(objects), threshold=just + 1e-4).classes.tolist() == [0]
    assert len(SSD.detect(*raw({})).boxes) == 0


def test_one_class_of_an_anchor_and_the_limit():
    boxes, logits = raw({900: (0, 3.0), 300: (1, 2.0), 600: (2, 1.0)})
    logits[900, 2] = 2.5
    few = Ssd(SSD.size, SSD.strides, limit=2)
    assert few.detect(boxes, logits).classes.tolist() == [0, 1]


def test_a_model_without_a_background():
    boxes, logits = raw({900: (1, 3.0)})
    bare = Ssd(SSD.size, SSD.strides, background=None)
    assert bare.detect(boxes, logits[:, 1:]).classes.tolist() == [1]


def test_another_number_of_anchors_is_refused():
    boxes, logits = raw({})
    with pytest.raises(ValueError, match="make 1917 anchors"):
        SSD.detect(boxes[:-1], logits[:-1])


def test_extreme_logits_do_not_overflow():
    assert sigmoid(np.array([-1e4, 0, 1e4], np.float32)).tolist() == [0, 0.5, 1]
