"""The one type that everything speaks, and the two seams around it.

A batch is columnar: a dict of arrays with the same first axis. A CSV chunk, a request, a stack of
frames, the tensors of a model and its predictions all have that shape. Text and ragged values
(token ids of rows of different length) are object arrays.

A *task* knows what data mean, a *runtime* knows how to run a file, and a model is one of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from mlopsdeploy.core.model_yaml import ModelYaml
from mlopsdeploy.errors import DoubtError, ModelError

Array = npt.NDArray[Any]
Columns = dict[str, Array]
DataKind = Literal["text", "table", "image"]
"""What a task's rows are: one text, cells of a table (or numbers in a list), one picture."""


@dataclass(frozen=True)
class Field:
    """One column of a task's input or output.

    `dtype` is a NumPy name, or `str` for text; `shape` is the shape of one row (`()`: a scalar),
    with -1 for a size that varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def has_steps(self) -> bool:
        """Whether a row has numbers along several axes, as those of each step or pixel."""
        return sum(size != 1 for size in self.shape) > 1


def floats(fields: Iterable[Field]) -> list[Field]:
    """Those of real numbers."""
    return [field for field in fields if field.dtype.startswith("float")]


MadeAs = Literal[
    "softmax", "sigmoid", "logits", "sigmoid logits", "values", "linear", "label", "distances",
    "decision", "",
]  # fmt: skip
"""How a graph makes an output: probabilities of classes that exclude each other; probabilities that
are each their own; what a softmax, or of one number a sigmoid, must still follow; what a sigmoid of
each of several numbers must still follow; numbers that are neither, such as a regressor's; numbers
of a last step without an activation, which may be values or logits; names or numbers of classes;
distances from the centres of clusters; how far inside (above 0) or outside of the usual; unknown.
"""


class Made(NamedTuple):
    """How a graph makes an output, and what tells so: `the last layer's activation, softmax`."""

    kind: MadeAs = ""
    source: str = ""


def readings_of(kind: MadeAs, width: int) -> list[tuple[str, str]]:
    """What numbers of classes may be, where only a YAML can tell: its line, and what that means.

    Args:
        kind: how they are made; a last step without an activation gives no probabilities.
        width: how many a row has.
    """
    several = width != 1
    probabilities = [
        ("activation: none", "probabilities of classes"),
        *[("multi_label: true", "probabilities of several labels")] * several,
    ]
    logits = [
        (f"activation: {'softmax' if several else 'sigmoid'}", "logits of classes"),
        *[("activation: sigmoid", "logits of several labels")] * several,
    ]
    return logits if kind == "linear" else probabilities + logits


@dataclass(frozen=True)
class Written:
    """What a model's author wrote of it, read in its own files; empty where they don't tell.

    Attributes:
        outputs: how each output is made, by name.
        classes: of an output of labels or of probabilities, the names of its classes, in the order
            of the probabilities.
        parts: of an output that holds several answers side by side, a row of numbers or a label
            for each, what each is called in `outputs` and `classes`.
        task: what the whole model is for, where its files tell: the kind of answer alone, as
            "classification", "regression", "clustering", "outliers" or "reconstruction".
        task_source: what tells so.
        pixels: the pixels that a picture's tensor takes, as `mean`, `std` (in steps of 0 to 255)
            and what tells so, such as a Rescaling layer inside.
        color: the order of its channels, "bgr", where that shows.
        sizes: of inputs that an Embedding looks up, how many entries its table has.
        changing: why the same row may have another answer the next time; empty where nothing
            draws at random or keeps a state.
        features: names of the columns of the one tensor of a table.
    """

    outputs: Mapping[str, Made] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    task: str = ""
    task_source: str = ""
    pixels: tuple[tuple[float, ...], tuple[float, ...], str] | None = None
    color: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    changing: str = ""
    features: tuple[str, ...] = ()


def named_features(model: object, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The names under `feature_names`, as an author writes them: a JSON list, or between commas.

    Args:
        model: its name or file, for the message.
        metadata: of the file, see `Runtime.metadata`.

    Raises:
        ModelError: it begins as a list and is none.
    """
    written = metadata.get("feature_names", "")
    try:
        names = json.loads(written) if written.lstrip().startswith("[") else written.split(",")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{model}: its feature_names are not a JSON list") from error
    return tuple(str(name).strip() for name in names if str(name).strip())


