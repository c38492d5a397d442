"""The child of `convert.from_keras`: `python export_litert.py SOURCE FOLDER FORM TRUST KIND [WHY]`.

Writes FOLDER/model.tflite, or FOLDER/saved_model where LiteRT can't take the model, and
FOLDER/parity.json: its answers, through the runtime that will serve it, against those of the
original.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlopsdeploy.columns import Columns, Runtime, Written, rows_of, take
from mlopsdeploy.convert import keras_file
from mlopsdeploy.convert.keras_losses import Loss, read_losses, with_losses
from mlopsdeploy.convert.parity import (
    BATCHES,
    BOUND,
    EXTREME,
    SWAY,
    Case,
    Unfit,
    allowed,
    nudged,
    prove,
)
from mlopsdeploy.convert.tensorflow_graph import (
    Opened,
    as_reconstruction,
    left_to_kernels,
    open_graph,
    read_graph,
    what_changes,
    widths_taken,
)
from mlopsdeploy.errors import ModelError, one_line, shortened
from mlopsdeploy.model_files import tflite_metadata
from mlopsdeploy.model_files.digest import graph_files
from mlopsdeploy.model_files.written import to_json
from mlopsdeploy.runtimes.common import in_steps
from mlopsdeploy.runtimes.tensorflow import TensorFlow, check_graph, signature_of

# Layers that compute something else while they are trained, and do so wherever they are told to;
# those that augment pictures are, by default, and don't.
_TRAINED_OTHERWISE = re.compile("Dropout|Noise|BatchNormalization")
_BEFORE_3 = ("1", "2")  # versions of Keras
# Tried for sizes that are free, with those that the graph itself has; two that it takes are used.
LENGTHS = (7, 32, 64, 224)
_NO_ANSWER = (ValueError, tf.errors.OpError)  # to these rows


class Unprovable(Exception):  # noqa: N818  # not an error: it runs, unproven
    """Why there is nothing to compare with."""


@dataclass(frozen=True)
class Graph:
    """A model as a function of tensors by name."""

    name: str
    call: Callable[..., dict[str, Any]]
    inputs: dict[str, Any]  # TensorSpec
    owner: Any  # keeps the variables
    title: str = ""  # what its author calls it, of Keras; the others too
    layers: tuple[str, ...] = ()  # their names
    in_training: tuple[str, ...] = ()  # those that are called as if they were being trained
    losses: Mapping[str, Loss] = field(default_factory=dict)  # by output
    predict: Callable[[Columns], Columns] | None = None  # of Keras, its own way

    @property
    def fixed_rows(self) -> int | None:
        """How many rows it takes at once, where that is fixed."""
        return next((spec.shape[0] for spec in self.inputs.values() if spec.shape[0]), None)

    def run(self, columns: Columns) -> Columns:
        """Outputs by name for any number of rows, computed in steps where it is fixed."""
        return in_steps(self._run, columns, self.fixed_rows or rows_of(columns))

    def _run(self, columns: Columns) -> Columns:
        given = {
            name: tf.constant(array, self.inputs[name].dtype) for name, array in columns.items()
        }
        outputs = {name: value.numpy() for name, value in self.call(**given).items()}
        rows = rows_of(columns)
        for name, value in outputs.items():
            if value.ndim == 0 or len(value) != rows:
                raise ModelError(
                    f"its output {name!r} has the shape {value.shape} for {rows} rows; the first "
                    "axis must be the rows"
                )
        return outputs


# ---------------------------------------------------------------- reading


def _load(source: Path, form: str, *, trusted: bool) -> Any:
    """The model, by the Keras that wrote it; what is called TF-Keras goes on where Keras 2 ended.

    Keras 3 loads some files of Keras 2 with other answers: its hard sigmoid is another function,
    and rows of numbers become windows.
    """
    family = _keras_of(source, form)
    with tempfile.TemporaryDirectory() as folder:
        path = source
        if source.suffix not in ((".keras",) if form == "keras" else (".h5", ".hdf5")):
            path = Path(folder) / f"model.{form}"  # Keras goes by the name
            shutil.copyfile(source, path)
        try:
            return family.models.load_model(path, compile=False, safe_mode=not trusted)
        except Exception as error:
            raise ModelError(_unreadable(source, form, error)) from error


def _keras_of(source: Path, form: str) -> Any:
    version = keras_file.version(source, form)
    if not version.startswith(_BEFORE_3):
        return keras
    try:
        import tf_keras
    except ImportError as error:
        raise ModelError(
            f"was saved by Keras {version}; reading it needs tf-keras: "
            "pip install 'mlopsdeploy[tensorflow]'"
        ) from error
    return tf_keras


def read_keras(source: Path, form: str, *, trusted: bool) -> Graph:
    """A `.keras` or `.h5` model; its inputs and outputs bear the names of their layers."""
    model = _load(source, form, trusted=trusted)
    if not getattr(model, "inputs", None):
        raise ModelError(
            "does not say what its inputs are (it was never built); where it was made, call it "
            "once and save it with model.export('folder')"
        )
    struct = _struct(model, "inputs")
    inputs = tf.nest.flatten(struct)
    names = _names(struct, [tensor.name for tensor in inputs])
    specs = {}
    for name, tensor in zip(names, inputs, strict=True):
        if not len(tensor.shape):
            raise ModelError(f"its input {name!r} has no axis for rows")
        specs[name] = tf.TensorSpec(tensor.shape, tensor.dtype, name)
    outputs = [tensor._keras_history[0].name for tensor in model.outputs]
    gives = _names(_struct(model, "outputs"), outputs)

    def call(**tensors: Any) -> dict[str, Any]:
        given = tf.nest.pack_sequence_as(struct, [tensors[name] for name in names])
        answers = tf.nest.flatten(model(given, training=False))
        return {
            name: tf.cast(value, tf.float32) if value.dtype in (tf.bfloat16, tf.float16) else value
            for name, value in zip(gives, answers, strict=True)
        }

    def predict(columns: Columns) -> Columns:
        given = tf.nest.pack_sequence_as(struct, [columns[name] for name in names])
        answers = tf.nest.flatten(model.predict(given, verbose=0))
        return dict(zip(gives, answers, strict=True))

    layers = list(model._flatten_layers(include_self=False))
    in_training = tuple(
        layer.name
        for layer in layers
        if _TRAINED_OTHERWISE.search(type(layer).__name__) or hasattr(layer, "compile")  # a model
        if any(_given(node).get("training") is True for node in layer._inbound_nodes)
    )
    losses = read_losses(source, form, outputs)
    losses = {gives[outputs.index(name)]: loss for name, loss in losses.items()}
    return Graph(
        "Keras", call, specs, model, title=model.name, losses=losses, in_training=in_training,
        layers=tuple(layer.name for layer in layers), predict=predict,
    )  # fmt: skip


def _struct(model: Any, which: str) -> Any:
    """A model's inputs or outputs as its author arranged them."""
    plain = getattr(model, which)[0]  # a Sequential takes one tensor
    return getattr(model, f"_{which}_struct", getattr(model, f"_nested_{which}", plain))


