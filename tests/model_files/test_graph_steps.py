"""How an output is made, by steps that no file is needed for."""

from dataclasses import dataclass

import pytest

from mlopsdeploy.model_files.graph_steps import made


@dataclass(eq=False)
class Step:
    type: str
    inputs: tuple = ()
    varies: bool = True
    value: float | None = None
    shape: tuple = (None, 10)
    axis: int | None = None
    places: tuple | None = None
    place: str = ""
    is_bool: bool = False

    @property
    def key(self):
        return id(self)


def activated(kind):
    return Step(kind, (Step("MatMul", (Step("Placeholder"),)),))


def test_what_is_joined_over_and_over_is_looked_at_once():
    step = activated("Sigmoid")
    for _ in range(60):
        step = Step("ConcatV2", (step, step, step), axis=1)
    assert made(step).kind == "sigmoid"
    for _ in range(5000):
        step = Step("Identity", (step,))
    assert made(step).kind == "", "too deep to tell"


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
def test_a_mean_of_probabilities_is_nothing_known(kind):
    both = Step("AddV2", (activated(kind), activated(kind)))
    mean = Step("Mul", (both, Step("Const", varies=False, value=0.5)))
    assert made(mean).kind == made(both).kind == ""
    named = f"AddV2 of {kind.lower()} and {kind.lower()}"
    assert named in made(both).source


NUMBER = Step("Const", varies=False, value=1.0)
TINY = Step("Const", varies=False, value=1e-7)


@pytest.mark.parametrize(
    ("kind", "first", "second", "found"),
    [
        ("Mul", NUMBER, None, "sigmoid"), ("Mul", None, NUMBER, "sigmoid"),
        ("AddV2", TINY, None, "sigmoid"), ("AddV2", None, NUMBER, "values"),
        ("RealDiv", None, NUMBER, "sigmoid"), ("RealDiv", NUMBER, None, "values"),
        ("Sub", NUMBER, None, "sigmoid"), ("Sub", None, NUMBER, "values"),
    ],
)  # fmt: skip
def test_what_leaves_a_probability_one(kind, first, second, found):
    shares = activated("Sigmoid")
    assert made(Step(kind, (first or shares, second or shares))).kind == found


def column(place, classes=2):
    shares = Step("Softmax", (Step("MatMul", (Step("Placeholder"),)),), shape=(None, classes))
    return Step("StridedSlice", (shares,), shape=(None, 1), places=(place,))


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (column(1), "sigmoid"), (column(0), ""), (column(0, 3), ""),
        (Step("Sub", (NUMBER, column(0))), "sigmoid"), (Step("Sub", (NUMBER, column(1))), ""),
        (Step("Sub", (NUMBER, column(0, 3))), ""), (Step("Mul", (column(0), TINY)), ""),
        (Step("Log", (column(1),)), ""), (Step("Exp", (Step("Log", (column(1),)),)), "sigmoid"),
        (Step("Exp", (Step("Log", (column(0),)),)), ""),
    ],
)  # fmt: skip
def test_a_column_of_a_softmax(step, found):
    assert made(step).kind == found


def test_a_sum_of_linear_layers_is_linear():
    part = Step("MatMul", (Step("Placeholder"),))
    assert made(Step("AddV2", (part, Step("MatMul", (Step("Placeholder"),))))).kind == "linear"
