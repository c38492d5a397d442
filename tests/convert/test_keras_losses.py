"""What the loss tells of an output, beside its last layer."""

import pytest

from mlopsdeploy.columns import Made, Written
from mlopsdeploy.convert.keras_losses import Loss, with_losses


def told(kind, loss, width=10):
    written = Written(outputs={"y": Made(kind, "its last step, Dense")})
    return with_losses(written, {"y": loss}, {"y": width}).outputs["y"]


@pytest.mark.parametrize("name", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_a_sigmoid_of_classes_that_exclude_each_other_is_a_doubt(name):
    both = f"Dense, but trained with {name}: labels of their own, or classes"
    assert told("sigmoid", Loss(name)).kind == ""
    assert both in told("sigmoid", Loss(name)).source
    assert told("sigmoid", Loss(name), width=1).kind == "sigmoid"
    assert told("sigmoid", Loss("binary_crossentropy")).kind == "sigmoid"


def test_no_activation_under_a_loss_of_probabilities_is_a_doubt():
    told_so = told("linear", Loss("categorical_crossentropy"))
    assert told_so.kind == ""
    assert "trained with categorical_crossentropy of probabilities, not logits" in told_so.source
    assert told("linear", Loss("categorical_crossentropy", from_logits=True)).kind == "logits"