@dataclass(frozen=True)
class ModelFiles:
    """What is known of a model before it runs, read from its files.

    `graphs` holds a path per format: "onnx", "openvino" (an `.xml`), "litert" (a `.tflite`),
    "keras" (`.keras` or `.h5`), "saved_model" (a folder), "checkpoint" (a Hugging Face folder with
    safetensors), or the suffix of a file that an outside package's runtime opens. `digest` is the
    SHA-256 of everything that shapes its answers, which `digest_covers` lists; `weights` is that
    of the files alone, the key of what is compiled from them. `task` is empty where nothing but the
    graph itself can tell. `yaml` holds the keys of `model.yaml`, `metadata` what was read in the
    graph's own file (see `model_files.tflite_metadata`), and `labels_from` where the labels were
    found, `languages_from` where those were that `yaml` has. `float32` is the graph in full
    precision, where the one that runs is not. `parts` are the files of each of several models that
    stand side by side, which together have no graphs: see `core.by_language`. `written` is what
    the author wrote into the graph that runs, or into the one that it was compiled from.
    """

    name: str
    version: str
    digest: str
    task: str
    graphs: Mapping[str, Path]
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    threshold: float | None = None
    precision: str | None = None
    tokenizer: Path | None = None
    max_length: int = 512
    pad_id: int = 0
    pad_side: str = "right"
    features: tuple[str, ...] = ()
    yaml: ModelYaml = field(default_factory=ModelYaml)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels_from: str = ""
    languages_from: str = ""
    float32: Path | None = None
    weights: str = ""
    digest_covers: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[ModelFiles, ...] = ()
    written: Written = field(default_factory=Written)


@dataclass(frozen=True)
class TaskOptions:
    """What a user may say over what the model's files say; see `load_model`.

    With a list of `doubts`, what can be read in several ways is noted there and read in the first;
    without one it is an error.
    """

    threshold: float | None = None
    features: tuple[str, ...] = ()
    long_text: str = "head"
    doubts: list[DoubtError] | None = None

    def doubt(self, error: DoubtError) -> None:
        """Note that a model can be read in several ways, or refuse it.

        Raises:
            DoubtError: nobody gathers doubts.
        """
        if self.doubts is None:
            raise error
        self.doubts.append(error)


class Fact(NamedTuple):
    """One thing that was read, or decided, about a model, and where it comes from."""

    name: str
    value: str
    source: str


class AnswerColumns(NamedTuple):
    """Which of a task's outputs make up one answer to a row; "" where there is no such column.

    Attributes:
        label: a str, which summaries and reports count.
        number: a float whose spread they show; where it isn't finite, there is no answer.
        scores: a probability for each of `labels`, in their order, of shape (labels,).
        labels: their names; empty where nobody names them.
        name: what tells several answers apart; empty where there is one.
    """

    label: str = ""
    number: str = ""
    scores: str = ""
    labels: tuple[str, ...] = ()
    name: str = ""

    @property
    def is_probability(self) -> bool:
        """Whether `number` runs from 0 to 1."""
        return bool(self.scores) or self.number == "score"


@dataclass(frozen=True)
class Quantization:
    """What an integer tensor means: `(value - zero_point) * scale`."""

    dtype: str
    scale: float
    zero_point: int

    def quantize(self, values: Array) -> Array:
        """Real numbers to the tensor's integers, rounded and clipped; NaN as 0."""
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):
            steps = np.rint(values / self.scale) + self.zero_point
        steps = np.nan_to_num(np.clip(steps, limits.min, limits.max), nan=self.zero_point)
        return np.asarray(steps.astype(self.dtype))

    def dequantize(self, steps: Array) -> Array:
        """The tensor's integers to float32."""
        values: Array = steps.astype(np.float32)
        values -= self.zero_point
        values *= np.float32(self.scale)
        return values


class _Derived:
    """A default that follows from other attributes; an instance's own value goes before it."""

    def __init__(self, derive: Callable[[Any], object]) -> None:
        self._derive = derive

    def __get__(self, instance: Any, _owner: type | None = None) -> object:
        return self if instance is None else self._derive(instance)


def _data_of(task: Task) -> DataKind:
    kinds = [(one.dtype, one.shape) for one in task.inputs]
    if len(kinds) == 1 and kinds[0][0] == "uint8" and kinds[0][1][2:] == (3,):
        return "image"
    return "text" if kinds == [("str", ())] else "table"


def _has_boxes(task: Task) -> bool:
    return any(one.name == "boxes" for one in task.outputs)


def _answers_of(task: Task) -> tuple[AnswerColumns, ...]:
    names = [one.name for one in task.outputs]
    label, score, scores = (name if name in names else "" for name in ("label", "score", "scores"))
    numbers = (one.name for one in floats(task.outputs) if not one.shape)
    number = score or next(numbers, "")
    return (AnswerColumns(label, number, scores, task.labels),) if label or number else ()


