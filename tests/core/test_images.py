"""Pictures from bytes: right side up, in bounds, and a reason where that can't be."""

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from mlopsdeploy.core.images import decode, is_whole


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
    [(b"", "empty"), (b"not a picture", "not a picture"), (encoded(np.zeros((9, 9)))[:30], "cut")],
)
def test_what_is_no_picture_says_so(content, reason):
    with pytest.raises(ValueError, match=reason):
        decode(content)


NOISE = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
RESTARTS = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]


@pytest.mark.parametrize(
    ("suffix", "how"),
    [(".jpg", []), (".jpg", PROGRESSIVE), (".jpg", RESTARTS), (".png", []), (".webp", [])],
)
def test_what_is_cut_off_says_so_wherever_that_is(suffix, how):
    content = cv2.imencode(suffix, NOISE, how)[1].tobytes()
    assert decode(content).shape == NOISE.shape
    assert decode(content + b"what a phone adds").shape == NOISE.shape
    for length in (20, 200, len(content) // 2, len(content) - 20, len(content) - 1):
        with pytest.raises(ValueError, match="cut off"):
            decode(content[:length])


@pytest.mark.parametrize("suffix", [".bmp", ".tiff"])
def test_half_of_another_format_is_no_picture(suffix):
    content = encoded(NOISE, suffix)
    with pytest.raises(ValueError, match="not a picture"):
        decode(content[: len(content) // 2])


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture():
    content = encoded(NOISE, ".jpg")
    thumbnail = encoded(NOISE[:8, :8], ".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_thumbnail = content[:2] + segment + content[2:]
    assert np.array_equal(decode(with_thumbnail), decode(content))
    assert not is_whole(with_thumbnail[: len(segment) + 300])


def test_a_png_with_a_wrong_checksum_is_damaged():
    content = bytearray(encoded(NOISE))
    content[len(content) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode(bytes(content))


def test_what_is_damaged_or_a_bomb_is_one_line_of_ours():
    """In a process of its own, as OpenCV reads its limit and what to print when it is loaded."""
    tiff, bomb = encoded(NOISE, ".tiff"), encoded(np.zeros((9000, 9000), np.uint8))
    assert len(bomb) < 200_000
    reader = (
        "import pickle, sys; from mlopsdeploy.core.images import decode\n"
        "assert 'cv2' not in sys.modules\n"
        "for content in pickle.load(sys.stdin.buffer):\n"
        "    try: decode(content)\n"
        "    except ValueError as error: print(error)"
    )
    contents = pickle.dumps([encoded(NOISE)[:900], tiff[: len(tiff) // 2], b"nothing", bomb])
    done = subprocess.run(
        [sys.executable, "-c", reader], input=contents, capture_output=True, check=True
    )
    assert done.stdout.decode().splitlines() == [
        "the picture is cut off or damaged",
        *["not a picture that can be read"] * 2,
        "the picture has more than 67,108,864 pixels",
    ]
    assert done.stderr == b""
