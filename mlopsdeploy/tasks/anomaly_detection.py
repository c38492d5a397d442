"""Rows of a table in, how unusual they are out: outlier detectors and autoencoders."""

from __future__ import annotations

from mlopsdeploy.columns import Columns, ModelFiles, Runtime, TaskOptions, rows_of
from mlopsdeploy.tasks.outliers import Outliers, Reconstruction
from mlopsdeploy.tasks.table import TableTask


class AnomalyDetection(TableTask):
    """Features by name before; see `Outliers` and, of an autoencoder, `Reconstruction`."""

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        self._set_table(files, runtime, options)
        given = self._given(files, runtime, options)
        detector = any(field.dtype.startswith("int") for field in runtime.outputs)
        decides = any(made.kind == "decision" for made in files.written.outputs.values())
        self._reconstruction = None
        if detector or decides:
            self._set_heads([Outliers(given)])
        else:
            self._reconstruction = Reconstruction(given, runtime.inputs[0])
            self._set_heads([self._reconstruction])

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """The head's columns; an autoencoder's need the input as well."""
        if self._reconstruction is None:
            return super().decode(tensors, encoded)
        return self._reconstruction.decode_with(tensors, encoded, rows_of(encoded))