def _given(node: Any) -> Any:
    """The keyword arguments of a layer's call, in Keras 3 and in Keras 2."""
    return node.arguments.kwargs if hasattr(node, "arguments") else node.call_kwargs


def _names(struct: Any, names: list[str]) -> list[str]:
    """One name per tensor: a dict's keys, else its layer's; as TensorFlow allows them."""
    if isinstance(struct, dict) and len(struct) == len(names):
        names = [str(key) for key in sorted(struct)]
    unique: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        clean = clean if clean[:1].isalpha() else f"x{clean}"
        tries = [clean, *(f"{clean}_{count}" for count in range(1, len(names) + 1))]
        unique.append(next(choice for choice in tries if choice not in unique))
    return unique


def _unreadable(source: Path, form: str, error: Exception) -> str:
    """Why Keras can't load a file, and what to do, in one line."""
    message = " ".join(str(error).rpartition("Exception encountered:")[2].split())
    unknown = re.search(r"(?:Unknown \w+:|Could not locate \w+) '([^']+)'", message)
    if unknown:
        return (
            f"needs {unknown[1]!r}, which is neither a part of Keras nor in the file; where it "
            "was made, model.export('folder') makes a SavedModel that can be used"
        )
    reason = shortened(message, 120) or type(error).__name__
    version = keras_file.version(source, form)
    if version.startswith(_BEFORE_3):
        return (
            f"was saved by Keras {version}, and can't be loaded ({reason}); load it in a program "
            "with that version, model.save('folder') there makes a SavedModel that can be used"
        )
    return f"Keras {keras.__version__} can't load it ({reason})"


