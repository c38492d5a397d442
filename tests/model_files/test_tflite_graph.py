"""What the operators of a `.tflite` file tell, by the names that its runtime has for tensors."""

import numpy as np
import pytest

from mlopsdeploy import load_model
from mlopsdeploy.errors import DoubtError
from mlopsdeploy.model_files import tflite_metadata
from mlopsdeploy.model_files.written import read_written
from mlopsdeploy.runtimes.litert import LiteRT


def graph(tflite_models, name):
    return tflite_metadata.read(tflite_models / f"{name}.tflite")["graph"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("row_linear", "linear"),
        ("row_relu", "values"),
        ("row_softmax", "softmax"),
        ("row_sigmoid", "sigmoid"),
        ("row_rest", "softmax"),
        ("row_second", "sigmoid"),
        ("row_second_taken", "sigmoid"),
        ("row_second_split", "sigmoid"),
        ("row_second_of_sizes", "sigmoid"),
        ("row_second_unstacked", "sigmoid"),
        ("row_second_sliced", "sigmoid"),
        ("row_first", ""),
        ("row_first_sliced", ""),
        ("row_first_taken", ""),
        ("row_exp_log_second", "sigmoid"),
        ("row_log_second", ""),
        ("row_log", "logits"),
        ("softmax", "softmax"),
        ("softmax_int8", "softmax"),
        ("softmax_uint8", "softmax"),
        ("softmax_float16", "softmax"),
        ("quantised_inside", "softmax"),
        ("sigmoid", "sigmoid"),
        ("row_ids", ""),
        ("post_process", ""),
    ],
)
def test_how_the_first_output_is_made(tflite_models, name, kind):
    made = next(iter(graph(tflite_models, name).outputs.values()))
    assert made.kind == kind
    assert made.source.startswith("its last step, ")


@pytest.mark.parametrize("name", ["row_second", "row_exp_log_second"])
def test_the_second_column_of_a_softmax_is_the_second_class(tflite_models, name):
    rows = np.float32([[1, 0, 0, 1], [0, -2, 1, 0], [-3, 1, 0, 0]])
    whole = LiteRT(tflite_models / "row_softmax.tflite").run({"row": rows})["scores"]
    found = load_model(str(tflite_models / f"{name}.tflite"), threads=1).predict(rows)
    np.testing.assert_allclose(found["scores"][:, 1], whole[:, 1], rtol=1e-5)


@pytest.mark.parametrize("name", ["row_first", "row_log_second"])
def test_the_first_column_of_a_softmax_is_asked_about(tflite_models, name):
    with pytest.raises(DoubtError, match="of which (the first class|a part) is given"):
        load_model(str(tflite_models / f"{name}.tflite"), threads=1)


def test_several_outputs_have_the_names_that_the_runtime_has(tflite_models):
    path = tflite_models / "row_several.tflite"
    written = read_written(path)
    kinds = {name: made.kind for name, made in written.outputs.items()}
    assert kinds == {"chance": "sigmoid", "price": "linear", "kind": "label"}
    assert {*kinds} == {field.name for field in LiteRT(path).outputs}


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("takes_pixels", 0, 1), ("softmax", 127.5, 127.5), ("softmax_float16", 127.5, 127.5)],
)
def test_what_pixels_must_be_from_the_first_steps(tflite_models, name, mean, std):
    pixels = graph(tflite_models, name).pixels
    assert pixels[:2] == ((mean,), (std,))
    assert pixels[2].startswith("its first steps make 0 to 1 of ")


@pytest.mark.parametrize("name", ["zero_to_one", "softmax_int8", "row_linear"])
def test_what_begins_with_nothing_tells_nothing_of_pixels(tflite_models, name):
    assert graph(tflite_models, name).pixels is None


@pytest.mark.parametrize("name", ["row_ids", "row_float_ids"])
def test_how_large_the_table_of_an_input_is(tflite_models, name):
    assert graph(tflite_models, name).sizes == {"row": 7}


def test_what_draws_at_random(tflite_models):
    assert "draws random numbers" in graph(tflite_models, "row_random").changing
    assert not graph(tflite_models, "row_linear").changing
