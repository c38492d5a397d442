"""The built-in detectors: what is drawn in the example's pictures is found where it is drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mlopsdeploy import load_model

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "red_car.jpg"
# Corners in pixels, as recipes/make_clip.py draws them into frame 45.
PLACES = {"Chair": (467, 47, 598, 232), "Car": (182, 250, 458, 345)}


@pytest.fixture(scope="module", params=["detector", "detector-fast"])
def detector(request):
    return load_model(request.param, threads=1)


def found(detector, picture):
    """Corners in pixels by label."""
    column = np.empty(1, object)
    column[0] = picture
    answer = detector.predict({"image": column})
    height, width = picture.shape[:2]
    boxes = answer["boxes"][0] * (width, height, width, height)
    return dict(zip(answer["label"][0], boxes, strict=True))


def framed(picture, *, above=0, below=0, left=0, right=0):
    return cv2.copyMakeBorder(
        picture, above, below, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
    )


@pytest.mark.parametrize(
    "border", [{}, {"above": 80, "below": 40}, {"left": 20, "right": 10}], ids=str
)
def test_boxes_are_where_things_are(detector, border):
    picture = framed(cv2.imread(str(PHOTO)), **border)
    shift = (border.get("left", 0), border.get("above", 0)) * 2
    boxes = found(detector, picture)
    for label, corners in PLACES.items():
        assert boxes[label] == pytest.approx(np.add(corners, shift), abs=24), label


def test_an_upright_picture(detector):
    picture = framed(cv2.imread(str(PHOTO))[:, 160:], above=160, below=160)  # 480 x 680
    boxes = found(detector, picture)
    corners = np.add(PLACES["Chair"], (-160, 160, -160, 160))
    assert boxes["Chair"] == pytest.approx(corners, abs=24)


def test_black_pictures_have_nothing_in_them(detector):
    assert found(detector, np.zeros((360, 640, 3), np.uint8)) == {}
