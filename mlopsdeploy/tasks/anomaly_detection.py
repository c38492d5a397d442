"""Rows of a table in, how unusual they are out: outlier detectors and autoencoders."""

from __future__ import annotations

from mlopsdeploy.columns import ModelFiles, Runtime, TaskOptions
from mlopsdeploy.tasks.outliers import Outliers, Reconstruction
from mlopsdeploy.tasks.table import TableTask


class AnomalyDetection(TableTask):
    """Features by name before; see `Outliers` and, of an autoencoder, `Reconstruction`."""

    def __init__(self, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> None:
        self._set_table(files, runtime, options)
        given = self._given(files, runtime, options)
        detector = any(field.dtype.startswith("int") for field in runtime.outputs)
        decides = any(made.kind == "decision" for made in files.written.outputs.values())
        if detector or decides:
            self._set_heads([Outliers(given)])
        else:
            self._set_heads([Reconstruction(given, runtime.inputs[0])])
