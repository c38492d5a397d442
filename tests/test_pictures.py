"""Pictures from bytes: right side up, in bounds, and a reason where that can't be."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from mlopsdeploy.pictures import decode


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_pixels_come_back(suffix):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(decode(encoded(image, suffix)), image)


def test_a_grey_picture_has_three_channels():
    assert decode(encoded(np.full((4, 6), 9, np.uint8))).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not a picture", "not a picture"), (encoded(np.zeros((9, 9)))[:30], "read")],
)
def test_what_is_no_picture_says_so(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode(content)


def test_a_small_file_that_says_it_is_huge_is_refused():
    """In a process of its own, as OpenCV reads its limit when it is loaded."""
    program = (
        "import cv2, sys, numpy as np\n"
        "sys.stdout.buffer.write(cv2.imencode('.png', np.zeros((9000, 9000), np.uint8))[1])"
    )
    bomb = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert len(bomb) < 200_000
    reader = (
        "import sys; from mlopsdeploy.pictures import decode\n"
        "try: decode(sys.stdin.buffer.read())\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", reader], input=bomb, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "the picture has more than 67,108,864 pixels"
