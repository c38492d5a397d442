"""What a model takes, by everything that can tell."""

from dataclasses import replace

import numpy as np
import pytest

from mlopsdeploy.columns import Field, ModelFiles, Quantization, TaskOptions, Written
from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.errors import DoubtError, ModelError
from mlopsdeploy.tasks.pictures import Pictures, read_input

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class Tensors:
    """A runtime's inputs, without the runtime."""

    outputs = ()

    def __init__(self, shape=(30, 40, 3), dtype="float32", quantization=None, others=()):
        self.inputs = (Field("x", "float32" if quantization else dtype, shape), *others)
        self.quantization = {"x": quantization} if quantization else {}


def files(said=None, **metadata):
    yaml = ModelYaml.model_validate({"input": said} if said else {})
    return ModelFiles("m", "", "", "", {}, yaml=yaml, metadata=metadata)


def understood(tensors, found=None, doubts=None, **how):
    options = TaskOptions(doubts=[] if doubts is None else doubts)
    made, facts = read_input(found or files(), tensors, options, **how)
    return made, {entry.name: entry for entry in facts}


@pytest.mark.parametrize(
    ("said", "metadata", "quantization", "expected", "why"),
    [
        ({"mean": 10, "std": [1, 2, 3]}, {"mean": [5.0]}, None, ((10,), (1, 2, 3)), "the YAML"),
        (None, {"mean": [0.0], "std": [255.0]}, None, ((0,), (255,)), "the file's metadata"),
        (None, {}, ("uint8", 1 / 128, 128), ((127.5,), (127.5,)), "quantisation holds -1 to 0.992"),
        (None, {}, ("int8", 1 / 255, -128), ((0,), (255,)), "quantisation holds 0 to 1"),
        (None, {}, ("uint8", 1.0, 0), ((0,), (1,)), "quantisation holds 0 to 255"),
        (None, {}, ("uint8", 0.01866, 114), IMAGENET, "quantisation"),
        (None, {"quantises_to": {"low": -1.0, "high": 1.0}}, None, ((127.5,), (127.5,)), "first"),
    ],
)
def test_normalisation_and_where_it_is_from(said, metadata, quantization, expected, why):
    tensors = Tensors(quantization=Quantization(*quantization) if quantization else None)
    made, facts = understood(tensors, files(said, **metadata))
    assert (made.mean, made.std) == expected
    assert why in facts["normalisation"].source


CAFFE = [103.939, 116.779, 123.68]


@pytest.mark.parametrize(
    ("said", "written", "color"),
    [
        ({"mean": CAFFE}, Written(), "BGR"),
        ({"mean": CAFFE, "color": "rgb"}, Written(), "RGB"),
        ({"mean": CAFFE[::-1]}, Written(), "RGB"),
        ({"mean": 0}, Written(color="bgr"), "BGR"),
    ],
    ids=["Caffe's means", "the YAML's word", "the other order", "within the graph"],
)
def test_the_order_of_channels_by_their_means(said, written, color):
    _, facts = understood(Tensors(), replace(files(said), written=written))
    assert facts["colour"].value == color


def test_what_nothing_tells_is_a_doubt():
    with pytest.raises(DoubtError, match=r"which numbers its pixels become: 0 to 1 \(input: "):
        read_input(files(), Tensors(), TaskOptions())
    doubts = []
    _, facts = understood(Tensors(), doubts=doubts)
    assert len(doubts) == 1
    assert facts["normalisation"].source == "nothing (a guess)"


def test_what_the_author_wrote_goes_before_the_shape_of_things():
    told = replace(files(), written=Written(pixels=((0.0,), (1.0,), "Rescaling within")))
    made, facts = understood(Tensors(), told)
    assert (made.mean, made.std) == ((0,), (1,))
    assert facts["normalisation"].source == "Rescaling within"


@pytest.mark.parametrize(
    ("shape", "said"),
    [((30, 40), {"std": 255}), ((1200,), {"size": [30, 40], "color": "gray", "std": 255})],
)
def test_grey_pictures_without_an_axis_for_it(shape, said):
    made, _ = understood(Tensors(shape), files(said))
    assert (made.size, made.color) == ((30, 40), "gray")
    pictures = np.full((2, 30, 40, 3), 51, np.uint8)
    encoded = Pictures(made).encode(pictures)["x"]
    assert encoded.shape == (2, *shape)
    np.testing.assert_allclose(encoded, 0.2, atol=1e-6)


def test_a_quantisation_unlike_any_other_spreads_the_pixels_over_it():
    tensors = Tensors(quantization=Quantization("uint8", 0.05, 20))
    made, _ = understood(tensors)
    assert Pictures(made).path == "the pixels as they are"


def test_yolo_takes_zero_to_one_in_a_letterbox():
    made, facts = understood(Tensors(), letterbox=True, from_zero=True)
    assert (made.mean, made.std, made.letterbox) == ((0,), (255,), True)
    assert facts["normalisation"].source == "the custom of such models"
    made, _ = understood(Tensors(), files({"resize": "stretch"}), letterbox=True)
    assert not made.letterbox


@pytest.mark.parametrize(
    ("shape", "color", "first"),
    [
        ((30, 40, 3), "rgb", False),
        ((30, 40, 1), "gray", False),
        ((3, 30, 40), "rgb", True),
        ((1, 30, 40), "gray", True),
    ],
)
def test_channels_by_the_shape(shape, color, first):
    made, _ = understood(Tensors(shape))
    assert (made.size, made.color, made.channels_first) == ((30, 40), color, first)


def test_an_open_size_is_said_somewhere_or_asked_for():
    open_size = Tensors((-1, -1, 3))
    assert understood(open_size, files({"size": [20, 30]}))[0].size == (20, 30)
    assert understood(open_size, files(size=(8, 9)))[0].size == (8, 9)
    with pytest.raises(ModelError, match=r"any size; say which .* 'input: \{size:"):
        understood(open_size)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"mean": [1, 2]}, r"mean \[1.0, 2.0\] and std \[1.0\]"),
        ({"std": [1, 2]}, r"mean \[0.0\] and std \[1.0, 2.0\]"),
    ],
)
def test_a_wrong_setting_is_one_line(said, shown):
    with pytest.raises(ModelError, match=f"{shown} of the YAML are not one number"):
        understood(Tensors(), files(said))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (Tensors((10,)), "takes 10 numbers; as a picture they need a size"),
        (Tensors((2, 3, 4, 5)), "and not one picture"),
        (Tensors(others=(Field("y", "float32", (3,)),)), "and not one picture"),
        (Tensors((30, 40, 7)), "no picture of one or three channels"),
    ],
)
def test_a_model_that_takes_no_picture_is_one_line(tensors, message):
    with pytest.raises(ModelError, match=message):
        understood(tensors)
