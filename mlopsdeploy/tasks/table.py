"""Rows of a table as the tensors that a model takes: one of all features, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from mlopsdeploy.columns import (
    Array,
    Columns,
    DataKind,
    Field,
    ModelFiles,
    Runtime,
    TaskOptions,
    floats,
    named_features,
)
from mlopsdeploy.errors import ModelError, RowError
from mlopsdeploy.tasks.heads import Given, HeadsTask, widths_of


class Table:
    """What a model's tensors take of each row.

    Args:
        tensors: what the model's file takes.
        features: the columns in the order of the one tensor, row by row where that has rows.
        name: the model's, for messages.

    Attributes:
        inputs: one field per feature; a tensor with unnamed features is one field of its shape.
        matrix: the one tensor of numbers, which `encode` takes as well as columns.

    Raises:
        ModelError: it can't be known which columns the model wants, or in which order.
    """

    def __init__(
        self, tensors: Sequence[Field], features: Sequence[str] = (), name: str = "the model"
    ) -> None:
        self._tensors = tuple(tensors)
        self._name = name
        self.matrix: Field | None = None
        self._one = len(self._tensors) == 1
        if not self._one:
            if features:
                self._check_several(features)
            self.inputs = tuple(_as_column(tensor) for tensor in self._tensors)
            return
        tensor = self._tensors[0]
        self._dtype = np.dtype(object if tensor.dtype == "str" else tensor.dtype)
        if not features and tensor.shape in ((), (1,)):
            features = (tensor.name,)
        self._check_features(features, tensor)
        width = len(features) or int(np.prod(tensor.shape, dtype=int))
        flat = bool(features) or len(tensor.shape) == 1
        if tensor.dtype != "str" and tensor.name not in features and flat:
            self.matrix = Field(tensor.name, tensor.dtype, (width,))
        self.inputs = tuple(Field(feature, tensor.dtype) for feature in features)
        if not features:
            self.inputs = (self.matrix or tensor,)

    def _check_several(self, features: Sequence[str]) -> None:
        names = [tensor.name for tensor in self._tensors]
        if sorted(features) != sorted(names):
            raise ModelError(
                f"{self._name}: takes {len(names)} inputs by their own names, {', '.join(names)}; "
                f"{', '.join(features)} are other features"
            )

    def _check_features(self, names: Sequence[str], tensor: Field) -> None:
        free = any(size < 0 for size in tensor.shape)
        if not names and ((free and len(tensor.shape) == 1) or tensor.dtype == "str"):
            raise ModelError(
                f"{self._name}: takes features but does not name them; list the columns in the "
                "model's order with --features a,b,c or 'features:' in a YAML beside the file, or "
                "say 'task: tensors', which takes each row as one list"
            )
        width = int(np.prod(tensor.shape, dtype=int))
        if names and free and len(tensor.shape) > 1:
            shape = "×".join("?" if size < 0 else str(size) for size in tensor.shape)
            raise ModelError(
                f"{self._name}: takes {shape} numbers a row, which {len(names)} columns can't "
                "fill; give each row as one list of lists"
            )
        if names and not free and width != len(names):
            raise ModelError(f"{self._name}: takes {width} features, but {len(names)} are named")

    def encode(self, columns: Columns) -> Columns:
        """The model's tensors: a matrix of (rows, features), or a column for each.

        Raises:
            RowError: a row has another number of values than the model takes.
        """
        if not self._one:
            return {
                tensor.name: columns[field.name].reshape(-1, *_sizes(tensor, columns[field.name]))
                for tensor, field in zip(self._tensors, self.inputs, strict=True)
            }
        tensor = self._tensors[0]
        if self.matrix and self.matrix.name in columns:
            dense = columns[self.matrix.name].astype(self._dtype, copy=False)
            if dense.shape[1:] == tensor.shape:
                return {tensor.name: dense}
            if dense.shape[1:] not in (self.matrix.shape, tensor.shape):
                raise RowError(
                    f"{self.matrix.name}: a row has {self.matrix.shape[0]} numbers, not an array "
                    f"of {dense.shape[1:]}"
                )
            return {tensor.name: dense.reshape(-1, *self._shape(tensor))}
        if self.inputs == (tensor,):
            return {tensor.name: columns[tensor.name].astype(tensor.dtype, copy=False)}
        matrix = np.column_stack([columns[field.name] for field in self.inputs])
        matrix = matrix.astype(self._dtype, copy=False)
        return {tensor.name: matrix.reshape(-1, *self._shape(tensor))}

    def _shape(self, tensor: Field) -> tuple[int, ...]:
        """Of a row; of a free width, that of the features."""
        return tensor.shape if -1 not in tensor.shape else (len(self.inputs),)


def _as_column(tensor: Field) -> Field:
    """One number of a row is a column; more of them are one column of lists."""
    return Field(tensor.name, tensor.dtype, () if tensor.shape in ((), (1,)) else tensor.shape)


def _sizes(tensor: Field, column: Array) -> tuple[int, ...]:
    return tensor.shape if -1 not in tensor.shape else column.shape[1:]


class TableTask(HeadsTask):
    """A task whose rows are those of a table, or arrays."""

    data: DataKind = "table"
    finds_objects = False
    batch_cost = 8192

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        self._set_table(files, runtime, options)
        self._set_heads(self._heads_for(self._given(files, runtime, options)))

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From what the files say, and the tensors of the graph."""
        return cls(files, runtime, options)

    def _set_table(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        features = options.features or files.features or files.written.features
        features = features or named_features(files.name, runtime.metadata)
        self._table = Table(runtime.inputs, features, files.name)
        self.inputs = self._table.inputs
        self.matrix = self._table.matrix

    def _given(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Given:
        known, numbers = files.written.classes, floats(runtime.outputs)
        widths = {out.name: len(known[out.name]) for out in numbers if out.name in known}
        # What a file says of the width of its labels is often wrong.
        if len(numbers) < len(runtime.outputs) or any(
            -1 in out.shape and out.name not in known for out in numbers
        ):
            widths |= self._widths(runtime)
        return Given(files, runtime.outputs, options, "tabular", widths=widths)

    def _widths(self, runtime: Runtime) -> dict[str, int]:
        """How wide outputs are whose shape leaves it open; unknown where a made-up row fails."""
        columns: Columns = {}
        for field in self.inputs:
            shape = (1, *(max(size, 1) for size in field.shape))
            empty = np.full(shape, "", object) if field.dtype == "str" else np.zeros(shape)
            columns[field.name] = empty.astype(object if field.dtype == "str" else field.dtype)
        try:
            return widths_of(runtime, self.encode(columns))
        except RowError:
            return {}

    def encode(self, columns: Columns) -> Columns:
        """See `Table.encode`."""
        return self._table.encode(columns)
