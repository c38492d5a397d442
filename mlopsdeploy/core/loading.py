"""From a reference to a model: find its files, choose a runtime, compile where need be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlopsdeploy.columns import Columns, Fact, ModelFiles, Runtime, Task, TaskOptions
from mlopsdeploy.convert import checkpoint, from_keras, quantize, tokenizer
from mlopsdeploy.core import plugins
from mlopsdeploy.core.by_language import by_language
from mlopsdeploy.core.machine import core_count
from mlopsdeploy.core.model import RECHECK_MARGIN, Model
from mlopsdeploy.core.once import once
from mlopsdeploy.core.references import several
from mlopsdeploy.core.which_task import which_task
from mlopsdeploy.errors import ConfigError, DoubtError, ModelError
from mlopsdeploy.model_files import find_model
from mlopsdeploy.model_files.cache import note_use
from mlopsdeploy.model_files.huggingface import TASKS as TEXT_TASKS
from mlopsdeploy.model_files.written import read_written
from mlopsdeploy.settings import DEFAULT_MODEL, Running

Log = Callable[[str], None]

# By the format of its files, best first.
_PREFERRED = {
    "tflite": ("litert", "tflite"),
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "keras": ("litert", "tensorflow"),
    "saved_model": ("litert", "tensorflow"),
}


class Prepared(NamedTuple):
    """A model that was found and compiled.

    Attributes:
        file: that its runtime opens; of several models that of the first.
        digest: SHA-256 of its files.
    """

    file: Path
    digest: str


class OtherFormatError(ModelError):
    """The runtime that was asked for runs none of the formats that the model has."""


def load_model(
    reference: str | None = None,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    task: str | None = None,
    threshold: float | None = None,
    features: tuple[str, ...] = (),
    long_text: str = "head",
    digest: str | None = None,
    streams: int | None = None,
    trust_model: bool = False,
    doubts: list[DoubtError] | None = None,
    calibrate: Callable[[], Columns] | None = None,
    max_flips: float = quantize.MAX_FLIPS,
    log: Callable[[str], None] = lambda _: None,
) -> Model:
    """Load a model by name, path or hub id.

    Args:
        reference: by default the built-in models of texts, each for the texts in its language.
            Else `sentiment`, `fraud`, a Hugging Face or MLflow folder, an `.onnx`, `.keras`,
            `.h5` or `.tflite` file, a SavedModel, `org/name[@revision]`, or `models:/name@alias`;
            see `models.files`. Several with commas between: see `core.by_language`.
        runtime: "auto", "openvino", "onnxruntime", "litert", "tensorflow", "torch", or what a
            plug-in adds.
        precision: "auto", "float32", "bfloat16" or "int8". Auto is what the model's `model.yaml`
            says was proven for it, else bfloat16 where the hardware has it, else float32. int8 of
            a text classifier on OpenVINO is calibrated and proven, once, if `calibrate` is given;
            else what was proven before is taken, or scales are computed anew for each row.
        threads: CPU threads in all; by default one per core.
        streams: calls that run at the same time, each with its share of the threads; by default
            one per thread, which is best for throughput. One stream answers soonest.
        task: what its data mean, over what its files say; "tensors" takes any model as it is.
        threshold: see the task; by default the model's own.
        features: for tabular models, the input columns in the model's order.
        long_text: for text models, what becomes of a text longer than the model takes: "head",
            "head-tail" or "chunks"; see `tasks.text_classification`.
        digest: SHA-256 that the model's files must have.
        trust_model: run code that the model's files carry (Keras Lambda layers).
        doubts: where to note what of the model can be read in several ways, the first of which is
            taken then; without it such a model is refused.
        calibrate: gives a sample of the rows to be scored; see `quantize.int8_model`. Of several
            models none is calibrated, for the sample is of all their languages: do it one by one.
        max_flips: the largest share of labels, from 0 to 1, that may differ from float32's in a
            model that is calibrated.
        log: called with a line about each slow step (an export).

    Raises:
        ConfigError: the runtime or precision is unknown, missing, or not for this model.
        InputError: there are too few rows to calibrate.
        ModelError: the model can't be found or loaded, or int8 changes too many of its labels.
        DoubtError: its files can be read in several ways, and nobody says which.
    """
    chosen = reference is not None
    reference = DEFAULT_MODEL if reference is None else reference
    if parts := several(reference):
        each = partial(
            load_model, runtime=runtime, precision=precision, threads=threads, streams=streams,
            threshold=threshold, long_text=long_text, trust_model=trust_model, max_flips=max_flips,
            log=log,
        )  # fmt: skip
        several_files = _found(reference, digest)
        model = by_language(several_files, [once(partial(each, part)) for part in parts])
        return replace(model, chosen=chosen)
    files, runtime_class, graph = _prepared(reference, runtime, digest, trust_model, log)
    files = replace(files, task=task or files.task, written=read_written(graph))
    if files.written.changing and not files.yaml.changing:
        raise ModelError(
            f"{files.name}: the same row may have another answer the next time "
            f"({files.written.changing}); save it without that, or say 'changing: true' in a YAML "
            "beside the model"
        )
    precisions = runtime_class.precisions
    if precision == "auto" and files.precision in precisions:
        precision = str(files.precision)
    threads = threads or core_count()
    spread = {} if streams is None else {"streams": streams}
    if trust_model and runtime_class.takes_trust:
        spread["trusted"] = True
    options = TaskOptions(threshold, features, long_text, doubts)

    def run(file: Path, precision: str) -> Runtime:
        running: Runtime = runtime_class(file, precision=precision, threads=threads, **spread)
        return running

    # A quantised graph may bring the one that it was made from, in the same format.
    brought = files.float32 if files.float32 and files.float32.suffix == graph.suffix else None
    floating = brought or graph
    exact = once(lambda: run(floating, "float32"))

    def assemble(file: Path, precision: str) -> Model:
        running = exact() if precision == "float32" else run(file, precision)
        what = _task(files, running, options, asked=bool(task))
        built = plugins.load("tasks", what.value).build(files, running, options)
        _check_keys(files, built, what.value, threshold)
        low = running.precision in RECHECK_MARGIN and "float32" in precisions
        recheck = exact if low else None
        return Model(
            files.name, files.version, files.digest, built, running, recheck, files.yaml,
            task_from=what.source,
        )  # fmt: skip

    if precision != "int8" or files.precision == "int8" or "int8" not in precisions:
        return assemble(graph if precision == files.precision else floating, precision)
    if files.task == "text_classification" and "openvino" in runtime_class.formats:
        quantized = _quantized(files, graph, options, assemble, calibrate, max_flips, log)
        if quantized is not None:
            note_use(quantized.file, files.name, reference)
            digest = hashlib.sha256((files.digest + quantized.digest).encode()).hexdigest()
            model = assemble(quantized.file, "int8")
            return replace(model, digest=digest, proof=quantized.proof)
    log(f"int8 is not proven for {files.name}: compare labels with --precision float32 first")
    return assemble(graph, precision)


def load_as_set(running: Running, reference: str | None, **more: Any) -> Model:
    """As `load_model`, with what settings say of how it runs; `more` wins over them."""
    names = (
        "runtime", "precision", "task", "threshold", "features", "long_text", "digest",
        "trust_model",
    )  # fmt: skip
    options = {name: getattr(running, name) for name in names if hasattr(running, name)}
    return load_model(reference, **{**options, **more})


def prepare_model(
    reference: str,
    *,
    runtime: str = "auto",
    digest: str | None = None,
    trust_model: bool = False,
    log: Log = lambda _: None,
) -> Prepared:
    """Find a model and compile it where need be, so that loading it later is quick.

    Raises:
        ConfigError, ModelError: as `load_model` does.
    """
    if parts := several(reference):
        together = _found(reference, digest)
        prepared = [
            prepare_model(part, runtime=runtime, trust_model=trust_model, log=log) for part in parts
        ]
        return Prepared(prepared[0].file, together.digest)
    files, _, graph = _prepared(reference, runtime, digest, trust_model, log)
    return Prepared(graph, files.digest)


def _prepared(
    reference: str, runtime: str, digest: str | None, trust_model: bool, log: Log
) -> tuple[ModelFiles, Any, Path]:
    """The model's files, if they are the ones that are meant; its runtime's class and file."""
    files = _found(reference, digest)
    if files.tokenizer:
        files = replace(files, tokenizer=tokenizer.as_json(files.tokenizer, log))
    runtime_class, graph = _choose(files, runtime, trust_model=trust_model, log=log)
    note_use(graph, files.name, reference)
    return files, runtime_class, graph


def _found(reference: str, digest: str | None) -> ModelFiles:
    files = find_model(reference)
    if digest and files.digest != digest:
        raise ModelError(
            f"{reference}: is another model than the one that was pinned; its digest is "
            f"{files.digest[:12]}…, not {digest[:12]}…"
        )
    return files


def _quantized(
    files: ModelFiles,
    graph: Path,
    options: TaskOptions,
    assemble: Callable[[Path, str], Model],
    calibrate: Callable[[], Columns] | None,
    max_flips: float,
    log: Log,
) -> quantize.Quantized | None:
    """The model in int8 with its proof; None where there is none and no rows to make one."""
    threshold = files.threshold if options.threshold is None else options.threshold
    shaping = {"threshold": threshold, "long_text": options.long_text}

    def quick(file: Path) -> tuple[Model, Model]:
        model = assemble(file, "int8")
        return replace(model, float32=None), model

    return quantize.int8_model(
        quantize.place(files.digest, shaping), graph, calibrate, name=files.name,
        max_flips=max_flips, floating=lambda: assemble(graph, "float32"), quick=quick, log=log,
    )  # fmt: skip


def _choose(files: ModelFiles, runtime: str, *, trust_model: bool, log: Log) -> tuple[Any, Path]:
    """The runtime's class and the file that it runs, compiled first where need be."""

    def from_tensorflow(target: str) -> Path:
        source = files.graphs.get("keras") or files.graphs["saved_model"]
        return from_keras.compile_model(
            source, files.weights, target=target, trust_model=trust_model, log=log
        )

    automatic = runtime == "auto"
    if automatic:
        runtime = _first_installed(files)
        if runtime == "litert" and "tflite" not in files.graphs:
            compiled = from_tensorflow("auto")
            name = "litert" if compiled.suffix == ".tflite" else "tensorflow"
            return plugins.load("runtimes", name), compiled
    runtime_class = plugins.load("runtimes", runtime)
    formats, graphs, weights = runtime_class.formats, files.graphs, files.weights
    for format_ in formats:
        # A SavedModel goes through the compiler, which looks for code in it before it is loaded.
        if format_ in graphs and format_ != "saved_model":
            return runtime_class, graphs[format_]
    if "onnx" in formats and "checkpoint" in graphs:
        return _exported(files, runtime_class, automatic=automatic, log=log)
    if "checkpoint" in formats and "onnx" in graphs and files.task in TEXT_TASKS:
        return runtime_class, checkpoint.from_onnx(graphs["onnx"], weights)
    for target in ("tflite", "saved_model"):
        if target in formats and not {"keras", "saved_model"}.isdisjoint(graphs):
            return runtime_class, from_tensorflow(target)
    raise OtherFormatError(
        f"{files.name}: has {', '.join(files.graphs)}, but {runtime} runs {', '.join(formats)}"
    )


