"""The one type that everything speaks, and the two seams around it.

A batch is columnar: a dict of arrays with the same first axis. A CSV chunk, a request, a stack of
frames, the tensors of a model and its predictions all have that shape. Text and ragged values
(token ids of rows of different length) are object arrays.

A *task* knows what data mean, a *runtime* knows how to run a file, and a model is one of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Columns = dict[str, Array]


@dataclass(frozen=True)
class Field:
    """One column of a task's input or output.

    `dtype` is a NumPy name, or `str` for text; `shape` is the shape of one row (`()`: a scalar),
    with -1 for a size that varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelFiles:
    """What is known of a model before it runs, read from its files.

    `graphs` holds a path per format: "onnx", "openvino" (an `.xml`), "litert" (a `.tflite`),
    "keras" (`.keras` or `.h5`), "saved_model" (a folder), "checkpoint" (a Hugging Face folder with
    safetensors), or the suffix of a file that an outside package's runtime opens. `digest` is the
    SHA-256 of everything that shapes its answers. `task` is empty where nothing but the graph
    itself can tell. `said` is all that `model.yaml` says, `metadata` what the graph's own file
    says (see `models.tflite_metadata`), and `labels_from` where the labels were found. `float32`
    is the graph in full precision, where the one that runs is not.
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
    said: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels_from: str = ""
    float32: Path | None = None


@dataclass(frozen=True)
class TaskOptions:
    """What a user may say over what the model's files say; see `load_model`."""

    threshold: float | None = None
    features: tuple[str, ...] = ()
    long_text: str = "head"


class Runtime(Protocol):
    """Runs a model's file; knows nothing of what the numbers mean."""

    inputs: tuple[Field, ...]
    """The tensors that the file takes."""

    outputs: tuple[Field, ...]
    """The tensors that it gives."""

    metadata: dict[str, str]
    """What the file's author wrote into it, such as `feature_names` and `classes` (JSON lists)."""

    streams: int
    """How many threads may usefully call `run` at the same time."""

    batch_scale: int
    """How many times the work of a CPU core's batch one call should bring (1 on a CPU)."""

    precision: str
    """What it computes in: float32, bfloat16 or int8. A class that lets its caller choose lists
    the choices as `precisions`, and the formats that it opens as `formats`."""

    def run(self, tensors: Columns) -> Columns:
        """Outputs by name for dense inputs by name; tensors it has no input for are ignored.

        Thread-safe.

        Raises:
            RuntimeError, ValueError, MemoryError: it can't take these rows, or one of them.
        """
        ...


class Task(Protocol):
    """Turns columns into tensors and tensors into predictions."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    batch_cost: int
    """The work, in units of `cost`, that keeps one CPU core busy without leaving its cache."""

    @classmethod
    def build(cls, files: ModelFiles, runtime: Runtime, options: TaskOptions) -> Self:
        """The task of a model, from its files, its tensors and the user's wishes.

        Raises:
            ModelError: the files lack what the task needs, or the tensors are not a model of it.
        """
        ...

    def encode(self, columns: Columns) -> Columns:
        """What the model needs of each row; may be ragged (object arrays)."""
        ...

    def cost(self, encoded: Columns) -> Array:
        """Work per row, int64 of shape (rows,): tokens for text, 1 for dense tasks."""
        ...

    def collate(self, encoded: Columns) -> Columns:
        """Dense tensors by input name, padded where rows differ."""
        ...

    def decode(self, tensors: Columns, encoded: Columns) -> Columns:
        """Predictions of the same rows: label, score, and what else the task gives.

        With a column `margin`, how far each score is from another label, a model that computes in
        a low precision gives close calls a second look in float32.
        """
        ...


def rows_of(columns: Columns) -> int:
    """The number of rows: the common first axis (0 when there are no columns)."""
    return next((len(column) for column in columns.values()), 0)


def take(columns: Columns, rows: npt.NDArray[np.intp] | slice) -> Columns:
    """The given rows of every column."""
    return {name: column[rows] for name, column in columns.items()}


def objects(values: list[Any]) -> Array:
    """A 1-D object array; unlike `np.array`, also for lists of equal length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
