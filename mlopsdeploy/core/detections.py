"""What a task found on a picture, as every strategy shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Columns, Task
from mlopsdeploy.core import answers

OBJECT = AnswerColumns("label", "score")


@dataclass(frozen=True)
class Detection:
    """One object, or an answer to the whole picture.

    Attributes:
        label: its name; empty where the answer has none.
        score: 0 to 1, or what else the number of `answer` is; None where it has none.
        box: x1, y1, x2, y2 relative to the picture, 0 to 1; None for the whole picture.
        answer: the columns that it comes from.
        values: of a task that counts nothing, such as one of tensors, all that it outputs.
        track: number of the object over frames; None where nothing follows it, or not yet.
    """

    label: str
    score: float | None
    box: tuple[float, float, float, float] | None = None
    answer: AnswerColumns = OBJECT
    values: Mapping[str, Any] = field(default_factory=dict)
    track: int | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names and values, for people: `cat` and `97%`, `value` and `31.4`; of arrays a glance."""
        if self.values:
            return [(name, answers.glance(value)) for name, value in self.values.items()]
        number = ""
        if self.score is not None:
            number = (
                f"{self.score:.0%}" if self.answer.is_probability else answers.figure(self.score)
            )
        label = answers.spoken(self.label)
        name = self.answer.name or ("" if label else self.answer.number)
        return [(" ".join(filter(None, (name, label))), number)]

    @property
    def words(self) -> str:
        """The same in one: `cat 97%`; empty where arrays are all there is."""
        return "" if self.values else " ".join(filter(None, *self.pairs))

    @property
    def order(self) -> float:
        """The surest is the highest."""
        return self.score if self.score is not None and self.answer.is_probability else 0.0

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int] | None:
        """The box in pixels of a picture of that size."""
        if self.box is None:
            return None
        x1, y1, x2, y2 = self.box
        return round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)

    def as_dict(self, width: int, height: int) -> dict[str, Any]:
        """The same for JSON."""
        found: dict[str, Any] = dict(self.values)
        if self.answer.label:
            found[self.answer.label] = self.label
        if self.score is not None:
            rounded = round(self.score, 4) if self.answer.is_probability else self.score
            found[self.answer.number] = rounded
        if self.box is not None:
            found["box"] = self.pixels(width, height)
            found["relative"] = [round(side, 5) for side in self.box]
        if self.track is not None:
            found["track"] = self.track
        return found


def detections_of(task: Task, predictions: Columns, row: int = 0) -> tuple[Detection, ...]:
    """What a task says of a row: the objects of a detector, or its answers to the whole picture.

    A row without an answer, or without a label where answers have one, has none.
    """
    if task.finds_objects:
        (answer,) = task.answers
        labels, scores = predictions[answer.label][row], predictions[answer.number][row]
        boxes = np.asarray(predictions["boxes"][row], np.float32).tolist()
        return tuple(
            Detection(str(label), float(score), tuple(box), answer)
            for label, score, box in zip(labels, scores, boxes, strict=True)
        )
    values = answers.document(task, predictions, row)
    if not task.answers:
        return (Detection("", None, answer=AnswerColumns(), values=values),)
    return tuple(
        Detection(values.get(one.label, ""), values.get(one.number), answer=one)
        for one in task.answers
        if (values[one.label] if one.label else True)
        and not (one.number and values[one.number] is None)
    )
