"""What Keras wrote of how its model was trained: the loss tells what its outputs are.

It is read as data; nothing of it is built.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlopsdeploy.columns import Made, Written
from mlopsdeploy.model_files.digest import KERAS_2

_VALUES = {
    "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error", "huber", "huber_loss", "log_cosh", "logcosh", "poisson",
}  # fmt: skip
_SHORT = {
    "mse": "mean_squared_error", "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error", "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
}  # fmt: skip
_CLASSES = {
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy",
    "sparse_categorical_crossentropy", "categorical_focal_crossentropy",
}  # fmt: skip

_TRAINED_WITH = "the loss it was trained with,"


class Loss(NamedTuple):
    """The loss of one output; its name is that of Keras' function: `mean_squared_error`."""

    name: str
    from_logits: bool = False


def read_losses(source: Path, form: str, outputs: Sequence[str]) -> dict[str, Loss]:
    """The loss of each of these outputs, as far as it was compiled with one.

    Args:
        source: the file, or the folder of a SavedModel.
        form: "keras", "h5" or "saved_model".
        outputs: the names of their layers, in the model's order; of a SavedModel in any.
    """
    try:
        written = _READERS[form](source)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return {}
    loss = written.get("loss") if isinstance(written, dict) else None
    if isinstance(loss, dict) and "class_name" not in loss:
        each = [loss.get(name) for name in outputs]
    elif isinstance(loss, list):
        each = loss
    else:
        each = [loss] * len(outputs)
    found = {name: _loss(one) for name, one in zip(outputs, each, strict=False)}
    return {name: one for name, one in found.items() if one}


def _zipped(source: Path) -> Any:
    with zipfile.ZipFile(source) as archive:
        return json.loads(archive.read("config.json")).get("compile_config")


def _in_hdf5(source: Path) -> Any:
    import h5py

    with h5py.File(source, "r") as file:
        return json.loads(file.attrs.get("training_config", "null"))


def _in_saved_model(source: Path) -> Any:
    """Of Keras 2, which wrote it beside the graph; each loss under the name of its layer."""
    from google.protobuf.message import DecodeError
    from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

    try:
        metadata = SavedMetadata.FromString((source / KERAS_2).read_bytes())
    except DecodeError as error:
        raise ValueError(KERAS_2) from error
    (model,) = (json.loads(node.metadata) for node in metadata.nodes if node.node_path == "root")
    loss, layers = model["training_config"]["loss"], model["config"].get("output_layers")
    if isinstance(loss, list):
        loss = {layer[0]: one for layer, one in zip(layers, loss, strict=True)}
    elif isinstance(layers, dict) and isinstance(loss, dict):
        loss = {layers[name][0]: one for name, one in loss.items()}
    return {"loss": loss}


_READERS = {"keras": _zipped, "h5": _in_hdf5, "saved_model": _in_saved_model}


def _loss(written: Any) -> Loss | None:
    logits = False
    if isinstance(written, dict):
        config = written.get("config")
        if isinstance(config, dict):
            logits = config.get("from_logits") is True
            inner = config.get("fn")  # of a function that Keras wrapped
            written = inner if isinstance(inner, str) else written.get("class_name")
        else:  # a function by its name
            written = config
    if not isinstance(written, str):
        return None
    name = _snake(written.rpartition(">")[2])
    return Loss(_SHORT.get(name, name), logits)


def _snake(name: str) -> str:
    """`BinaryCrossentropy` to `binary_crossentropy`."""
    parts = "".join(f"_{one.lower()}" if one.isupper() else one for one in name).lstrip("_")
    return parts if name[:1].isupper() and not name.isupper() else name.lower()


def with_losses(written: Written, losses: Mapping[str, Loss], width: Mapping[str, int]) -> Written:
    """What is written, with what the losses tell beyond the graph.

    Args:
        written: what the graph tells.
        losses: see `read_losses`.
        width: how many numbers a row of each output has.
    """
    made = dict(written.outputs)
    for name, loss in losses.items():
        if name in made:
            made[name] = _with_loss(made[name], loss, width.get(name, 0))
    used = {loss.name for loss in losses.values()}
    task = ""
    if len(losses) == len(made) and used <= _VALUES:
        task = "regression" if all(one.kind == "values" for one in made.values()) else ""
    elif len(losses) == len(made) and used <= _CLASSES:
        task = "classification"
    source = f"{_TRAINED_WITH} {', '.join(sorted(used))}" if task else ""
    return replace(written, outputs=made, task=task, task_source=source)


def _with_loss(made: Made, loss: Loss, width: int) -> Made:
    why = f"{_TRAINED_WITH} {loss.name}"
    if loss.name in _VALUES:
        if made.kind == "linear":
            return Made("values", why)
        if made.kind == "sigmoid":
            return Made(
                "", f"{made.source}, but trained with {loss.name}: a probability, or a value?"
            )
        return made
    if loss.name not in _CLASSES:
        return made
    if made.kind == "sigmoid" and width > 1 and "categorical" in loss.name:
        return Made(
            "", f"{made.source}, but trained with {loss.name}: labels of their own, or classes "
            "that exclude each other?"
        )  # fmt: skip
    if made.kind != "linear":
        return made
    if not loss.from_logits:
        return Made("", f"{made.source}, but trained with {loss.name} of probabilities, not logits")
    own = loss.name.startswith("binary") and width != 1  # each label is its own
    return Made("sigmoid logits" if own else "logits", f"{why} from logits")
