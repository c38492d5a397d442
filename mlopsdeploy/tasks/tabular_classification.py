"""Columns of numbers in, label and score out: churn, fraud, default.

Takes what the usual converters write: scikit-learn, XGBoost and LightGBM (a label and
probabilities, as an array or as ZipMap dicts), Keras and PyTorch (one sigmoid, a softmax, or
logits of several classes).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    objects,
    rows_of,
)
from mlopsdeploy.errors import ModelError, RowError
from mlopsdeploy.tasks.scores import DenseTask, choose, sigmoid, softmax

_ROUNDING = 1e-5  # a forest sums its trees' votes in float32, and may come to 1.0000001


class TabularClassification(DenseTask):
    """Features by name before, labels after.

    Args:
        tensors: what the model's file takes: one tensor of all features, or one per feature.
        gives: its outputs, which show how many classes there are, if nobody names them.
        features: the columns in the order of the one tensor; by default what the file itself
            says under `feature_names` (a JSON list, or names between commas).
        metadata: what the file's author wrote into it, and what the runtime read in it: `classes`
            (a JSON list), `regressor` (the operator of a model that is no classifier).
        labels: names of the classes; by default the model's own labels, or their numbers.
        output: which of several outputs holds the probabilities.
        activation: what turns that into probabilities: "none", "sigmoid" or "softmax"; by default
            as the answers to a few made-up rows show, or the first rows, if these show nothing.
        threshold: two classes: the second is given from this probability on (0.5 when None);
            more: a label is given from this probability on, else none (an empty string).
        name: the model's name, for messages.

    Attributes:
        inputs: one field per feature; if the model's one tensor has unnamed features, that tensor.
        matrix: the one tensor of numbers, which `encode` takes as well as columns: callers that
            have rows of numbers need not take them apart.

    Raises:
        ModelError: it can't be known which columns the model wants, or in which order.
    """

    data: DataKind = "table"
    finds_objects = False
    batch_cost = 8192

    def __init__(
        self,
        tensors: Sequence[Field],
        gives: Sequence[Field] = (),
        *,
        features: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
        output: str | None = None,
        activation: str | None = None,
        threshold: float | None = None,
        name: str = "the model",
    ) -> None:
        metadata = metadata or {}
        self._tensors = tuple(tensors)
        self._name = name
        gives = self._check_outputs(gives, output, metadata)
        self._gives = tuple(field.name for field in gives)
        self.labels = tuple(labels) or _classes(metadata) or _numbered_labels(gives)
        self._named = bool(labels)
        self.threshold = threshold
        names = tuple(features) or _named_features(metadata)
        self._one = len(self._tensors) == 1
        if self._one:
            tensor = self._tensors[0]
            if not names and tensor.shape in ((), (1,)):
                names = (tensor.name,)
            self._check_features(names, tensor)
            if tensor.dtype != "str" and tensor.name not in names:
                self.matrix = Field(tensor.name, tensor.dtype, (len(names) or tensor.shape[0],))
            self.inputs = tuple(Field(feature, tensor.dtype) for feature in names)
            if self.matrix and not names:
                self.inputs = (self.matrix,)
        else:
            self.inputs = tuple(Field(tensor.name, tensor.dtype) for tensor in self._tensors)
        # The one output, if it is one probability in float32 and there is nothing beside it.
        alone = len(gives) == 1 and gives[0].dtype == "float32" and gives[0].shape in ((), (1,))
        self._sigmoid = gives[0].name if alone and activation in (None, "none") else ""
        self._activation = activation
        self.outputs = (
            Field("label", "str"),
            Field("score", "float32"),
            Field("scores", "float32", (len(self.labels) or -1,)),
        )

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """From the tensors of the file, what stands beside it, and three made-up rows' answers."""
        task = cls(
            runtime.inputs,
            runtime.outputs,
            features=options.features or files.features,
            metadata=runtime.metadata,
            labels=files.labels,
            output=files.yaml.output,
            activation=files.yaml.activation,
            threshold=files.threshold if options.threshold is None else options.threshold,
            name=files.name,
        )
        # Together, and then each alone: rows like these may be none that the model can take.
        for made_up in ([0, 1, -1], [0], [1], [2], [-1]):
            if task._look_at_answers(runtime, np.array(made_up)):
                break
        return task

    def _look_at_answers(self, runtime: Runtime, made_up: Array) -> bool:
        """Raise at once, and not for the first caller, what can't be read as probabilities.

        Returns:
            Whether the model had an answer.
        """
        columns: Columns = {}
        for field in self.inputs:
            if field.dtype == "str":
                columns[field.name] = objects([""] * len(made_up))
            else:
                shape = (len(made_up), *field.shape)
                values = made_up.reshape(-1, *[1] * len(field.shape)).astype(field.dtype)
                columns[field.name] = np.broadcast_to(values, shape)
        encoded = self.encode(columns)
        try:
            tensors = runtime.run(encoded)
        except RowError:
            return False
        return bool(np.isfinite(self.decode(tensors, encoded)["score"]).any())

    def _check_outputs(
        self, gives: Sequence[Field], output: str | None, metadata: Mapping[str, str]
    ) -> Sequence[Field]:
        """The outputs to read: the one with the probabilities, and labels beside it."""
        if "regressor" in metadata:
            raise ModelError(
                f"{self._name}: is for regression (its last step is a {metadata['regressor']}); "
                "only classifiers are supported"
            )
        floats = [field.name for field in gives if field.dtype.startswith("float")]
        if output is not None and output not in floats:
            raise ModelError(
                f"{self._name}: output is {output!r}, but it gives {', '.join(floats) or 'labels'}"
            )
        if output is None and len(floats) > 1:
            raise ModelError(
                f"{self._name}: gives {' and '.join(floats)}; name the one with the probabilities "
                "with 'output:' in a YAML beside the file"
            )
        return [
            field for field in gives if output in (None, field.name) or field.name not in floats
        ]

    def _check_features(self, names: Sequence[str], tensor: Field) -> None:
        if len(tensor.shape) > 1:
            raise ModelError(
                f"{self._name}: its input has a shape of {tensor.shape} per row; tabular models "
                "take a row of numbers"
            )
        width = tensor.shape[0] if tensor.shape else 1
        if not names and (width < 0 or tensor.dtype == "str"):
            raise ModelError(
                f"{self._name}: takes features but does not name them; list the columns in the "
                "model's order with --features a,b,c or 'features:' in a YAML beside the file"
            )
        if names and width not in (-1, len(names)):
            raise ModelError(f"{self._name}: takes {width} features, but {len(names)} are named")

    def encode(self, columns: Columns) -> Columns:
        """The model's tensors: one matrix of (rows, features), or one column for each feature."""
        if self._one:
            tensor = self._tensors[0]
            if self.matrix and self.matrix.name in columns:
                dense = columns[self.matrix.name].astype(tensor.dtype, copy=False)
                if dense.shape[1:] != self.matrix.shape:  # which a reshape would make other rows of
                    raise RowError(
                        f"{self.matrix.name}: a row has {self.matrix.shape[0]} numbers, not an "
                        f"array of {dense.shape[1:]}"
                    )
                return {tensor.name: dense.reshape(-1, *tensor.shape)}
            matrix = np.column_stack([columns[field.name] for field in self.inputs])
            matrix = matrix.astype(object if tensor.dtype == "str" else tensor.dtype, copy=False)
            return {tensor.name: matrix.reshape(-1, *tensor.shape)}
        return {
            tensor.name: columns[field.name].reshape(-1, *tensor.shape)
            for tensor, field in zip(self._tensors, self.inputs, strict=True)
        }

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Label, its probability, and the probabilities of all classes, shape (rows, classes).

        Raises:
            ModelError: no output can be read as probabilities, or there are more or fewer of
                them than labels.
        """
        if self._sigmoid and rows_of(encoded) == 1:
            return self._decode_one(tensors[self._sigmoid])
        if self._gives:
            tensors = {name: tensors[name] for name in self._gives}
        scores = self._probabilities(tensors, rows_of(encoded))
        names = np.array([*self._class_names(scores.shape[1]), ""], dtype=object)
        threshold = 0.5 if self.threshold is None and scores.shape[1] == 2 else self.threshold
        label, score = choose(scores, names, threshold)
        if not self._named and self.threshold is None:
            own = next((array for array in tensors.values() if array.dtype.kind in "iuOUS"), None)
            if own is not None:
                label = own.reshape(-1).astype(str).astype(object)  # the model's own class names
        return {"label": label, "score": score, "scores": scores}

    def _probabilities(self, tensors: Columns, rows: int) -> Array:
        """Of the last output of floats, float32 of shape (rows, classes)."""
        found = [array for array in tensors.values() if array.dtype.kind == "f"]
        if not found:
            raise ModelError(f"{self._name}: gives no probabilities; is it a classifier?")
        scores = found[-1].astype(np.float32, copy=False).reshape(rows, -1)
        if self._activation == "sigmoid":
            scores = sigmoid(scores)
        if scores.shape[1] == 1:  # of the second class
            self._check_probabilities(scores)
            second = np.clip(scores, 0, 1)
            return np.hstack([1 - second, second])
        if self._activation is None and len(known := scores[np.isfinite(scores).all(axis=1)]):
            # Once and for all: rows that are told apart batch by batch would mean two things.
            self._activation = "none" if _are_probabilities(known) else "softmax"
        if self._activation != "softmax":
            return np.clip(scores, 0, 1)
        if any(array.dtype.kind in "iuOUS" for array in tensors.values()):
            raise ModelError(
                f"{self._name}: gives a label and scores that are no probabilities, as "
                "scikit-learn's LinearSVC does; train it within CalibratedClassifierCV"
            )
        return softmax(scores)

    def _decode_one(self, output: Array) -> Columns:
        """The same for one row of one sigmoid: a request, where every microsecond counts."""
        second = output.reshape(-1)[0]
        if not 0 <= second <= 1:
            self._check_probabilities(output)
            second = second.clip(0, 1)
        first = 1 - second
        chosen = bool(second >= (0.5 if self.threshold is None else self.threshold))
        return {
            "label": objects([self._class_names(2)[chosen]]),
            "score": np.array([second if chosen else first]),
            "scores": np.array([[first, second]]),
        }

    def _check_probabilities(self, second: Array) -> None:
        lowest, highest = -_ROUNDING, 1 + _ROUNDING
        if len(second) and (np.fmin.reduce(second) < lowest or np.fmax.reduce(second) > highest):
            raise ModelError(
                f"{self._name}: answers with {float(np.nanmax(np.abs(second))):.4g} where a "
                "probability from 0 to 1 is expected; regression is not supported, logits need a "
                "sigmoid at the model's end, and a LinearSVC a CalibratedClassifierCV around it"
            )

    def _class_names(self, classes: int) -> tuple[str, ...]:
        names = self.labels or tuple(str(number) for number in range(classes))
        if len(names) != classes:
            raise ModelError(
                f"{self._name}: gives {classes} probabilities per row, but {len(names)} labels "
                "are named"
            )
        return names


def _are_probabilities(scores: Array) -> bool:
    """Whether each row lies within 0 and 1 and adds up to 1."""
    inside = bool(((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)).all())
    return inside and bool((np.abs(scores.sum(axis=1) - 1) < 1e-3).all())


def _numbered_labels(gives: Sequence[Field]) -> tuple[str, ...]:
    """Numbers as names for the columns of the probabilities, where their number is known."""
    shapes = [field.shape for field in gives if field.dtype.startswith("float")]
    if not shapes or (shapes[-1] and shapes[-1][-1] < 1):
        return ()
    width = shapes[-1][-1] if shapes[-1] else 1
    return tuple(str(number) for number in range(max(width, 2)))


def _classes(metadata: Mapping[str, str]) -> tuple[str, ...]:
    try:
        classes = json.loads(metadata.get("classes", "[]"))
    except ValueError:  # an author's word for something else
        return ()
    return tuple(str(name) for name in classes) if isinstance(classes, list) else ()


def _named_features(metadata: Mapping[str, str]) -> tuple[str, ...]:
    written = metadata.get("feature_names", "")
    try:
        names = json.loads(written) if written.lstrip().startswith("[") else written.split(",")
    except ValueError as error:
        raise ModelError(
            f"feature_names in the model's file is not a JSON list ({error})"
        ) from error
    return tuple(str(name).strip() for name in names if str(name).strip())
