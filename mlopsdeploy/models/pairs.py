"""Which answer of one model is compared with which of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Array, Columns, Field, Task
from mlopsdeploy.core.model import Model
from mlopsdeploy.errors import ConfigError
from mlopsdeploy.models.data import Rows

SHOWN = 5  # rows that differ most


@dataclass(frozen=True)
class Pair:
    """One answer of two models to the same rows.

    Attributes:
        answers: which columns it consists of, the first model's and the second's.
        predictions: both models' outputs.
        rows: what they answer.
        multi_label: whether a row may have several labels.
        truth: what is right, as it stands in the file; None where nobody says.
        column: where that stands.
    """

    answers: tuple[AnswerColumns, AnswerColumns]
    predictions: tuple[Columns, Columns]
    rows: Rows
    multi_label: bool = False
    truth: Array | None = None
    column: str = ""

    @property
    def name(self) -> str:
        """What the first model calls it; "" where it has no other."""
        return self.answers[0].name

    @property
    def labelled(self) -> bool:
        """Whether both give a label."""
        return bool(self.answers[0].label)

    def both(self, part: str) -> tuple[Array, Array]:
        """A part of the answer, such as `label`: the first model's column and the second's."""
        first, second = (
            predictions[getattr(answer, part)]
            for answer, predictions in zip(self.answers, self.predictions, strict=True)
        )
        return first, second


def pairs_of(
    models: Sequence[Model], predictions: tuple[Columns, Columns], rows: Rows, column: str | None
) -> list[Pair]:
    """The answers of two models by name, or by place where the names differ.

    Raises:
        ConfigError: they don't have the same kinds of answers, or it isn't known of which `column`
            is the truth.
    """
    check_tasks(models[0], models[1])
    first, second = (model.task for model in models)
    matched = _matched(models[0], models[1])
    of = _judged([answer.name for answer, _ in matched], column)
    several = first.multi_label and second.multi_label
    return [
        Pair(
            answers, predictions, rows, several,
            rows.truth if place == of else None, column or "",
        )
        for place, answers in enumerate(matched)
    ]  # fmt: skip


def check_tasks(first: Model, second: Model) -> None:
    """Refuse two models that no rows are for, or whose answers are of different kinds.

    Raises:
        ConfigError: it is so.
    """
    for model in (first, second):
        if model.task.finds_objects:
            raise ConfigError(
                f"{model.name}: finds any number of objects; compare works with answers to a row"
            )
    if first.task.data != second.task.data:
        kinds = [type(model.task).__name__ for model in (first, second)]
        raise ConfigError(
            f"{first.name} is a {kinds[0]}, {second.name} a {kinds[1]}: no rows are for both"
        )
    if not (first.task.answers or second.task.answers):
        outputs_of(first, second)
        return
    for one, other in _matched(first, second):
        if (bool(one.label), bool(one.number)) != (bool(other.label), bool(other.number)) or (
            one.is_probability != other.is_probability
        ):
            raise ConfigError(
                f"{first.name} answers with {_said(one)}, {second.name} with {_said(other)}: only "
                "answers of one kind can be compared"
            )
        if one.scores and len(one.labels) != len(other.labels):
            raise ConfigError(
                f"{first.name} has {len(one.labels)} labels and {second.name} "
                f"{len(other.labels)}: only models with the same labels can be compared"
            )
    if first.task.multi_label != second.task.multi_label:
        several, one_each = (first, second) if first.task.multi_label else (second, first)
        raise ConfigError(
            f"{several.name} may give several labels to a row, {one_each.name} gives one: only "
            "answers of one kind can be compared"
        )


def _matched(first: Model, second: Model) -> list[tuple[AnswerColumns, AnswerColumns]]:
    ours, theirs = first.task.answers, second.task.answers
    if len(ours) != len(theirs):
        raise ConfigError(
            f"{first.name} gives {_listed(first.task)} and {second.name} {_listed(second.task)}: "
            "only models with the same answers can be compared"
        )
    by_name = {answer.name: answer for answer in theirs}
    if {answer.name for answer in ours} == set(by_name):
        return [(answer, by_name[answer.name]) for answer in ours]
    return list(zip(ours, theirs, strict=True))


def match_labels(first: AnswerColumns, second: AnswerColumns) -> tuple[list[int], dict[str, str]]:
    """How as many labels of two models match: by name, in any case; else by place (LABEL_0).

    Returns:
        Where the second model has the first one's labels; empty if in the same places. And, where
        they have other names, the first one's labels with the second's.
    """
    ours, theirs = first.labels, second.labels
    names = [label.casefold() for label in ours]
    other = [label.casefold() for label in theirs]
    if sorted(names) != sorted(other):
        return [], dict(zip(ours, theirs, strict=True))
    return [] if names == other else [other.index(name) for name in names], {}


def outputs_of(first: Model, second: Model) -> list[tuple[Field, Field]]:
    """The outputs of two models whose answers are tensors, by name; alone in each, by place.

    Raises:
        ConfigError: they have other outputs, or outputs of other shapes.
    """
    ours, theirs = first.task.outputs, second.task.outputs
    there = {field.name: field for field in theirs}
    alone = len(ours) == len(theirs) == 1
    if not alone and {field.name for field in ours} != set(there):
        names = (", ".join(field.name for field in fields) for fields in (ours, theirs))
        raise ConfigError(
            f"{first.name} outputs {next(names)} and {second.name} {next(names)}: only models with "
            "the same outputs can be compared"
        )
    return [(field, theirs[0] if alone else there[field.name]) for field in ours]


def _listed(task: Task) -> str:
    answers = task.answers
    if len(answers) == 1:
        return "one answer"
    return f"{len(answers)} answers" if answers else "tensors"


def _said(answer: AnswerColumns) -> str:
    return " and ".join(name for name in (answer.label, answer.number) if name)


def _judged(names: Sequence[str], column: str | None) -> int:
    """The place of the answer that a column of the file is the truth of."""
    if column is None or len(names) == 1:
        return 0
    if column in names:
        return names.index(column)
    raise ConfigError(
        f"--label-column {column}: the models have several answers ({', '.join(names)}); give the "
        "column the name of the one that it is the truth of"
    )


def most_different(pair: Pair, order: Array, differs: Array) -> list[dict[str, Any]]:
    """The first of the rows in an order, as far as they differ: what they are and both answers."""
    return [
        {
            "row": excerpt(pair.rows, place),
            **{
                f"{part}s": [_plain(values[place]) for values in pair.both(part)]
                for part in ("label", "number")
                if getattr(pair.answers[0], part)
            },
        }
        for place in order[:SHOWN].tolist()
        if differs[place]
    ]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def excerpt(rows: Rows, place: int) -> str:
    """What people know a row by: its text, its picture's name, its first numbers."""
    if rows.names is not None:
        return str(rows.names[place])
    texts = [v[place] for v in rows.columns.values() if v.dtype == object]
    if len(texts) == 1 and isinstance(texts[0], str):
        text = " ".join(texts[0].split())
        return f"{text[:117]}…" if len(text) > 118 else text
    pairs = [f"{name} {_short(values[place])}" for name, values in rows.columns.items()]
    return ", ".join(pairs[:4]) + (", …" if len(pairs) > 4 else "")


def _short(value: Any) -> str:
    if isinstance(value, str) or value is None:
        return str(value)
    flat = np.asarray(value).reshape(-1)[:4].tolist()
    more = ", …" if np.size(value) > len(flat) else ""
    text = ", ".join(f"{one:.6g}" if isinstance(one, int | float) else str(one) for one in flat)
    return f"[{text}{more}]" if np.ndim(value) else text
