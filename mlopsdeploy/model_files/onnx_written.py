"""What the author of an `.onnx` file wrote into it: its outputs, its classes, what it is for."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlopsdeploy.columns import Array, Made, Written, named_features
from mlopsdeploy.core.channels import color_of
from mlopsdeploy.errors import ModelError
from mlopsdeploy.model_files.author_names import classes_in
from mlopsdeploy.model_files.graph_ends import End, Ends
from mlopsdeploy.model_files.onnx_file import OnnxFile, Port, metadata_of, reading
from mlopsdeploy.model_files.tflite_metadata import ultralytics

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
    if lost := _lost_by_catboost(graph, outputs):
        outputs = {
            name: end if end.kind == "label" else End(operator=lost)
            for name, end in outputs.items()
        }
    classes = classes or classes_in(
        graph.metadata, {name: end.kind for name, end in outputs.items()}
    )
    beside = _parts(graph, ends, found, outputs)
    for name, each in beside.items():
        outputs |= dict.fromkeys(each, outputs[name])
        classes |= each
    return Written(
        outputs={name: Made(end.kind, _source(end)) for name, end in outputs.items()},
        classes=classes,
        parts={name: tuple(each) for name, each in beside.items()},
        task=task,
        task_source=task_source,
        pixels=_pixels(graph),
        color=_color(graph),
        changing=_changing(graph),
        sizes=_sizes(graph, ends),
        features=named_features(file, graph.metadata),
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
        score = starts.get(label.chosen)
        # Elsewhere the same is a classifier's: a logit, and whether it is above 0.
        of_trees = graph.producer == "skl2onnx" or any(
            node.kind.startswith(("TreeEnsemble", "SVM")) for node in graph.nodes
        )
        is_outliers = label.sided and label.edge == 0 and (label.low, label.high) == (-1, 1)
        if is_outliers and of_trees and score and score.kind in ("linear", "values", ""):
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


def _parts(
    graph: OnnxFile,
    ends: Ends,
    found: Mapping[str, tuple[Port, End]],
    outputs: Mapping[str, End],
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Of outputs with an answer beside the other, the classes of each answer, by its name.

    So skl2onnx writes a forest or neighbours trained for several targets: labels as (rows,
    targets), each column with its own names, and probabilities as (targets, rows, classes).
    """
    if len(found) != 2:
        return {}
    columns: list[tuple[str, ...]] = []
    for port, _ in found.values():
        maker = graph.makers.get(ends.start(port.name))
        if maker is not None and maker.kind == "Concat" and len(maker.takes) > 1:
            columns = columns or [ends.of(value).classes for value in maker.takes]
    if not columns or not all(columns):
        return {}
    return {
        name: {f"{name}_{place}": classes for place, classes in enumerate(columns)}
        for name, end in outputs.items()
        if end.kind in ("label", "softmax")
    }


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


def _lost_by_catboost(graph: OnnxFile, outputs: Mapping[str, End]) -> str:
    """What CatBoost leaves out of an `.onnx` file, which holds what it was trained for beside."""
    if not graph.producer.startswith("CatBoost"):
        return ""
    loss = re.search(r'"loss_function":\{[^{}]*"type":"(\w+)"', graph.metadata.get("params", ""))
    name = loss[1] if loss else ""
    softmax = any(end.kind == "softmax" for end in outputs.values())
    if softmax and name in ("MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"):
        return f"a softmax, though CatBoost trained it for {name}"
    if not softmax and name in ("Poisson", "Tweedie", "LogLinQuantile"):
        return f"a sum of trees, of which CatBoost itself gives the exponent ({name})"
    return ""


def _source(end: End) -> str:
    return f"the last operator, {end.operator}" if end.operator else ""


def exported(file: Path) -> dict[str, Any]:
    """What Ultralytics wrote into an export of it, as `tflite_metadata.read` has it; else nothing.

    Nothing of a damaged file either: who opens it says so.
    """
    try:
        written = metadata_of(file)
    except ModelError:
        return {}
    if not {"names", "task", "stride"} <= written.keys():
        return {}
    try:
        meta = {key: ast.literal_eval(written.get(key, "None")) for key in ("names", "imgsz")}
        return ultralytics({**meta, "task": written["task"]}, "the file's metadata")
    except (ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RecursionError):
        return {}


def _pixels(graph: OnnxFile) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
    """What the one picture that comes in must hold, by what the graph does to it first."""
    pictures = [port for port in graph.inputs if port.sizes is not None and len(port.sizes) == 4]
    if len(graph.inputs) != 1 or not pictures:
        return None
    operators, scale, shift = _arithmetic(graph, pictures[0].name)
    why = f"the graph itself begins with {' and '.join(operators)}"
    by, least = float(np.abs(scale).mean()), float(np.abs(shift).mean())
    if 0.002 <= by <= 0.05 or (by == 1 and least > 50):
        return (0.0,), (1.0,), why
    if 1.5 <= by <= 10 or (by == 1 and 0.3 <= least <= 0.7):
        return (0.0,), (255.0,), why
    return None


def _color(graph: OnnxFile) -> str:
    """The order of the channels of the one picture, by the means that are taken off it first."""
    if len(graph.inputs) != 1:
        return ""
    _, scale, shift = _arithmetic(graph, graph.inputs[0].name)
    return color_of(-shift / scale) if np.all(scale) else ""


def _arithmetic(graph: OnnxFile, value: str) -> tuple[list[str], Array, Array]:
    """The operators, and the factor and term for each channel, that a value first goes through."""
    operators: list[str] = []
    scale, shift = np.ones(1), np.zeros(1)
    while len(takers := [node for node in graph.nodes if value in node.takes]) == 1:
        node, first = takers[0], takers[0].takes[0] == value
        if node.kind not in ("Cast", "Identity", "Transpose"):
            constant = graph.constant(node.takes[-1 if first else 0])
            if len(node.takes) != 2 or constant is None or constant.size not in (1, 3):
                break
            number = constant.reshape(-1).astype(np.float64)
            if node.kind == "Mul" or (node.kind == "Div" and first and number.all()):
                factor = number if node.kind == "Mul" else 1 / number
                scale, shift = scale * factor, shift * factor
            elif node.kind in ("Add", "Sub") and first:
                shift = shift + (number if node.kind == "Add" else -number)
            else:
                break
            operators.append(node.kind)
        value = node.gives[0]
    return operators, scale, shift


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