class Runtime(Protocol):
    """Runs a model's file; knows nothing of what the numbers mean.

    What has a value here may be left out, see `NEWER`.
    """

    name: str = cast("str", _Derived(lambda runtime: type(runtime).__name__.lower()))
    """What `--runtime` calls it."""

    formats: ClassVar[tuple[str, ...]]
    """The formats that it opens: keys of `ModelFiles.graphs`."""

    precisions: ClassVar[tuple[str, ...]] = ()
    """The precisions that a caller may choose; empty where the file decides."""

    inputs: tuple[Field, ...]
    """The tensors that the file takes."""

    outputs: tuple[Field, ...]
    """The tensors that it outputs."""

    metadata: Mapping[str, str] = {}
    """What the file's author wrote into it, such as `feature_names` and `classes` (JSON lists)."""

    quantization: Mapping[str, Quantization] = {}
    """The tensors that the file holds as integers, by name; for `run` they are real numbers."""

    missing_values: str = ""
    """What becomes of a row with NaN, for people; empty where the class doesn't tell."""

    takes_trust: ClassVar[bool] = False
    """Whether its files may hold code: then it is made with `trusted` where the user trusts it."""

    streams: int
    """How many threads may usefully call `run` at the same time."""

    steady: ClassVar[bool] = False
    """Whether a call takes as long as others of its size did, whatever the values are."""

    batch_scale: int = 1
    """How many times the work of a CPU core's batch one call should bring (1 on a CPU)."""

    precision: str
    """What it computes in: float32, bfloat16 or int8."""

    def run(self, tensors: Columns) -> Columns:
        """Outputs by name for dense inputs by name; tensors it has no input for are ignored.

        Thread-safe. A row with NaN, which the model has no way to take, has NaN as its output.

        Raises:
            RowError: it can't take these rows, or one of them, such as an index beyond a table's
                end. For nothing else: a caller leaves such a row out and goes on.
        """
        ...

    def native(self) -> AbstractContextManager[Any]:
        """The library's own object while the body runs, for a benchmark; None where it has none."""
        return nullcontext()


class Task(Protocol):
    """Turns columns into tensors and tensors into predictions.

    What has a value here may be left out, see `NEWER`.
    """

    data: DataKind = cast("DataKind", _Derived(_data_of))
    """What its rows are; by default as the inputs have it: one str is a text, one uint8 of
    (-1, -1, 3) a picture, all else cells of a table."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    features: tuple[str, ...] = ()
    """What the columns are called that fill the one input of several numbers, if somebody says."""

    matrix: Field | None = None
    """The one tensor of numbers that `encode` takes in place of all `inputs`, if there is one:
    callers that have rows of numbers need not take them apart."""

    finds_objects: bool = cast("bool", _Derived(_has_boxes))
    """Whether a row has any number of labels, each with a score and a box; by default whether an
    output is called `boxes`."""

    answers: tuple[AnswerColumns, ...] = cast("Any", _Derived(_answers_of))
    """What of the outputs is counted and compared; by default `label`, `score` (else the first
    number) and `scores`, as far as they are there; nothing where tensors stay as they are."""

    labels: tuple[str, ...] = ()
    """The names of the columns of `scores`; empty where nobody names them."""

    multi_label: bool = False
    """Whether a row may have several labels, joined by "|"."""

    threshold: float | None = None
    """From which score on a label is given; None: the highest score decides."""

    languages: tuple[str, ...] = ()
    """Of texts, the ISO 639 codes of the languages that it reads; empty where nobody says."""

    facts: tuple[Fact, ...] = ()
    """What was understood about the model, for `models inspect`."""

    batch_cost: int
    """The work, in units of `cost`, that keeps one CPU core busy without leaving its cache."""

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """The task of a model, from its files, its tensors and the user's options.

        Raises:
            ModelError: the files lack what the task needs, or the tensors are not a model of it.
        """
        ...

    def encode(self, columns: Columns) -> Columns:
        """What the model needs of each row; may be ragged (object arrays).

        Raises:
            RowError: a row is not what the model takes.
        """
        ...

    def cost(self, encoded: Columns) -> Array:
        """Work per row, int64 of shape (rows,): tokens for text, 1 for dense tasks."""
        ...

    def collate(self, encoded: Columns) -> Columns:
        """Dense tensors by input name, padded where rows differ."""
        ...

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Predictions of the same rows: a column for each of `outputs`, and perhaps these.

        With a column `unread` (str), why the model can't read each text, such as its language, or
        "": such rows are counted. With a column `model` (str), which of several it was that did.
        With a column `margin`, how far each score is from another label, close calls of a model
        that computes in a low precision are rechecked in float32.

        Raises:
            ModelError: the tensors can't be read as predictions.
        """
        ...


NEWER: Mapping[type, tuple[str, ...]] = {
    Runtime: (
        "name", "precisions", "metadata", "quantization", "missing_values", "takes_trust",
        "steady", "batch_scale", "native",
    ),
    Task: (
        "data", "finds_objects", "answers", "features", "matrix", "labels", "multi_label",
        "threshold", "languages", "facts",
    ),
}  # fmt: skip
"""What a class of an outside package may leave out: `plugins.load` adds the value given above."""


def rows_of(columns: Columns) -> int:
    """The number of rows: the common first axis (0 when there are no columns)."""
    for column in columns.values():
        return len(column)
    return 0


def take(columns: Columns, rows: npt.NDArray[np.intp] | slice) -> Columns:
    """The given rows of every column."""
    return {name: column[rows] for name, column in columns.items()}


def concat(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, one after another; the first part says which columns there are."""
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def joined(parts: Sequence[Array]) -> Array:
    """The rows of all parts; as an object array of each row's where these differ in shape."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return objects([row for part in parts for row in part])


def objects(values: list[Any]) -> Array:
    """A 1-D object array; unlike `np.array`, also for lists of equal length."""
    array = np.empty(len(values), dtype=object)
    if len(values) == 1:  # a request, of which NumPy would take ten times longer
        array[0] = values[0]
    else:
        array[:] = values
    return array
