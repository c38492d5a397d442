"""What the author of an `.onnx` file wrote into it: its outputs, its classes, what it is for."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlopsdeploy.columns import Made, Written
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.graph_ends import End, Ends
from mlopsdeploy.model_files.onnx_file import OnnxFile, Port, reading

# skl2onnx calls a graph after the class of the model.
_ESTIMATOR = re.compile(r"ONNX\((\w+)\)")
_KINDS_OF_CLASSES = {
    "clustering": r"\w*KMeans|\w*GaussianMixture|Birch|MeanShift|AffinityPropagation",
    "outliers": r"IsolationForest|OneClassSVM|LocalOutlierFactor|SGDOneClassSVM|EllipticEnvelope",
    "classification": r"\w*Classifier\w*|LogisticRegression(CV)?|\w*SVC|\w*NB|\w*Discriminant\w*",
    "regression": r"\w*Regressor\w*|\w*Regression|\w*SVR|(\w+)?Ridge(CV)?|\w*Lasso\w*|"
    r"\w*ElasticNet\w*|Lars(CV)?|OrthogonalMatchingPursuit(CV)?",
}
_RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip
_CLASS_KEYS = ("classes", "class_names", "labels", "names")


def read(file: Path) -> Written:
    """What the file tells, as far as it does.

    A sequence of arrays, one for each of several answers, is told of as `output_0`, `output_1` and
    so on, which is how it comes out of the runtime.

    Raises:
        ModelError: it can't be read.
    """
    graph = OnnxFile(file)
    with reading(file):
        return _read(file, graph)


def _read(file: Path, graph: OnnxFile) -> Written:
    ends = Ends(graph)
    estimator = _ESTIMATOR.fullmatch(graph.name)
    found: dict[str, tuple[Port, End]] = {}
    for port in graph.outputs:
        parts = graph.plain(port.name)
        for name, value, _ in parts:
            found[name] = (port, ends.of(port.name if len(parts) == 1 else value))
    outputs = {name: end for name, (_, end) in found.items()}
    task, task_source = _task(graph, ends, outputs, estimator[1] if estimator else "")
    outputs = {
        name: _settled(graph, port, end, outputs.values()) for name, (port, end) in found.items()
    }
    if task in ("clustering", "outliers"):
        outputs = dict(_named_by_task(task, ends, found, outputs))
    classes = {name: end.classes for name, end in outputs.items() if end.classes}
    return Written(
        outputs={name: Made(end.kind, _source(end)) for name, end in outputs.items()},
        classes=classes or _classes_of_author(graph.metadata, outputs),
        task=task,
        task_source=task_source,
        changing=_changing(graph),
        sizes=_sizes(graph, ends),
        features=_features(file, graph.metadata),
    )


def _task(
    graph: OnnxFile, ends: Ends, outputs: Mapping[str, End], estimator: str
) -> tuple[str, str]:
    """What the model is for, and what tells so."""
    for task, classes in _KINDS_OF_CLASSES.items():
        if re.fullmatch(classes, estimator):
            return task, f"the graph's name, {graph.name}"
    labels = [end for end in outputs.values() if end.kind == "label"]
    numbers = {name: end for name, end in outputs.items() if end.kind != "label"}
    trained = sorted(frozenset().union(*(end.trained for end in outputs.values())))
    classifiers = [kind for kind in trained if kind.endswith("Classifier") or kind == "ZipMap"]
    named = next((end for end in labels if end.classes), None)
    if classifiers or named:
        return "classification", f"its {classifiers[0] if classifiers else 'names of classes'}"
    for label in labels:
        if label.smallest and numbers:
            return "clustering", f"its label is the {label.operator} of distances"
        starts = {ends.start(name): end for name, end in numbers.items()}
        if label.sided and starts.get(label.chosen, End("sigmoid")).kind in (
            "linear",
            "values",
            "",
        ):
            return "outliers", "its label is the side of 0 that its score is on"
    regressors = [kind for kind in trained if kind.endswith("Regressor")]
    if regressors and not labels:
        return "regression", f"its {regressors[0]}"
    return "", ""


def _settled(graph: OnnxFile, port: Port, end: End, all_of_them: Any) -> End:
    """What an output is, beside the others and by what its author calls it."""
    labels = [other for other in all_of_them if other.kind == "label"]
    if port.dtype in ("str", "bool"):
        return replace(end, kind="label")
    if end.kind in ("softmax", "sigmoid") and not (end.total is None or end.is_distribution):
        end = replace(end, kind="values")  # a multiple of them
    if end.kind == "label":
        is_number = port.dtype.startswith("float") and not end.classes
        return replace(end, kind="values") if is_number else end
    one_of = any(label.chosen and not label.sided for label in labels) or any(
        label.trained & _CLASSIFIERS and not label.sided for label in labels
    )
    if "ZipMap" in end.trained or end.trained & _CLASSIFIERS:
        if (end.is_share and one_of) or end.is_distribution:
            return replace(end, kind="softmax")
        if end.kind not in ("softmax", "sigmoid"):
            operator = f"{end.operator}: not shown to be probabilities"
            return replace(end, kind="values", operator=operator, classes=())
    elif end.kind in ("linear", "") and graph.producer == "skl2onnx" and not labels:
        # It writes a label for each classifier.
        return replace(end, kind="values", operator=f"{end.operator}, and no label beside it")
    elif end.kind == "linear" and re.search(r"(^|[^a-z])logits?$", port.name, re.IGNORECASE):
        return replace(end, kind="logits", operator=f"{end.operator}, and its name")
    return end


_CLASSIFIERS = {"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"}


def _named_by_task(
    task: str, ends: Ends, found: Mapping[str, tuple[Port, End]], outputs: Mapping[str, End]
) -> Any:
    """Distances and decision values, as the label beside them tells them apart."""
    chosen = [end for end in outputs.values() if end.kind == "label"]
    for name, end in outputs.items():
        start = ends.start(found[name][0].name)
        root = start if task == "outliers" else ends.squared(start)
        if end.kind in ("values", "linear", "") and any(root == label.chosen for label in chosen):
            yield name, replace(end, kind="decision" if task == "outliers" else "distances")
        else:
            yield name, end


def _source(end: End) -> str:
    return f"the last operator, {end.operator}" if end.operator else ""


def _classes_of_author(
    metadata: Mapping[str, str], outputs: Mapping[str, End]
) -> dict[str, tuple[str, ...]]:
    names = next(filter(None, (names_in(metadata.get(key, "")) for key in _CLASS_KEYS)), ())
    takes = ("softmax", "sigmoid", "logits", "linear", "label", "")
    return {name: names for name, end in outputs.items() if names and end.kind in takes}


def names_in(text: str) -> tuple[str, ...]:
    """Of a JSON list, or of a dict by number in JSON or as Python writes it; else none."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
    if isinstance(found, dict):
        try:
            found = [found[key] for key in sorted(found, key=int)]
        except (ValueError, TypeError):
            return ()
    if not isinstance(found, list | tuple):
        return ()
    return tuple(str(name) for name in found)


def _features(file: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Under `feature_names`: a JSON list, or names between commas."""
    written = metadata.get("feature_names", "")
    try:
        names = json.loads(written) if written.lstrip().startswith("[") else written.split(",")
    except ValueError as error:
        raise ModelError(f"{file}: its feature_names are not a JSON list ({error})") from error
    return tuple(str(name).strip() for name in names if str(name).strip())


def _changing(graph: OnnxFile) -> str:
    for node in graph.nodes:
        if node.kind in _RANDOM:
            return f"it draws at random ({node.kind})"
        training = (
            graph.constant(node.takes[2])
            if node.kind == "Dropout" and len(node.takes) > 2
            else None
        )
        if training is not None and training.any():
            return "it draws at random (Dropout, as if in training)"
    return ""


def _sizes(graph: OnnxFile, ends: Ends) -> dict[str, int]:
    """How many entries the tables have that inputs look up."""
    inputs = {port.name for port in graph.inputs}
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.kind != "Gather" or (node.attribute("axis") or 0) != 0:
            continue
        table, index = graph.sizes(node.takes[0]), ends.start(node.takes[1])
        if table and index in inputs:
            found[index] = min(table[0], found.get(index, table[0]))
    return found
