"""How far a row is outside of the usual: the heads of outlier detectors and of autoencoders."""

from __future__ import annotations

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Array, Columns, Fact, Field, floats, objects, rows_of
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.heads import Given, Head, flat

NAMES = ("anomaly", "normal")


class Outliers(Head):
    """Of an outlier detector, as scikit-learn writes it: its own label and decision function.

    `label` is "anomaly" where the model says -1, else "normal" (`labels:` may name them otherwise,
    in this order); `decision` is below 0 outside of the usual. With a threshold, what is below it
    is the anomaly, whatever the model says.

    Raises:
        ModelError: the outputs are not a detector's.
    """

    multi_label = False

    def __init__(self, given: Given) -> None:
        files = given.files
        self.labels = _names(given)
        numbers = [field for field in given.outputs if field.dtype.startswith("int")]
        values = floats(given.outputs)
        if not values:
            raise ModelError(f"{files.name}: gives no decision function")
        self._decision = given.chosen(values, "the decision function")
        self._own = numbers[0] if numbers else None
        self.threshold = given.threshold
        label, decision = given.column("label"), given.column("decision")
        self.outputs = (Field(label, "str"), Field(decision, "float32"))
        self.answers = (AnswerColumns(label, decision, labels=self.labels, name=given.name),)
        why = "the YAML" if files.task else files.written.task_source
        self.facts = (Fact("anomalies", "decision below 0, outside of the usual", why),)

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """See `Head.decode`."""
        rows = rows_of(encoded)
        decision = flat(tensors, self._decision, rows)[:, 0].astype(np.float32, copy=False)
        if self.threshold is not None or self._own is None:
            usual = decision >= (self.threshold or 0.0)
        else:
            usual = tensors[self._own.name].reshape(rows, -1)[:, 0] > 0
        label, number = (column.name for column in self.outputs)
        return {label: _named(self.labels, usual), number: decision}


class Reconstruction(Head):
    """Of an autoencoder: how far it is from giving a row back.

    `error` is the mean squared difference between the input's tensor and the output; with a
    threshold, `label` says which rows are above it.

    Raises:
        ModelError: no output has the input's shape.
    """

    multi_label = False

    def __init__(self, given: Given, tensor: Field) -> None:
        files = given.files
        self._input = tensor.name
        width = int(np.prod(tensor.shape, dtype=int))
        fitting = [field for field in floats(given.outputs) if given.width(field) == width]
        if not fitting:
            raise ModelError(
                f"{files.name}: no output has the input's {width} numbers; is it an autoencoder?"
            )
        self._output = given.chosen(fitting, "the reconstruction")
        self.labels = _names(given)
        self.threshold = given.threshold
        label, error = given.column("label"), given.column("error")
        number = Field(error, "float32")
        judged = self.threshold is not None
        self.labels = self.labels if judged else ()
        self.outputs = (Field(label, "str"), number) if judged else (number,)
        named = label if judged else ""
        self.answers = (AnswerColumns(named, error, labels=self.labels, name=given.name),)
        why = "the YAML" if files.task else files.written.task_source
        self.facts = (Fact("error", f"mean squared difference from {self._input}", why),)
        self._columns = label, error

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """See `Head.decode`."""
        rows = rows_of(encoded)
        back = flat(tensors, self._output, rows).astype(np.float64)
        put_in = encoded[self._input].reshape(rows, -1).astype(np.float64)
        error = np.square(back - put_in).mean(axis=1).astype(np.float32)
        label, column = self._columns
        if self.threshold is None:
            return {column: error}
        return {label: _named(self.labels, error <= self.threshold), column: error}


def _names(given: Given) -> tuple[str, ...]:
    labels = given.files.labels
    if labels and len(labels) != 2:
        raise ModelError(
            f"{given.files.name}: {given.files.labels_from} names {len(labels)} labels; an anomaly "
            "detector has two, first that of anomalies"
        )
    return labels or NAMES


def _named(names: tuple[str, ...], usual: Array) -> Array:
    return objects([names[int(place)] for place in usual.tolist()])
