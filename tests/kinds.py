"""Models of every kind of answer, in memory: real tasks and runtimes, as an outside package has."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Columns, Field, Task, objects, rows_of
from mlopsdeploy.core.model import Model


class Numpy:
    """A runtime that is one function."""

    name, precision, streams, batch_scale = "numpy", "float32", 1, 1
    formats: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = ()
    metadata: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        run: Callable[[Columns], Columns],
        inputs: tuple[Field, ...] = (),
        outputs: tuple[Field, ...] = (),
    ) -> None:
        self.run, self.inputs, self.outputs = run, inputs, outputs


class Kind(Task):
    """Takes columns as they are, and gives what the runtime does."""

    batch_cost = 8
    decoded: Callable[[Columns], Columns] | None = None

    def __init__(self, inputs: tuple[Field, ...], outputs: tuple[Field, ...], **more: Any) -> None:
        self.inputs, self.outputs = inputs, outputs
        for name, value in more.items():
            setattr(self, name, value)

    def encode(self, columns: Columns) -> Columns:
        if self.matrix is not None and self.matrix.name not in columns:
            return {self.matrix.name: np.column_stack([columns[one.name] for one in self.inputs])}
        return columns

    def cost(self, encoded: Columns) -> Any:
        return np.ones(rows_of(encoded), np.int64)

    def collate(self, encoded: Columns) -> Columns:
        return encoded

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        made = self.decoded(tensors) if self.decoded else tensors
        return {field.name: made[field.name] for field in self.outputs}


def model(task: Kind, run: Callable[[Columns], Columns], *raw: Field) -> Model:
    runtime = Numpy(run, task.inputs, raw or task.outputs)
    return Model("made", "2", "0" * 64, task, runtime)


THREE = tuple(Field(name, "float32") for name in ("area", "rooms", "age"))
MATRIX = Field("features", "float32", (3,))
LABEL = Field("label", "str")


def _total(tensors: Columns) -> Any:
    return tensors["features"].sum(axis=1)


def regression() -> Model:
    """A house's price: area times a million, so that six digits are not enough."""
    task = Kind(THREE, (Field("value", "float32"),), matrix=MATRIX)
    task.decoded = lambda tensors: {"value": tensors["dense_2"][:, 0]}

    def run(tensors: Columns) -> Columns:
        return {"dense_2": tensors["features"] @ np.array([[1e6], [1000], [-1]], np.float32)}

    return model(task, run, Field("dense_2", "float32", (1,)))


def several_values() -> Model:
    outputs = Field("weight", "float32"), Field("height", "float64")
    answers = tuple(AnswerColumns(number=one.name, name=one.name) for one in outputs)
    task = Kind(THREE, outputs, matrix=MATRIX, answers=answers)
    return model(task, lambda t: {"weight": _total(t), "height": 1 / _total(t).astype(np.float64)})


def clusters() -> Model:
    outputs = LABEL, Field("distance", "float32")
    task = Kind(THREE, outputs, matrix=MATRIX, answers=(AnswerColumns("label", "distance"),))

    def run(tensors: Columns) -> Columns:
        total = _total(tensors)
        place = np.where(np.isnan(total), 0, np.rint(total)).astype(int)
        label = objects([*map(str, place)])
        return {"label": label, "distance": np.abs(total - place).astype(np.float32)}

    return model(task, run)


def several_answers() -> Model:
    """Two classifiers in one."""

    def columns(name: str) -> tuple[Field, ...]:
        return (
            Field(f"{name}_label", "str"), Field(f"{name}_score", "float32"),
            Field(f"{name}_scores", "float32", (2,)),
        )  # fmt: skip

    named = {"fraud": ("no", "yes"), "kind": ("card", "cash")}
    answers = tuple(
        AnswerColumns(f"{name}_label", f"{name}_score", f"{name}_scores", labels, name)
        for name, labels in named.items()
    )
    outputs = columns("fraud") + columns("kind")
    task = Kind(THREE, outputs, matrix=MATRIX, answers=answers)

    def run(tensors: Columns) -> Columns:
        made = {}
        for place, (name, labels) in enumerate(named.items()):
            second = np.clip(tensors["features"][:, place], 0, 1)
            scores = np.column_stack([1 - second, second]).astype(np.float32)
            top = scores.argmax(axis=1)
            made[f"{name}_label"] = objects([labels[one] for one in top])
            made[f"{name}_score"] = scores.max(axis=1)
            made[f"{name}_scores"] = scores
        return made

    return model(task, run)


LABELS = ("toxic", "threat", "insult")


def multi_label() -> Model:
    """Labels whose feature is a half at least."""
    outputs = LABEL, Field("score", "float32"), Field("scores", "float32", (3,))
    task = Kind(THREE, outputs, matrix=MATRIX, labels=LABELS, multi_label=True, threshold=0.5)

    def run(tensors: Columns) -> Columns:
        scores = np.clip(tensors["features"], 0, 1).astype(np.float32)
        named = ["|".join(np.array(LABELS)[row >= 0.5]) for row in scores]
        return {"label": objects(named), "score": scores.max(axis=1), "scores": scores}

    return model(task, run)


def window() -> Model:
    """The mean of 8 steps of 3 sensors."""
    task = Kind((Field("window", "float32", (8, 3)),), (Field("value", "float32"),))
    return model(task, lambda t: {"value": t["window"].mean(axis=(1, 2))})


def tensors() -> Model:
    """Arrays of several types and ranks, as they are."""
    inputs = (
        Field("tokens:0", "int64", (-1,)), Field("grid", "float32", (2, 3)), Field("word", "str"),
    )  # fmt: skip
    outputs = (
        Field("hidden.state", "float32", (-1, 2)), Field("twice", "float64", (2, 3)),
        Field("even", "bool", (-1,)), Field("said", "str"), Field("version", "int8"),
    )  # fmt: skip
    task = Kind(inputs, outputs, answers=(), data="table")

    def run(given: Columns) -> Columns:
        tokens = given["tokens:0"]
        return {
            "hidden.state": np.stack([tokens, tokens / 3], axis=2).astype(np.float32),
            "twice": given["grid"].astype(np.float64) * 2,
            "even": tokens % 2 == 0,
            "said": objects([f"{word}!" for word in given["word"].tolist()]),
            "version": np.full(len(tokens), 7, np.int8),
        }

    return model(task, run)


def _brightness(given: Columns) -> Columns:
    return {"value": np.array([one.mean() for one in given["image"]], np.float32)}


PICTURE = (Field("image", "uint8", (-1, -1, 3)),)


def picture_regression() -> Model:
    return model(Kind(PICTURE, (Field("value", "float32"),)), _brightness)


def picture_tensors() -> Model:
    outputs = (Field("embedding", "float32", (2,)),)

    def run(given: Columns) -> Columns:
        bright = _brightness(given)["value"]
        return {"embedding": np.column_stack([bright, bright / 255]).astype(np.float32)}

    return model(Kind(PICTURE, outputs, answers=(), data="image"), run)


ALL = (
    regression, several_values, clusters, several_answers, multi_label, window, tensors,
    picture_regression, picture_tensors,
)  # fmt: skip