def read_saved_model(source: Path, *, trusted: bool) -> Graph:
    """A SavedModel's signature `serving_default`, or its only one."""
    check_graph(source, trusted=trusted)
    function, owner = signature_of(source)
    specs = function.structured_input_signature[1]
    for name, spec in specs.items():
        if not spec.shape.rank:
            raise ModelError(f"its input {name!r} has no axis for rows")
    losses = read_losses(source, "saved_model", list(function.structured_outputs))
    return Graph("the SavedModel", function, dict(specs), owner, losses=losses)


def read_written(graph: Graph, opened: Opened, *, changes: bool) -> Written:
    """What the model's author wrote: in the graph, in its layers, in how it was trained.

    Args:
        graph: the model.
        opened: its graph.
        changes: whether it was seen to give another answer to the same row.
    """
    written = read_graph(opened, graph.layers)
    widths = {
        name: math.prod(size or 0 for size in tensor.shape[1:])
        for name, tensor in opened.outputs.items()
        if tensor.shape.rank
    }
    written = as_reconstruction(with_losses(written, graph.losses, widths), opened, graph.title)
    changing = ""
    if changes:
        changing = what_changes(opened, graph.layers) or "it gives another answer each time"
    elif graph.in_training:
        changing = (
            f"{', '.join(graph.in_training)} is called with training=True: as if it were being "
            "trained where the model is called, and not so in Keras' predict"
        )
    return replace(written, changing=changing)


# ---------------------------------------------------------------- writing


def save(graph: Graph, folder: Path, rows: int | None) -> None:
    """As a SavedModel whose signature has the graph's names and so many rows per call."""
    specs = {
        name: tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype, name)
        for name, spec in graph.inputs.items()
    }
    # Not tf.saved_model.save: the converter leaves the variables of a Keras model that is saved
    # as an attribute out of its file, and the file runs on whatever is in memory there.
    archive = keras.export.ExportArchive()
    archive.track(graph.owner)
    archive.add_endpoint("serving_default", lambda given: graph.call(**given), [specs])
    archive.write_out(str(folder), verbose=False)


def to_litert(graph: Graph, file: Path, rows: int | None) -> Runtime:
    """Convert, and open in the runtime that will run it.

    Raises:
        Unfit: the converter or the runtime has no such operation.
    """
    from mlopsdeploy.runtimes.litert import LiteRT

    with tempfile.TemporaryDirectory() as folder:
        try:
            save(graph, Path(folder), rows)
            file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
            return LiteRT(file)
        except Exception as error:  # the converter raises of every kind
            raise Unfit(_unfit(str(error).removeprefix(f"{file}: "))) from error


def _unfit(message: str) -> str:
    """The reason in a converter's page of errors."""
    lacking = re.search(r"(?:TF Select|Custom) ops: (.+)", message)
    if lacking:
        return f"it has no {shortened(lacking[1].strip(), 100)}"
    if "element_shape to be static" in message:
        return "a recurrent layer needs a fixed number of rows"
    return shortened(" ".join(re.sub(r"loc\([^:]*:", "", message).split()), 120)


# ---------------------------------------------------------------- proving


