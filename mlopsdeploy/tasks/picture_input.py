"""What size, colours and numbers of a picture a model takes, and how that is known.

The YAML beside a model comes first, then what its own file says, then its quantisation and the
beginning of its graph; what is left is guessed, and the facts calls it a guess. In a
`model.yaml`:

    input:
      size: [300, 300]        # height, width; where the file leaves them open
      color: rgb              # or bgr, gray
      mean: 127.5             # (pixel - mean) / std; one number, or one per channel as in `color`
      std: 127.5
      resize: stretch         # or letterbox: keep proportions, fill up with grey
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mlopsdeploy.columns import Array, Fact, Field, ModelFiles, Runtime
from mlopsdeploy.core.model_yaml import InputKeys
from mlopsdeploy.errors import ModelError
from mlopsdeploy.tasks.pictures import CHANNELS, PictureInput, Pictures

# Of ImageNet, as PyTorch's models want it, in steps of 0 to 255.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

_BACKGROUND = {"", "???", "background", "__background__", "_background_", "bg", "dummy", "none"}


def read_input(
    files: ModelFiles, runtime: Runtime, *, letterbox: bool = False, from_zero: bool = False
) -> tuple[PictureInput, list[Fact]]:
    """What a model takes, and how that is known.

    Args:
        files: what its files say.
        runtime: its tensors.
        letterbox: whether models of its kind keep proportions, unless it says otherwise.
        from_zero: whether models of its kind want pixels from 0 to 1, rather than -1 to 1, where
            nothing tells.

    Raises:
        ModelError: it takes no picture, or one of unknown size.
    """
    keys = files.yaml.input or InputKeys()
    tensor = _picture_tensor(files, runtime)
    quantization = runtime.quantization.get(tensor.name)
    dtype = quantization.dtype if quantization else tensor.dtype
    shape = "×".join("?" if size < 0 else str(size) for size in tensor.shape)
    steps = f", a step is {quantization.scale:.6g}" if quantization else ""
    facts = [Fact("input", f"{tensor.name} ({shape}) {dtype}{steps}", "the file")]

    first = tensor.shape[0] in (1, 3) and tensor.shape[2] not in (1, 3)
    size, why = _size(files, keys, tensor.shape[1:] if first else tensor.shape[:2])
    layout = ", channels first" if first else ""
    facts.append(Fact("size", f"{size[0]} high, {size[1]} wide{layout}", why))
    color, why = _color(files, keys, tensor.shape[0 if first else 2])
    facts.append(Fact("colour", color.upper() if color != "gray" else "grey", why))
    letterbox = keys.resize == "letterbox" if keys.resize else letterbox
    why = "the YAML" if keys.resize else "the custom of such models"
    facts.append(Fact("resizing", "letterbox" if letterbox else "stretch", why))

    mean, std, why = _normalization(
        files, keys, quantization, dtype, CHANNELS[color], from_zero=from_zero
    )
    takes = PictureInput(
        tensor,
        size,
        color,
        mean,
        std,
        letterbox,
        first,
        dtype,
        quantization.scale if quantization else 0.0,
        quantization.zero_point if quantization else 0,
    )
    facts.append(Fact("normalisation", _formula(mean, std), why))
    facts.append(
        Fact("pixels become", Pictures(takes).path, "the cheapest way that is right to a step")
    )
    return takes, facts


def _picture_tensor(files: ModelFiles, runtime: Runtime) -> Field:
    pictures = [field for field in runtime.inputs if len(field.shape) == 3]
    if len(runtime.inputs) != 1 or not pictures:
        shapes = ", ".join(f"{field.name} {field.shape}" for field in runtime.inputs)
        raise ModelError(f"{files.name}: takes {shapes}, and not one picture")
    tensor = pictures[0]
    if not {tensor.shape[0], tensor.shape[2]} & {1, 3, -1}:
        raise ModelError(
            f"{files.name}: its input {tensor.shape} is no picture of one or three channels"
        )
    return tensor


def _size(files: ModelFiles, keys: InputKeys, shape: Sequence[int]) -> tuple[tuple[int, int], str]:
    if min(shape) > 0:
        return (shape[0], shape[1]), "the shape of the tensor"
    for size, why in (
        (keys.size, "the YAML"),
        (files.metadata.get("size"), "the file's metadata"),
    ):
        if size:
            return (int(size[0]), int(size[1])), why
    raise ModelError(
        f"{files.name}: takes pictures of any size; say which in a YAML beside the file, as "
        "'input: {size: [320, 320]}' (height, width)"
    )


def _color(files: ModelFiles, keys: InputKeys, channels: int) -> tuple[str, str]:
    for color, why in (
        (keys.color, "the YAML"),
        (files.metadata.get("color"), "the file's metadata"),
    ):
        if color is None:
            continue
        if channels in (-1, CHANNELS[color]):
            return color, why
    if channels == 1:
        return "gray", "the tensor has one channel"
    return "rgb", "the custom of TensorFlow (a guess)"


def _normalization(
    files: ModelFiles,
    keys: InputKeys,
    quantization: Any,
    dtype: str,
    channels: int,
    *,
    from_zero: bool,
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean, standard deviation, and how they are known; in steps of 0 to 255."""
    metadata = files.metadata
    for means, stds, why in (
        (keys.mean, keys.std, "the YAML"),
        (metadata.get("mean"), metadata.get("std"), "the file's metadata"),
    ):
        if means or stds:
            mean, std = tuple(means or (0.0,)), tuple(stds or (1.0,))
            if not {len(mean), len(std)} <= {1, channels} or 0 in std:
                raise ModelError(
                    f"{files.name}: mean {list(mean)} and std {list(std)} of {why} are not one "
                    f"number, or {channels} for its channels, with no std of 0"
                )
            return mean, std, why
    if quantization:
        limits = np.iinfo(quantization.dtype)
        low, high = (
            (edge - quantization.zero_point) * quantization.scale
            for edge in (limits.min, limits.max)
        )
        return _of_range(low, high, f"the tensor's quantisation holds {low:.3g} to {high:.3g}")
    if np.dtype(dtype).kind in "iu":
        return (0.0,), (1.0,), f"a tensor of {dtype} that is not quantised takes pixels"
    begin = files.metadata.get("starts_with") or {}
    if begin.get("operator") == "QUANTIZE":
        low, high = begin["low"], begin["high"]
        return _of_range(low, high, f"the graph first quantises it to {low:.3g} to {high:.3g}")
    if begin:
        known = _of_arithmetic(begin["operator"], begin["by"])
        if known:
            return known
    if from_zero:
        return (0.0,), (255.0,), "the custom of such models (a guess)"
    return (127.5,), (127.5,), "the custom of float models in TensorFlow (a guess)"


