"""A runtime: linear maps kept in `.npz` files, run by NumPy."""

import json
import zipfile

import numpy as np

from mlopsdeploy.columns import Field
from mlopsdeploy.errors import ConfigError, ModelError


class Linear:
    """`values = (features - center) @ weights`, of an `.npz` with these arrays and `columns`."""

    formats = ("npz",)  # the suffix of the files that it opens
    precisions = ("float32",)
    batch_scale = 1

    def __init__(self, file, *, precision="auto", threads=1, streams=None):
        if precision not in ("auto", "float32"):
            raise ConfigError(f"precision {precision!r}: linear computes in float32")
        self.precision = "float32"
        self.streams = min(streams or threads, threads)  # `run` may be called so often at once
        try:
            with np.load(file, allow_pickle=False) as arrays:
                self._center = arrays["center"].astype(np.float32)
                self._weights = arrays["weights"].astype(np.float32)
                columns = arrays["columns"].tolist()
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ModelError(f"{file}: not a linear map in .npz ({error})") from error
        takes, gives = self._weights.shape
        self.inputs = (Field("features", "float32", (takes,)),)
        self.outputs = (Field("values", "float32", (gives,)),)
        self.metadata = {"feature_names": json.dumps(columns)}

    def run(self, tensors):
        """`values`, float32 of (rows, outputs)."""
        return {"values": (tensors["features"] - self._center) @ self._weights}
