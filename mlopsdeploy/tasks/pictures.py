"""BGR pictures of any size as the tensor that a model takes, and boxes back to the pictures.

For every frame of a camera: so in as few passes over the pixels as there can be, and straight into
the tensor where a quantised model takes pixels as they are.

What size, colours and numbers a model takes is read first in the YAML beside it (see `InputKeys`),
then in its own file, its quantisation and the beginning of its graph; what its kind of models all
want, such as RGB, is called a custom; what is left is a doubt.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mlopsdeploy.columns import (
    Array,
    Columns,
    Fact,
    Field,
    ModelFiles,
    Quantization,
    Runtime,
    TaskOptions,
)
from mlopsdeploy.core.channels import color_of
from mlopsdeploy.errors import DoubtError, ModelError, RowError

PICTURE = Field("image", "uint8", (-1, -1, 3))
SIZES = "picture_size"
"""The column of what `Pictures.encode` makes that keeps height and width of each picture."""

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_GREY = 114  # what letterboxes are filled with, since Ultralytics did

Normalization = tuple[tuple[float, ...], tuple[float, ...], str]
"""Mean, standard deviation, and how they are known; in steps of 0 to 255."""

# Of ImageNet, as PyTorch's models want it, in steps of 0 to 255.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_IMAGENET_YAML = "input: {mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}"


@dataclass(frozen=True)
class PictureInput:
    """What a model takes.

    Attributes:
        tensor: its name, dtype and shape of a row.
        size: height and width in pixels.
        color: "rgb", "bgr" or "gray".
        mean: subtracted from each pixel of 0 to 255; one number, or one per channel.
        std: what it is divided by then.
        letterbox: keep a picture's proportions and fill up with grey.
        channels_first: (channels, height, width) in place of (height, width, channels).
        quantization: of a tensor that holds integers which stand for real numbers.
    """

    tensor: Field
    size: tuple[int, int]
    color: str = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    letterbox: bool = False
    channels_first: bool = False
    quantization: Quantization | None = None

    @property
    def dtype(self) -> str:
        """What the tensor really holds: its own dtype, or the integers of a quantised one."""
        return self.quantization.dtype if self.quantization else self.tensor.dtype


class Pictures:
    """BGR pictures of any size as rows of a model's input, and boxes back to the pictures."""

    def __init__(self, takes: PictureInput) -> None:
        self.takes = takes
        self._channels = CHANNELS[takes.color]
        self._scratch = threading.local()
        self._table: Array | None = None
        self._flip = False
        if np.dtype(takes.dtype).kind == "f":
            std, mean = (np.array(values, np.float32) for values in (takes.std, takes.mean))
            self._gain = np.broadcast_to(1 / std, self._channels)
            self._bias = np.broadcast_to(-mean / std, self._channels)
            self._same = len({*takes.mean}) == 1 and len({*takes.std}) == 1
        else:
            table = _table(takes, self._channels)
            if _is_shift(table, takes.dtype):
                self._flip = takes.dtype == "int8"
            else:
                self._table = table

    @property
    def path(self) -> str:
        """How pixels become numbers of the tensor, for people."""
        if np.dtype(self.takes.dtype).kind == "f":
            return "float arithmetic"
        if self._table is not None:
            return "a table of 256 entries"
        return "pixel - 128" if self._flip else "the pixels as they are"

    def encode(self, images: Array) -> Columns:
        """The input tensor, and the size of each picture under `SIZES`.

        Args:
            images: uint8 of shape (rows, height, width, 3), or an object array of pictures.

        Raises:
            RowError: something in it is no picture.
        """
        takes, channels = self.takes, self._channels
        height, width = takes.size
        shape = (height, width, channels)
        whole = self._table is None and np.dtype(takes.dtype).kind != "f"
        ready = whole and not takes.channels_first  # pixels go straight to where they are read
        order = (channels, height, width) if takes.channels_first else shape
        tensor = np.empty((len(images), *order), np.uint8 if whole else takes.dtype)
        sizes = np.empty((len(images), 2), np.int64)
        for row, image in enumerate(images):
            if getattr(image, "dtype", None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise RowError(
                    f"image {row}: expected a BGR picture, uint8 of shape (height, width, 3), and "
                    f"got {getattr(image, 'dtype', type(image).__name__)} {np.shape(image)}",
                    [row],
                )
            sizes[row] = image.shape[:2]
            pixels = tensor[row] if ready else self._buffer(shape)
            self._draw(image, pixels)
            if not ready:
                self._convert(pixels, tensor[row])
        if self._flip:
            np.bitwise_xor(tensor, 128, out=tensor)
        made = tensor.view(takes.dtype) if whole else tensor
        if len(takes.tensor.shape) < 3:  # grey pictures without an axis for it, or flat ones
            made = made.reshape(len(images), *takes.tensor.shape)
        return {takes.tensor.name: made, SIZES: sizes}

    def to_picture(self, boxes: Array, size: Array) -> Array:
        """Boxes relative to the tensor as boxes relative to the picture, within it.

        Args:
            boxes: (n, 4): x1, y1, x2, y2.
            size: height and width of the picture.
        """
        if self.takes.letterbox:
            top, left, height, width = _place(self.takes.size, size)
            frame_height, frame_width = self.takes.size
            frame, shift, inner = np.array(
                [[frame_width, frame_height] * 2, [left, top] * 2, [width, height] * 2], np.float32
            )
            boxes = (boxes * frame - shift) / inner
        return np.asarray(np.clip(boxes, 0, 1, dtype=np.float32))

    def _buffer(self, shape: tuple[int, ...]) -> Array:
        """Room for the resized pixels of one picture; each thread has its own."""
        buffer: Array | None = getattr(self._scratch, "buffer", None)
        if buffer is None:
            buffer = self._scratch.buffer = np.empty(shape, np.uint8)
        return buffer

    def _draw(self, image: Array, pixels: Array) -> None:
        """The picture in the model's size and colours."""
        if self.takes.letterbox:
            top, left, height, width = _place(self.takes.size, image.shape)
            if (height, width) != self.takes.size:
                pixels[...] = _GREY
                pixels = pixels[top : top + height, left : left + width]
        height, width = pixels.shape[:2]
        code = {"rgb": cv2.COLOR_BGR2RGB, "gray": cv2.COLOR_BGR2GRAY}.get(self.takes.color)
        if image.shape[:2] == (height, width):
            if code is None:
                pixels[...] = image
            else:
                _recolor(image, code, pixels)
        elif self.takes.color == "gray":
            _recolor(cv2.resize(image, (width, height)), cv2.COLOR_BGR2GRAY, pixels)
        else:
            cv2.resize(image, (width, height), dst=pixels)
            if code is not None:
                _recolor(pixels, code, pixels)

    def _convert(self, pixels: Array, row: Array) -> None:
        """Pixels to the tensor's numbers, and channels first where it wants them so."""
        if self._table is not None:
            pixels = cv2.LUT(pixels, self._table).reshape(pixels.shape)
        if self._table is not None or row.dtype.kind != "f":
            row[...] = pixels.transpose(2, 0, 1) if self.takes.channels_first else pixels
        elif self.takes.channels_first:
            for channel in range(self._channels):
                _scale(
                    pixels[:, :, channel], row[channel], self._gain[channel], self._bias[channel]
                )
        elif self._same:
            _scale(pixels, row, self._gain[0], self._bias[0])
        else:
            # As rows of width × channels: NumPy is slow along an axis of three.
            flat = row.reshape(len(row), -1)
            count = flat.shape[1] // self._channels
            gain, bias = np.tile(self._gain, count), np.tile(self._bias, count)
            _scale(pixels.reshape(flat.shape), flat, gain, bias)


def _scale(pixels: Array, out: Array, gain: Any, bias: Any) -> None:
    np.multiply(pixels, gain, out=out)
    if np.any(bias):
        np.add(out, bias, out=out)


def _recolor(source: Array, code: int, target: Array) -> None:
    made = cv2.cvtColor(source, code, dst=target)
    if made is not target and not np.shares_memory(made, target):  # of another shape, as grey is
        target[...] = made.reshape(target.shape)


def _place(frame: Sequence[int], size: Any) -> tuple[int, int, int, int]:
    """Where in a letterbox a picture lies: top, left, height, width."""
    ratio = min(frame[0] / size[0], frame[1] / size[1])
    height = min(max(round(size[0] * ratio), 1), frame[0])
    width = min(max(round(size[1] * ratio), 1), frame[1])
    return (frame[0] - height) // 2, (frame[1] - width) // 2, height, width


def _table(takes: PictureInput, channels: int) -> Array:
    """The tensor's integer for each value of a pixel: (256,), or (1, 256, channels)."""
    limits = np.iinfo(takes.dtype)
    mean, std = (
        np.broadcast_to(np.array(values, np.float64), channels)
        for values in (takes.mean, takes.std)
    )
    steps = (np.arange(256)[:, None] - mean) / std
    if takes.quantization:
        steps = steps / takes.quantization.scale + takes.quantization.zero_point
    table: Array = np.clip(np.rint(steps), limits.min, limits.max).astype(takes.dtype)
    if (table == table[:, :1]).all():
        return np.ascontiguousarray(table[:, 0])
    return np.ascontiguousarray(table[None])


def _is_shift(table: Array, dtype: str) -> bool:
    """Whether the table gives the pixels themselves, from 0 or from -128, to one step.

    A scale of 1/128 for a range that ends at ±1 is the usual reason for that step.
    """
    pixels = np.arange(256) - (128 if dtype == "int8" else 0)
    return bool((np.abs(table.reshape(256, -1) - pixels[:, None]) <= 1).all())


# ---------------------------------------------------------------- what a model takes


def probe(
    files: ModelFiles,
    runtime: Runtime,
    options: TaskOptions,
    *,
    letterbox: bool = False,
    from_zero: bool = False,
) -> tuple[Pictures, Columns, list[Fact]]:
    """What a model takes, its outputs for one made-up picture, and the facts; see `read_input`."""
    takes, facts = read_input(files, runtime, options, letterbox=letterbox, from_zero=from_zero)
    pictures = Pictures(takes)
    # Soft blots of colour, the same every time: (1, 480, 640, 3), BGR.
    spots = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    picture = cv2.resize(spots, (640, 480), interpolation=cv2.INTER_CUBIC)
    return pictures, runtime.run(pictures.encode(picture[None])), facts


def read_input(
    files: ModelFiles,
    runtime: Runtime,
    options: TaskOptions,
    *,
    letterbox: bool = False,
    from_zero: bool = False,
) -> tuple[PictureInput, list[Fact]]:
    """What a model takes, and how that is known.

    Args:
        files: what its files say.
        runtime: its tensors.
        options: what becomes of a doubt.
        letterbox: whether models of its kind keep proportions, unless it says otherwise.
        from_zero: whether models of its kind want pixels from 0 to 1, rather than -1 to 1, where
            it is not known.

    Raises:
        ModelError: it takes no picture, or one of unknown size.
        DoubtError: nothing tells which numbers its pixels become.
    """
    tensor = _picture_tensor(files, runtime)
    quantization = runtime.quantization.get(tensor.name)
    dtype = quantization.dtype if quantization else tensor.dtype
    shape = "×".join("?" if size < 0 else str(size) for size in tensor.shape)
    sides = _sides(files, tensor)
    steps = f", a step is {quantization.scale:.6g}" if quantization else ""
    first = sides[0] in (1, 3) and sides[2] not in (1, 3)
    size, size_why = _size(files, sides[1:] if first else sides[:2])
    layout = ", channels first" if first else ""
    color, color_why = _color(files, sides[0 if first else 2])
    resize = files.yaml.input.resize if files.yaml.input else None
    letterbox = resize == "letterbox" if resize else letterbox
    mean, std, why = _normalization(files, options, quantization, dtype, CHANNELS[color], from_zero)
    takes = PictureInput(tensor, size, color, mean, std, letterbox, first, quantization)
    return takes, [
        Fact("input", f"{tensor.name} ({shape}) {dtype}{steps}", "the file"),
        Fact("size", f"{size[0]} high, {size[1]} wide{layout}", size_why),
        Fact("colour", color.upper() if color != "gray" else "grey", color_why),
        Fact(
            "resizing",
            "letterbox" if letterbox else "stretch",
            "the YAML" if resize else "the custom of such models",
        ),
        Fact("normalisation", _formula(mean, std), why),
        Fact("pixels become", Pictures(takes).path, "the cheapest way that is right to a step"),
    ]


def _picture_tensor(files: ModelFiles, runtime: Runtime) -> Field:
    if len(runtime.inputs) != 1 or not 1 <= len(runtime.inputs[0].shape) <= 3:
        shapes = ", ".join(f"{field.name} {field.shape}" for field in runtime.inputs)
        raise ModelError(f"{files.name}: takes {shapes}, and not one picture")
    return runtime.inputs[0]


def _sides(files: ModelFiles, tensor: Field) -> tuple[int, ...]:
    """The shape of a picture in the tensor, with its channels; of a flat one, what the YAML has."""
    shape = tensor.shape
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) == 1:
        for (size, color), _ in _written(files, "size", "color"):
            sides = (*map(int, size or (0, 0)), CHANNELS[color or "gray"])
            if int(np.prod(sides)) == shape[0]:
                return sides
        raise ModelError(
            f"{files.name}: takes {shape[0]} numbers; as a picture they need a size, such as "
            "'input: {size: [28, 28], color: gray}' (height, width)"
        )
    if not {shape[0], shape[2]} & {1, 3, -1}:
        raise ModelError(f"{files.name}: its input {shape} is no picture of one or three channels")
    return shape


