"""BGR pictures of any size as the tensor that a model takes, and boxes back to the pictures.

For every frame of a camera: so in as few passes over the pixels as there can be, and straight
into the tensor where a quantised model takes pixels as they are. What a model takes is found out
in `picture_input`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mlopsdeploy.columns import Array, Columns, Field
from mlopsdeploy.errors import RowError

PICTURE = Field("image", "uint8", (-1, -1, 3))
SIZES = "picture_size"
"""The column of what `Pictures.encode` makes that keeps height and width of each picture."""

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_GREY = 114  # what letterboxes are filled with, since Ultralytics did


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
        dtype: what the tensor really holds: its own dtype, or the integers of a quantised one.
        scale: what a step of a quantised tensor stands for; 0 where it is not quantised.
        zero_point: its integer for 0.
    """

    tensor: Field
    size: tuple[int, int]
    color: str = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    letterbox: bool = False
    channels_first: bool = False
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0


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
        whole = self._table is None and np.dtype(takes.dtype).kind != "f"
        shape = (height, width, channels)
        kind = takes.dtype
        ready = whole and not takes.channels_first  # pixels go straight to where they are read
        order = (channels, height, width) if takes.channels_first else shape
        tensor = np.empty((len(images), *order), np.uint8 if whole else kind)
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
        return {takes.tensor.name: tensor.view(kind) if whole else tensor, SIZES: sizes}

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
    if takes.scale:
        steps = steps / takes.scale + takes.zero_point
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
