"""A task: rows of numbers in, how unusual they are out."""

import json

import numpy as np

from mlopsdeploy.columns import Field, objects, rows_of
from mlopsdeploy.errors import ModelError


class Anomaly:
    """The length of the model's values, as of whitened data: 0 is the middle, 3 is far out.

    `score` is the probability of the label given, for normal data of two dimensions.
    """

    batch_cost = 8192  # rows that keep a core busy
    labels = ("usual", "unusual")

    def __init__(self, features, threshold):
        self.threshold = 0.99 if threshold is None else threshold
        self.inputs = tuple(Field(name, "float32") for name in features)
        self.matrix = Field("features", "float32", (len(features),))  # rows as lists, for serve
        self.outputs = (
            Field("label", "str"), Field("score", "float32"), Field("distance", "float32"),
        )  # fmt: skip

    @classmethod
    def build(cls, files, runtime, options):
        said = json.loads(runtime.metadata.get("feature_names", "[]"))
        features = options.features or files.features or said
        if [field.shape for field in runtime.inputs] != [(len(features),)]:
            raise ModelError(f"{files.name}: takes another number of features than are named")
        return cls(features, files.threshold if options.threshold is None else options.threshold)

    def encode(self, columns):
        if "features" in columns:
            return columns
        named = [columns[field.name] for field in self.inputs]
        return {"features": np.column_stack(named).astype(np.float32)}

    def cost(self, encoded):
        return np.ones(rows_of(encoded), np.int64)

    def collate(self, encoded):
        return encoded

    def decode(self, tensors, encoded):
        distance = np.linalg.norm(tensors["values"], axis=1)
        unlikely = 1 - np.exp(-(distance**2) / 2)
        places = (unlikely >= self.threshold).astype(int)
        score = np.where(places, unlikely, 1 - unlikely).astype(np.float32)
        label = objects([self.labels[place] for place in places])
        return {"label": label, "score": score, "distance": distance}