def _exported(
    files: ModelFiles, runtime_class: Any, *, automatic: bool, log: Log
) -> tuple[Any, Path]:
    """A checkpoint as ONNX; as it is, on torch, where no graph gives the same answers."""
    source = files.graphs["checkpoint"]
    try:
        made = checkpoint.to_onnx(source, files.weights, files.max_length, log)
    except checkpoint.NotExportedError as error:
        if not automatic:
            raise
        log(f"{files.name} runs on torch, as it can't be exported ({error.reason})")
        return plugins.load("runtimes", "torch"), source
    return runtime_class, made


def _first_installed(files: ModelFiles) -> str:
    preferred = preferred_runtimes(files)
    if found := next(filter(plugins.installed, preferred), None):
        return found
    # What texts need besides comes with the runtime, so that nobody is sent a second time.
    extra = "text" if files.task in TEXT_TASKS else preferred[0]
    raise ConfigError(
        f"no runtime for {files.name} is installed: pip install 'mlopsdeploy[{extra}]'"
    )


def _task(files: ModelFiles, runtime: Runtime, options: TaskOptions, *, asked: bool) -> Fact:
    """The model's task, and what tells so."""
    # Of a mask's or a pose's model the boxes alone are right; rotated ones would be other boxes.
    rotated = files.task == "object_detection" and files.metadata.get("rotated")
    if rotated or (not files.task and "refused" in files.metadata):
        raise ModelError(files.metadata["refused"])
    if not files.task:
        return which_task(files, runtime, options)
    source = "config.json"
    if asked:
        source = "as asked"
    elif files.task == files.yaml.task:
        source = "the YAML"
    elif files.task == files.metadata.get("task"):
        source = "the file's metadata"
    return Fact("task", files.task, source)