def _written(files: ModelFiles, *keys: str) -> Iterator[tuple[list[Any], str]]:
    """The values of these keys, and where they are from: wherever one of them has any."""
    yaml = dict(files.yaml.input or {})
    for source, why in ((yaml, "the YAML"), (files.metadata, "the file's metadata")):
        values = [source.get(key) for key in keys]
        if any(values):
            yield values, why


def _size(files: ModelFiles, shape: Sequence[int]) -> tuple[tuple[int, int], str]:
    if min(shape) > 0:
        return (shape[0], shape[1]), "the shape of the tensor"
    for (size,), why in _written(files, "size"):
        return (int(size[0]), int(size[1])), why
    raise ModelError(
        f"{files.name}: takes pictures of any size; say which in a YAML beside the file, as "
        "'input: {size: [320, 320]}' (height, width)"
    )


def _color(files: ModelFiles, channels: int) -> tuple[str, str]:
    for (color,), why in _written(files, "color"):
        if channels in (-1, CHANNELS[color]):
            return color, why
    if channels == 1:
        return "gray", "the tensor has one channel"
    if files.written.color:
        return files.written.color, "the means that the graph takes off first"
    for (mean,), why in _written(files, "mean"):
        if color := color_of(np.array(mean)):
            return color, f"the order of the means of {why}"
    return "rgb", "the custom"


