"""What a model is for, where neither the user nor its files name the task.

It follows from the tensors and from how the graph makes its outputs, never from values. What can
be read in several ways is a doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlopsdeploy.columns import (
    Fact,
    Field,
    Made,
    ModelFiles,
    Runtime,
    TaskOptions,
    floats,
    readings_of,
)
from mlopsdeploy.errors import DoubtError

_KINDS = {
    "softmax": "classification", "sigmoid": "classification", "logits": "classification",
    "sigmoid logits": "classification",
    "label": "classification", "values": "regression", "distances": "clustering",
    "decision": "outliers",
}  # fmt: skip
_OF_TABLES = {
    "classification": "tabular_classification", "regression": "tabular_regression",
    "clustering": "clustering", "outliers": "anomaly_detection",
    "reconstruction": "anomaly_detection",
}  # fmt: skip
_OF_PICTURES = {
    "classification": "image_classification", "regression": "image_regression",
    "multi_output": "image_multi_output",
}  # fmt: skip


def which_task(files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Fact:
    """The task of a model that no file names.

    Args:
        files: the model's.
        runtime: its tensors.
        options: what becomes of a doubt.

    Raises:
        DoubtError: it may be for several things.
    """
    if not _takes_picture(files, runtime):
        kind, why = _kind(files, runtime, options, "tabular")
        if kind == "classification" and (steps := _of_steps(files, runtime)):
            return Fact("task", "tensors", steps)
        return Fact("task", _OF_TABLES.get(kind, kind), why)
    if len(runtime.outputs) == 1 and _is_map(runtime.outputs[0], runtime.inputs[0]):
        options.doubt(
            DoubtError(
                files.name,
                f"its output {runtime.outputs[0].name!r} has the shape of a map of pixels",
                (
                    ("task: tensors", "a map to be left as it is"),
                    ("task: object_detection", "objects"),
                ),
            )
        )
        return Fact("task", "tensors", "nothing (a guess)")
    if any(len(output.shape) > 1 for output in runtime.outputs):
        return Fact("task", "object_detection", "a picture in, more than a row of numbers out")
    kind, why = _kind(files, runtime, options, "image")
    return Fact("task", _OF_PICTURES.get(kind, "tensors"), why)


def _of_steps(files: ModelFiles, runtime: Runtime) -> str:
    """Why the classes are not those of a row but of each of its steps, where they are."""
    numbers = [one for one in floats(runtime.outputs) if files.yaml.output in (None, one.name)]
    if len(numbers) != 1 or not numbers[0].has_steps or files.labels or files.yaml.activation:
        return ""
    output, made = numbers[0], files.written.outputs.get(numbers[0].name, Made())
    if made.kind in ("sigmoid", "sigmoid logits"):  # of which each is its own
        return ""
    return f"its output {output.name!r} has classes for each step of a row, not for the row"


def _takes_picture(files: ModelFiles, runtime: Runtime) -> bool:
    if files.yaml.input is not None:  # how pixels become numbers
        return True
    if len(runtime.inputs) != 1 or len(runtime.inputs[0].shape) != 3:
        return False
    shape = runtime.inputs[0].shape
    return shape[2] in (1, 3, -1) or shape[0] in (1, 3)


def _is_map(output: Field, picture: Field) -> bool:
    """Whether it has a number, or some, for each pixel, or for each place of a square grid."""
    sides = output.shape[:2]
    square = len(sides) == 2 and sides[0] == sides[1] > 6
    return len(output.shape) <= 3 and (square or sides in (picture.shape[:2], picture.shape[1:]))


def _kind(files: ModelFiles, runtime: Runtime, options: TaskOptions, data: str) -> tuple[str, str]:
    """The kind of answer, or a task that goes with any data, and what tells so."""
    written, yaml = files.written, files.yaml
    if yaml.heads:
        return "multi_output", "heads in the YAML"
    if written.parts:
        return "multi_output", "names of classes for each of several answers"
    if yaml.activation is not None or yaml.multi_label is not None:
        return "classification", "the YAML says how its probabilities are made"
    numbers = [one for one in floats(runtime.outputs) if yaml.output in (None, one.name)]
    if not numbers:
        return _of_labels(files, runtime, options, data)
    made = [written.outputs.get(output.name, Made()) for output in numbers]
    columns = all(len(written.classes.get(output.name, ())) == 1 for output in numbers)
    several = len(numbers) > 1 and not columns
    if written.task == "clustering" and made[0].kind == "softmax":  # a mixture, not centres
        return "classification", f"{written.task_source}, with a probability for each component"
    if written.task and not (written.task == "classification" and several):
        return written.task, written.task_source
    if several:
        return _of_several(files, numbers, made, options)
    return _of_one(files, runtime, options, data, numbers[0])


def _of_labels(
    files: ModelFiles, runtime: Runtime, options: TaskOptions, data: str
) -> tuple[str, str]:
    """Of a model without real numbers: labels, or whole numbers that may count something."""
    written = files.written
    if written.task:
        return written.task, written.task_source
    output = runtime.outputs[0]
    label = written.outputs.get(output.name, Made()).kind == "label"
    if label or not output.dtype.startswith(("int", "uint")) or files.labels:
        return "classification", "its outputs are labels alone"
    options.doubt(
        DoubtError(
            files.name, f"its output {output.name!r} has whole numbers without a meaning",
            (
                (f"task: {data}_classification", "numbers of classes"),
                (f"task: {data}_regression", "values"),
                ("task: tensors", "numbers to be left as they are"),
            ),
        )
    )  # fmt: skip
    return "classification", "nothing (a guess)"


def _of_one(
    files: ModelFiles, runtime: Runtime, options: TaskOptions, data: str, output: Field
) -> tuple[str, str]:
    kind, source = files.written.outputs.get(output.name, Made())
    width = int(np.prod(output.shape, dtype=int))
    alone = len(runtime.outputs) == 1 and width > 1
    back = data == "tabular" and alone and _widths(runtime.inputs) == [width]
    if kind in _KINDS and not (kind == "sigmoid" and back and not files.labels):
        return _KINDS[kind], source
    if files.labels:
        return "classification", f"labels, from {files.labels_from}"
    readings = [(f"task: {data}_regression", "values"), *readings_of(kind, width)]
    if kind == "sigmoid":
        readings = [("activation: none", "probabilities of several labels")]
    if back:
        readings.append(("task: anomaly_detection", "an autoencoder's input given back"))
    readings.append(("task: tensors", "numbers to be left as they are"))
    why = f" ({source})" if source else ""
    many = "one number" if width == 1 else f"{width} numbers" if width > 0 else "numbers"
    options.doubt(
        DoubtError(
            files.name, f"its output {output.name!r} has {many} without a meaning{why}",
            readings,
        )
    )  # fmt: skip
    return "regression", "nothing (a guess)"


def _of_several(
    files: ModelFiles, outputs: Sequence[Field], made: Sequence[Made], options: TaskOptions
) -> tuple[str, str]:
    kinds = [one.kind for one in made]
    if all(_KINDS.get(kind) in ("classification", "regression") for kind in kinds):
        return "multi_output", f"{len(outputs)} outputs, each an answer"
    if "distances" in kinds or "decision" in kinds:
        place = next(n for n, kind in enumerate(kinds) if kind in ("distances", "decision"))
        return _KINDS[kinds[place]], made[place].source
    names = [output.name for output in outputs]
    options.doubt(
        DoubtError(
            files.name, f"has {len(names)} outputs of numbers, {', '.join(names)}",
            (
                (f"output: {names[0]}", "one of them holds the probabilities of classes"),
                (f"heads: {{{names[0]}: {{task: regression}}}}", "several are answers"),
                ("task: tensors", "all are to be left as they are"),
            ),
        )
    )  # fmt: skip
    return "tensors", "nothing (a guess)"


def _widths(tensors: Sequence[Field]) -> list[int]:
    return [int(np.prod(tensor.shape, dtype=int)) for tensor in tensors]
