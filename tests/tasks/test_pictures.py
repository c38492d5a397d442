"""Pixels to tensors, against the same thing written plainly."""

import cv2
import numpy as np
import pytest

from mlopsdeploy.columns import Field, Quantization
from mlopsdeploy.errors import InputError
from mlopsdeploy.tasks.pictures import SIZES, PictureInput, Pictures

HALF = {"mean": (127.5,), "std": (127.5,)}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def takes(dtype="float32", size=(30, 40), scale=0, zero_point=0, **how):
    quantization = Quantization(dtype, scale, zero_point) if scale else None
    return PictureInput(Field("x", dtype, (*size, 3)), size, quantization=quantization, **how)


def plainly(takes, picture=PICTURE):
    height, width = takes.size
    pixels = cv2.resize(picture, (width, height)).astype(np.float64)
    if takes.color == "gray":
        pixels = cv2.cvtColor(pixels.astype(np.uint8), cv2.COLOR_BGR2GRAY)[..., None].astype(float)
    elif takes.color == "rgb":
        pixels = pixels[..., ::-1]
    pixels = (pixels - takes.mean) / takes.std
    if takes.dtype != "float32":
        limits = np.iinfo(takes.dtype)
        if takes.quantization:
            pixels = pixels / takes.quantization.scale + takes.quantization.zero_point
        pixels = np.clip(np.rint(pixels), limits.min, limits.max)
    pixels = pixels.astype(takes.dtype)
    return pixels.transpose(2, 0, 1) if takes.channels_first else pixels


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize(
    "how",
    [
        HALF,
        {"std": (255.0,)},
        {"dtype": "uint8"},
        {"dtype": "int8", "std": (255.0,), "scale": 1 / 255, "zero_point": -128},
        {"dtype": "int8", "std": (255.0,), "scale": 0.02, "zero_point": -40},
        {"dtype": "uint8", "mean": (100.0,), "std": (60.0,), "scale": 0.02, "zero_point": 114},
    ],
)
def test_pixels_become_what_plain_arithmetic_makes_of_them(how, color, channels_first):
    wanted = takes(color=color, channels_first=channels_first, **how)
    made = Pictures(wanted).encode(PICTURE[None])["x"]
    expected = plainly(wanted)
    assert made.dtype == wanted.dtype
    assert made.shape == (1, *expected.shape)
    np.testing.assert_allclose(made[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "how", [IMAGENET, {**IMAGENET, "dtype": "int8", "scale": 0.0187, "zero_point": -14}]
)
@pytest.mark.parametrize("channels_first", [False, True])
def test_each_channel_has_its_own_mean_in_the_order_of_the_model(how, channels_first):
    wanted = takes(channels_first=channels_first, **how)
    made = Pictures(wanted).encode(PICTURE[None])["x"][0]
    np.testing.assert_allclose(made, plainly(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ({"dtype": "uint8"}, "the pixels as they are"),
        # The usual pair, which differs from the pixels by one step at most.
        ({**HALF, "dtype": "uint8", "scale": 1 / 128, "zero_point": 128}, "the pixels as they are"),
        ({**HALF, "dtype": "int8", "scale": 2 / 255, "zero_point": -1}, "pixel - 128"),
        ({"dtype": "int8", "scale": 0.02, "zero_point": 0}, "a table of 256 entries"),
        ({"std": (255.0,)}, "float arithmetic"),
    ],
)
def test_the_cheapest_way_is_taken(how, path):
    pictures = Pictures(takes(**how))
    assert pictures.path == path
    made = pictures.encode(PICTURE[None])["x"][0].astype(int)
    if "as they are" in path or "128" in path:
        assert np.abs(made - plainly(takes(**how))).max() <= 1


def test_rows_of_different_sizes_and_their_sizes():
    pictures = np.empty(2, object)
    pictures[0], pictures[1] = PICTURE, np.zeros((10, 20, 3), np.uint8)
    made = Pictures(takes("uint8")).encode(pictures)
    assert made["x"].shape == (2, 30, 40, 3)
    assert made[SIZES].tolist() == [[48, 64], [10, 20]]
    np.testing.assert_array_equal(made["x"][0], plainly(takes("uint8")))
    assert not made["x"][1].any()


def test_a_picture_of_the_right_size_and_one_that_is_a_view():
    wanted = takes("uint8", size=(48, 64))
    made = Pictures(wanted).encode(PICTURE[None])["x"][0]
    np.testing.assert_array_equal(made, PICTURE[..., ::-1])
    view = PICTURE[::-1, 10:40]
    made = Pictures(takes("uint8", size=view.shape[:2])).encode(view[None])["x"][0]
    np.testing.assert_array_equal(made, view[..., ::-1])


def test_what_was_made_stays_when_more_is_made():
    pictures = Pictures(takes())
    first = pictures.encode(PICTURE[None])["x"]
    kept = first.copy()
    pictures.encode(np.zeros_like(PICTURE)[None])
    np.testing.assert_array_equal(first, kept)


def test_a_letterbox_keeps_proportions_and_gives_boxes_back():
    wanted = takes("uint8", size=(40, 40), letterbox=True)
    pictures = Pictures(wanted)
    made = pictures.encode(np.full((60, 120, 3), 255, np.uint8)[None])["x"][0]
    assert (made[10:30] == 255).all()
    assert (made[:10] == 114).all()
    assert (made[30:] == 114).all()
    boxes = np.array([[0, 0.25, 1, 0.75], [0.5, 0.5, 1.2, 0.9]], np.float32)
    np.testing.assert_allclose(
        pictures.to_picture(boxes, np.array([60, 120])), [[0, 0, 1, 1], [0.5, 0.5, 1, 1]], atol=1e-6
    )


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.float32),
        np.array([None], object),
    ],
)
def test_what_is_no_picture_is_one_line(wrong):
    with pytest.raises(InputError, match="image 0: expected a BGR picture"):
        Pictures(takes()).encode(wrong)
