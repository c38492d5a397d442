"""From a request to the pictures that a model takes.

A body is a picture itself, a form with one file, or JSON with pictures in base64. What is decoded
takes many times the memory of what was sent, so it is decoded only when it is a request's turn
(see `Served.predict`), and a request's pictures are bounded together.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from mlopsdeploy.columns import Array, Columns, Field, Task, objects
from mlopsdeploy.core.images import MAX_PIXELS, decode
from mlopsdeploy.serve.instances import Instances, depth_of
from mlopsdeploy.serve.messages import Problem, misfit
from mlopsdeploy.settings import MAX_PICTURES

TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
FORM = "multipart/form-data"
PICTURE = Field("image", "uint8", (-1, -1, 3))
PARTS = 100  # of a form; others than the file are not read
_DATA_URL = re.compile(r"^data:image/[\w.+-]+;base64,", re.ASCII)


class InBase64(msgspec.Struct):
    """`{"b64": …}`, as TensorFlow Serving has it."""

    b64: str


class Named(msgspec.Struct):
    """`{"image": …}`, a row by the field's name, or `{"b64": …}`."""

    image: str | InBase64 | None = None
    b64: str | None = None


class PictureInstances(Instances):
    """The body `{<key>: pictures}` of a route: in base64, or as nested lists of pixels.

    Args:
        task: of pictures.
        key: the name of the field that holds them.
        max_rows: the most of them.
    """

    def __init__(self, task: Task, key: str, max_rows: int = MAX_PICTURES) -> None:
        super().__init__(task, key, max_rows)
        self.kind, self.by_name = "pictures", False

    def _rows_type(self) -> Any:
        # Of one picture a row of pixels, of several a picture: both are lists of lists of these.
        inner = int | float | list[int | float]
        return str | Named | list[str | Named | list[list[inner]]]

    def _is_single(self, rows: Any) -> bool:
        return not isinstance(rows, list) or depth_of(rows) == len(self.fields[0].shape)

    def _arrays(self, rows: list[Any], single: bool) -> Columns:
        """Pictures as they came: bytes of files, or pixels."""
        places = [self.at(place, single=single) for place in range(len(rows))]
        return {"image": objects([*map(self._one, rows, places)])}

    def _one(self, row: Any, where: str) -> bytes | Array:
        if isinstance(row, list):
            pixels: Array = self._array([row], self.fields[0], where)[0]
            return pixels
        if isinstance(row, Named):
            where = f"{where}.{'image' if row.b64 is None else 'b64'}"
            row = row.image if row.b64 is None else row.b64
            if isinstance(row, InBase64):
                row, where = row.b64, f"{where}.b64"
        if row is None:
            raise misfit(422, "missing", where, " is missing")
        return from_base64(row, where)

    def _wanted(self, where: str) -> str:
        if where.count("[") > 1:
            return "a list of pixels" if where.count("[") == 2 else "a number"
        alone = where == self.key
        return "a picture in base64" + (" or a list of them" if alone else "")


def from_base64(text: str, where: str) -> bytes:
    """A picture's file from base64, or from a data URL.

    Raises:
        Problem: 422.
    """
    try:
        return binascii.a2b_base64(_DATA_URL.sub("", text), strict_mode=True)
    except ValueError:  # of which binascii.Error is one
        detail = " is not base64; it needs its padding and no line breaks"
        raise misfit(422, "not-base64", where, detail) from None


def from_form(body: bytes, content_type: str) -> bytes:
    """The one file of a form, as `curl -F` and browsers send it.

    Raises:
        Problem: 400 where it is not such a form, 422 where it holds no file, or several.
    """
    from werkzeug.formparser import MultiPartParser  # only forms need it
    from werkzeug.http import parse_options_header

    boundary = parse_options_header(content_type)[1].get("boundary", "")
    parser = MultiPartParser(
        lambda *_, **__: io.BytesIO(), max_form_memory_size=None, max_form_parts=PARTS
    )
    try:
        _, files = parser.parse(io.BytesIO(body), boundary.encode("latin-1"), len(body))
        contents: list[bytes] | None = [file.read() for _, file in files.items(multi=True)]
    except Exception:  # noqa: BLE001  (it raises many kinds)
        contents = None
    if contents is None or not boundary:
        raise Problem(400, "not-a-form", "the body is not the form that Content-Type says it is")
    if len(contents) != 1:
        raise Problem(422, "one-file", f"the form must hold one file, not {len(contents)}")
    return contents[0]


def decode_all(pictures: Iterable[bytes | Array], places: Sequence[str]) -> Columns:
    """Pictures as a model takes them: an object array of uint8, (height, width, 3), BGR.

    Args:
        pictures: files, or pixels already.
        places: how to point at each; empty for the body itself.

    Raises:
        Problem: 422 where one is no picture, or all together are too large.
    """
    images: list[Array] = []
    pixels = 0
    for picture, place in zip(pictures, places, strict=True):
        try:
            image = decode(picture) if isinstance(picture, bytes) else picture
        except ValueError as error:
            raise Problem(422, "no-picture", f"{place or 'the body'}: {error}", place) from None
        pixels += image.shape[0] * image.shape[1]
        if pixels > MAX_PIXELS:
            detail = f"the pictures of a request may have {MAX_PIXELS:,} pixels together"
            raise Problem(422, "too-large", detail, place)
        images.append(image)
    return {"image": objects(images)}


def with_sizes(predictions: Columns, images: Array) -> Columns:
    """Predictions of pictures, and `height` and `width` of each in pixels."""
    height, width = np.array([image.shape[:2] for image in images]).T
    return {**predictions, "width": width, "height": height}