_OF_CLASSES = ("activation", "multi_label")
# Of our own tasks, which keys of the YAML say nothing to them.
_UNREAD = {
    "multi_output": (*_OF_CLASSES, "labels", "output", "threshold"),
    "image_multi_output": (*_OF_CLASSES, "labels", "output", "threshold"),
    "tabular_regression": (*_OF_CLASSES, "heads", "threshold"),
    "image_regression": (*_OF_CLASSES, "heads", "threshold"),
    "text_regression": ("multi_label",),
    "clustering": (*_OF_CLASSES, "heads", "threshold"),
    "anomaly_detection": (*_OF_CLASSES, "heads"),
    "object_detection": (*_OF_CLASSES, "heads"),
    "tabular_classification": ("heads",),
    "image_classification": ("heads",),
    "tensors": (*_OF_CLASSES, "heads", "threshold"),
}


def _check_keys(files: ModelFiles, task: Task, name: str, threshold: float | None) -> None:
    """Refuse what somebody says and nobody hears."""
    for key in _UNREAD.get(name, ()):
        if getattr(files.yaml, key) is not None:
            where = "; put it under 'heads:'" if "multi_output" in name else "; leave it out"
            raise ModelError(f"{files.name}: {key} says nothing to the task {name}{where}")
    if threshold is not None and task.threshold is None:
        raise ConfigError(f"{files.name}: threshold {threshold:g}: its answers have none")
    probable = task.finds_objects or any(answer.is_probability for answer in task.answers)
    if probable and task.threshold is not None and not 0 <= task.threshold <= 1:
        raise ConfigError(
            f"{files.name}: threshold {task.threshold:g}: a probability is from 0 to 1"
        )


def preferred_runtimes(files: ModelFiles) -> tuple[str, ...]:
    """What a model runs on when nobody says: the first of these that is installed."""
    if files.task in TEXT_TASKS:
        return ("openvino", "onnxruntime", "torch")
    for format_, runtimes in _PREFERRED.items():
        if format_ in files.graphs:
            return runtimes
    return plugins.runtimes_for(next(iter(files.graphs))) or plugins.names("runtimes")