def _of_range(
    low: float, high: float, why: str
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """What maps 0 to 255 to the range that a tensor was made to hold."""
    near = 0.03 * (high - low)
    for edges, mean, std in (
        ((0.0, 1.0), (0.0,), (255.0,)),
        ((-1.0, 1.0), (127.5,), (127.5,)),
        ((0.0, 255.0), (0.0,), (1.0,)),
        ((-128.0, 127.0), (128.0,), (1.0,)),
        ((-2.118, 2.64), *_IMAGENET),
    ):
        if abs(low - edges[0]) <= near and abs(high - edges[1]) <= near:
            return mean, std, why
    std_of_range = 255 / max(high - low, 1e-9)
    return (-low * std_of_range,), (std_of_range,), f"{why}: pixels are spread over that"


def _of_arithmetic(
    operator: str, by: float
) -> tuple[tuple[float, ...], tuple[float, ...], str] | None:
    """What the input of `x * by` and the like must have been."""
    factor = {"MUL": by, "DIV": 1 / by if by else 0.0}.get(operator)
    why = f"the graph itself begins with {operator} by {by:.4g}"
    if factor is not None:
        return ((0.0,), (1.0,), why) if 0.002 <= factor <= 0.02 else None
    if abs(by) > 50:
        return (0.0,), (1.0,), why
    return ((0.0,), (255.0,), why) if 0.3 <= abs(by) <= 0.7 else None


def _formula(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    for known, name in (((0, 1), "0 to 255"), ((0, 255), "0 to 1"), ((127.5, 127.5), "-1 to 1")):
        if {*mean} == {known[0]} and {*std} == {known[1]}:
            return name
    names = [" ".join(f"{number:.5g}" for number in part) for part in (mean, std)]
    return "(pixel - {}) / {}".format(*(f"[{name}]" if " " in name else name for name in names))


def example_picture() -> Array:
    """One picture of soft blots of colour, the same every time: (1, 480, 640, 3), BGR."""
    spots = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(spots, (640, 480), interpolation=cv2.INTER_CUBIC)[None]


def starts_with_background(labels: tuple[str, ...]) -> bool:
    """Whether the first label stands for no object."""
    return bool(labels) and labels[0].strip().lower() in _BACKGROUND


def labels_found(files: ModelFiles, classes: int | None) -> list[Fact]:
    """Which labels there are and where they stand."""
    if not files.labels:
        many = {None: "classes by number", 1: "one class, 0"}.get(classes)
        many = many or f"{classes} classes by number"
        return [Fact("labels", many, "no label file beside the model, none within")]
    first = ", ".join(files.labels[:4]) + (", …" if len(files.labels) > 4 else "")
    return [Fact("labels", f"{len(files.labels)}: {first}", files.labels_from)]
