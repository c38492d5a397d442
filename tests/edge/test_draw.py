"""Boxes are green, labels can be read and stay in the picture, whatever its size."""

import numpy as np
import pytest

from mlopsdeploy.core.detections import Detection
from mlopsdeploy.edge.draw import GREEN, draw, text_size


def grey(width, height):
    return np.full((height, width, 3), 128, np.uint8)


def green(image):
    """Where it is the colour of boxes."""
    return (image == np.array(GREEN, np.uint8)).all(axis=2)


def test_a_box_is_drawn_in_place_along_its_sides_and_not_within():
    image = grey(640, 480)
    draw(image, [Detection("cat", 0.9, (0.25, 0.25, 0.75, 0.75))])
    found = green(image)
    assert found[120:360, 160].all()
    assert found[120:360, 480].all()
    assert found[360, 160:480].all()
    assert not found[200:350, 200:450].any()


def test_the_label_stands_at_the_top_left_above_the_box():
    image = grey(640, 480)
    draw(image, [Detection("cat", 0.9, (0.25, 0.25, 0.75, 0.75))])
    tag = image[100:116, 162:190]
    assert green(tag).any()
    assert (tag.sum(axis=2) < 100).any(), "dark letters on it"


@pytest.mark.parametrize(
    "box", [(0, 0, 0.1, 0.1), (0.9, 0, 1, 0.1), (0.9, 0.9, 1, 1), (0, 0, 1, 1)]
)
@pytest.mark.parametrize("size", [(640, 480), (64, 48), (1920, 1080)])
def test_a_label_stays_within_the_picture(box, size):
    alone, labelled = grey(*size), grey(*size)
    draw(alone, [Detection("", 0, box)])
    draw(labelled, [Detection("a label of some length", 0.5, box)])
    assert labelled.shape == alone.shape
    assert green(labelled).sum() > 0.002 * green(labelled).size


def test_lines_and_letters_grow_with_the_picture():
    assert text_size(grey(320, 240)) < text_size(grey(1280, 720)) < text_size(grey(3840, 2160))
    # A panorama has letters for its height.
    assert text_size(grey(4000, 400)) < 20


def test_the_class_of_the_whole_picture_stands_in_its_corner():
    image = grey(640, 480)
    draw(image, [Detection("cat", 0.9)])
    assert green(image)[:20, :40].any()
    assert not green(image)[60:].any()


def test_any_alphabet():
    first, second = grey(640, 480), grey(640, 480)
    draw(first, [Detection("naïve café", 0.5)])
    draw(second, [Detection("naive cafe", 0.5)])
    assert (first != second).any()


def test_nothing_found_leaves_the_picture_as_it_is():
    image = grey(64, 48)
    draw(image, [])
    assert (image == 128).all()
