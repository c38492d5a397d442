"""A task: the last readings in, the next ones out. Numbers alone: it has no label."""

import json

import numpy as np

from mlopsdeploy.columns import AnswerColumns, Fact, Field, rows_of
from mlopsdeploy.errors import DoubtError, ModelError


class Forecast:
    """`forecast`, a list of the next values, and `total`, their sum, which is what is counted."""

    batch_cost = 8192
    answers = (AnswerColumns(number="total"),)  # of the outputs, what reports and drift show

    def __init__(self, readings, steps, why):
        self.inputs = tuple(Field(name, "float32") for name in readings)
        self.matrix = Field("features", "float32", (len(readings),))
        self.outputs = (Field("forecast", "float32", (steps,)), Field("total", "float32"))
        self.facts = (Fact("forecast", f"{steps} values", why),)

    @classmethod
    def build(cls, files, runtime, options):
        readings = files.features or json.loads(runtime.metadata.get("feature_names", "[]"))
        if [field.shape for field in runtime.inputs] != [(len(readings),)]:
            raise ModelError(f"{files.name}: takes another number of readings than are named")
        if files.yaml.activation not in (None, "none"):
            raise ModelError(f"{files.name}: a forecast has no activation")
        (steps,) = runtime.outputs[0].shape
        if steps == 1:  # may also be a price or a score: a question, never a guess
            readings_of_it = (
                ("task: tabular_regression", "a value"),
                ("task: tensors", "no answer"),
            )
            options.doubt(DoubtError(files.name, "forecasts one step only", readings_of_it))
        return cls(readings, steps, "the file's outputs")

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
        forecast = tensors["values"]
        return {"forecast": forecast, "total": forecast.sum(axis=1)}
