"""A model: a task, which knows what data mean, on a runtime, which knows how to run a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlopsdeploy import plugins
from mlopsdeploy.columns import Columns, Runtime, Task, rows_of, take
from mlopsdeploy.compile import checkpoint
from mlopsdeploy.errors import ConfigError, ModelError
from mlopsdeploy.models import ModelFiles, find_model
from mlopsdeploy.models.cache import cache_folder
from mlopsdeploy.planner import Rows, plan

# Scores move a little with the rows that share a batch: by 2e-6 in float32, by up to 0.005 in
# bfloat16 and, on the checkpoints measured, 0.005 to 0.03 in int8, where rounding turns that noise
# into steps. A label decided by less than this gets a second look, so that none depends on its
# row's neighbours.
CLOSE_CALL = {"bfloat16": 0.02, "int8": 0.08}

# What a model runs on when nobody says: the first that is installed.
_PREFERRED = {
    "text_classification": ("openvino", "onnxruntime", "torch"),
    "tabular_classification": ("onnxruntime", "openvino"),
}


@dataclass(frozen=True)
class Model:
    """A trained model, ready to be called. Made by `load_model`.

    Attributes:
        name: as in the model's files, or the reference it was loaded by.
        version: as in `model.yaml`; empty where there is none.
        digest: SHA-256 of everything that shapes its answers.
        task: its seam to data.
        runtime: its seam to hardware.
        exact: gives the same model in float32, for close calls of a lower precision.
    """

    name: str
    version: str
    digest: str
    task: Task
    runtime: Runtime
    exact: Callable[[], Runtime] | None = None

    def predict(self, columns: Columns) -> Columns:
        """Predictions for the given rows: as many, in the same order.

        Args:
            columns: what `task.inputs` names; each of shape (rows, ...).
        """
        encoded = self.task.encode(columns)
        batches = self.plan(encoded)
        results = [self.predict_batch(encoded, batch) for batch in batches]
        if not results:
            return {}
        return in_order(batches, results)

    def plan(self, encoded: Columns) -> list[Rows]:
        """The rows to compute together, as `planner.plan` cuts them for this task and device."""
        if not rows_of(encoded):
            return []
        budget = self.task.batch_cost * self.runtime.batch_scale
        return plan(self.task.cost(encoded), budget)

    def predict_batch(self, encoded: Columns, rows: Rows) -> Columns:
        """Predictions for some rows of what `task.encode` made, in one call of the runtime."""
        batch = take(encoded, rows)
        predictions = self.task.decode(self.runtime.run(self.task.collate(batch)), batch)
        if self.exact is None or "margin" not in predictions:
            return predictions
        close = np.flatnonzero(predictions["margin"] < CLOSE_CALL[self.runtime.precision])
        if len(close):
            again = take(batch, close)
            exact = self.task.decode(self.exact().run(self.task.collate(again)), again)
            for name, values in exact.items():
                predictions[name][close] = values
        return predictions


def in_order(batches: list[Rows], results: list[Columns]) -> Columns:
    """The results of batches as one, in the order of the rows that `plan` was given."""
    order = np.argsort(np.concatenate(batches), kind="stable")
    return {
        name: np.concatenate([result[name] for result in results])[order] for name in results[0]
    }


def load_model(
    reference: str = "sentiment",
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    threshold: float | None = None,
    features: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Model:
    """Load a model by name, path or hub id.

    Args:
        reference: `sentiment`, a Hugging Face folder, an `.onnx` file, or `org/name[@revision]`.
        runtime: "auto", "openvino", "onnxruntime", "torch", or what a plug-in adds.
        precision: "auto", "float32", "bfloat16" or "int8". Auto is what the model's `model.yaml`
            says was proven for it, else bfloat16 where the hardware has it, else float32.
        threads: calls that run at the same time; by default one per core.
        threshold: see the task; by default the model's own.
        features: for tabular models, the input columns in the model's order.
        say: told what takes long (an export), in one line each.

    Raises:
        ConfigError: the runtime or precision is unknown, missing, or not for this model.
        ModelError: the model can't be found or loaded.
    """
    files = find_model(reference)
    name = _choose_runtime(runtime, files)
    runtime_class = plugins.load("runtimes", name)
    graph = _choose_graph(files, name, runtime_class.formats, say)
    if precision == "auto" and files.precision and name == "openvino":
        precision = files.precision
    elif precision == "int8" and files.precision != "int8":
        say(f"int8 is not proven for {files.name}: compare labels with --precision float32 first")
    threads = threads or core_count()
    running: Runtime = runtime_class(graph, precision=precision, threads=threads)
    task = _make_task(files, running, threshold, features)
    exact = None
    if running.precision in CLOSE_CALL:
        exact = _once(lambda: runtime_class(graph, precision="float32", threads=threads))
    return Model(files.name, files.version, files.digest, task, running, exact)


def _once(make: Callable[[], Runtime]) -> Callable[[], Runtime]:
    """`make` called at the first need, by one thread only."""
    lock = threading.Lock()
    made: list[Runtime] = []

    def get() -> Runtime:
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return get


def core_count() -> int:
    """Cores this process may use; fewer than the machine has under taskset or a cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _choose_runtime(runtime: str, files: ModelFiles) -> str:
    if runtime != "auto":
        return runtime
    preferred = _PREFERRED.get(files.task, plugins.names("runtimes"))
    for name in preferred:
        if plugins.installed(name):
            return name
    raise ConfigError(
        f"no runtime for {files.task} is installed: pip install 'mlopsdeploy[{preferred[0]}]'"
    )


def _choose_graph(
    files: ModelFiles, runtime: str, formats: tuple[str, ...], say: Callable[[str], None]
) -> Path:
    for format_ in formats:
        if format_ in files.graphs:
            return files.graphs[format_]
    if "onnx" in formats and "checkpoint" in files.graphs:
        return checkpoint.to_onnx(files.graphs["checkpoint"], cache_folder(), files.digest, say=say)
    if "checkpoint" in formats and "onnx" in files.graphs and files.task == "text_classification":
        return checkpoint.from_onnx(files.graphs["onnx"], cache_folder(), files.digest)
    raise ModelError(
        f"{files.name}: has {', '.join(files.graphs)}, but {runtime} runs {', '.join(formats)}"
    )


def _make_task(
    files: ModelFiles, runtime: Runtime, threshold: float | None, features: tuple[str, ...]
) -> Task:
    threshold = files.threshold if threshold is None else threshold
    task_class = plugins.load("tasks", files.task)
    if files.task == "text_classification":
        if files.tokenizer is None:
            raise ModelError(
                f"{files.name}: has no tokenizer.json; save it once with transformers: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
            )
        task: Task = task_class(
            files.tokenizer,
            files.labels,
            multi_label=files.multi_label,
            max_length=files.max_length,
            pad_id=files.pad_id,
            pad_side=files.pad_side,
            threshold=threshold,
        )
    else:
        task = task_class(
            runtime.inputs,
            runtime.outputs,
            features=features or files.features,
            metadata=runtime.metadata,
            labels=files.labels,
            threshold=threshold,
            name=files.name,
        )
    return task
