"""Detections in pixels and for JSON."""

import numpy as np

from mlopsdeploy.columns import objects
from mlopsdeploy.core.detections import Detection, detections_of


def test_a_box_in_pixels_and_for_json():
    found = Detection("cat", 0.87654, (0.25, 0.5, 0.75, 1.0))
    assert found.pixels(640, 480) == (160, 240, 480, 480)
    box = {"box": (160, 240, 480, 480), "relative": [0.25, 0.5, 0.75, 1.0]}
    assert found.as_dict(640, 480) == {"label": "cat", "score": 0.8765, **box}
    assert Detection("cat", 0.5).as_dict(640, 480) == {"label": "cat", "score": 0.5}


def test_detections_of_a_detector():
    boxes = np.empty(1, object)
    boxes[0] = np.array([[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]], np.float32)
    labels, scores = np.empty(1, object), np.empty(1, object)
    labels[0], scores[0] = objects(["cat", "dog"]), np.array([0.75, 0.5], np.float32)
    first, second = detections_of({"boxes": boxes, "label": labels, "score": scores})
    assert (first.label, first.score) == ("cat", 0.75)
    assert np.allclose(first.box, (0.1, 0.2, 0.3, 0.4))
    assert second.box == (0, 0, 1, 1)


def test_detections_of_a_classifier():
    score = np.array([0.75], np.float32)
    (found,) = detections_of({"label": objects(["cat"]), "score": score})
    assert found == Detection("cat", 0.75)
    assert detections_of({"label": objects([""]), "score": score}) == ()