def examples(graph: Graph, length: int, limits: Mapping[str, int], count: int = 14) -> Columns:
    """Rows that a model may meet: zeros, ones, very large, very small, and random ones.

    The first six are edges; of several inputs, each has its edges in a different order in the
    second half, so that a zero here meets a number there.

    Args:
        graph: the model.
        length: of sizes that are free.
        limits: of inputs of whole numbers, one more than the largest; see `_limits`.
        count: how many.
    """
    draw = np.random.default_rng(length)
    columns = {}
    for place, (name, spec) in enumerate(graph.inputs.items()):
        shape = (count, *_row_shape(spec, length))
        if spec.dtype == tf.string:
            words = np.array(["", "good", "A bad film!", "12.5", "é 好", "x" * 300], dtype=object)
            values = words[draw.integers(0, len(words), shape)]
        elif name not in limits:
            values = draw.normal(size=shape)
            for row, edge in enumerate((0, 1, -1, 1e-6, EXTREME, -EXTREME)):
                values[row] = edge
            values[6:8] = draw.uniform(0, 1, (2, *shape[1:]))
            values[8:10] = draw.uniform(0, 255, (2, *shape[1:]))
            values[10] *= 100
        else:
            values = draw.integers(0, limits[name], shape)
            values[0], values[1], values[2] = 0, min(1, limits[name] - 1), limits[name] - 1
        if place:
            values[count // 2 :] = np.roll(values, place, axis=0)[count // 2 :]
        columns[name] = values.astype(_dtype(spec))
    return columns


def _row_shape(spec: Any, length: int) -> tuple[int, ...]:
    return tuple(length if size is None else size for size in spec.shape[1:])


def _dtype(spec: Any) -> Any:
    return object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype


def _limits(graph: Graph, length: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """One more than the largest whole number that each input is known to take.

    Args:
        graph: the model.
        length: of sizes that are free.
        sizes: of inputs that are looked up in tables, real numbers too, the table's.
    """
    types = {name: spec.dtype for name, spec in graph.inputs.items()}
    limits = {name: 2 for name, type_ in types.items() if type_.is_integer or type_.is_bool}
    most = {name: 1 if types[name].is_bool else int(types[name].max) for name in {*limits, *sizes}}
    for name in limits:
        for limit in (3, 5, 10, 20, 50, 100, 1000, 10000):
            tried = {**limits, name: limit}
            if name in sizes or limit - 1 > most[name] or not _takes(graph, length, tried):
                break
            limits = tried
    within = {name: min(size, most[name] + 1) for name, size in sizes.items()}
    return limits | within


def _takes(graph: Graph, length: int, limits: dict[str, int] | None = None) -> bool:
    """Whether the model computes rows of this length, filled with these largest integers."""
    columns = {}
    for name, spec in graph.inputs.items():
        fill: Any = "a b" if spec.dtype == tf.string else (limits or {}).get(name, 1) - 1
        columns[name] = np.full((2, *_row_shape(spec, length)), fill, _dtype(spec))
    try:
        graph.run(columns)
    except _NO_ANSWER:
        return False
    return True


def lengths(graph: Graph, opened: Opened) -> list[int]:
    """For sizes that the model leaves free, one or two that it takes; anything where none is."""
    if all(size is not None for spec in graph.inputs.values() for size in spec.shape[1:]):
        return [1]
    tried = dict.fromkeys((*LENGTHS, *widths_taken(opened), *range(1, 65)))
    taken = list(islice((length for length in tried if _takes(graph, length)), 2))
    if not taken:
        raise ModelError(
            f"takes inputs of free size, but none that was tried ({max(tried)} at most); save it "
            "with the sizes that it takes"
        )
    return taken


def cases(graph: Graph, opened: Opened, sizes: Mapping[str, int]) -> list[Case]:
    """What the proof asks.

    Raises:
        ModelError: a row's answer depends on the rows beside it, so that rows can't be batched.
        Unprovable: the model gives another answer each time.
    """
    made = []
    for length in lengths(graph, opened):
        columns = examples(graph, length, _limits(graph, length, sizes))
        try:
            expected = graph.run(columns)
        except _NO_ANSWER as error:
            raise ModelError(
                f"computes no answer to made-up rows ({one_line(error)}); save it with integer "
                "inputs where it looks them up"
            ) from error
        if all(value.dtype.kind == "f" and np.isnan(value).all() for value in expected.values()):
            raise ModelError("answers NaN to whatever it is given, as after a training that failed")
        again = Case(columns, expected, allowed(expected, expected))
        if again.off(graph.run(columns), slice(None)) > 1:
            raise Unprovable(
                "it gives another answer each time (it draws random numbers or keeps a state)"
            )
        case = Case(columns, expected, allowed(expected, graph.run(nudged(columns))))
        _check_alone(graph, case, (slice(6, 7), slice(9, 11)))
        made.append(case)
    return made


def _check_alone(graph: Graph, case: Case, parts: Iterable[slice]) -> None:
    """Raise ModelError if rows have other answers without those beside them."""
    for rows in parts:
        if case.off(graph.run(take(case.columns, rows)), rows) > 1:
            raise ModelError(
                "a row's answer depends on the rows beside it, so that no rows can be "
                "computed together; save the model as it is used, one row at a time"
            )


_UNUSUAL = {"NaN": (np.nan, np.nan), "infinity": (np.inf, -np.inf)}


def answered(graph: Graph, opened: Opened, reference: list[Case], runtime: Runtime) -> list[str]:
    """Which of NaN and infinite numbers a runtime answers as the original does on every machine.

    Args:
        graph: the model.
        opened: its graph.
        reference: ordinary rows.
        runtime: what will run it; rows that it has no answer to are NaN.
    """
    found = []
    for what, (first, second) in _UNUSUAL.items():
        try:
            for usual in reference:
                prove([_unusual(graph, opened, usual, first, second)], runtime)
        except (Unfit, ModelError, *_NO_ANSWER):
            continue
        found.append(what)
    return found


def _unusual(graph: Graph, opened: Opened, usual: Case, first: float, second: float) -> Case:
    """Rows with such numbers in the first place, in the last, in several, and everywhere."""
    columns = {name: array[6:14].copy() for name, array in usual.columns.items()}
    for array in columns.values():
        if array.dtype.kind == "f":
            flat = array.reshape(len(array), -1)
            flat[0, 0], flat[1, -1], flat[2], flat[3] = first, second, first, second
            flat[4, ::2], flat[5, 0], flat[5, -1] = second, first, second
    if kind := left_to_kernels(opened, columns, graph.fixed_rows):
        raise Unfit(f"its {kind} has several answers itself")
    expected = graph.run(columns)
    with np.errstate(invalid="ignore"):
        case = Case(columns, expected, allowed(expected, expected))
    _check_alone(graph, case, [slice(row, row + 1) for row in range(rows_of(columns))])
    # Keras' predict compiles, as a graph or with XLA, and may have other answers than its layers.
    if graph.predict is not None:
        outputs = in_steps(graph.predict, columns, graph.fixed_rows or rows_of(columns))
        if case.off(outputs, slice(None)) > 1:
            raise Unfit("it has several answers itself")
    return case


def _covered(graph: Graph, opened: Opened, sizes: Mapping[str, int]) -> str:
    """What the proof's rows hold, for people."""
    taken = lengths(graph, opened)
    parts = []
    if any(spec.dtype.is_floating and name not in sizes for name, spec in graph.inputs.items()):
        parts.append(f"zeros, ones, random numbers, and up to {EXTREME:.0e} either way")
    parts += [
        f"{name} from 0 to {limit - 1}" for name, limit in _limits(graph, taken[0], sizes).items()
    ]
    if taken != [1]:
        parts.append(f"sizes of {' and '.join(map(str, taken))}")
    return f"{'; '.join(parts) or 'texts'}; batches of none, {', '.join(map(str, BATCHES))} and all"


# ---------------------------------------------------------------- the whole


def compile_litert(
    graph: Graph, opened: Opened, reference: list[Case], folder: Path
) -> dict[str, Any]:
    """`model.tflite` for any number of rows, or for one where it can't be free, with its proof.

    Raises:
        Unfit: neither can be made or proven.
    """
    if any(spec.dtype == tf.string for spec in graph.inputs.values()):
        raise Unfit("it takes text")
    if any(value.dtype.kind not in "fiub" for value in reference[0].expected.values()):
        raise Unfit("it gives text")
    file = folder / "model.tflite"
    because = ""
    for rows in dict.fromkeys((graph.fixed_rows, graph.fixed_rows or 1)):
        try:
            runtime = to_litert(graph, file, rows)
            proof = prove(reference, runtime)
        except Unfit as unfit:
            file.unlink(missing_ok=True)
            because, last = because or str(unfit), unfit
            continue
        if rows and not because:
            because = "the model was made so"
        answers = answered(graph, opened, reference, runtime)
        return {**proof, "fixed_rows": rows, "fixed_because": because or None, "answers": answers}
    raise last


def compile_saved_model(
    graph: Graph,
    opened: Opened,
    reference: list[Case] | None,
    source: Path,
    folder: Path,
    *,
    trusted: bool,
) -> dict[str, Any]:
    """`saved_model`, with its proof if there is a reference."""
    target = folder / "saved_model"
    if source.is_dir():
        for part in graph_files("saved_model", source):  # and whatever else lies there stays there
            place = target / part.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, place)
    else:
        save(graph, target, graph.fixed_rows)
    proof: dict[str, Any] = {"largest_difference": None}
    runtime = TensorFlow(target, trusted=trusted)
    if reference is not None:
        try:
            proof = prove(reference, runtime)
            proof["answers"] = answered(graph, opened, reference, runtime)
        except Unfit as unfit:
            if not source.is_dir():
                raise ModelError(f"as a SavedModel, {unfit}") from unfit
            # It is the original, some of whose answers are rounding made large: those to silence.
            proof = {"largest_difference": None, "unproven": f"in TensorFlow itself, {unfit}"}
    because = "the model was made so" if graph.fixed_rows else None
    return {**proof, "fixed_rows": graph.fixed_rows, "fixed_because": because}


def export(source: Path, folder: Path, form: str, kind: str, why: str, *, trusted: bool) -> None:
    """Read, compile, prove, and write down the proof."""
    start = time.monotonic()
    if form == "saved_model":
        graph = read_saved_model(source, trusted=trusted)
    else:
        graph = read_keras(source, form, trusted=trusted)
    opened = open_graph(graph.call, graph.inputs)
    sizes = read_graph(opened).sizes
    reference, unproven, proof = None, None, None
    try:
        reference = cases(graph, opened, sizes)
    except Unprovable as error:
        unproven = str(error)
    if kind == "litert":
        try:
            if reference is None:
                raise Unfit(unproven)
            proof = compile_litert(graph, opened, reference, folder)
        except Unfit as unfit:
            why = str(unfit)
    if proof is None:
        proof = compile_saved_model(graph, opened, reference, source, folder, trusted=trusted)
    written = to_json(read_written(graph, opened, changes=unproven is not None))
    if (file := folder / "model.tflite").exists():
        tflite_metadata.carry(file, {"written": written, "answers": proof["answers"]})
    else:
        proof["written"] = written
    proof |= {
        "reference": graph.name,
        "unproven": unproven or proof.get("unproven"),
        "covered": _covered(graph, opened, sizes) if reference else None,
        "not_litert": why or None,
        "bound": f"{BOUND:g} * max(1, |answer|) + {SWAY} * what an input's last bit moves it",
        "seconds": round(time.monotonic() - start, 1),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    (folder / "parity.json").write_text(json.dumps(proof, indent=1), "utf-8")


def main(source: str, folder: str, form: str, trust: str, kind: str, why: str = "") -> None:
    """As the command line gives it. Its last line says what went wrong."""
    if trust == "trusted":
        keras.config.enable_unsafe_deserialization()
    try:
        export(Path(source), Path(folder), form, kind, why, trusted=trust == "trusted")
    except ModelError as error:  # the path is put in front of it by the parent
        sys.exit(str(error).removeprefix(f"{source}: ").removeprefix(f"{folder}/saved_model: "))
    except Exception as error:  # noqa: BLE001  # TensorFlow raises of every kind
        sys.exit(f"can't be compiled ({type(error).__name__}: {one_line(error)})")


if __name__ == "__main__":
    main(*sys.argv[1:])
