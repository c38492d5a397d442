"""Detections in pixels, for JSON and for people."""

import numpy as np
import pytest

from mlopsdeploy.columns import Field, objects
from mlopsdeploy.core.detections import Detection, detections_of

from .. import kinds

BOXES = Field("boxes", "float32", (-1, 4))
LABEL, SCORE = Field("label", "str", (-1,)), Field("score", "float32", (-1,))
DETECTOR = kinds.Kind(kinds.PICTURE, (BOXES, LABEL, SCORE))
CLASSIFIER = kinds.Kind(kinds.PICTURE, (kinds.LABEL, Field("score", "float32")))


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
    found = detections_of(DETECTOR, {"boxes": boxes, "label": labels, "score": scores})
    first, second = found
    assert (first.label, first.score, first.words) == ("cat", 0.75, "cat 75%")
    assert np.allclose(first.box, (0.1, 0.2, 0.3, 0.4))
    assert second.box == (0, 0, 1, 1)


def test_detections_of_a_classifier():
    score = np.array([0.75], np.float32)
    (found,) = detections_of(CLASSIFIER, {"label": objects(["cat"]), "score": score})
    assert (found.label, found.score, found.box) == ("cat", 0.75, None)
    assert found.as_dict(1, 1) == {"label": "cat", "score": 0.75}
    assert detections_of(CLASSIFIER, {"label": objects([""]), "score": score}) == ()
    nothing = {"label": objects(["cat"]), "score": score * np.nan}
    assert detections_of(CLASSIFIER, nothing) == ()


FEATURES = {"features": np.array([[0.25, 0.75, 0.6]], np.float32)}


@pytest.mark.parametrize(
    ("make", "documents", "words"),
    [
        (kinds.regression, [{"value": 250749.4}], ["value 250749"]),
        (kinds.clusters, [{"label": "2", "distance": pytest.approx(0.4)}], ["2 0.4"]),
        (kinds.multi_label, [{"label": "threat|insult", "score": 0.75}], ["threat, insult 75%"]),
        (
            kinds.several_answers,
            [
                {"fraud_label": "no", "fraud_score": 0.75},
                {"kind_label": "cash", "kind_score": 0.75},
            ],
            ["fraud no 75%", "kind cash 75%"],
        ),
        (
            kinds.several_values,
            [{"weight": pytest.approx(1.6)}, {"height": pytest.approx(0.625)}],
            ["weight 1.6", "height 0.625"],
        ),
    ],
)
def test_answers_to_the_whole(make, documents, words):
    model = make()
    found = detections_of(model.task, model.predict_columns(FEATURES))
    assert [one.as_dict(640, 480) for one in found] == documents
    assert [one.words for one in found] == words


def test_of_arrays_there_is_all_and_nothing_to_draw():
    model = kinds.picture_tensors()
    grey = np.full((1, 4, 6, 3), 51, np.uint8)
    (found,) = detections_of(model.task, model.predict_columns({"image": grey}))
    assert found.as_dict(6, 4) == {"embedding": [51.0, 0.2]}
    assert found.words == ""
    assert found.pairs == [("embedding", "51, 0.2")]
