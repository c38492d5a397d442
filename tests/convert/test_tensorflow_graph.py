"""What a model's author wrote is read in Keras' files and in SavedModels."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def found(once_by):
    """What written_models.py read, by the name of its model."""
    folder = once_by(Path(__file__).with_name("written_models.py"))
    return json.loads((folder / "written.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "kind", "source"),
    [
        ("softmax", "softmax", "its last step, Softmax in last"),
        ("sigmoid", "sigmoid", "its last step, Sigmoid in last"),
        ("linear", "linear", "its last step, MatMul in last, with no activation"),
        ("unbiased", "linear", "MatMul"),
        ("relu", "values", "Relu"),
        ("gelu", "values", "a product"),
        ("silu", "values", "a product"),
        ("softplus", "values", "Softplus"),
        ("hard_sigmoid", "sigmoid", "a hard sigmoid"),
        ("log_softmax", "logits", "LogSoftmax"),
        ("layer_softmax", "softmax", "Softmax in softmax"),
        ("layer_sigmoid", "sigmoid", "Sigmoid in activation"),
        ("normalised", "linear", "with no activation"),
        ("moved", "sigmoid", "its last step, Sigmoid"),
        ("flat", "softmax", "Softmax"),
        ("ratings", "values", "after Sigmoid"),
        ("rescaled", "linear", "MatMul in three"),
        ("written_out", "softmax", "a softmax written out"),
        ("largest", "label", "ArgMax"),
        ("one_of", "sigmoid", "Softmax, of which a part is given"),
        ("second", "sigmoid", "Softmax, of which a part is given"),
        ("second_taken", "sigmoid", "Softmax, of which a part is given"),
        ("second_split", "sigmoid", "Softmax, of which a part is given"),
        ("second_unstacked", "sigmoid", "Softmax, of which a part is given"),
        ("first", "", "Softmax, of which the first class is given"),
        ("first_kept", "", "Softmax, of which the first class is given"),
        ("first_from_end", "", "Softmax, of which the first class is given"),
        ("first_taken", "", "Softmax, of which the first class is given"),
        ("first_split", "", "Softmax, of which the first class is given"),
        ("two_of", "", "Softmax, of which a part is given"),
        ("turned", "", "Softmax, of which a part is given"),
        ("all_but_first", "sigmoid", "Softmax, of which the first class is given"),
        ("all_but_second", "", "Softmax, of which a part is given"),
        ("a_time", "softmax", "Softmax"),
        ("a_class_in_time", "", "Softmax, of which the first class is given"),
        ("log", "logits", "Log of a softmax"),
        ("log_of_second", "", "LogSoftmax, of which a part is given"),
        ("log_of_sigmoid", "", "Log of a sigmoid"),
        ("log_sigmoid", "", ""),
        ("log_of_first", "", "of which the first class is given"),
        ("exp_log", "softmax", "Exp of LogSoftmax"),
        ("exp_log_second", "sigmoid", "Exp of LogSoftmax, of which a part is given"),
        ("exp_log_first", "", "Exp of LogSoftmax, of which the first class is given"),
        ("exp_log_sigmoid", "sigmoid", "Exp of Log of a sigmoid"),
        ("exp_alone", "values", "Exp"),
        ("rest", "softmax", "what is left of 1"),
        ("heads", "sigmoid", "Sigmoid"),
        ("hard_sigmoid_of_2", "sigmoid", "a hard sigmoid"),
        ("bounded", "values", "Minimum"),
        ("clipped", "sigmoid", "Sigmoid"),
        ("steps", "softmax", "in time_distributed"),
        ("nested", "softmax", "Softmax"),
        ("mae_sigmoid_keras", "", "trained with mean_absolute_error: a probability, or a value?"),
        ("logit_h5", "logits", "the loss it was trained with, binary_crossentropy from logits"),
        ("logits_keras", "logits", "sparse_categorical_crossentropy from logits"),
        ("label_logits_keras", "sigmoid logits", "binary_crossentropy from logits"),
        ("plain_loss_h5", "", "with no activation, but trained with"),
        ("classes_keras", "softmax", "Softmax"),
        ("again_sigmoid", "", "of the shape of its input: that again, or probabilities?"),
        ("again_labels", "sigmoid", "Sigmoid"),
        ("keras_2", "values", "the loss it was trained with, mean_squared_error"),
        ("keras_2_untrained", "linear", "with no activation"),
        ("keras_2_damaged", "linear", "with no activation"),
    ],
)
def test_how_an_output_is_made(found, name, kind, source):
    (made,) = found[name]["outputs"].values()
    assert made[0] == kind
    assert source in made[1]


def test_each_of_several_outputs(found):
    two, saved = (found[name]["outputs"] for name in ("two", "saved"))
    assert (two["risk"][0], two["days"][0]) == ("sigmoid", "values")
    for name in ("two_losses", "keras_2_list", "keras_2_dict"):
        outputs = found[name]["outputs"]
        assert (outputs["price"][0], outputs["kind"][0]) == ("values", "logits")
    assert (saved["scores"][0], saved["sum"][0]) == ("softmax", "linear")


@pytest.mark.parametrize(
    ("name", "task", "source"),
    [
        ("mse_keras", "regression", "mean_squared_error"),
        ("mse_h5", "regression", "mean_squared_error"),
        ("huber_keras", "regression", "huber"),
        ("keras_2", "regression", "mean_squared_error"),
        ("classes_h5", "classification", "sparse_categorical_crossentropy"),
        ("again", "reconstruction", "an output like its input, narrower in between"),
        ("again_wide", "regression", "mean_squared_error"),
        ("again_untrained", "", ""),
        ("again_sigmoid", "", ""),
        ("two_losses", "", ""),
        ("linear", "", ""),
    ],
)
def test_what_a_model_is_for(found, name, task, source):
    assert found[name].get("task", "") == task
    assert source in found[name].get("task_source", "")


@pytest.mark.parametrize(
    ("name", "mean", "std", "source"),
    [
        ("pixels_255", 0, 1, "its first steps, in to_one, make 0 to 1 of 0 to 255"),
        ("pixels_255_signed", 0, 1, "make -1 to 1 of 0 to 255"),
        ("pixels_one", 0, 255, "make -1 to 1 of 0 to 1"),
        ("pixels_signed", 127.5, 127.5, "make 0 to 255 of -1 to 1"),
        ("pixels_mean", 0, 1, "normalization"),
        ("pixels_of_one", 0, 255, "of 0 to 1"),
        ("pixels_both", 0, 1, "of 0 to 255"),
        ("pixels_resized", 0, 1, "of 0 to 255"),
        ("pixels_gray", 0, 1, "of 0 to 255"),
        ("pixels_nested", 0, 1, "of 0 to 255"),
        ("pixels_caffe", 0, 1, "make -124 to 151 of 0 to 255"),
        ("pixels_tf", 0, 1, "make -1 to 1 of 0 to 255"),
        ("saved_picture", 0, 1, "make 0 to 1 of 0 to 255"),
    ],
)
def test_pixels(found, name, mean, std, source):
    pixels = found[name]["pixels"]
    assert pixels[:2] == [[mean], [std]]
    assert source in pixels[2]


def test_nothing_is_made_up(found):
    assert "pixels" not in found["pixels_unsaid"]
    assert "changing" not in found["pixels_resized"], "Resizing is no augmentation"


def test_tables(found):
    assert [*found["ids"]["sizes"].values()] == [50]
    assert [*found["masked"]["sizes"].values()] == [70]
    assert found["two_tables"]["sizes"] == {"user": 9, "item": 30}


def test_what_is_trained_wherever_it_is_called(found):
    assert "called with training=True" in found["dropping"]["changing"]
