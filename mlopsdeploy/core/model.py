"""A model: a task, which knows what data mean, on a runtime, which knows how to run a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlopsdeploy.columns import Columns, Runtime, Task, rows_of, take
from mlopsdeploy.core.planner import Rows, plan
from mlopsdeploy.errors import RowError

# Scores move a little with the rows that share a batch: by 2e-6 in float32, by up to 0.005 in
# bfloat16 and, on the checkpoints measured, 0.005 to 0.03 in int8, where rounding turns that noise
# into steps. A label decided by less than this gets a second look, so that none depends on its
# row's neighbours.
CLOSE_CALL = {"bfloat16": 0.02, "int8": 0.08}


@dataclass(frozen=True)
class Predicted:
    """What became of some rows: predictions of `rows`, and why each of the others has none."""

    rows: Rows
    predictions: Columns
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A trained model, ready to be called. Made by `load_model`.

    Attributes:
        name: as in the model's files, or the reference it was loaded by.
        version: as in `model.yaml`; empty where there is none.
        digest: SHA-256 of everything that shapes its answers.
        task: its seam to data.
        runtime: its seam to hardware.
        exact: gives the same model in float32, for close calls of a lower precision.
        said: what its `model.yaml` says, such as an `example` row.
        proof: of a model that was quantised here, what that costs; see `compile.quantize`.
    """

    name: str
    version: str
    digest: str
    task: Task
    runtime: Runtime
    exact: Callable[[], Runtime] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, columns: Columns) -> Columns:
        """Predictions for the given rows: as many, in the same order.

        Args:
            columns: what `task.inputs` names; each of shape (rows, ...).

        Raises:
            RowError: rows that it can't take; its `rows` are their places.
        """
        encoded = self.task.encode(columns)
        if rows_of(encoded) == 1:
            try:
                return self._call(encoded)
            except RowError as error:
                raise RowError(str(error), [0]) from error
        batches = self.plan(encoded)
        results = []
        for batch in batches:
            part = self.predict_rows(encoded, batch)
            if part.failed:
                raise RowError(part.failed[min(part.failed)], sorted(part.failed))
            results.append(part.predictions)
        if not results:
            return {}
        return in_order(batches, results)

    def plan(self, encoded: Columns) -> list[Rows]:
        """The rows to compute together, as `planner.plan` cuts them for this task and device."""
        if not rows_of(encoded):
            return []
        budget = self.task.batch_cost * self.runtime.batch_scale
        return plan(self.task.cost(encoded), budget)

    def predict_batch(self, encoded: Columns, rows: Rows) -> Columns:
        """Predictions for some rows of what `task.encode` made, computed together."""
        return self._call(take(encoded, rows))

    def predict_rows(self, encoded: Columns, rows: Rows) -> Predicted:
        """As `predict_batch`, without the rows that the model can't take.

        Where it doesn't say which these are, the rows are halved until each is alone.
        """
        if not len(rows):
            return Predicted(rows, {})
        try:
            return Predicted(rows, self.predict_batch(encoded, rows))
        except RowError as error:
            if len(rows) == 1:
                return Predicted(rows[:0], {}, {int(rows[0]): str(error)})
            if error.rows:
                failed = {int(rows[place]): str(error) for place in error.rows}
                rest = self.predict_rows(encoded, np.delete(rows, error.rows))
                return Predicted(rest.rows, rest.predictions, {**failed, **rest.failed})
        parts = [self.predict_rows(encoded, part) for part in np.array_split(rows, 2)]
        filled = [part.predictions for part in parts if len(part.rows)]
        return Predicted(
            np.concatenate([part.rows for part in parts]),
            {name: np.concatenate([one[name] for one in filled]) for name in filled[0]}
            if filled
            else {},
            {row: reason for part in parts for row, reason in part.failed.items()},
        )

    def _call(self, batch: Columns) -> Columns:
        predictions = self._run(self.runtime, batch)
        if self.exact is None or "margin" not in predictions:
            return predictions
        close = np.flatnonzero(predictions["margin"] < CLOSE_CALL[self.runtime.precision])
        if len(close):
            again = take(batch, close)
            exact = self._run(self.exact(), again)
            for name, values in exact.items():
                predictions[name][close] = values
        return predictions

    def _run(self, runtime: Runtime, batch: Columns) -> Columns:
        tensors = self.task.collate(batch)
        rows = rows_of(tensors)
        if rows <= rows_of(batch):
            return self.task.decode(runtime.run(tensors), batch)
        # A row that became many, a long text its windows, would take gigabytes in one call.
        budget = self.task.batch_cost * self.runtime.batch_scale
        step = max(budget * rows // int(self.task.cost(batch).sum()), 1)
        try:
            parts = [
                runtime.run(take(tensors, slice(start, start + step)))
                for start in range(0, rows, step)
            ]
        except RowError as error:  # its places are those of windows
            raise RowError(str(error)) from error
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self.task.decode(outputs, batch)


def in_order(batches: list[Rows], results: list[Columns]) -> Columns:
    """The results of batches as one, in the order of the rows that `plan` was given."""
    order = np.argsort(np.concatenate(batches), kind="stable")
    return {
        name: np.concatenate([result[name] for result in results])[order] for name in results[0]
    }
