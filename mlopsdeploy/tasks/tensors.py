"""Any model as it is: its own inputs and outputs, by name, unchanged."""

from __future__ import annotations

from typing import Self

import numpy as np

from mlopsdeploy.columns import (
    Array,
    Columns,
    DataKind,
    Fact,
    ModelFiles,
    Runtime,
    Task,
    TaskOptions,
    rows_of,
)
from mlopsdeploy.errors import RowError

_ELEMENTS = 1 << 18  # of a call's inputs: a megabyte of float32, so that they stay in the cache


class Tensors(Task):
    """The runtime's tensors are the columns, of the same dtype and shape; nothing is counted.

    Rows of inputs whose size is free may differ in shape; those that do are computed apart.
    """

    data: DataKind = "table"
    finds_objects = False
    answers = ()
    batch_cost = _ELEMENTS

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        self.inputs = runtime.inputs
        self.outputs = runtime.outputs
        self.features = options.features or files.features
        single = len(self.inputs) == 1 and len(self.inputs[0].shape) == 1
        if single and self.inputs[0].dtype != "str" and self.inputs[0].shape[0] > 0:
            self.matrix = self.inputs[0]
        why = "the YAML" if files.task else "as asked"
        self.facts = (Fact("answers", "the model's own outputs, as they are", why),)

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """Of any model."""
        return cls(files, runtime, options)

    def encode(self, columns: Columns) -> Columns:
        """The columns, each of its input's dtype."""
        return {
            field.name: columns[field.name]
            if field.dtype == "str" or columns[field.name].dtype == object
            else columns[field.name].astype(field.dtype, copy=False)
            for field in self.inputs
        }

    def cost(self, encoded: Columns) -> Array:
        """Numbers per row, over all inputs."""
        rows = rows_of(encoded)
        cost = np.zeros(rows, np.int64)
        for column in encoded.values():
            if column.dtype == object:
                cost += np.fromiter(map(np.size, column), np.int64, rows)
            else:
                cost += int(np.prod(column.shape[1:], dtype=int))
        return np.maximum(cost, 1)

    def collate(self, encoded: Columns) -> Columns:
        """Dense tensors.

        Raises:
            RowError: rows differ in shape.
        """
        return {
            field.name: encoded[field.name]
            if encoded[field.name].dtype != object or field.dtype == "str"
            else _stacked(encoded[field.name], field.dtype)
            for field in self.inputs
        }

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:  # noqa: ARG002
        """The outputs."""
        return {field.name: tensors[field.name] for field in self.outputs}


def _stacked(rows: Array, dtype: str) -> Array:
    if len({np.shape(row) for row in rows}) > 1:
        raise RowError("rows differ in shape, so they can't be computed together")
    return np.stack([np.asarray(row) for row in rows]).astype(dtype)
