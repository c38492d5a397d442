"""TensorFlow: a SavedModel's concrete function, for what LiteRT can't take."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Runtime, rows_of
from mlopsdeploy.errors import ConfigError, ModelError, RowError, one_line
from mlopsdeploy.runtimes.common import dense, in_steps, no_rows, quietly

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with quietly(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    from mlopsdeploy.runtimes import saved_model

tf.get_logger().setLevel("ERROR")

_UNFIT_VALUES = (
    ValueError,
    TypeError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnimplementedError,
)


class TensorFlow(Runtime):
    """A SavedModel's signature `serving_default`, or its only one.

    Where the signature fixes the number of rows, they run in steps of that size.

    Args:
        file: the folder that holds `saved_model.pb`.
        precision: "auto" or "float32".
        threads, streams: see `load_model`; the first model's hold for the whole process.
        trusted: load one that does more than compute.

    Raises:
        ConfigError: another precision is asked for.
        ModelError: the folder can't be loaded, or has no signature to call.
    """

    formats: ClassVar = ("saved_model",)
    precisions: ClassVar = ("float32",)
    takes_trust: ClassVar = True
    missing_values = "as TensorFlow answers"

    def __init__(
        self,
        file: Path,
        *,
        precision: str = "auto",
        threads: int = 1,
        streams: int | None = None,
        trusted: bool = False,
    ) -> None:
        if precision not in ("auto", "float32"):
            raise ConfigError(f"precision {precision!r}: tensorflow runs float32")
        self.precision = "float32"
        self.streams = min(streams or threads, threads)
        on_gpu = _set_up(self.streams, threads // self.streams)
        if on_gpu:
            self.streams = 1
        self.batch_scale = 64 if on_gpu else 1
        check_graph(file, trusted=trusted)
        self._function, self._owner = signature_of(file)  # the owner keeps the variables alive
        self._specs = self._function.structured_input_signature[1]
        self.inputs = tuple(_field(name, spec) for name, spec in self._specs.items())
        gives = self._function.structured_outputs
        self.outputs = tuple(_field(name, gives[name]) for name in sorted(gives))
        self._rows = next(
            (s.shape[0] for s in self._specs.values() if s.shape.rank and s.shape[0]), None
        )

    def run(self, tensors: Columns) -> Columns:
        """See `Runtime.run`."""
        feed = {field.name: dense(field, tensors[field.name]) for field in self.inputs}
        if not rows_of(feed):
            return no_rows(self.outputs)
        if self._rows is None:
            return self._call(feed)
        return in_steps(self._call, feed, self._rows)

    def _call(self, feed: Columns) -> Columns:
        try:
            tensors = {
                name: tf.constant(array, self._specs[name].dtype) for name, array in feed.items()
            }
            outputs = self._function(**tensors)
        except _UNFIT_VALUES as error:
            reason = one_line(error).rpartition("<stack traces unavailable> ")[2]
            reason = reason.partition(" [[")[0]
            raise RowError(f"TensorFlow can't compute these values ({reason})") from error
        return {name: _array(value) for name, value in outputs.items()}


def check_graph(folder: Path, *, trusted: bool = False) -> None:
    """Refuse a SavedModel that can't run by itself, or does more, from its file alone.

    Args:
        folder: holds `saved_model.pb`.
        trusted: take one that does more than compute; see `runtimes.saved_model`.

    Raises:
        ModelError: it is refused, or the file can't be read.
    """
    try:
        saved = parse_saved_model(str(folder))
    except OSError as error:
        raise ModelError(f"{folder}: not a SavedModel, or damaged; fetch it again") from error
    if not saved.meta_graphs:
        raise ModelError(f"{folder}: its saved_model.pb holds no graph; fetch it again")
    if python := saved_model.python_operators(saved):
        raise ModelError(
            f"{folder}: calls Python code that isn't in a SavedModel ({min(python)}, from "
            "tf.py_function or tf.numpy_function), so it can't run outside the program that made it"
        )
    if unknown := saved_model.unknown_operators(saved):
        raise ModelError(
            f"{folder}: needs the operator {min(unknown)}, which TensorFlow {tf.__version__} does "
            "not have; it comes with a package of its own, so convert the model where that is"
        )
    reason = "" if trusted else saved_model.reason_against(folder, saved)
    if reason:
        raise ModelError(f"{folder}: {reason}; if you trust its author: --trust-model")


def signature_of(folder: Path) -> tuple[Any, Any]:
    """The concrete function to call, and what keeps its variables.

    Raises:
        ModelError: the folder can't be loaded, or offers no function, or several of other names.
    """
    try:
        with quietly():
            owner = _restore(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"{folder}: TensorFlow can't load it ({one_line(error)})") from error
    signatures = getattr(owner, "signatures", {})
    names = sorted(signatures)
    name = names[0] if len(names) == 1 else "serving_default"
    if name not in signatures:
        raise ModelError(
            f"{folder}: needs a signature 'serving_default', has none "
            f"{'but ' + ', '.join(names) if names else 'at all'}; model.export('folder') writes one"
        )
    return signatures[name], owner


def _restore(folder: Path) -> Any:
    try:
        return tf.saved_model.load(str(folder))
    except AttributeError as error:  # it holds an optimizer of Keras 2, which that alone restores
        try:
            import tf_keras  # noqa: F401
        except ImportError:
            raise ModelError(
                f"{folder}: was saved with its optimizer by Keras 2; reading it needs tf-keras: "
                "pip install 'mlopsdeploy[tensorflow]'"
            ) from error
        return tf.saved_model.load(str(folder))


def _set_up(streams: int, threads: int) -> bool:
    """Limit threads and memory, if nothing has run yet; whether there is a GPU."""
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_inter_op_parallelism_threads(streams)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        for gpu in gpus:  # else TensorFlow takes all of its memory at once
            tf.config.experimental.set_memory_growth(gpu, enable=True)
    except RuntimeError:  # another model of this process has set them
        pass
    return bool(gpus)


def _field(name: str, spec: Any) -> Field:
    dtype = "str" if spec.dtype == tf.string else np.dtype(spec.dtype.as_numpy_dtype).name
    sizes = spec.shape.as_list()[1:] if spec.shape.rank is not None else []
    return Field(name, dtype, tuple(-1 if size is None else size for size in sizes))


def _array(value: Any) -> Array:
    array: Array = value.numpy()
    if array.dtype != object:
        return array
    texts = [text.decode("utf-8", "replace") for text in array.flat]
    return np.array(texts, dtype=object).reshape(array.shape)