def _normalization(
    files: ModelFiles,
    options: TaskOptions,
    quantization: Quantization | None,
    dtype: str,
    channels: int,
    from_zero: bool,
) -> Normalization:
    for (means, stds), why in _written(files, "mean", "std"):
        mean, std = tuple(means or (0.0,)), tuple(stds or (1.0,))
        if not {len(mean), len(std)} <= {1, channels} or 0 in std:
            raise ModelError(
                f"{files.name}: mean {list(mean)} and std {list(std)} of {why} are not one "
                f"number, or {channels} for its channels, with no std of 0"
            )
        return mean, std, why
    if files.written.pixels:
        return files.written.pixels
    if quantization:
        limits = np.iinfo(quantization.dtype)
        low, high = (
            (edge - quantization.zero_point) * quantization.scale
            for edge in (limits.min, limits.max)
        )
        return _of_range(low, high, f"the tensor's quantisation holds {low:.3g} to {high:.3g}")
    if np.dtype(dtype).kind in "iu":
        return (0.0,), (1.0,), f"a tensor of {dtype} that is not quantised takes pixels"
    if cut := files.metadata.get("quantises_to"):
        low, high = cut["low"], cut["high"]
        return _of_range(low, high, f"the graph first quantises it to {low:.3g} to {high:.3g}")
    if from_zero:
        return (0.0,), (255.0,), "the custom of such models"
    options.doubt(
        DoubtError(
            files.name,
            "nothing tells which numbers its pixels become",
            (
                ("input: {mean: 0, std: 255}", "0 to 1"),
                ("input: {mean: 127.5, std: 127.5}", "-1 to 1"),
                ("input: {mean: 0, std: 1}", "0 to 255"),
                (_IMAGENET_YAML, "as PyTorch's models of ImageNet"),
            ),
        )
    )
    return (0.0,), (255.0,), "nothing (a guess)"


def _of_range(low: float, high: float, why: str) -> Normalization:
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


def _formula(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    for known, name in (((0, 1), "0 to 255"), ((0, 255), "0 to 1"), ((127.5, 127.5), "-1 to 1")):
        if {*mean} == {known[0]} and {*std} == {known[1]}:
            return name
    names = [" ".join(f"{number:.5g}" for number in part) for part in (mean, std)]
    return "(pixel - {}) / {}".format(*(f"[{name}]" if " " in name else name for name in names))


def labels_found(files: ModelFiles, classes: int | None) -> list[Fact]:
    """Which labels there are and where they stand."""
    if not files.labels:
        numbered = "classes by number" if classes is None else f"{classes} classes by number"
        many = "one class, 0" if classes == 1 else numbered
        return [Fact("labels", many, "no label file beside the model, none within")]
    first = ", ".join(files.labels[:4]) + (", …" if len(files.labels) > 4 else "")
    return [Fact("labels", f"{len(files.labels)}: {first}", files.labels_from)]
