"""Numbers as they are: the head of a regression."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Columns, Fact, Field, floats, rows_of
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.heads import Given, Head, flat


class Values(Head):
    """One number is the column `value`; of several each is a column, called as `labels` names it.

    Raises:
        ModelError: there is no output of numbers, or more or fewer of them than names.
    """

    multi_label = False
    threshold = None
    labels = ()

    def __init__(self, given: Given) -> None:
        self._output = output = given.chosen(floats(given.outputs) or given.outputs, "the values")
        width, names = given.width(output), given.files.labels
        if not width:
            raise ModelError(
                f"{given.files.name}: its output {output.name!r} has no fixed number of values"
            )
        if names and len(names) != width:
            raise ModelError(
                f"{given.files.name}: gives {width} values, but {given.files.labels_from} names "
                f"{len(names)}"
            )
        if not names:
            names = ("value",) if width == 1 else tuple(f"value_{n}" for n in range(width))
        self._kind = "float32" if output.dtype in ("float16", "float32") else "float64"
        alone = width == 1 and bool(given.name)  # the value of that name
        columns = [given.name] if alone else [given.column(name) for name in names]
        self.outputs = tuple(Field(name, self._kind) for name in columns)
        self.answers = tuple(
            AnswerColumns(number=name, name=name if width > 1 else given.name) for name in columns
        )
        why = "the YAML" if given.files.task else given.made(output).source
        self.facts = (Fact("values", f"{output.name} ({width})", why),)

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """See `Head.decode`: a column for each value."""
        values = flat(tensors, self._output, rows_of(encoded)).astype(self._kind, copy=False)
        return {
            column.name: np.ascontiguousarray(values[:, place])
            for place, column in enumerate(self.outputs)
        }
