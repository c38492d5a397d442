"""A head: how one answer is read off a model's outputs. A task is an input and its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from mlopsdeploy.columns import (
    AnswerColumns,
    Array,
    Columns,
    Fact,
    Field,
    Made,
    ModelFiles,
    Runtime,
    Task,
    TaskOptions,
    rows_of,
)
from mlopsdeploy.errors import ModelError


class Head(Protocol):
    """Reads one answer.

    Attributes:
        outputs: the columns that it makes.
        answers: which of them are what; several where a head reads several values.
        labels, multi_label, threshold: as a `Task` has them.
        facts: what was understood, and why.
    """

    outputs: tuple[Field, ...]
    answers: tuple[AnswerColumns, ...]
    labels: tuple[str, ...]
    multi_label: bool
    threshold: float | None
    facts: tuple[Fact, ...]

    def __init__(self, given: Given) -> None: ...

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """The columns of some rows, from the model's outputs and what was put in.

        Raises:
            ModelError: the tensors are not what the file announced.
        """
        ...


@dataclass(frozen=True)
class Given:
    """What a head is made from.

    Attributes:
        files: the model's, with what its author wrote.
        outputs: the tensors that it may read.
        options: the user's.
        data: "tabular" or "image": the first word of its tasks' names.
        name: of its answer, where there are several: goes before its columns' names.
        widths: how many numbers a row of an output really has, where its shape leaves that open.
    """

    files: ModelFiles
    outputs: tuple[Field, ...]
    options: TaskOptions
    data: str = "tabular"
    name: str = ""
    widths: dict[str, int] = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        """The user's, else the model's own."""
        asked = self.options.threshold
        return self.files.threshold if asked is None else asked

    def made(self, output: Field) -> Made:
        """How an output is made, as far as its author tells."""
        return self.files.written.outputs.get(output.name, Made())

    def width(self, output: Field) -> int:
        """How many numbers a row has, 0 where nobody knows."""
        known = self.widths.get(output.name)
        if any(size < 0 for size in output.shape):
            return known or 0
        return known or int(np.prod(output.shape, dtype=int))

    def column(self, name: str) -> str:
        """What a column of this answer is called."""
        return f"{self.name}_{name}" if self.name else name

    def chosen(self, outputs: Sequence[Field], what: str) -> Field:
        """The output that the YAML names, else the only one.

        Raises:
            ModelError: it is not there, or there are several.
        """
        named = self.files.yaml.output
        names = [output.name for output in outputs]
        if named is not None:
            for output in outputs:
                if output.name == named:
                    return output
            there = ", ".join(names or [output.name for output in self.outputs])
            raise ModelError(f"{self.files.name}: output is {named!r}, but it gives {there}")
        if len(outputs) != 1:
            there = " and ".join(names) or "none"
            raise ModelError(
                f"{self.files.name}: has several outputs that may be {what} ({there}); name one "
                "with 'output:' in a YAML beside the file"
                if outputs
                else f"{self.files.name}: has no output of numbers that could be {what}"
            )
        return outputs[0]


def flat(tensors: Columns, output: Field, rows: int) -> Array:
    """An output as (rows, numbers)."""
    return tensors[output.name].reshape(rows, -1)


class DenseTask(Task):
    """A task whose rows are dense and all the same work."""

    def cost(self, encoded: Columns) -> Array:
        """The same for every row."""
        return np.ones(rows_of(encoded), np.int64)

    def collate(self, encoded: Columns) -> Columns:
        """Rows are dense already."""
        return encoded


class HeadsTask(DenseTask):
    """A dense task whose answers are read by heads; a subclass says what its rows are."""

    head: ClassVar[type[Head]]

    def _heads_for(self, given: Given) -> list[Head]:
        return [type(self).head(given)]

    def _set_heads(self, heads: Sequence[Head]) -> None:
        self._heads = tuple(heads)
        self.outputs = tuple(column for head in heads for column in head.outputs)
        self.answers = tuple(answer for head in heads for answer in head.answers)
        first = heads[0]
        self.labels = first.labels
        self.multi_label = first.multi_label
        self.threshold = first.threshold
        self.facts = tuple(fact for head in heads for fact in head.facts)

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """The columns of every head."""
        if len(self._heads) == 1:
            return self._heads[0].decode(tensors, encoded)
        return {
            name: column
            for head in self._heads
            for name, column in head.decode(tensors, encoded).items()
        }


def widths_of(runtime: Runtime, encoded: Columns) -> dict[str, int]:
    """How many numbers a row of each output has, from the answer to some rows; no value is used."""
    rows = rows_of(encoded)
    return {name: value.size // max(rows, 1) for name, value in runtime.run(encoded).items()}
